// Running statistics: one call instead of ten small operators in Python.
#include <cmath>
#include <optional>

#include "tensors.h"

namespace anynorm {
namespace {

// The running statistics and those of the batch, one number for each channel.
template <class T>
struct Channels {
  T *mean, *var;
  const double *batch_mean, *batch_var;
  int64_t count;
};

// From `start` towards `end` by `weight`, computed from the nearer end: otherwise a result that is
// much smaller than the other end would cancel.
template <class T>
T between(T start, T end, T weight) {
  const T away = end - start;
  return weight < T(0.5) ? start + weight * away : end - (T(1) - weight) * away;
}

// Moves the statistics of channels whose batch statistics are finite; returns whether there are any.
template <class T>
bool move(const Channels<T>& c, T momentum, double correction) {
  bool any = false;
  for (int64_t i = 0; i < c.count; ++i) {
    // A finite number may overflow in the type of the running statistics; so convert it first.
    const T mean = T(c.batch_mean[i]), var = T(c.batch_var[i] * correction);
    if (!std::isfinite(mean) || !std::isfinite(var)) continue;
    c.mean[i] = between(c.mean[i], mean, momentum);
    c.var[i] = between(c.var[i], var, momentum);
    any = true;
  }
  return any;
}

template <class T>
bool move(const Tensor& mean, const Tensor& var, const Tensor& batch_mean, const Tensor& batch_var,
          double momentum, double correction) {
  const Channels<T> channels{static_cast<T*>(mean.mutable_data_ptr()),
                             static_cast<T*>(var.mutable_data_ptr()),
                             static_cast<const double*>(batch_mean.const_data_ptr()),
                             static_cast<const double*>(batch_var.const_data_ptr()),
                             mean.numel()};
  return move(channels, T(momentum), correction);
}

// Vectors of channels, with any number of other dims of size one.
bool fits(const Tensor& tensor, int64_t count, int32_t dtype) {
  const Meta meta(tensor);
  return meta.device == codes.cpu && meta.dtype == dtype && meta.values() == count &&
         tensor.is_contiguous();
}

bool is_one_number(const Optional& count) {
  return !count || fits(*count, 1, aoti_torch_dtype_int64());
}

void track_(const Tensor& mean, const Tensor& var, const Optional& count, const Tensor& batch_mean,
            const Tensor& batch_var, std::optional<double> momentum, double correction) {
  const Meta of_mean(mean);
  const int64_t channels = of_mean.values();
  const bool single = of_mean.dtype == codes.float32;
  const bool known = single || of_mean.dtype == codes.float64;
  if (!momentum || !known || of_mean.rank != 1 || !fits(mean, channels, of_mean.dtype) ||
      !fits(var, channels, of_mean.dtype) || !fits(batch_mean, channels, codes.float64) ||
      !fits(batch_var, channels, codes.float64) || !is_one_number(count)) {
    call_operator<0>("anynorm::track_formula_", mean, var, count, batch_mean, batch_var, momentum,
                     correction);
    return;
  }
  const bool any = single
                       ? move<float>(mean, var, batch_mean, batch_var, *momentum, correction)
                       : move<double>(mean, var, batch_mean, batch_var, *momentum, correction);
  if (count && any) ++*static_cast<int64_t*>(count->mutable_data_ptr());
}

STABLE_TORCH_LIBRARY_IMPL(anynorm, CPU, m) { m.impl("track_", TORCH_BOX(&track_)); }

}  // namespace
}  // namespace anynorm
