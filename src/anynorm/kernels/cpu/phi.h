// φ and its derivative.
#pragma once

#include <cmath>
#include <initializer_list>

#include "activations.h"
#include "values.h"

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

// 1 / k!
template <class C>
struct Series {
  C term[Exponential<C>::kTerms] = {};
  constexpr Series() {
    double factorial = 1;
    for (int k = 0; k < Exponential<C>::kTerms; factorial *= ++k) term[k] = C(1 / factorial);
  }
};

template <class C>
constexpr Series<C> kSeries{};

// NaN stays NaN.
template <class C>
ANYNORM_INLINE Block<C> clip(Block<C> x, Block<C> low, Block<C> high) {
  return choose(x < low, low, choose(x > high, high, x));
}

template <class C>
ANYNORM_INLINE Block<C> exponential(Block<C> x) {
  using E = Exponential<C>;
  const Block<C> bounded = clip(x, Block<C>(E::kLowest), Block<C>(E::kHighest));
  Block<C> out;
  ANYNORM_EACH {
    const auto v = bounded.part[i];
    const auto shifted = v * C(1.44269504088896340736) + E::kRound;
    const auto n = shifted - E::kRound;
    const auto r = (v - n * E::kLn2High) - n * E::kLn2Low;
    auto series = r * 0 + kSeries<C>.term[E::kTerms - 1];
#pragma GCC unroll 16
    for (int k = E::kTerms - 2; k >= 0; --k) series = series * r + kSeries<C>.term[k];
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

// Near zero, where 1 − e^(−2|z|) would cancel: the rational function of Cephes, |z| < 0.625.
template <class C>
ANYNORM_INLINE Block<C> tangent_near_zero(Block<C> z) {
  const auto polynomial = [](Block<C> t, Block<C> first, C second, C third)
      __attribute__((always_inline)) {
    return fma(fma(first, t, Block<C>(second)), t, Block<C>(third));
  };
  const Block<C> t = z * z;
  const Block<C> above = polynomial(t, Block<C>(C(-9.64399179425052238628e-1)),
                                    C(-9.92877231001918586564e1), C(-1.61468768441708447952e3));
  const Block<C> below = polynomial(t, t + Block<C>(C(1.12811678491632931402e2)),
                                    C(2.23548839060100448583e3), C(4.84406305325125486048e3));
  return fma(z * t, above / below, z);
}

template <class C>
ANYNORM_INLINE Block<C> hyperbolic_tangent(Block<C> z) {
  const Block<C> one(1), size = absolute(z);
  const Block<C> e = exponential(size * Block<C>(-2));
  const Block<C> far = (one - e) / (one + e);
  const Block<C> signed_far = choose(z < Block<C>(0), Block<C>(0) - far, far);
  return choose(size >= Block<C>(C(0.625)), signed_far, tangent_near_zero(z));
}

// The Gaussian cumulative distribution function, with e^(−z²/2) given.
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

constexpr double kLeak = ANYNORM_LEAK;  // setup.py reads it from anynorm/phi.py

// ---- what the rows of activations.h call -----------------------------------------------------

// Loops have their own code for ReLU.  Its derivative is zero where z <= 0, whatever dy is.
template <class C>
ANYNORM_INLINE Block<C> relu_backward(Block<C> dy, Block<C> z) {
  return choose(z <= Block<C>(0), Block<C>(0), dy);
}

template <class C>
ANYNORM_INLINE Block<C> relu(Block<C> z) {
  return choose(z < Block<C>(0), Block<C>(0), z);
}

template <class C>
ANYNORM_INLINE Block<C> leaky(Block<C> value, Block<C> z) {
  return choose(z > Block<C>(0), value, value * Block<C>(C(kLeak)));
}

template <class C>
ANYNORM_INLINE Block<C> hard_gate(Block<C> z) {
  return clip(z + Block<C>(3), Block<C>(0), Block<C>(6)) * Block<C>(C(1) / 6);
}

template <class C>
ANYNORM_INLINE Block<C> hardswish_slope(Block<C> z) {
  return choose(z >= Block<C>(3), Block<C>(1), fma(z, Block<C>(C(1) / 3), Block<C>(C(0.5))));
}

template <class C>
ANYNORM_INLINE Block<C> negative(Block<C> z) {
  return choose(z > Block<C>(0), Block<C>(0), z);
}

// e^z − 1 for z <= 0, without cancellation: 2t / (1 − t) with t = tanh(z / 2).
template <class C>
ANYNORM_INLINE Block<C> exponential_less_one(Block<C> z) {
  const Block<C> t = hyperbolic_tangent(negative(z) * Block<C>(C(0.5)));
  return (t + t) / (Block<C>(1) - t);
}

template <class C>
ANYNORM_INLINE Block<C> sigmoid_slope(Block<C> z) {
  const Block<C> s = sigmoid(z);
  return s * (Block<C>(1) - s);
}

template <class C>
ANYNORM_INLINE Block<C> silu_slope(Block<C> z) {
  const Block<C> one(1), s = sigmoid(z);
  return s * fma(z, one - s, one);
}

template <class C>
ANYNORM_INLINE Block<C> tanh_slope(Block<C> z) {
  const Block<C> t = hyperbolic_tangent(z);
  return Block<C>(1) - t * t;
}

template <class C>
ANYNORM_INLINE Block<C> gelu_slope(Block<C> z) {
  const Block<C> density = bell(z);
  return fma(z * density, Block<C>(C(0.39894228040143267794)), gaussian_cdf(z, density));
}

// z · tanh(log(1 + e^z)) is z · n / (n + 2) with n = e^z (e^z + 2).  From z = 30 on it is z, and far
// below zero it is zero: there e^z and its square could overflow or underflow.
template <class C>
class Mish {
  using B = Block<C>;

 public:
  ANYNORM_INLINE explicit Mish(B z)
      : z_(clip(z, B(Exponential<C>::kLowest), B(30))),
        e_(exponential(z_)),
        n_(e_ * (e_ + B(2))),
        inverse_(B(1) / (n_ + B(2))) {}
  ANYNORM_INLINE B value() const { return z_ * n_ * inverse_; }
  ANYNORM_INLINE B slope() const {
    const B bent = B(4) * e_ * (e_ + B(1)) * inverse_ * inverse_;
    return fma(z_, bent, n_ * inverse_);
  }

 private:
  const B z_, e_, n_, inverse_;
};

// z · (1 + tanh t) / 2 is z · sigmoid(2t).  This is the polynomial 2t / z and, with `degree` 3 in
// place of 1, the derivative of 2t.
template <class C>
ANYNORM_INLINE Block<C> gelu_tanh_polynomial(Block<C> z, C degree) {
  const C scale = C(1.59576912160573071176);  // √(8/π)
  return fma(z * z, Block<C>(degree * scale * C(0.044715)), Block<C>(scale));
}

template <class C>
ANYNORM_INLINE Block<C> gelu_tanh_gate(Block<C> z) {
  return sigmoid(z * gelu_tanh_polynomial(z, C(1)));
}

template <class C>
ANYNORM_INLINE Block<C> gelu_tanh_slope(Block<C> z) {
  const Block<C> w = clip(z, Block<C>(-10), Block<C>(10));  // beyond these bounds it is 0 or 1
  // With 1 − s = e^(−2t) · s, which does not cancel.
  const Block<C> power = exponential((Block<C>(0) - w) * gelu_tanh_polynomial(w, C(1)));
  const Block<C> one(1), s = one / (one + power);
  return s * fma(w * (power * s), gelu_tanh_polynomial(w, C(3)), one);
}

// ---- loops ----------------------------------------------------------------------------------

// y = f(z) for every value.
template <class T, class F>
ANYNORM_INLINE void map(const Compute<T>* z, int64_t n, T* y, bool through, F f) {
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    part.put(y + i, f(part.get(z + i)), through);
  });
}

