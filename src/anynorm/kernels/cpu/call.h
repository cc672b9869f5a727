// One call of the kernels: its parameters, and the memory that must live as long as the call.
#pragma once

#include "cpu_dispatch.h"
#include "layout.h"
#include "threads.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstring>

namespace anynorm {

constexpr int64_t kHugeFrom = 4 << 20;     // bytes of an output: huge pages are faster
constexpr int64_t kStreamFrom = 16 << 20;  // bytes: it does not stay in the caches

// Fewer page faults, which take longer than the kernels.
inline void ask_for_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = 64 << 10;  // the largest that systems commonly have
  if (bytes < kHugeFrom || !huge_pages()) return;
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (at + kPage - 1) / kPage * kPage, end = (at + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

inline std::optional<Phi> phi_of(const std::string& given) {
#define ANYNORM_NAMED(name, by_sign, value, gradient) \
  if (given == #name) return Phi::name;
  ANYNORM_ACTIVATIONS(ANYNORM_NAMED)
#undef ANYNORM_NAMED
  return std::nullopt;
}

inline bool is_by_sign(Phi phi) {
#define ANYNORM_BY_SIGN(name, by_sign, value, gradient) by_sign,
  static constexpr bool kBySign[] = {ANYNORM_ACTIVATIONS(ANYNORM_BY_SIGN)};
#undef ANYNORM_BY_SIGN
  return kBySign[int(phi)];
}

class Call {
 public:
  explicit Call(const Tensor& x) : x_(x), of_x_(x), layout_(of_x_), values_(of_x_.values()) {}

  void set(const Statistic& statistic) { params_.statistic = statistic; }

  // Whether the kernels support this call; if false, the formula runs.  The order matters: the
  // pattern is last, since it may allocate a tensor.
  bool takes_values() {
    const auto type = type_of(of_x_.dtype);
    params_.type = type.value_or(Type::float32);
    return type && values_ > 0;
  }
  bool takes_phi(const std::string& name) {
    const auto phi = phi_of(name);
    params_.phi = phi.value_or(Phi::identity);
    return phi.has_value();
  }
  bool takes_type_of_x(const Optional& tensor) const {
    return !tensor || Meta(*tensor).dtype == of_x_.dtype;
  }
  // For 16-bit types arithmetic is in single precision, so γ and β may have it, too.
  bool takes_parameter(const Optional& tensor) const {
    if (!tensor || takes_type_of_x(tensor)) return true;
    return bytes_of(params_.type) == 2 && Meta(*tensor).dtype == codes.float32;
  }
  bool takes_pattern(Dims reduced, const Optional& weight, const Optional& bias) {
    order_ = memory_order(int(of_x_.rank), of_x_.sizes, of_x_.strides);
    if (!is_dense(order_, of_x_.strides)) make_dense();
    reduced_ = reduced, affine_ = dims_of(weight) | dims_of(bias);
    return find_geometry(order_, reduced_, affine_, params_.geometry);
  }

  // ---- input, in the layout of the outputs ----------------------------------------------------

  void read_x() {
    if (like_x_) copy(x_, *like_x_);
    params_.x = (like_x_ ? *like_x_ : x_).const_data_ptr();
  }
  void read_dy(const Tensor& dy) { params_.dy = laid_out(dy, dy_); }
  void read_residual(const Optional& residual) {
    if (residual) params_.residual = laid_out(*residual, residual_);
  }
  void read_sign_mask(const Tensor& sign_mask) {
    params_.bits = const_cast<uint8_t*>(static_cast<const uint8_t*>(sign_mask.const_data_ptr()));
  }
  void read_affine(const Optional& weight, const Optional& bias) {
    if (weight) params_.gamma = gamma_.read(*weight, order_, affine_);
    if (bias) params_.beta = beta_.read(*bias, order_, affine_);
  }
  void read_statistics(const Tensor& mean, const Tensor& square) {
    params_.mean = const_cast<double*>(mean_.read(mean, order_, ~reduced_));
    params_.square = const_cast<double*>(square_.read(square, order_, ~reduced_));
  }

  // ---- outputs -------------------------------------------------------------------------------

  Tensor write_y() { return like_x(params_.y); }
  Tensor write_dx() { return like_x(params_.dx); }
  Tensor write_dresidual(bool wanted) { return wanted ? like_x(params_.dresidual) : absent(); }
  Tensor write_sign_mask(bool wanted) {
    const int64_t bytes = wanted ? bytes_for_bits(values_) : 0;
    Tensor sign_mask = empty_vector(bytes, codes.uint8);
    if (wanted) params_.bits = static_cast<uint8_t*>(sign_mask.mutable_data_ptr());
    if (wanted) std::memset(params_.bits, 0, bytes);  // kernels set bits
    return sign_mask;
  }
  Tensor new_statistic() const {
    int64_t sizes[kMaxRank];
    for (int64_t dim = 0; dim < of_x_.rank; ++dim) {
      sizes[dim] = reduced_ & dim_bit(dim) ? 1 : of_x_.sizes[dim];
    }
    return empty_contiguous(of_x_.rank, sizes, codes.float64);
  }
  void write_statistics(const Tensor& mean, const Tensor& square) {
    params_.mean = mean_.write(mean, order_, ~reduced_);
    params_.square = square_.write(square, order_, ~reduced_);
  }
  void finish_statistics(const Tensor& mean, const Tensor& square) const {
    mean_.finish(mean, order_, ~reduced_);
    square_.finish(square, order_, ~reduced_);
  }
  Tensor new_gradient(const Optional& parameter) const {
    if (!parameter) return absent();
    const Meta of(*parameter);
    return empty_contiguous(of.rank, of.sizes, of.dtype);
  }
  void write_affine(const Optional& weight, const Tensor& dweight, const Optional& bias,
                    const Tensor& dbias) {
    if (weight) params_.dgamma = dgamma_.write(dweight, order_, affine_);
    if (bias) params_.dbeta = dbeta_.write(dbias, order_, affine_);
  }
  void finish_affine(const Tensor& dweight, const Tensor& dbias) const {
    dgamma_.finish(dweight, order_, affine_);
    dbeta_.finish(dbias, order_, affine_);
  }

  void forward() { kernels().forward(ready()); }
  void backward() { kernels().backward(ready()); }
  void statistics() { kernels().statistics(ready()); }

  Phi phi() const { return params_.phi; }
  const Meta& of_x() const { return of_x_; }

 private:
  int64_t bytes() const { return values_ * bytes_of(params_.type); }
  const Params& ready() {
    params_.threads = threads_for(values_, bytes());
    params_.stream = bytes() >= kStreamFrom;
    return params_;
  }
  void make_dense() {
    like_x_ = empty_like(x_);
    layout_ = Meta(*like_x_);
    order_ = memory_order(int(layout_.rank), layout_.sizes, layout_.strides);
  }
  // The dims along which a parameter has several values.
  static Dims dims_of(const Optional& parameter) {
    Dims dims = 0;
    if (!parameter) return dims;
    const Meta of(*parameter);
    for (int64_t dim = 0; dim < of.rank; ++dim) dims |= of.sizes[dim] != 1 ? dim_bit(dim) : 0;
    return dims;
  }
  const void* laid_out(const Tensor& tensor, Optional& copied) const {
    if (Meta(tensor).lies_like(layout_)) return tensor.const_data_ptr();
    void* data;
    copied = like_x(data);
    copy(tensor, *copied);
    return data;
  }
  Tensor like_x(void*& data) const {
    Tensor fresh = empty(layout_.rank, layout_.sizes, layout_.strides, of_x_.dtype);
    data = fresh.mutable_data_ptr();
    ask_for_huge_pages(data, bytes());
    return fresh;
  }
  Tensor absent() const { return empty_vector(0, of_x_.dtype); }

  const Tensor& x_;
  const Meta of_x_;
  Meta layout_;  // of the outputs: that of empty_like(x)
  const int64_t values_;
  Params params_{};
  Order order_;
  Dims reduced_ = 0, affine_ = 0;
  Optional like_x_, dy_, residual_;  // copies in that layout
  InOrder mean_, square_, gamma_, beta_, dgamma_, dbeta_;
};

}  // namespace anynorm
