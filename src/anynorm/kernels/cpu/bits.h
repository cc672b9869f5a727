// One bit for each value, set if z > 0 or z is NaN.  From it the backward pass of add + ReLU knows
// which values the forward pass kept.
#pragma once

#include "loops.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Adjacent bits share a byte.  Unless the strip has its bytes for itself, the bits are set by an
// atomic or, since another thread may write to the same byte.
inline void set_shared(uint8_t* bits, int64_t at, uint32_t block) {
  const uint32_t moved = block << (at & 7);
  for (int k = 0; k < 3; ++k) {
    const uint8_t byte = uint8_t(moved >> 8 * k);
    if (byte) __atomic_fetch_or(bits + (at >> 3) + k, byte, __ATOMIC_RELAXED);
  }
}

// Writes the bits of a block that starts a byte; its last byte may also have another thread's bits.
ANYNORM_INLINE void put_bits(uint8_t* bits, int64_t at, uint32_t block, Full) {
  write(bits + (at >> 3), uint16_t(block));
}
ANYNORM_INLINE void put_bits(uint8_t* bits, int64_t at, uint32_t block, Part part) {
  set_shared(bits, at, block & ((1u << part.count) - 1));
}

// The number of the `n` values before the first byte that has only bits of this strip.
inline int64_t before_byte(int64_t at, int64_t n) { return smaller(n, -at & 7); }

// Writes the bits of `n` values; the first has index `at` in the tensor.
template <class C>
ANYNORM_LOOP void keep_bits(const C* z, int64_t n, uint8_t* bits, int64_t at) {
  const int64_t head = before_byte(at, n);
  const auto block = [](Block<C> z) __attribute__((always_inline)) { return ~pack(z <= Block<C>(0)); };
  if (head) put_bits(bits, at, block(load_first(z, head)), Part{head});
  each_block(n - head, [&](int64_t i, auto part) __attribute__((always_inline)) {
    put_bits(bits, at + head + i, block(part.get(z + head + i)), part);
  });
}

// The bits of a block whose first value has index `at`.
ANYNORM_INLINE uint32_t bits_at(const uint8_t* bits, int64_t at) {
  return (read<uint32_t>(bits + (at >> 3)) >> (at & 7)) & 0xffff;
}

// The lanes whose bit is set; other lanes are zero, even if their value is infinite.
template <class C>
ANYNORM_INLINE Block<C> keep_set(uint32_t bits, Block<C> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(C) == sizeof(float)) {
    value.part[0] = (FloatVector)_mm512_maskz_mov_ps(__mmask16(bits), (__m512)value.part[0]);
    return value;
  }
#endif
  return choose(unpack<C>(bits), value, Block<C>(0));
}

// The bits as numbers: 1 for a bit that is set, 0 otherwise.
template <class C>
ANYNORM_LOOP void signs_by_bits(const uint8_t* bits, int64_t at, int64_t n, C* z) {
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    part.put(z + i, keep_set(bits_at(bits, at + i), Block<C>(1)), false);
  });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
