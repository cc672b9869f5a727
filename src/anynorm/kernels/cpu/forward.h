// The forward pass on strips of values: sums for the statistics, and the output.
#pragma once

#include "bits.h"
#include "coefficients.h"
#include "phi.h"
#include "values.h"

namespace anynorm {
namespace ANYNORM_ISA {

// ---- sums -----------------------------------------------------------------------------------

// S is the type in which a lane adds up: that of the values' arithmetic if an output follows, else
// double, which takes no longer than reading the values.

template <bool extremes, class T, class S>
ANYNORM_LOOP void collect_piece(const T* x, int64_t n, S point, Sums& sums) {
  Total<S> first, second;
  Block<S> low{S(INFINITY)}, high{S(-INFINITY)};
  each_chained<S>(n, [&](int64_t i, auto part, int chain) __attribute__((always_inline)) {
    const Block<S> value = as<S>(part.get(x + i)), d = part.keep(value - Block<S>(point));
    first.add(chain, d);
    second.add_product(chain, d, d);
    if constexpr (extremes) {
      low = least(low, part.keep(value, S(INFINITY)));
      high = most(high, part.keep(value, S(-INFINITY)));
    }
  });
  sums.count += double(n);
  sums.first += first.all();
  sums.second += second.all();
  if constexpr (extremes) {
    sums.low = least(sums.low, fold(low, least));
    sums.high = most(sums.high, fold(high, most));
  }
}

template <class T, class S>
ANYNORM_LOOP double collect_absolute_piece(const T* x, int64_t n, const Standard<S>& about) {
  const Block<S> high(about.high), low(about.low);
  Total<S> total;
  each_chained<S>(n, [&](int64_t i, auto part, int chain) __attribute__((always_inline)) {
    total.add(chain, part.keep(absolute((as<S>(part.get(x + i)) - high) - low)));
  });
  return total.all();
}

// Adds `length` values, relative to `point`, to `sums`; also their extremes if the scale needs them.
template <class T, class S>
void collect(const T* x, int64_t length, S point, Power power, Sums& sums) {
  each_step(length, kPiece, [&](int64_t begin, int64_t n) {
    power == Power::largest ? collect_piece<true>(x + begin, n, point, sums)
                            : collect_piece<false>(x + begin, n, point, sums);
  });
}

// Σ|x − μ|
template <class T, class S>
double collect_absolute(const T* x, int64_t length, const Standard<S>& about) {
  double total = 0;
  each_step(length, kPiece, [&](int64_t begin, int64_t n) {
    total += collect_absolute_piece(x + begin, n, about);
  });
  return total;
}

// ---- output ---------------------------------------------------------------------------------

// y = z, or ReLU of it, for the coefficients from index `k` on.
template <bool gate, bool added, class T, class Y, class Of>
ANYNORM_LOOP void linear(const Of& given, int64_t k, const T* x, const T* residual, int64_t n, Y* y,
                         bool through) {
  const Of of = given;  // a copy, which no output can overwrite
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    auto z = of.z(k + i, of.centred(k + i, part.get(x + i)));
    if constexpr (added) z = z + part.get(residual + i);
    if constexpr (gate) z = relu(z);
    part.put(y + i, z, through);
  });
}

template <class T, class Y, class Of>
ANYNORM_INLINE void z_of(const Of& of, int64_t k, const T* x, const T* residual, int64_t n, Y* z,
                         bool through = false) {
  residual ? linear<false, true>(of, k, x, residual, n, z, through)
           : linear<false, false>(of, k, x, residual, n, z, through);
}

// The same for ReLU after a residual; writes the bits from index `at` on, which starts a byte.
template <class T, class Of>
ANYNORM_LOOP void added_relu(const Of& given, int64_t k, const T* x, const T* residual, int64_t n,
                             T* y, bool through, uint8_t* bits, int64_t at) {
  const Of of = given;
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    const auto z = of.z(k + i, of.centred(k + i, part.get(x + i))) + part.get(residual + i);
    put_bits(bits, at + i, ~pack(z <= Block<Compute<T>>(0)), part);
    part.put(y + i, relu(z), through);
  });
}

// Writes the output of contiguous values.
template <class T>
class Emit {
 public:
  explicit Emit(const Params& p) : p_(p) {}

  // `at`: index of the first value; `k`: index of its coefficients.
  template <class Of>
  void operator()(const Of& of, int64_t k, int64_t at, int64_t n) const {
    from_aligned(p_.stream, values<T>(p_.y, at), n, [&](int64_t begin, int64_t size) {
      emit(of, k + begin, at + begin, size);
    });
  }

 private:
  template <class Of>
  void emit(const Of& of, int64_t k, int64_t at, int64_t n) const {
    const T *x = values<T>(p_.x, at), *residual = values<T>(p_.residual, at);
    T* y = values<T>(p_.y, at);
    const bool through = p_.stream && aligned(y);
    if (p_.phi == Phi::identity) return z_of(of, k, x, residual, n, y, through);
    if (p_.phi == Phi::relu && !residual) {
      return linear<true, false>(of, k, x, residual, n, y, through);
    }
    if (p_.phi == Phi::relu && p_.bits) {
      const int64_t head = before_byte(at, n);
      if (head) strip(of, k, at, head, false);
      return added_relu(of, k + head, x + head, residual + head, n - head, y + head,
                        through && !head, p_.bits, at + head);
    }
    each_step(n, kStrip, [&](int64_t begin, int64_t size) {
      strip(of, k + begin, at + begin, size, through);
    });
  }

  template <class Of>
  void strip(const Of& of, int64_t k, int64_t at, int64_t n, bool through) const {
    Room<Compute<T>> z;
    z_of(of, k, values<T>(p_.x, at), values<T>(p_.residual, at), n, z.values);
    if (p_.bits) keep_bits(z.values, n, p_.bits, at);
    phi_forward(p_.phi, z.values, n, values<T>(p_.y, at), through);
  }

  const Params& p_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
