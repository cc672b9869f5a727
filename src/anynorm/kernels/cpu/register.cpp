// The operators for the CPU.  If no kernel fits, each calls its plain-PyTorch implementation.
#include <cmath>
#include <string>
#include <vector>

#include "call.h"
#include "checks.h"
#include "text.h"

namespace anynorm {
namespace {

using Two = std::tuple<Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

bool too_deep(const Tensor& x) { return x.dim() > kMaxRank; }

// ---- what the kernels support ---------------------------------------------------------------

std::optional<Power> power_of(double p) {
  if (p == 2) return Power::square;
  if (p == 1) return Power::absolute;
  if (std::isinf(p) && p > 0) return Power::largest;
  return std::nullopt;
}

// Deviations are from the mean that is subtracted, or for p = 2 from zero.  In torch, empty dims
// mean all dims.
std::optional<Statistic> statistic_of(const std::vector<int64_t>& dims, bool center,
                                      bool about_mean, double p, double factor, double eps) {
  const auto power = power_of(p);
  if (!power || dims.empty() || (about_mean && !center)) return std::nullopt;
  if (center && !about_mean && *power != Power::square) return std::nullopt;
  return Statistic{center, about_mean, false, *power, factor, eps};
}

Statistic given_statistic(double eps) {
  return Statistic{true, true, true, Power::square, 1.0, eps};
}

bool takes_forward(Call& call, const Optional& residual, const Optional& weight,
                   const Optional& bias, const std::optional<Statistic>& statistic,
                   const std::string& phi, Dims reduced) {
  if (!statistic) return false;
  call.set(*statistic);
  return call.takes_values() && call.takes_phi(phi) && call.takes_type_of_x(residual) &&
         call.takes_parameter(weight) && call.takes_parameter(bias) &&
         call.takes_pattern(reduced, weight, bias);
}

bool is_vector(const Tensor& sign_mask) { return sign_mask.numel() < 2 || sign_mask.stride(0) == 1; }

// For φ whose derivative depends on the sign the backward pass gets bits, for others the residual.
bool takes_saved(const Call& call, const Optional& residual, const Tensor& sign_mask) {
  const bool bits = sign_mask.numel() > 0, by_sign = is_by_sign(call.phi());
  if (call.phi() == Phi::identity) return true;
  return bits ? by_sign && is_vector(sign_mask) : !(residual && by_sign);
}

bool takes_backward(Call& call, const Tensor& dy, const Optional& residual, const Tensor& sign_mask,
                    const Optional& weight, const Optional& bias,
                    const std::optional<Statistic>& statistic, const std::string& phi,
                    Dims reduced) {
  return call.takes_type_of_x(dy) &&
         takes_forward(call, residual, weight, bias, statistic, phi, reduced) &&
         takes_saved(call, residual, sign_mask);
}

// Given statistics may have any type that γ may have.
bool takes_given(const Tensor& mean, const Tensor& square) {
  const Meta of_mean(mean), of_square(square);
  return of_mean.has_shape_of(of_square) && type_of(of_mean.dtype) && type_of(of_square.dtype);
}

// ---- their arguments ------------------------------------------------------------------------

void check_forward(const Meta& x, const Optional& residual, const Optional& weight,
                   const Optional& bias) {
  if (residual) check_same(x, *residual, "residual");
  if (weight) check_beside(x, *weight, "weight");
  if (bias) check_beside(x, *bias, "bias");
}

void check_backward(const Meta& x, const Tensor& dy, const Optional& residual, const Tensor& sign_mask,
                    const Optional& weight, const Optional& bias) {
  check_same(x, dy, "dy");
  check_sign_mask(x, sign_mask);
  check_forward(x, residual, weight, bias);
}

// The dims over which the given statistics are reduced.
Dims reduced_by(const Meta& x, const Tensor& mean) {
  const Meta of_mean(mean);
  Dims reduced = 0;
  for (int64_t dim = 0; dim < x.rank; ++dim) {
    if (of_mean.sizes[dim] == 1 && x.sizes[dim] != 1) reduced |= dim_bit(dim);
  }
  return reduced;
}

Two begin_forward(Call& call, const Optional& residual, const Optional& weight,
                  const Optional& bias) {
  call.read_x();
  call.read_residual(residual);
  call.read_affine(weight, bias);
  Tensor y = call.write_y();
  return {std::move(y), call.write_sign_mask(residual && is_by_sign(call.phi()))};
}

Four run_backward(Call& call, const Tensor& dy, const Optional& residual, const Tensor& sign_mask,
                  const Optional& weight, const Optional& bias) {
  const bool bits = is_by_sign(call.phi()) && sign_mask.numel() > 0;
  const bool active = call.phi() != Phi::identity;
  call.read_x();
  call.read_dy(dy);
  if (active && !bits) call.read_residual(residual);
  if (bits) call.read_sign_mask(sign_mask);
  call.read_affine(weight, bias);
  Tensor dx = call.write_dx(), dresidual = call.write_dresidual(active && (residual || bits));
  Tensor dweight = call.new_gradient(weight), dbias = call.new_gradient(bias);
  call.write_affine(weight, dweight, bias, dbias);
  call.backward();
  call.finish_affine(dweight, dbias);
  return {std::move(dx), std::move(dresidual), std::move(dweight), std::move(dbias)};
}

// ---- the operators --------------------------------------------------------------------------

Four standardize(const Tensor& x, const Optional& residual, const Optional& weight,
                 const Optional& bias, const std::vector<int64_t>& dims, bool center,
                 bool about_mean, double p, double factor, double eps, const Text& phi) {
  const auto formula = [&] {
    return call_operator<4>("anynorm::standardize_formula", x, residual, weight, bias, dims,
                            center, about_mean, p, factor, eps, phi.value);
  };
  if (too_deep(x)) return formula();
  Call call(x);
  const Dims reduced = check_dims(call.of_x(), dims);
  check_forward(call.of_x(), residual, weight, bias);
  const auto statistic = statistic_of(dims, center, about_mean, p, factor, eps);
  if (!takes_forward(call, residual, weight, bias, statistic, phi.value, reduced)) return formula();
  auto [y, sign_mask] = begin_forward(call, residual, weight, bias);
  Tensor mean = call.new_statistic(), square = call.new_statistic();
  call.write_statistics(mean, square);
  call.forward();
  call.finish_statistics(mean, square);
  return {std::move(y), std::move(mean), std::move(square), std::move(sign_mask)};
}

Four standardize_backward(const Tensor& dy, const Tensor& x, const Optional& residual,
                          const Tensor& sign_mask, const Tensor& mean, const Tensor& square,
                          const Optional& weight, const Optional& bias,
                          const std::vector<int64_t>& dims, bool center, bool about_mean, double p,
                          double factor, double eps, const Text& phi) {
  const auto formula = [&] {
    return call_operator<4>("anynorm::standardize_backward_formula", dy, x, residual, sign_mask, mean,
                            square, weight, bias, dims, center, about_mean, p, factor, eps, phi.value);
  };
  if (too_deep(x)) return formula();
  Call call(x);
  const Dims reduced = check_dims(call.of_x(), dims);
  check_backward(call.of_x(), dy, residual, sign_mask, weight, bias);
  check_statistic(call.of_x(), reduced, mean, "mean");
  check_statistic(call.of_x(), reduced, square, "square");
  const auto statistic = statistic_of(dims, center, about_mean, p, factor, eps);
  if (!takes_given(mean, square) || !takes_backward(call, dy, residual, sign_mask, weight, bias,
                                                    statistic, phi.value, reduced)) {
    return formula();
  }
  call.read_statistics(mean, square);
  return run_backward(call, dy, residual, sign_mask, weight, bias);
}

Two moments(const Tensor& x, const std::vector<int64_t>& dims, bool center, bool about_mean,
            double p, double factor) {
  const auto formula = [&] {
    return call_operator<2>("anynorm::moments_formula", x, dims, center, about_mean, p, factor);
  };
  if (too_deep(x)) return formula();
  Call call(x);
  const Dims reduced = check_dims(call.of_x(), dims);
  const auto statistic = statistic_of(dims, center, about_mean, p, factor, 0);
  if (!takes_forward(call, {}, {}, {}, statistic, "identity", reduced)) return formula();
  call.read_x();
  Tensor mean = call.new_statistic(), square = call.new_statistic();
  call.write_statistics(mean, square);
  call.statistics();
  call.finish_statistics(mean, square);
  return {std::move(mean), std::move(square)};
}

Two normalize(const Tensor& x, const Optional& residual, const Tensor& mean, const Tensor& square,
              const Optional& weight, const Optional& bias, double eps, const Text& phi) {
  const auto formula = [&] {
    return call_operator<2>("anynorm::normalize_formula", x, residual, mean, square, weight, bias,
                            eps, phi.value);
  };
  if (too_deep(x)) return formula();
  Call call(x);
  check_forward(call.of_x(), residual, weight, bias);
  check_beside(call.of_x(), mean, "mean");
  check_beside(call.of_x(), square, "square");
  if (!takes_given(mean, square) ||
      !takes_forward(call, residual, weight, bias, given_statistic(eps), phi.value,
                     reduced_by(call.of_x(), mean))) {
    return formula();
  }
  Two outputs = begin_forward(call, residual, weight, bias);
  call.read_statistics(mean, square);
  call.forward();
  return outputs;
}

Four normalize_backward(const Tensor& dy, const Tensor& x, const Optional& residual,
                        const Tensor& sign_mask, const Tensor& mean, const Tensor& square,
                        const Optional& weight, const Optional& bias, double eps,
                        const Text& phi) {
  const auto formula = [&] {
    return call_operator<4>("anynorm::normalize_backward_formula", dy, x, residual, sign_mask, mean,
                            square, weight, bias, eps, phi.value);
  };
  if (too_deep(x)) return formula();
  Call call(x);
  check_backward(call.of_x(), dy, residual, sign_mask, weight, bias);
  check_beside(call.of_x(), mean, "mean");
  check_beside(call.of_x(), square, "square");
  if (!takes_given(mean, square) ||
      !takes_backward(call, dy, residual, sign_mask, weight, bias, given_statistic(eps), phi.value,
                      reduced_by(call.of_x(), mean))) {
    return formula();
  }
  call.read_statistics(mean, square);
  return run_backward(call, dy, residual, sign_mask, weight, bias);
}

STABLE_TORCH_LIBRARY_IMPL(anynorm, CPU, m) {
  m.impl("standardize", TORCH_BOX(&standardize));
  m.impl("standardize_backward", TORCH_BOX(&standardize_backward));
  m.impl("moments", TORCH_BOX(&moments));
  m.impl("normalize", TORCH_BOX(&normalize));
  m.impl("normalize_backward", TORCH_BOX(&normalize_backward));
}

}  // namespace
}  // namespace anynorm
