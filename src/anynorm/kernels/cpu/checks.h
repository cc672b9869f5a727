// Checks that tensors fit together; the kernels themselves do not check.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <string>
#include <vector>

#include "geometry.h"
#include "tensors.h"

namespace anynorm {

inline std::string shape_text(const Meta& t) {
  std::string text = "[";
  for (int64_t dim = 0; dim < t.rank; ++dim) {
    text += (dim ? ", " : "") + std::to_string(t.sizes[dim]);
  }
  return text + "]";
}

inline void check_device(const Meta& t, const char* name) {
  STD_TORCH_CHECK(t.device == codes.cpu, name, " is not on the CPU, but x is; move it there.");
}

inline Dims check_dims(const Meta& x, const std::vector<int64_t>& dims) {
  Dims reduced = 0;
  for (const int64_t dim : dims) {
    STD_TORCH_CHECK(dim >= 0 && dim < x.rank, "dims has ", dim, ", but x has ", x.rank,
                    " dims; name them by 0 to ", x.rank - 1, ", from the front.");
    STD_TORCH_CHECK(!(reduced & dim_bit(dim)), "dims has ", dim, " twice; name each dim once.");
    reduced |= dim_bit(dim);
  }
  return reduced;
}

// For the residual and dy.
inline void check_same(const Meta& x, const Tensor& tensor, const char* name) {
  const Meta t(tensor);
  check_device(t, name);
  STD_TORCH_CHECK(t.has_shape_of(x), name, " has shape ", shape_text(t),
                  ", but must have that of x, ", shape_text(x), "; expand or reshape it.");
}

// For γ, β and given statistics.
inline void check_beside(const Meta& x, const Tensor& tensor, const char* name) {
  const Meta t(tensor);
  check_device(t, name);
  bool fits = t.rank == x.rank;
  for (int64_t dim = 0; fits && dim < x.rank; ++dim) {
    fits = t.sizes[dim] == 1 || t.sizes[dim] == x.sizes[dim];
  }
  STD_TORCH_CHECK(fits, name, " has shape ", shape_text(t), ", but must have as many dims as x, ",
                  shape_text(x), ", each of the size of x's or 1; reshape it.");
}

// For the statistics of the forward.
inline void check_statistic(const Meta& x, Dims reduced, const Tensor& tensor, const char* name) {
  check_beside(x, tensor, name);
  const Meta t(tensor);
  for (int64_t dim = 0; dim < x.rank; ++dim) {
    const int64_t size = reduced & dim_bit(dim) ? 1 : x.sizes[dim];
    STD_TORCH_CHECK(t.sizes[dim] == size, name, " has shape ", shape_text(t),
                    ", but must have size 1 along dims and that of x, ", shape_text(x),
                    ", along the others; pass what the forward returned.");
  }
}

inline void check_sign_mask(const Meta& x, const Tensor& sign_mask) {
  const Meta t(sign_mask);
  check_device(t, "sign_mask");
  const int64_t values = t.values(), bytes = bytes_for_bits(x.values());
  STD_TORCH_CHECK(values == 0 || (t.rank == 1 && t.dtype == codes.uint8 && values == bytes),
                  "sign_mask has shape ", shape_text(t), ", but must be a vector of ", bytes,
                  " values of uint8, or empty; pass what the forward returned.");
}

}  // namespace anynorm
