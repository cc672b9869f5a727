// The formula for one set of values, in double precision: from sums to μ and s², from these to the
// coefficients of the output, and from the sums of the backward pass to those of the gradient.
#pragma once

#include <cmath>

#include "block.h"
#include "params.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Sums over values relative to a point near their mean, so that no digits cancel.
struct Sums {
  double count, first, second;  // Σ(x − K), Σ(x − K)²
  double low, high;
};

constexpr Sums kNothing{0, 0, 0, INFINITY, -INFINITY};

// Count, mean and Σ(x − mean)² of a set; `low` and `high` are its extremes, `absolute` Σ|x − origin|.
struct Moments {
  double count = 0, mean = 0, squares = 0;
  double low = INFINITY, high = -INFINITY, absolute = 0;
};

inline Moments moments(const Sums& sums, double point) {
  Moments out;
  out.count = sums.count;
  out.mean = point + sums.first / sums.count;
  out.squares = sums.second - sums.first * (sums.first / sums.count);
  if (out.squares < 0) out.squares = 0;  // negative by rounding; NaN stays NaN
  out.low = sums.low;
  out.high = sums.high;
  return out;
}

// Chan, Golub & LeVeque 1979: the moments of the union of two sets.
inline void merge(Moments& all, const Moments& part) {
  const double count = all.count + part.count;
  if (part.count == 0) return;
  const double away = part.mean - all.mean, share = part.count / count;
  all.mean = all.count == 0 ? part.mean : all.mean + away * share;
  all.squares += part.squares + (all.count == 0 ? 0 : away * away * share * all.count);
  all.count = count;
  all.low = least(all.low, part.low);
  all.high = most(all.high, part.high);
  all.absolute += part.absolute;
}

// μ in two parts: the nearest number in the inputs' type, and the remainder.
template <class C>
struct Standard {
  C high, low, inverse;
  Standard(double mean, double square, double eps)
      : high(C(mean)), low(C(mean - double(high))), inverse(C(1 / std::sqrt(square + eps))) {}
};

// s²; if it is computed from Σ|x − origin|, that must be known.
template <class C>
ANYNORM_INLINE double square_of(const Moments& m, const Statistic& s) {
  const double scale = s.factor * s.factor;
  switch (s.power) {
    case Power::square: {
      const double squares = m.squares / m.count;
      return scale * (s.about_mean ? squares : squares + m.mean * m.mean);
    }
    case Power::absolute:
      return scale * (m.absolute / m.count) * (m.absolute / m.count);
    default: {
      // In the arithmetic of the elements, so that the backward pass finds the same largest values.
      const Standard<C> about(s.about_mean ? m.mean : 0, 1, 0);
      const double above = C(C(C(m.high) - about.high) - about.low);
      const double below = -double(C(C(C(m.low) - about.high) - about.low));
      const double largest = most(above, below);
      return scale * largest * largest;
    }
  }
}

// Sums over a set for the backward pass.  g is γ · dz.
struct Pulled {
  double g = 0, unit = 0;         // Σg, Σ g·(x − μ)/σ
  double signs = 0, largest = 0;  // Σ sign(d) and how many, over the values that count for s
};

// From Σ dz·(x − high) and Σ dz to Σ dz·(x − μ)/σ.
template <class C>
struct ToUnit {
  double low, inverse;
  ToUnit(double mean, double square, double eps)
      : low(mean - double(C(mean))), inverse(1 / std::sqrt(square + eps)) {}
  double operator()(double product, double dz) const { return (product - low * dz) * inverse; }
};

// dx = dz · γ/σ + q · slope + constant, where q is x − high, or the sign of the values that count.
struct Gradient {
  double slope = 0, constant = 0;
};

inline Gradient gradient(const Pulled& sums, const Statistic& s, double count, double mean,
                         double high, double square) {
  Gradient out;
  if (s.given) return out;
  const double inverse = 1 / std::sqrt(square + s.eps);
  const double via_scale = -sums.unit * inverse * inverse;
  if (s.center) out.constant = -sums.g * inverse / count;
  if (s.power == Power::square) {
    out.slope = via_scale * s.factor * s.factor / count;
    out.constant += out.slope * (s.about_mean ? high - mean : high);
    return out;
  }
  const double among = s.power == Power::absolute ? count : sums.largest;
  out.slope = via_scale * s.factor * std::sqrt(square) / among;
  if (s.about_mean) out.constant -= out.slope * sums.signs / count;
  return out;
}

// The least |d| that counts as the largest of its set.
template <class C>
C threshold(double square, const Statistic& s) {
  if (s.power != Power::largest) return 0;
  return C(std::sqrt(square) / s.factor * (1 - 1e-15));  // undoes the rounding of the two roots
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
