// The loops over values that lie one behind the other, which the access patterns share.  They
// differ in where the coefficients of a value come from: `OfRun`, `OfColumn` or `OfRow`.
#pragma once

#include "block.h"
#include "phi.h"
#include "statistics.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Values that are summed up in one lane at most, before the sum is widened to double precision.
constexpr int64_t kPiece = 16384;

// ---- coefficients ---------------------------------------------------------------------------

// One for all values of a run.
template <class C>
struct OfRun {
  Block<C> high, low, scale, shift, slope, constant, threshold;

  OfRun(const Standard<C>& s, C gamma, C beta, Gradient pull = {}, C limit = 0)
      : high(s.high),
        low(s.low),
        scale(gamma * s.inverse),
        shift(beta - s.low * (gamma * s.inverse)),
        slope(C(pull.slope)),
        constant(C(pull.constant)),
        threshold(limit) {}

  ANYNORM_INLINE Block<C> centred(int64_t, Block<C> x) const { return x - high; }
  ANYNORM_INLINE Block<C> exact(int64_t, Block<C> centred) const { return centred - low; }
  ANYNORM_INLINE Block<C> z(int64_t, Block<C> centred) const { return fma(centred, scale, shift); }
  ANYNORM_INLINE Block<C> weighted(int64_t, Block<C> dz) const { return dz; }
  ANYNORM_INLINE Block<C> limit(int64_t) const { return threshold; }
  ANYNORM_INLINE Block<C> dx(int64_t, Block<C> dz, Block<C> q) const {
    return fma(dz, scale, fma(q, slope, constant));
  }
};

// One for each column, in tables.
template <class C>
struct OfColumn {
  const C *high_, *low_, *scale_, *shift_, *slope_, *constant_, *threshold_;

  ANYNORM_INLINE Block<C> centred(int64_t i, Block<C> x) const { return x - load(high_ + i); }
  ANYNORM_INLINE Block<C> exact(int64_t i, Block<C> centred) const {
    return centred - load(low_ + i);
  }
  ANYNORM_INLINE Block<C> z(int64_t i, Block<C> centred) const {
    return fma(centred, load(scale_ + i), load(shift_ + i));
  }
  ANYNORM_INLINE Block<C> limit(int64_t i) const { return load(threshold_ + i); }
  ANYNORM_INLINE Block<C> dx(int64_t i, Block<C> dz, Block<C> q) const {
    return fma(dz, load(scale_ + i), fma(q, load(slope_ + i), load(constant_ + i)));
  }
};

// μ and σ of the row, γ and β of each value.
template <class C>
struct OfRow {
  Block<C> high, low, inverse, offset, slope, constant, threshold;
  const C *gamma, *beta;

  OfRow() = default;
  OfRow(const Standard<C>& s, const C* weight, const C* bias, Gradient pull = {}, C limit = 0)
      : high(s.high),
        low(s.low),
        inverse(s.inverse),
        offset(-s.low * s.inverse),
        slope(C(pull.slope)),
        constant(C(pull.constant)),
        threshold(limit),
        gamma(weight),
        beta(bias) {}

  ANYNORM_INLINE Block<C> centred(int64_t, Block<C> x) const { return x - high; }
  ANYNORM_INLINE Block<C> exact(int64_t, Block<C> centred) const { return centred - low; }
  ANYNORM_INLINE Block<C> unit(Block<C> centred) const { return fma(centred, inverse, offset); }
  ANYNORM_INLINE Block<C> z(int64_t i, Block<C> centred) const {
    return fma(unit(centred), load(gamma + i), load(beta + i));
  }
  ANYNORM_INLINE Block<C> weighted(int64_t i, Block<C> dz) const { return dz * load(gamma + i); }
  ANYNORM_INLINE Block<C> limit(int64_t) const { return threshold; }
  ANYNORM_INLINE Block<C> dx(int64_t i, Block<C> dz, Block<C> q) const {
    return fma(weighted(i, dz), inverse, fma(q, slope, constant));
  }
};

// ---- the bits z > 0 -------------------------------------------------------------------------

// The bits of a run that starts at value `start` of the whole tensor.
struct Bits {
  uint8_t* bytes;
  int64_t start;
  bool whole;  // runs start and end at whole bytes: no byte is shared between threads

  ANYNORM_INLINE void put(int64_t i, uint32_t bits, int64_t count) const {
    const int64_t at = start + i;
    uint8_t* byte = bytes + (at >> 3);
    if (whole) {
      byte[0] = uint8_t(bits);
      if (count > 8) byte[1] = uint8_t(bits >> 8);
      return;
    }
    const uint32_t moved = (bits & ((1u << count) - 1)) << (at & 7);
    for (int k = 0; k < 3; ++k) {
      const uint8_t part = uint8_t(moved >> 8 * k);
      if (part) __atomic_fetch_or(byte + k, part, __ATOMIC_RELAXED);
    }
  }

  ANYNORM_INLINE uint32_t get(int64_t i) const {
    const int64_t at = start + i;
    return (read<uint32_t>(bytes + (at >> 3)) >> (at & 7)) & 0xffff;
  }
};

