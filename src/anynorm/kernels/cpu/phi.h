// φ and its derivative on blocks.
#pragma once

#include <cmath>
#include <initializer_list>

#include "block.h"
#include "problem.h"

namespace anynorm {
namespace ANYNORM_ISA {

// e^x by 2^n · e^r with |r| <= ln(2) / 2 and the Taylor series of e^r.
template <class C>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr int kTerms = 8, kMantissa = 23, kBias = 127;
  static constexpr float kLowest = -87.3f, kHighest = 88.0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer
};

template <>
struct Exponential<double> {
  static constexpr int kTerms = 14, kMantissa = 52, kBias = 1023;
  static constexpr double kLowest = -708.0, kHighest = 709.0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kRound = 0x1.8p52;
};

template <class C>
ANYNORM_INLINE Block<C> exponential(Block<C> x) {
  using E = Exponential<C>;
  const Block<C> low(E::kLowest), high(E::kHighest);
  const Block<C> bounded = choose(x < low, low, choose(x > high, high, x));
  Block<C> out;
  ANYNORM_EACH {
    const auto v = bounded.part[i];
    const auto shifted = v * C(1.44269504088896340736) + E::kRound;
    const auto n = shifted - E::kRound;
    const auto r = (v - n * E::kLn2High) - n * E::kLn2Low;
    C factorial = 1;
    for (int k = 2; k < E::kTerms; ++k) factorial *= k;
    auto series = r * 0 + 1 / factorial;
    for (int k = E::kTerms - 1; k > 0; --k) {
      factorial /= k;
      series = series * r + 1 / factorial;
    }
    using Mask = typename Block<C>::Mask;
    const Mask power = __builtin_convertvector(n, Mask) + E::kBias;
    out.part[i] = series * (typename Block<C>::Vector)(power << E::kMantissa);
  }
  return out;
}

template <class C>
ANYNORM_INLINE Block<C> sigmoid(Block<C> z) {
  const Block<C> one(1);
  return one / (one + exponential(Block<C>(0) - z));
}

template <class C>
ANYNORM_INLINE Block<C> hyperbolic_tangent(Block<C> z) {
  const Block<C> one(1);
  const Block<C> e = exponential(absolute(z) * Block<C>(-2));
  const Block<C> size = (one - e) / (one + e);
  return choose(z < Block<C>(0), Block<C>(0) - size, choose(z == z, size, z));
}

// The Gaussian distribution function, with e^(−z²/2) given.
ANYNORM_INLINE Block<float> gaussian_cdf(Block<float> z, Block<float> bell) {
  // Abramowitz & Stegun 7.1.26, error below 1.5e-7.
  const Block<float> one(1), half(0.5f);
  const Block<float> t = one / fma(absolute(z), Block<float>(0.3275911f * 0.70710678f), one);
  Block<float> poly(1.061405429f);
  for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) {
    poly = fma(poly, t, Block<float>(c));
  }
  const Block<float> tail = half * poly * t * bell;
  return choose(z > Block<float>(0), one - tail, tail);
}

ANYNORM_INLINE Block<double> gaussian_cdf(Block<double> z, Block<double>) {
  double lanes[kLanes];
  store(lanes, z, false);
  for (double& lane : lanes) lane = 0.5 * ::erfc(lane * -0.70710678118654752440);
  return load(lanes);
}

template <class C>
ANYNORM_INLINE Block<C> bell(Block<C> z) {
  return exponential(z * z * Block<C>(C(-0.5)));
}

constexpr double kLeak = 0.01;

// How φ takes part in a loop: nothing to do, ReLU, or any by its name at run time.
enum class Way : int { identity, relu, named };

inline Way way_of(Phi phi) {
  if (phi == Phi::identity) return Way::identity;
  return phi == Phi::relu ? Way::relu : Way::named;
}

template <class C>
ANYNORM_INLINE Block<C> leaky(Block<C> z) {
  return choose(z > Block<C>(0), z, z * Block<C>(C(kLeak)));
}

template <Way way, class C>
ANYNORM_INLINE Block<C> phi_forward(Block<C> z, Phi phi) {
  if constexpr (way == Way::identity) return z;
  if constexpr (way == Way::relu) return choose(z < Block<C>(0), Block<C>(0), z);
  switch (phi) {
    case Phi::leaky_relu: return leaky(z);
    case Phi::silu: return z * sigmoid(z);
    case Phi::gelu: return z * gaussian_cdf(z, bell(z));
    case Phi::tanh: return hyperbolic_tangent(z);
    case Phi::sigmoid: return sigmoid(z);
    default: return z;
  }
}

// dy · φ'(z)
template <Way way, class C>
ANYNORM_INLINE Block<C> phi_backward(Block<C> dy, Block<C> z, Phi phi) {
  const Block<C> zero(0), one(1);
  if constexpr (way == Way::identity) return dy;
  if constexpr (way == Way::relu) return choose(z <= zero, zero, dy);
  switch (phi) {
    case Phi::leaky_relu: return choose(z > zero, dy, dy * Block<C>(C(kLeak)));
    case Phi::silu: {
      const Block<C> s = sigmoid(z);
      return dy * s * fma(z, one - s, one);
    }
    case Phi::gelu: {
      const Block<C> density = bell(z);
      const Block<C> slope = z * density * Block<C>(C(0.39894228040143267794));
      return dy * (gaussian_cdf(z, density) + slope);
    }
    case Phi::tanh: {
      const Block<C> t = hyperbolic_tangent(z);
      return dy * (one - t * t);
    }
    case Phi::sigmoid: {
      const Block<C> s = sigmoid(z);
      return dy * s * (one - s);
    }
    default: return dy;
  }
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
