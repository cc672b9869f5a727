// A tensor's memory, and the strips of it that are worked on.
#pragma once

#include "loops.h"
#include "problem.h"

namespace anynorm {
namespace ANYNORM_ISA {

// What takes several passes goes strip by strip through rooms, which fit into the first cache.
constexpr int64_t kStrip = 512;

template <class C>
struct alignas(64) Room {
  C values[kStrip];
};

template <class T>
ANYNORM_INLINE T* values(const void* tensor, int64_t at) {
  return tensor ? static_cast<T*>(const_cast<void*>(tensor)) + at : nullptr;
}

// Whether whole registers can be written past the caches from here on.
inline bool aligned(const void* to) { return reinterpret_cast<uintptr_t>(to) % 64 == 0; }

// Calls f(begin, size) for the values before the first such place, and for the others.
template <class T, class F>
ANYNORM_INLINE void from_aligned(bool wanted, const T* to, int64_t n, F f) {
  const int64_t past = reinterpret_cast<uintptr_t>(to) % 64;
  const int64_t head = wanted && past ? smaller(n, (64 - past) / sizeof(T)) : 0;
  if (head) f(0, head);
  f(head, n - head);
}

template <class T>
inline double value_of(T value) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    return value;
  } else {
    HalfVector half{};
    half[0] = value.bits;
    return widen<T>(half)[0];
  }
}

// A point near the mean, from a few values far apart: one outlier moves it by a quarter.
template <class T>
Compute<T> near_mean(const T* x, int64_t length) {
  double total = 0;
  for (int k = 1; k < 8; k += 2) total += value_of(x[k * length / 8]);
  return Compute<T>(total / 4);
}

template <class T>
ANYNORM_LOOP void copy_strip(const Compute<T>* from, int64_t n, T* to, bool through) {
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    part.put(to + i, part.get(from + i), through);
  });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