inline Bits bits_of(const Problem& p, int64_t start, int64_t length) {
  return {p.bits, start, length % 8 == 0};
}

// ---- walking over a run ---------------------------------------------------------------------

struct Full {
  static constexpr int64_t count = kLanes;
  template <class T>
  ANYNORM_INLINE Block<Compute<T>> get(const T* from) const {
    return load(from);
  }
  template <class T>
  ANYNORM_INLINE void put(T* to, Block<Compute<T>> value, bool through) const {
    store(to, value, through);
  }
  template <class C>
  ANYNORM_INLINE Block<C> keep(Block<C> value, C = 0) const {
    return value;
  }
};

struct Part {
  int64_t count;
  template <class T>
  ANYNORM_INLINE Block<Compute<T>> get(const T* from) const {
    return load_first(from, count);
  }
  template <class T>
  ANYNORM_INLINE void put(T* to, Block<Compute<T>> value, bool) const {
    store_first(to, value, count);
  }
  // The lanes that there are, and `rest` in the others.
  template <class C>
  ANYNORM_INLINE Block<C> keep(Block<C> value, C rest = 0) const {
    return first(value, count, rest);
  }
};

// Calls f(i, part, which) for every block: which of four accumulators to use, so that additions do
// not wait for each other, and how many lanes there are, so that full blocks need no masks.
template <class F>
ANYNORM_INLINE void each_block(int64_t length, F f) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= length; i += 4 * kLanes) {
    f(i, Full{}, Is<0>{});
    f(i + kLanes, Full{}, Is<1>{});
    f(i + 2 * kLanes, Full{}, Is<2>{});
    f(i + 3 * kLanes, Full{}, Is<3>{});
  }
  for (; i + kLanes <= length; i += kLanes) f(i, Full{}, Is<0>{});
  if (i < length) f(i, Part{length - i}, Is<1>{});
}

// Four sums in single precision, flushed to one in double.
template <class C>
struct Total {
  Block<C> part[4];

  Total() {
    for (auto& p : part) p = Block<C>(0);
  }
  template <int k>
  ANYNORM_INLINE void add(Is<k>, Block<C> value) {
    part[k] = part[k] + value;
  }
  template <int k>
  ANYNORM_INLINE void add_product(Is<k>, Block<C> a, Block<C> b) {
    part[k] = fma(a, b, part[k]);
  }
  double all() const { return sum((part[0] + part[1]) + (part[2] + part[3])); }
};

// Calls f(begin, size) for pieces that single precision can sum up.
template <class F>
ANYNORM_INLINE void each_piece(int64_t length, F f) {
  for (int64_t begin = 0; begin < length; begin += kPiece) f(begin, smaller(kPiece, length - begin));
}

// ---- forward --------------------------------------------------------------------------------

// A point near the mean, from a few values far apart: one outlier moves it by a quarter.
template <class T>
double near_mean(const T* x, int64_t length) {
  double total = 0;
  for (int k = 0; k < 4; ++k) total += value_of(x[(2 * k + 1) * length / 8]);
  return Compute<T>(total / 4);
}

template <bool extremes, class T>
void collect_run(const T* x, int64_t length, double point, Sums& sums) {
  using C = Compute<T>;
  const Block<C> from{C(point)};
  each_piece(length, [&](int64_t begin, int64_t size) {
    Total<C> sum_, squares;
    Block<C> low{C(INFINITY)}, high{C(-INFINITY)};
    each_block(size, [&](int64_t i, auto part, auto which) __attribute__((always_inline)) {
      const Block<C> value = part.get(x + begin + i), d = part.keep(value - from);
      sum_.add(which, d);
      squares.add_product(which, d, d);
      if (extremes) {
        low = least(low, part.keep(value, C(INFINITY)));
        high = most(high, part.keep(value, C(-INFINITY)));
      }
    });
    sums.first += sum_.all();
    sums.second += squares.all();
    if (extremes) {
      sums.low = least(sums.low, fold(low, least));
      sums.high = most(sums.high, fold(high, most));
    }
  });
  sums.count += double(length);
}

// Adds the values of a run to `sums`, seen from `point`; their extremes where these are the scale.
template <class T>
void collect(Power power, const T* x, int64_t length, double point, Sums& sums) {
  if (power == Power::largest) {
    collect_run<true>(x, length, point, sums);
  } else {
    collect_run<false>(x, length, point, sums);
  }
}

// Σ|x − μ|
template <class T>
double collect_absolute(const T* x, int64_t length, const Standard<Compute<T>>& about) {
  using C = Compute<T>;
  const Block<C> high(about.high), low(about.low);
  double total = 0;
  each_piece(length, [&](int64_t begin, int64_t size) {
    Total<C> sum_;
    each_block(size, [&](int64_t i, auto part, auto which) __attribute__((always_inline)) {
      sum_.add(which, part.keep(absolute((part.get(x + begin + i) - high) - low)));
    });
    total += sum_.all();
  });
  return total;
}

