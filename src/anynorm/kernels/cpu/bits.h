// One bit for each value, set where z > 0 or not a number: how the backward of add + ReLU knows
// what the forward let through.
#pragma once

#include "loops.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Bits of neighbours share a byte: unless the strip has its bytes for itself, they are set by an
// atomic or, for another thread may do the same.
inline void set_shared(uint8_t* bits, int64_t at, uint32_t block) {
  const uint32_t moved = block << (at & 7);
  for (int k = 0; k < 3; ++k) {
    const uint8_t byte = uint8_t(moved >> 8 * k);
    if (byte) __atomic_fetch_or(bits + (at >> 3) + k, byte, __ATOMIC_RELAXED);
  }
}

// Keeps the bits of `n` values, of which the first is number `at` of the tensor.
template <class C>
ANYNORM_LOOP void keep_bits(const C* z, int64_t n, uint8_t* bits, int64_t at) {
  const auto block = [z](int64_t i, auto part) __attribute__((always_inline)) {
    return ~pack(part.get(z + i) <= Block<C>(0)) & ((1u << part.count) - 1);
  };
  int64_t i = smaller(n, -at & 7);  // up to the first byte that is all its own
  if (i) set_shared(bits, at, block(0, Part{i}));
  for (; i + kLanes <= n; i += kLanes) write(bits + ((at + i) >> 3), uint16_t(block(i, Full{})));
  if (i < n) set_shared(bits, at + i, block(i, Part{n - i}));
}

// dz = dy where the bit is set, and leak · dy elsewhere.
template <class T>
ANYNORM_LOOP void open_by_bits(const T* dy, int64_t n, const uint8_t* bits, int64_t at,
                               Compute<T> leak, Compute<T>* dz) {
  using C = Compute<T>;
  const bool relu = leak == 0;  // an infinite dy times zero is not a number
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    const int64_t from = at + i;
    const uint32_t block = read<uint32_t>(bits + (from >> 3)) >> (from & 7);
    const Block<C> open = part.get(dy + i);
    const Block<C> closed = relu ? Block<C>(0) : open * Block<C>(leak);
    part.put(dz + i, choose(unpack<C>(block & 0xffff), open, closed), false);
  });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
