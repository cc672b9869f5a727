// Tables of numbers, and their sums.
#pragma once

#include "block.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Uninitialised memory for plain numbers, with padding to load a whole block at its end.
template <class C>
class Array {
 public:
  explicit Array(int64_t size) : data_((C*)__builtin_malloc((size + kLanes) * sizeof(C))) {
    if (!data_) throw std::bad_alloc();
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { __builtin_free(data_); }
  C* get() const { return data_; }
  C& operator[](int64_t i) const { return data_[i]; }

 private:
  C* data_;
};

template <class C>
inline void set_to(C* table, int64_t size, C value) {
  for (int64_t i = 0; i < size; ++i) table[i] = value;
}

template <class C>
inline void set_zero(C* table, int64_t size) {
  set_to(table, size, C(0));
}

template <class A, class B>
inline void add_to(A* total, const B* values, int64_t n) {
  for (int64_t j = 0; j < n; ++j) total[j] += values[j];
}

// Sums in the type of the values, which are regularly added to sums in double precision.
template <class C>
class Flushed {
 public:
  Flushed(double* total, int64_t size) : total_(total), size_(size), sums_(size) {
    set_zero(total_, size_);
    set_zero(sums_.get(), size_);
  }
  C* get() const { return sums_.get(); }
  void flush() const {
    add_to(total_, sums_.get(), size_);
    set_zero(sums_.get(), size_);
  }

 private:
  double* const total_;
  const int64_t size_;
  Array<C> sums_;
};

// The sum of a few numbers; for many there are loops over blocks.
inline double sum_table(const double* table, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += table[i];
  return sum;
}

// Adds `size` numbers of each of the following tables, `stride` apart, to the first.
inline void add_tables(double* total, int64_t tables, int64_t stride, int64_t size) {
  for (int64_t table = 1; table < tables; ++table) {
    add_to(total, total + table * stride, size);
  }
}

// Several adjacent rows are processed at a time, so that the sums of their columns are read and
// written once for all of them.
constexpr int kRows = 4;

// Calls f(row, Is<how many>) for groups of four rows, then for each remaining row.
template <class F>
ANYNORM_INLINE void four_rows(int64_t begin, int64_t end, F f) {
  for (; begin + kRows <= end; begin += kRows) f(begin, Is<kRows>{});
  for (; begin < end; ++begin) f(begin, Is<1>{});
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
