// Three sources for the coefficients of a value: one for all values of a run, one for each column,
// or μ and σ of the row with γ and β of each value.  Loops accept any of them.
#pragma once

#include "block.h"
#include "statistics.h"

namespace anynorm {
namespace ANYNORM_ISA {

template <class C>
struct OfRun {
  C high, low, scale, shift, slope, constant, threshold;

  OfRun() = default;
  OfRun(const Standard<C>& s, C gamma, C beta, Gradient pull = {}, C limit = 0)
      : high(s.high),
        low(s.low),
        scale(gamma * s.inverse),
        shift(beta - s.low * (gamma * s.inverse)),
        slope(C(pull.slope)),
        constant(C(pull.constant)),
        threshold(limit) {}

  ANYNORM_INLINE Block<C> centred(int64_t, Block<C> x) const { return x - Block<C>(high); }
  ANYNORM_INLINE Block<C> exact(int64_t, Block<C> centred) const { return centred - Block<C>(low); }
  ANYNORM_INLINE Block<C> z(int64_t, Block<C> centred) const {
    return fma(centred, Block<C>(scale), Block<C>(shift));
  }
  ANYNORM_INLINE Block<C> weighted(int64_t, Block<C> dz) const { return dz; }
  ANYNORM_INLINE Block<C> limit(int64_t) const { return Block<C>(threshold); }
  ANYNORM_INLINE Block<C> dx(int64_t, Block<C> dz, Block<C> q) const {
    return fma(dz, Block<C>(scale), fma(q, Block<C>(slope), Block<C>(constant)));
  }
};

// In tables, each with padding, so that a whole block can be loaded at its end.
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

template <class C>
struct OfRow {
  C high, low, inverse, offset, slope, constant, threshold;
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

  ANYNORM_INLINE Block<C> centred(int64_t, Block<C> x) const { return x - Block<C>(high); }
  ANYNORM_INLINE Block<C> exact(int64_t, Block<C> centred) const { return centred - Block<C>(low); }
  ANYNORM_INLINE Block<C> unit(Block<C> centred) const {
    return fma(centred, Block<C>(inverse), Block<C>(offset));
  }
  ANYNORM_INLINE Block<C> z(int64_t i, Block<C> centred) const {
    return fma(unit(centred), load(gamma + i), load(beta + i));
  }
  ANYNORM_INLINE Block<C> weighted(int64_t i, Block<C> dz) const { return dz * load(gamma + i); }
  ANYNORM_INLINE Block<C> limit(int64_t) const { return Block<C>(threshold); }
  ANYNORM_INLINE Block<C> dx(int64_t i, Block<C> dz, Block<C> q) const {
    return fma(weighted(i, dz), Block<C>(inverse), fma(q, Block<C>(slope), Block<C>(constant)));
  }
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
