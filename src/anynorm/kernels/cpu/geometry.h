// Turns the strides of a tensor into the access pattern of the kernels.  Plain C++.
#pragma once

#include <cstdint>

#include "params.h"

namespace anynorm {

constexpr int kMaxRank = 12;  // the most dims that kernels support

// A set of dims, one bit for each.
using Dims = uint32_t;

constexpr Dims dim_bit(int64_t dim) { return Dims(1) << dim; }

// The dims of size above one, in the order of a dense tensor's memory.
struct Order {
  int count = 0;
  int dims[kMaxRank];
  int64_t sizes[kMaxRank];
};

Order memory_order(int rank, const int64_t* sizes, const int64_t* strides);

// Whether a tensor fills one block of memory without gaps or overlaps.
bool is_dense(const Order& order, const int64_t* strides);

// Finds the pattern for statistics over `reduced` with γ along `affine`; returns whether there is
// one.  Adds to `affine` the dims along which γ must be repeated to have the index of `Geometry`.
bool find_geometry(const Order& order, Dims reduced, Dims& affine, Geometry& geometry);

}  // namespace anynorm
