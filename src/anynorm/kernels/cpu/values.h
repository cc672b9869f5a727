// A tensor's memory, and the strips in which it is processed.
#pragma once

#include "loops.h"
#include "params.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Work in several passes is done strip by strip in buffers that fit into the first cache.
constexpr int64_t kStrip = 512;

template <class C>
struct alignas(64) Room {
  C values[kStrip];
};

template <class T>
ANYNORM_INLINE T* values(const void* tensor, int64_t at) {
  return tensor ? static_cast<T*>(const_cast<void*>(tensor)) + at : nullptr;
}

// Whether writes of whole registers from here on can bypass the caches.
inline bool aligned(const void* to) { return reinterpret_cast<uintptr_t>(to) % 64 == 0; }

// Calls f(begin, size) for the values before the first such address, and for the others.
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

// One of a few numbers that occurs twice; if there is none, `otherwise`.
template <int count>
double repeated(const double (&found)[count], double otherwise) {
  for (int k = 1; k < count; ++k) {
    for (int j = 0; j < k; ++j) {
      if (found[j] == found[k]) return found[k];
    }
  }
  return otherwise;
}

// The number to take from all values before they are summed up, from a few of them far apart, which
// `get` returns by their place: their mean, which one outlier moves by a quarter.  Where a lane adds
// up more than 64 values, it is one that occurs twice in those few, such as the zeros behind a ReLU:
// a number that is added again and again is rounded to the same side each time, unless it is 0.
template <class C, class Get>
ANYNORM_INLINE C near_mean(int64_t count, int64_t lanes, Get get) {
  double total = 0, found[8];
  for (int k = 1; k < 8; k += 2) total += found[k] = get(k * count / 8);
  if (count <= 64 * lanes) return C(total / 4);
  for (int k = 0; k < 8; k += 2) found[k] = get(k * count / 8);
  return C(repeated(found, total / 4));
}

template <class T>
ANYNORM_LOOP void copy_strip(const Compute<T>* from, int64_t n, T* to, bool through) {
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    part.put(to + i, part.get(from + i), through);
  });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