// What the output of a run needs beside its coefficients.
template <class T>
struct Output {
  Phi phi;
  bool through;
  Bits bits;
};

template <Way way, bool added, class T, class Of>
ANYNORM_INLINE void apply(const Of& of, const T* x, const T* residual, T* y, int64_t length,
                          const Output<T>& out) {
  using C = Compute<T>;
  const bool keeps = added && out.bits.bytes;
  each_block(length, [&](int64_t i, auto part, auto) __attribute__((always_inline)) {
    Block<C> z = of.z(i, of.centred(i, part.get(x + i)));
    if (added) {
      z = z + part.get(residual + i);
      if (keeps) out.bits.put(i, ~pack(z <= Block<C>(0)), part.count);
    }
    part.put(y + i, phi_forward<way>(z, out.phi), out.through);
  });
}

// ---- backward -------------------------------------------------------------------------------

// Where dz comes from.
enum class Source : int {
  identity,
  relu,   // the sign of z, computed again
  bits,   // its sign as the forward kept it
  named,  // z, computed again
};

inline Source source_of(const Problem& p) {
  if (p.phi == Phi::identity) return Source::identity;
  if (p.bits) return Source::bits;
  return p.phi == Phi::relu ? Source::relu : Source::named;
}

template <class T>
struct Input {
  const T *x, *dy, *residual;
  Phi phi;
  Bits bits;
};

template <Source source, class T, class Of, class P>
ANYNORM_INLINE Block<Compute<T>> dz_of(const Of& of, const Input<T>& in, int64_t i,
                                       Block<Compute<T>> centred, P part) {
  using C = Compute<T>;
  const Block<C> dy = part.get(in.dy + i), zero(0);
  if constexpr (source == Source::identity) return dy;
  if constexpr (source == Source::relu) {
    return phi_backward<Way::relu>(dy, of.z(i, centred), in.phi);
  }
  if constexpr (source == Source::bits) {
    const Block<C> closed = in.phi == Phi::relu ? zero : dy * Block<C>(C(kLeak));
    return choose(unpack<C>(in.bits.get(i)), dy, closed);
  }
  Block<C> z = of.z(i, centred);
  if (in.residual) z = z + part.get(in.residual + i);
  return phi_backward<Way::named>(dy, z, in.phi);
}

// q of `Gradient`, and 1 where the value counts for s.
template <Power power, class C>
struct Counted {
  Block<C> q, one;
};

template <Power power, class Of, class C>
ANYNORM_INLINE Counted<power, C> counted(const Of& of, int64_t i, Block<C> centred) {
  if constexpr (power == Power::square) return {centred, Block<C>(0)};
  const Block<C> d = of.exact(i, centred), zero(0);
  if constexpr (power == Power::absolute) return {sign(d), zero};
  const Lanes<C> largest = absolute(d) >= of.limit(i);
  return {choose(largest, sign(d), zero), choose(largest, Block<C>(1), zero)};
}

// Sums of a run, of which `Pulled` is made.
struct Reduced {
  double dz = 0, product = 0;    // Σ w·dz, Σ w·dz·(x − high), with w = γ in a row and 1 elsewhere
  double signs = 0, largest = 0;
};

template <Source source, Power power, class T, class Of>
ANYNORM_INLINE void reduce(const Of& of, const Input<T>& in, int64_t length, Reduced& out) {
  using C = Compute<T>;
  each_piece(length, [&](int64_t begin, int64_t size) __attribute__((always_inline)) {
    Total<C> dzs, products, signs, largest;
    each_block(size, [&](int64_t k, auto part, auto which) __attribute__((always_inline)) {
      const int64_t i = begin + k;
      const Block<C> centred = of.centred(i, part.get(in.x + i));
      const Block<C> g = part.keep(of.weighted(i, dz_of<source>(of, in, i, centred, part)));
      dzs.add(which, g);
      products.add_product(which, g, part.keep(centred));
      if constexpr (power != Power::square) {
        const auto count = counted<power>(of, i, centred);
        signs.add(which, part.keep(count.q));
        largest.add(which, part.keep(count.one));
      }
    });
    out.dz += dzs.all();
    out.product += products.all();
    if constexpr (power != Power::square) {
      out.signs += signs.all();
      out.largest += largest.all();
    }
  });
}

template <class T>
struct GradientOutput {
  T *dx, *dresidual;
  bool through;
};

template <Source source, Power power, class T, class Of>
ANYNORM_INLINE void pull_back(const Of& of, const Input<T>& in, int64_t length,
                              const GradientOutput<T>& out) {
  using C = Compute<T>;
  each_block(length, [&](int64_t i, auto part, auto) __attribute__((always_inline)) {
    const Block<C> centred = of.centred(i, part.get(in.x + i));
    const Block<C> dz = dz_of<source>(of, in, i, centred, part);
    if (source != Source::identity && out.dresidual) {
      part.put(out.dresidual + i, dz, out.through);
    }
    part.put(out.dx + i, of.dx(i, dz, counted<power>(of, i, centred).q), out.through);
  });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
