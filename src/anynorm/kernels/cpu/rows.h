// One contiguous row for each μ and σ, with a γ for each value: layer and RMS norm, and group norm
// on small planes, where the γ of a channel is repeated for its positions.
#pragma once

#include "backward.h"
#include "drive.h"
#include "tables.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Row i has the γ of index i % period.  A stripe is a group of rows with the same γ; dγ is summed
// for every stripe, so that it does not depend on the number of threads.
template <class T>
class Rows {
 protected:
  using C = Compute<T>;

 public:
  explicit Rows(const Params& p)
      : p_(p),
        g_(p.geometry),
        period_(g_.affine_period),
        repeats_(g_.outer / period_),
        stripes_(larger(1, smaller(kStripes, repeats_ / kRowsOfStripe))),
        stride_(pieces(g_.length, kLanes) * kLanes),
        gamma_(period_ * stride_),
        beta_(period_ * stride_) {
    for (int64_t i = 0; i < period_; ++i) expand(i);
  }

  int64_t tasks() const { return stripes_ * period_; }

 protected:
  static constexpr int64_t kStripes = 64, kRowsOfStripe = 16;

  // Calls f(first row, is<how many>), with rows `period_` apart.
  template <class F>
  void each_four(int64_t task, F f) const {
    const int64_t stripe = task / period_, number = task % period_;
    four_rows(repeats_ * stripe / stripes_, repeats_ * (stripe + 1) / stripes_,
              [&](int64_t repeat, auto count) { f(repeat * period_ + number, count); });
  }
  int64_t at(int64_t row) const { return row * g_.length; }

  OfRow<C> coefficients(int64_t row, Gradient pull = {}) const {
    const int64_t affine = row % period_ * stride_;
    const C limit = p_.dy ? threshold<C>(p_.square[row], p_.statistic) : C(0);
    return {standard(row), &gamma_[affine], &beta_[affine], pull, limit};
  }
  Standard<C> standard(int64_t row) const {
    return {p_.mean[row], p_.square[row], p_.statistic.eps};
  }

  const Params& p_;
  const Geometry& g_;
  const int64_t period_, repeats_, stripes_, stride_;
  Array<C> gamma_, beta_;

 private:
  void expand(int64_t number) {
    C *gamma = &gamma_[number * stride_], *beta = &beta_[number * stride_];
    int64_t left = 0, index = number * g_.affine_outer - 1;
    for (int64_t j = 0; j < stride_; ++j, --left) {
      if (left == 0) ++index, left = g_.affine_repeat;
      gamma[j] = j < g_.length ? C(gamma_at(p_, index)) : 0;
      beta[j] = j < g_.length ? C(beta_at(p_, index)) : 0;
    }
  }
};

// Statistics from sums in S.
template <class T, class S>
class RowsStatistics : public Rows<T> {
  using Base = Rows<T>;

 public:
  using Base::Base;

  void run(int64_t task) {
    Base::each_four(task, [&](int64_t row, auto count) { measure<count.value>(row); });
  }

  void finish() const {}

 protected:
  using Base::g_, Base::p_, Base::period_;

  // Several short rows at once, so that one need not wait for the divisions of the one before.
  template <int count>
  void measure(int64_t first) const {
    Sums sums[count];
    S points[count];
    for (int k = 0; k < count; ++k) {
      const T* x = row(first + k * period_);
      const int64_t lanes = kLanes * kChains<S>;
      points[k] = near_mean<S>(g_.length, lanes, [&](int64_t i) { return value_of(x[i]); });
      sums[k] = kNothing;
      collect(x, g_.length, points[k], p_.statistic.power, sums[k]);
    }
    for (int k = 0; k < count; ++k) conclude(first + k * period_, moments(sums[k], points[k]));
  }

 private:
  const T* row(int64_t index) const { return values<T>(p_.x, Base::at(index)); }

  void conclude(int64_t index, Moments all) const {
    if (p_.statistic.power == Power::absolute) {
      const Standard<S> about(p_.statistic.about_mean ? all.mean : 0, 1, 0);
      all.absolute = collect_absolute(row(index), g_.length, about);
    }
    set_statistics(p_, index, all.mean, square_of<Compute<T>>(all, p_.statistic));
  }
};

template <class T>
class RowsForward : public RowsStatistics<T, Compute<T>> {
  using Base = RowsStatistics<T, Compute<T>>;
  using Base::g_, Base::p_, Base::period_;

 public:
  explicit RowsForward(const Params& p) : Base(p), emit_(p) {}

  void run(int64_t task) {
    Base::each_four(task, [&](int64_t first, auto count) {
      for (int k = 0; k < count.value; ++k) one(first + k * period_);
    });
    fence();
  }

 private:
  void one(int64_t row) const {
    if (!p_.statistic.given) Base::template measure<1>(row);
    emit_(Base::coefficients(row), 0, Base::at(row), g_.length);
  }

  const Emit<T> emit_;
};

