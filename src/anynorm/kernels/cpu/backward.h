// The backward pass on strips of values: dz, sums for the gradients, and dx.
#pragma once

#include "forward.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Where loops get dz from.
enum class Dz : int {
  given,  // it is dy
  gate,   // dy through ReLU, by the sign of z, computed again
  bits,   // dy through ReLU, by the bits that the forward pass wrote
  made,   // an earlier loop computed it
};

// What loops need to know about a strip.
template <class T>
struct Strip {
  const T *x, *dy;
  const Compute<T>*dz, *q;
  T *dx, *dresidual;
  const uint8_t* bits;
  int64_t at;
};

// ---- loops ----------------------------------------------------------------------------------

template <Dz from, class T, class Of, class P>
ANYNORM_INLINE Block<Compute<T>> dz_of(const Of& of, int64_t k, const Strip<T>& s, int64_t i,
                                       Block<Compute<T>> centred, P part) {
  if constexpr (from == Dz::made) return part.get(s.dz + i);
  if constexpr (from == Dz::bits) return keep_set(bits_at(s.bits, s.at + i), part.get(s.dy + i));
  if constexpr (from == Dz::gate) return relu_backward(part.get(s.dy + i), of.z(k + i, centred));
  return part.get(s.dy + i);
}

// Sums of a run, from which `Pulled` is computed.
struct Reduced {
  double dz = 0, product = 0;  // Σ w·dz, Σ w·dz·(x − high), with w = γ in a row and 1 elsewhere
  double signs = 0, largest = 0;
};

template <Dz from, class T, class Of>
ANYNORM_LOOP void reduce(const Of& given, int64_t k, const Strip<T>& strip, int64_t n,
                         Reduced& out) {
  using C = Compute<T>;
  const Of of = given;
  const Strip<T> s = strip;
  Total<C> dzs, products;
  each_chained<C>(n, [&](int64_t i, auto part, int chain) __attribute__((always_inline)) {
    const Block<C> centred = of.centred(k + i, part.get(s.x + i));
    const Block<C> g = part.keep(of.weighted(k + i, dz_of<from>(of, k, s, i, centred, part)));
    dzs.add(chain, g);
    products.add_product(chain, g, part.keep(centred));
  });
  out.dz += dzs.all();
  out.product += products.all();
}

// dx of a block, where q of `Gradient` is x − high or, for L1 and L∞, the result of `signs_of`; also
// the residual's gradient, unless an earlier loop wrote it.
template <Dz from, bool signs, class T, class Of, class P>
ANYNORM_INLINE void put_dx(const Of& of, int64_t k, const Strip<T>& s, int64_t i,
                           Block<Compute<T>> dz, Block<Compute<T>> centred, P part, bool through) {
  if constexpr (from == Dz::bits) part.put(s.dresidual + i, dz, through);
  if constexpr (signs) {
    part.put(s.dx + i, of.dx(k + i, dz, part.get(s.q + i)), through);
  } else {
    part.put(s.dx + i, of.dx(k + i, dz, centred), through);
  }
}

template <Dz from, bool signs, class T, class Of>
ANYNORM_LOOP void pull_back(const Of& given, int64_t k, const Strip<T>& strip, int64_t n,
                            bool through) {
  const Of of = given;
  const Strip<T> s = strip;
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    const auto centred = of.centred(k + i, part.get(s.x + i));
    const auto dz = dz_of<from>(of, k, s, i, centred, part);
    put_dx<from, signs>(of, k, s, i, dz, centred, part, through);
  });
}

// The signs of the values that count for s, and 1 where one does: all for L1, for L∞ the largest.
template <class T, class Of>
ANYNORM_LOOP void signs_of(const Of& given, int64_t k, const T* x, int64_t n, Compute<T>* q,
                           Compute<T>* counts) {
  using C = Compute<T>;
  const Of of = given;
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    const Block<C> d = of.exact(k + i, of.centred(k + i, part.get(x + i))), zero(0);
    const Lanes<C> counted = absolute(d) >= of.limit(k + i);
    part.put(q + i, choose(counted, sign(d), zero), false);
    part.put(counts + i, choose(counted, Block<C>(1), zero), false);
  });
}

template <class C>
ANYNORM_LOOP double sum_of(const C* numbers, int64_t n) {
  Total<C> total;
  each_chained<C>(n, [&](int64_t i, auto part, int chain) __attribute__((always_inline)) {
    total.add(chain, part.get(numbers + i));
  });
  return total.all();
}

// ---- strips ---------------------------------------------------------------------------------

