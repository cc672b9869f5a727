// The activations.  A row has the name, whether φ' depends only on the sign of z, φ(z), and the
// gradient dy · φ'(z).
//
// Only phi.h uses the formulas, with its functions: z and dy are blocks of the type B, with values
// of the type C.  Other files use only the names.
#pragma once

#define ANYNORM_ACTIVATIONS(row)                                                               \
  row(identity, false, z, dy)                                                                  \
  row(relu, true, relu(z), relu_backward(dy, z))                                               \
  row(leaky_relu, true, leaky(z, z), leaky(dy, z))                                             \
  row(relu6, false, clip(z, B(0), B(6)), relu_backward(choose(z >= B(6), B(0), dy), z))        \
  row(hardswish, false, z * hard_gate(z), choose(z <= B(-3), B(0), dy * hardswish_slope(z)))   \
  row(elu, false, choose(z > B(0), z, exponential_less_one(z)), dy * exponential(negative(z))) \
  row(silu, false, z * sigmoid(z), dy * silu_slope(z))                                         \
  row(mish, false, choose(z > B(30), z, Mish<C>(z).value()), dy * Mish<C>(z).slope())          \
  row(gelu, false, z * gaussian_cdf(z, bell(z)), dy * gelu_slope(z))                           \
  row(gelu_tanh, false, z * gelu_tanh_gate(z), dy * gelu_tanh_slope(z))                        \
  row(tanh, false, hyperbolic_tangent(z), dy * tanh_slope(z))                                  \
  row(sigmoid, false, sigmoid(z), dy * sigmoid_slope(z))
