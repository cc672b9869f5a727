// A string argument of an operator.  Torch's own conversion to std::string (2.10 to 2.13) leaks it at
// every call, and what leaks between large tensors keeps the allocator from using their memory again.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>

namespace anynorm {

struct Text {
  std::string value;
};

}  // namespace anynorm

template <>
struct torch::stable::detail::ToImpl<anynorm::Text> {
  static anynorm::Text call(StableIValue value, uint64_t, bool) {
    const StringHandle handle = to<StringHandle>(value);
    size_t length;
    const char* data;
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
    anynorm::Text text{std::string(data, length)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    return text;
  }
};