template <class C>
struct Rooms {
  Room<C> dz, z, q, counts;
};

template <class T>
class Back {
  using C = Compute<T>;

 public:
  explicit Back(const Params& p)
      : p_(p),
        from_(from(p)),
        signs_(!p.statistic.given && p.statistic.power != Power::square),
        step_(signs_ || from_ == Dz::made ? kStrip : kPiece) {}

  bool signs() const { return signs_; }
  int64_t step() const { return step_; }
  bool through(int64_t at) const {
    return p_.stream && aligned(values<T>(p_.dx, at)) &&
           (!p_.dresidual || aligned(values<T>(p_.dresidual, at)));
  }

  // Calls f(Is<from>, Is<signs>).
  template <class F>
  ANYNORM_INLINE void with_kind(F f) const {
    signs_ ? with_from([&](auto from) { f(from, Is<true>{}); })
           : with_from([&](auto from) { f(from, Is<false>{}); });
  }
  template <class F>
  ANYNORM_INLINE void with_from(F f) const {
    if (from_ == Dz::gate) return f(Is<Dz::gate>{});
    if (from_ == Dz::bits) return f(Is<Dz::bits>{});
    if constexpr (kSame) return f(Is<Dz::given>{});
    from_ == Dz::made ? f(Is<Dz::made>{}) : f(Is<Dz::given>{});
  }

  // `at`: index of the first value; `k`: index of its coefficients.
  template <class Of>
  Strip<T> strip(const Of& of, int64_t k, int64_t at, int64_t n, Rooms<C>& rooms) const {
    Strip<T> s{values<T>(p_.x, at), values<T>(p_.dy, at), rooms.dz.values, rooms.q.values,
               values<T>(p_.dx, at), values<T>(p_.dresidual, at), p_.bits, at};
    if (signs_) signs_of(of, k, s.x, n, rooms.q.values, rooms.counts.values);
    if (from_ != Dz::made) return s;
    make_dz(of, k, at, s, n, rooms);
    if constexpr (kSame) s.dy = s.dz;
    return s;
  }

  // Writes the residual's gradient, if there is one and the loops did not write it.
  void finish(const Strip<T>& s, int64_t n, bool through) const {
    if (s.dresidual && from_ == Dz::made) copy_strip(s.dz, n, s.dresidual, through);
  }

  template <class Of>
  void sums(const Of& of, int64_t k, int64_t at, int64_t length, Reduced& out) const {
    Rooms<C> rooms;
    each_step(length, step_, [&](int64_t begin, int64_t n) {
      const Strip<T> s = strip(of, k + begin, at + begin, n, rooms);
      with_from([&](auto from) { reduce<from.value>(of, k + begin, s, n, out); });
      if (!signs_) return;
      out.signs += sum_of(rooms.q.values, n);
      out.largest += sum_of(rooms.counts.values, n);
    });
  }

  template <class Of>
  void emit(const Of& of, int64_t k, int64_t at, int64_t length) const {
    from_aligned(p_.stream, values<T>(p_.dx, at), length, [&](int64_t head, int64_t size) {
      emit_strips(of, k + head, at + head, size);
    });
  }

 private:
  template <class Of>
  void emit_strips(const Of& of, int64_t k, int64_t at, int64_t length) const {
    Rooms<C> rooms;
    const bool through = this->through(at);
    each_step(length, step_, [&](int64_t begin, int64_t n) {
      const Strip<T> s = strip(of, k + begin, at + begin, n, rooms);
      with_kind([&](auto from, auto signs) {
        pull_back<from.value, signs.value>(of, k + begin, s, n, through);
      });
      finish(s, n, through);
    });
  }

  // The computed dz has the type of dy, and can replace it.
  static constexpr bool kSame = sizeof(T) == sizeof(C);

  static Dz from(const Params& p) {
    if (p.phi == Phi::identity) return Dz::given;
    if (p.phi == Phi::relu && p.bits) return Dz::bits;
    return p.phi == Phi::relu && !p.residual ? Dz::gate : Dz::made;
  }

  template <class Of>
  void make_dz(const Of& of, int64_t k, int64_t at, const Strip<T>& s, int64_t n,
               Rooms<C>& rooms) const {
    if (p_.bits) {
      signs_by_bits(p_.bits, at, n, rooms.z.values);
    } else {
      z_of(of, k, s.x, values<T>(p_.residual, at), n, rooms.z.values);
    }
    phi_backward(p_.phi, s.dy, rooms.z.values, n, rooms.dz.values);
  }

  const Params& p_;
  const Dz from_;
  const bool signs_;
  const int64_t step_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
