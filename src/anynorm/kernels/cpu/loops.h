// Loops over contiguous values, a block at a time.
#pragma once

#include "block.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Not inlined: a call runs a loop over many values, so its cost does not matter.
#define ANYNORM_LOOP __attribute__((noinline))

// The most values that one lane sums before the sum is added in double precision.
constexpr int64_t kPiece = 4096;

struct Full {
  static constexpr int64_t count = kLanes;
  template <class T>
  ANYNORM_INLINE Block<Compute<T>> get(const T* from) const {
    return load(from);
  }
  template <class T>
  ANYNORM_INLINE void put(T* to, Block<Compute<T>> value, bool through) const {
    store(to, value, through);
  }
  template <class C>
  ANYNORM_INLINE Block<C> keep(Block<C> value, C = 0) const {
    return value;
  }
};

struct Part {
  int64_t count;
  template <class T>
  ANYNORM_INLINE Block<Compute<T>> get(const T* from) const {
    return load_first(from, count);
  }
  template <class T>
  ANYNORM_INLINE void put(T* to, Block<Compute<T>> value, bool) const {
    store_first(to, value, count);
  }
  // The valid lanes, and `rest` in the others.
  template <class C>
  ANYNORM_INLINE Block<C> keep(Block<C> value, C rest = 0) const {
    return first(value, count, rest);
  }
};

// Calls f(i, part) for every block; full ones need no masks.
template <class F>
ANYNORM_INLINE void each_block(int64_t length, F f) {
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) f(i, Full{});
  if (i < length) f(i, Part{length - i});
}

// The number of accumulators, so that additions do not wait for each other; a block of several
// registers needs fewer.
template <class C>
constexpr int kChains = Block<C>::kParts >= 4 ? 1 : 4 / Block<C>::kParts;

// The same, also with the index of the accumulator to use.
template <class C, class F>
ANYNORM_INLINE void each_chained(int64_t length, F f) {
  constexpr int64_t kStep = kChains<C> * kLanes;
  int64_t i = 0;
  for (; i + kStep <= length; i += kStep) {
#pragma GCC unroll 4
    for (int k = 0; k < kChains<C>; ++k) f(i + k * kLanes, Full{}, k);
  }
  for (; i + kLanes <= length; i += kLanes) f(i, Full{}, 0);
  if (i < length) f(i, Part{length - i}, 0);
}

// Sums in the type of the values, flushed to one in double precision.
template <class C>
struct Total {
  Block<C> chain[kChains<C>];

  ANYNORM_INLINE Total() {
    for (auto& block : chain) block = Block<C>(0);
  }
  ANYNORM_INLINE void add(int k, Block<C> value) { chain[k] = chain[k] + value; }
  ANYNORM_INLINE void add_product(int k, Block<C> a, Block<C> b) {
    chain[k] = fma(a, b, chain[k]);
  }
  ANYNORM_INLINE double all() const {
    Block<C> total = chain[0];
    for (int k = 1; k < kChains<C>; ++k) total = total + chain[k];
    return sum(total);
  }
};

// Calls f(begin, size) for the steps of a length.
template <class F>
ANYNORM_INLINE void each_step(int64_t length, int64_t step, F f) {
  for (int64_t begin = 0; begin < length; begin += step) f(begin, smaller(step, length - begin));
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
