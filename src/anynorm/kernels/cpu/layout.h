// Small tensors such as γ, as the kernels read and write them: doubles, in the order of the large
// tensor's memory.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <memory>

#include "geometry.h"
#include "tensors.h"

namespace anynorm {

// Steps through a tensor along some dims of the large one; dims that it lacks have stride zero.
struct Walk {
  Walk(const Order& order, Dims dims, const Meta& t) {
    for (int i = 0; i < order.count; ++i) {
      const int dim = order.dims[i];
      if (dims & dim_bit(dim)) go(order.sizes[i], t.sizes[dim] == 1 ? 0 : t.strides[dim]);
    }
    if (rank == 0) go(1, 1);
  }
  void go(int64_t size, int64_t stride) {
    count *= size;
    if (rank > 0 && strides[rank - 1] == stride * size) {
      sizes[rank - 1] *= size, strides[rank - 1] = stride;
    } else {
      sizes[rank] = size, strides[rank++] = stride;
    }
  }
  bool is_straight() const { return rank == 1 && strides[0] == 1; }

  // Calls f(index of the step, offset in the tensor).
  template <class F>
  void each(F f) const {
    int64_t index[kMaxRank] = {}, at = 0;
    const int64_t size = sizes[rank - 1], stride = strides[rank - 1];
    for (int64_t step = 0; step < count;) {
      for (int64_t i = 0; i < size; ++i, ++step) f(step, at + i * stride);
      for (int dim = rank - 2; dim >= 0; --dim) {
        at += strides[dim];
        if (++index[dim] < sizes[dim]) break;
        at -= sizes[dim] * strides[dim], index[dim] = 0;
      }
    }
  }

  int rank = 0;
  int64_t count = 1, sizes[kMaxRank], strides[kMaxRank];
};

template <class F>
void with_values(Type type, const void* data, F f) {
  switch (type) {
    case Type::float32: return f(static_cast<const float*>(data));
    case Type::float64: return f(static_cast<const double*>(data));
    case Type::bfloat16: return f(static_cast<const c10::BFloat16*>(data));
    default: return f(static_cast<const c10::Half*>(data));
  }
}

// A tensor's values along some dims as doubles in the order of memory.  If the tensor already has
// this form, its own memory is used.
class InOrder {
 public:
  InOrder() = default;

  // For a kernel to read.
  const double* read(const Tensor& t, const Order& order, Dims dims) {
    const Meta meta(t);
    const Walk walk(order, dims, meta);
    const void* data = t.const_data_ptr();
    if (is_ready(walk, meta)) return static_cast<const double*>(data);
    buffer_.reset(new double[walk.count]);
    with_values(*type_of(meta.dtype), data, [&](auto* from) {
      walk.each([&](int64_t step, int64_t at) { buffer_[step] = static_cast<double>(from[at]); });
    });
    return buffer_.get();
  }
  // For a kernel to write, before `finish`.  The tensor is contiguous.
  double* write(const Tensor& t, const Order& order, Dims dims) {
    const Meta meta(t);
    const Walk walk(order, dims, meta);
    if (is_ready(walk, meta)) return static_cast<double*>(t.mutable_data_ptr());
    buffer_.reset(new double[walk.count]);
    return buffer_.get();
  }
  // If several of the kernel's values belong to one value of the tensor, it gets their sum.
  void finish(const Tensor& t, const Order& order, Dims dims) const {
    if (!buffer_) return;
    const Meta meta(t);
    const Walk walk(order, dims, meta);
    const int64_t values = meta.values();
    std::unique_ptr<double[]> sums(new double[values]());
    walk.each([&](int64_t step, int64_t at) { sums[at] += buffer_[step]; });
    with_values(*type_of(meta.dtype), t.mutable_data_ptr(), [&](auto* data) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
      T* to = const_cast<T*>(data);
      for (int64_t i = 0; i < values; ++i) to[i] = static_cast<T>(sums[i]);
    });
  }

 private:
  static bool is_ready(const Walk& walk, const Meta& meta) {
    return walk.is_straight() && meta.dtype == codes.float64;
  }

  std::unique_ptr<double[]> buffer_;
};

}  // namespace anynorm
