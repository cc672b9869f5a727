// From the strides of a tensor to the pattern in which the kernels see it.  Plain C++.
#pragma once

#include <cstdint>

#include "params.h"

namespace anynorm {

constexpr int kMaxRank = 12;  // of what the kernels take

// A set of dims, one bit for each.
using Dims = uint32_t;

constexpr Dims dim_bit(int64_t dim) { return Dims(1) << dim; }

// The dims of more than one value, in the order in which a dense tensor has them in memory.
struct Order {
  int count = 0;
  int dims[kMaxRank];
  int64_t sizes[kMaxRank];
};

Order memory_order(int rank, const int64_t* sizes, const int64_t* strides);

// Whether a tensor fills one block of memory without gaps or overlaps.
bool is_dense(const Order& order, const int64_t* strides);

// Finds the pattern for statistics over `reduced` with γ along `affine`; says whether there is one.
// Adds dims to `affine` along which γ has to be repeated for its index to be that of `Geometry`.
bool find_geometry(const Order& order, Dims reduced, Dims& affine, Geometry& geometry);

}  // namespace anynorm
