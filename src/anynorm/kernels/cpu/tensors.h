// Tensors of the stable ABI: their metadata, new tensors, and calls of other operators.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>

#include "geometry.h"

namespace anynorm {

using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

// The metadata of a tensor, read once.  Valid as long as the tensor.
struct Meta {
  explicit Meta(const Tensor& t) {
    int64_t *of_sizes, *of_strides;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &of_sizes));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &of_strides));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(t.get(), &rank));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &device));
    sizes = of_sizes, strides = of_strides;
  }
  int64_t values() const {
    int64_t product = 1;
    for (int64_t dim = 0; dim < rank; ++dim) product *= sizes[dim];
    return product;
  }
  bool has_shape_of(const Meta& other) const {
    return rank == other.rank && std::equal(sizes, sizes + rank, other.sizes);
  }
  // The strides of dims of size one do not matter.
  bool lies_like(const Meta& other) const {
    for (int64_t dim = 0; dim < rank; ++dim) {
      if (sizes[dim] != 1 && strides[dim] != other.strides[dim]) return false;
    }
    return true;
  }

  const int64_t *sizes, *strides;
  int64_t rank;
  int32_t dtype, device;
};

// Torch's numbers of the supported types; they are not part of its ABI.
struct Codes {
  const int32_t float32 = aoti_torch_dtype_float32(), float64 = aoti_torch_dtype_float64(),
                bfloat16 = aoti_torch_dtype_bfloat16(), float16 = aoti_torch_dtype_float16(),
                uint8 = aoti_torch_dtype_uint8(), cpu = aoti_torch_device_type_cpu();
};

inline const Codes codes{};

inline std::optional<Type> type_of(int32_t dtype) {
  if (dtype == codes.float32) return Type::float32;
  if (dtype == codes.float64) return Type::float64;
  if (dtype == codes.bfloat16) return Type::bfloat16;
  if (dtype == codes.float16) return Type::float16;
  return std::nullopt;
}

inline int64_t bytes_of(Type type) {
  return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2;
}

// One for each value, and room for a kernel to read and write whole words at the end.
inline int64_t bytes_for_bits(int64_t values) { return (values + 7) / 8 + 8; }

inline Tensor empty(int64_t rank, const int64_t* sizes, const int64_t* strides, int32_t dtype) {
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(rank, sizes, strides, dtype, codes.cpu, 0, &handle));
  return Tensor(handle);
}

inline Tensor empty_vector(int64_t size, int32_t dtype) {
  const int64_t stride = 1;
  return empty(1, &size, &stride, dtype);
}

inline Tensor empty_contiguous(int64_t rank, const int64_t* sizes, int32_t dtype) {
  int64_t strides[kMaxRank], next = 1;
  for (int64_t dim = rank; dim-- > 0; next *= sizes[dim]) strides[dim] = next;
  return empty(rank, sizes, strides, dtype);
}

inline void copy(const Tensor& from, const Tensor& to) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_copy_(to.get(), from.get(), 0));
}

template <size_t... I>
auto outputs_of(const StableIValue* stack, std::index_sequence<I...>) {
  return std::make_tuple(((void)I, torch::stable::detail::to<Tensor>(stack[I]))...);
}

// Calls an operator that returns this number of tensors.
template <size_t outputs, class... Args>
auto call_operator(const char* name, const Args&... args) {
  StableIValue stack[std::max(outputs, sizeof...(Args))] = {torch::stable::detail::from(args)...};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
  return outputs_of(stack, std::make_index_sequence<outputs>());
}

// Keeps the layout: its strides, or where it has gaps or overlaps, their order.
inline Tensor empty_like(const Tensor& x) {
  const std::optional<int32_t> any;
  return std::get<0>(call_operator<1>("aten::empty_like", x, any, any, any, any, any));
}

}  // namespace anynorm