// dx of `rows` rows; adds Σ dz·(x − μ)/σ and Σ dz to the sums of the columns.
template <Dz from, bool signs, int rows, class T>
ANYNORM_LOOP void pull_rows(const OfRow<Compute<T>>* given, int64_t k, const Strip<T>* strips,
                            int64_t n, bool through, Compute<T>* unit_sums, Compute<T>* dz_sums) {
  using C = Compute<T>;
  OfRow<C> of[rows];
  Strip<T> s[rows];
  for (int r = 0; r < rows; ++r) of[r] = given[r], s[r] = strips[r];
  each_block(n, [&](int64_t i, auto part) __attribute__((always_inline)) {
    Block<C> units = load(unit_sums + i), dzs = load(dz_sums + i);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const Block<C> centred = of[r].centred(k + i, part.get(s[r].x + i));
      const Block<C> dz = dz_of<from>(of[r], k, s[r], i, centred, part);
      units = fma(dz, of[r].unit(centred), units);
      dzs = dzs + dz;
      put_dx<from, signs>(of[r], k, s[r], i, dz, centred, part, through);
    }
    store(unit_sums + i, units, false);
    store(dz_sums + i, dzs, false);
  });
}

template <class T>
class RowsBackward : public Rows<T> {
  using Base = Rows<T>;
  using typename Base::C;
  using Base::g_, Base::p_, Base::period_, Base::stride_;

 public:
  explicit RowsBackward(const Params& p)
      : Base(p), back_(p), sums_(Base::tasks() * 2 * stride_) {}

  void run(int64_t task) {
    const Flushed<C> sums(&sums_[task * 2 * stride_], 2 * stride_);
    int64_t since = 0;
    Base::each_four(task, [&](int64_t row, auto count) {
      some<count.value>(row, sums.get());
      if (++since == kFlush) sums.flush(), since = 0;
    });
    sums.flush();
    fence();
  }

  // dγ and dβ, from the stripes in their order.
  void finish() const {
    for (int64_t number = 0; number < period_; ++number) {
      add_tables(&sums_[number * 2 * stride_], Base::stripes_, period_ * 2 * stride_, 2 * stride_);
      const double* unit = &sums_[number * 2 * stride_];
      fold(p_.dgamma, number, unit);
      fold(p_.dbeta, number, unit + stride_);
    }
  }

 private:
  static constexpr int64_t kFlush = 64;  // groups of four rows that are added in single precision

  void fold(double* out, int64_t number, const double* columns) const {
    if (!out) return;
    double* at = out + number * g_.affine_outer;
    for (int64_t j = 0; j < g_.length; j += g_.affine_repeat, ++at) {
      *at = sum_table(columns + j, g_.affine_repeat);
    }
  }

  Gradient pull_of(int64_t row, const Reduced& sums) const {
    const auto s = Base::standard(row);
    const ToUnit<C> unit(p_.mean[row], p_.square[row], p_.statistic.eps);
    const Pulled pulled{sums.dz, unit(sums.product, sums.dz), sums.signs, sums.largest};
    return gradient(pulled, p_.statistic, double(g_.length), p_.mean[row], s.high, p_.square[row]);
  }

  template <int count>
  void some(int64_t row, C* sums) const {
    OfRow<C> of[count];
    for (int k = 0; k < count; ++k) {
      const int64_t number = row + k * period_;
      of[k] = Base::coefficients(number);
      Reduced reduced;
      if (!p_.statistic.given) back_.sums(of[k], 0, Base::at(number), g_.length, reduced);
      of[k] = Base::coefficients(number, pull_of(number, reduced));
    }
    emit<count>(of, row, sums);
  }

  // Several rows at once, so that the sums for dγ and dβ are read and written once for all of them.
  // One row after the other if rows differ in alignment for writes that bypass the caches, unless
  // computing takes longer than writing, as for 16-bit types.
  template <int count>
  void emit(const OfRow<C>* of, int64_t row, C* sums) const {
    if (p_.stream && count > 1 && sizeof(T) >= sizeof(float) && !all_through<count>(row)) {
      for (int k = 0; k < count; ++k) emit<1>(&of[k], row + k * period_, sums);
      return;
    }
    const bool alone = p_.stream && count == 1;
    from_aligned(alone, values<T>(p_.dx, Base::at(row)), g_.length, [&](int64_t head, int64_t n) {
      emit_strips<count>(of, row, head, n, sums + head);
    });
  }

  template <int count>
  bool all_through(int64_t row, int64_t k = 0) const {
    bool all = true;
    for (int r = 0; r < count; ++r) all = all && back_.through(Base::at(row + r * period_) + k);
    return all;
  }

  template <int count>
  void emit_strips(const OfRow<C>* of, int64_t row, int64_t k, int64_t length, C* sums) const {
    Rooms<C> rooms[count];
    Strip<T> strips[count];
    int64_t at[count];
    for (int r = 0; r < count; ++r) at[r] = Base::at(row + r * period_) + k;
    const bool through = all_through<count>(row, k);
    each_step(length, back_.step(), [&](int64_t begin, int64_t n) {
      for (int r = 0; r < count; ++r) {
        strips[r] = back_.strip(of[r], k + begin, at[r] + begin, n, rooms[r]);
      }
      C* units = sums + begin;
      back_.with_kind([&](auto from, auto signs) {
        pull_rows<from.value, signs.value, count>(of, k + begin, strips, n, through, units,
                                                  units + stride_);
      });
      for (int r = 0; r < count; ++r) back_.finish(strips[r], n, through);
    });
  }

  const Back<T> back_;
  Array<double> sums_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