// y = φ(z)
template <class T>
ANYNORM_LOOP void phi_forward(Phi phi, const Compute<T>* z, int64_t n, T* y, bool through) {
  using C = Compute<T>;
  using B = Block<C>;
#define ANYNORM_MAP(name, by_sign, value, gradient) \
  case Phi::name:                                   \
    return map(z, n, y, through, [](B z) __attribute__((always_inline)) { return value; });
  switch (phi) { ANYNORM_ACTIVATIONS(ANYNORM_MAP) }
#undef ANYNORM_MAP
}

// dz = f(dy, z) for every value.
template <class T, class C, class F>
ANYNORM_INLINE void map_back(const T* dy, const C* z, int64_t n, C* dz, F f) {
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    part.put(dz + i, f(part.get(dy + i), part.get(z + i)), false);
  });
}

// dz = dy · φ'(z)
template <class T>
ANYNORM_LOOP void phi_backward(Phi phi, const T* dy, const Compute<T>* z, int64_t n,
                               Compute<T>* dz) {
  using C = Compute<T>;
  using B = Block<C>;
#define ANYNORM_MAP(name, by_sign, value, gradient) \
  case Phi::name:                                   \
    return map_back(dy, z, n, dz, [](B dy, [[maybe_unused]] B z) __attribute__((always_inline)) { \
      return gradient;                              \
    });
  switch (phi) { ANYNORM_ACTIVATIONS(ANYNORM_MAP) }
#undef ANYNORM_MAP
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
