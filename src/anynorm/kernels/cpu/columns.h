// Sets of columns of several rows, with a γ for each column: batch norm on (N, C) and on
// channels_last inputs, group and instance norm on channels_last inputs, and batch norm on small
// planes, where the positions of a channel are adjacent columns.
#pragma once

#include "backward.h"
#include "drive.h"
#include "tables.h"

namespace anynorm {
namespace ANYNORM_ISA {

inline int64_t common_divisor(int64_t a, int64_t b) { return b ? common_divisor(b, a % b) : a; }

// A cell is a range of columns, in all rows of an outer index; `length` columns make one set.  A
// chunk is a range of rows of a cell.
template <class T>
class Columns {
 protected:
  using C = Compute<T>;

 public:
  explicit Columns(const Params& p)
      : p_(p),
        g_(p.geometry),
        width_(g_.sets * g_.length),
        tile_(tile(g_)),
        tiles_(pieces(width_, tile_)),
        stride_(pieces(tile_, kLanes) * kLanes),
        rows_(rows_of_chunk()),
        chunks_(pieces(g_.runs, rows_)) {}

  int64_t cells() const { return g_.outer * tiles_; }
  int64_t chunks() const { return chunks_; }
  int64_t cell_bytes() const { return g_.runs * row_bytes(); }

 protected:
  static constexpr int64_t kTile = 2048;   // columns whose sums stay in the first cache
  static constexpr int64_t kChunks = 32;   // at most: more chunks need more partial sums
  static constexpr int64_t kChunkBytes = 128 << 10;
  static constexpr int64_t kFlush = 256;   // rows that are added in single precision

  struct Span {
    int64_t begin, end;
  };

  static int64_t tile(const Geometry& g) {
    const int64_t width = g.sets * g.length;
    const int64_t whole = g.length * kLanes / common_divisor(g.length, kLanes);  // tiles stay aligned
    if (width <= 2 * kTile || whole > kTile) return width;
    return kTile / whole * whole;
  }

  // Chunks, and so the sums, do not depend on the number of threads; a multiple of four divides
  // evenly among threads.
  int64_t rows_of_chunk() const {
    const int64_t chunks = smaller(kChunks, pieces(g_.runs * row_bytes(), kChunkBytes));
    return larger(kRows, pieces(g_.runs, chunks > 1 ? pieces(chunks, 4) * 4 : 1));
  }
  int64_t row_bytes() const { return tile_ * int64_t(sizeof(T)); }
  int64_t outer(int64_t cell) const { return cell / tiles_; }
  Span columns(int64_t cell) const {
    const int64_t begin = cell % tiles_ * tile_;
    return {begin, smaller(width_, begin + tile_)};
  }
  int64_t size(int64_t cell) const {
    const Span span = columns(cell);
    return span.end - span.begin;
  }
  Span rows(int64_t chunk) const {
    return {chunk * rows_, smaller(g_.runs, (chunk + 1) * rows_)};
  }
  int64_t row_at(int64_t cell, int64_t row) const {
    return (outer(cell) * g_.runs + row) * width_ + columns(cell).begin;
  }
  // Calls f(row, Is<how many>), which adds to `sums`, for all rows of a chunk.
  template <class S, class F>
  void add_rows(int64_t chunk, const Flushed<S>& sums, F f) const {
    const Span rows = this->rows(chunk);
    each_step(rows.end - rows.begin, kFlush, [&](int64_t begin, int64_t n) {
      four_rows(rows.begin + begin, rows.begin + begin + n, f);
      sums.flush();
    });
  }
  // Calls f(first column, set, index of γ) for every set of a cell.
  template <class F>
  void each_set(int64_t cell, F f) const {
    const Span span = columns(cell);
    const int64_t affine = outer(cell) % g_.affine_period * g_.affine_outer;
    int64_t set = span.begin / g_.length;
    for (int64_t j = 0; j < span.end - span.begin; j += g_.length, ++set) {
      f(j, outer(cell) * g_.sets + set, affine + set * g_.affine_set);
    }
  }
  // γ's index increases with the columns of a set, or is the same for all of them.
  bool one_gamma() const { return g_.affine_repeat > 1 || g_.length == 1; }

  // Fills the tables of a cell that every output needs.
  void fill(int64_t cell, C* high, C* low, C* scale, C* shift) const {
    each_set(cell, [&](int64_t first, int64_t set, int64_t affine) {
      const Standard<C> s(p_.mean[set], p_.square[set], p_.statistic.eps);
      set_to(high + first, g_.length, s.high);
      set_to(low + first, g_.length, s.low);
      const int64_t steps = one_gamma() ? 1 : g_.length;
      for (int64_t k = 0; k < steps; ++k) {
        scale[first + k] = C(gamma_at(p_, affine + k)) * s.inverse;
        shift[first + k] = C(beta_at(p_, affine + k)) - s.low * scale[first + k];
      }
      set_to(scale + first + steps, g_.length - steps, scale[first]);
      set_to(shift + first + steps, g_.length - steps, shift[first]);
    });
    for (C* table : {high, low, scale, shift}) zero_rest(table, size(cell));
  }
  template <class S>
  void zero_rest(S* table, int64_t size) const {
    set_to(table + size, stride_ - size, S(0));
  }

  const Params& p_;
  const Geometry& g_;
  const int64_t width_, tile_, tiles_, stride_, rows_, chunks_;
};

// ---- loops over the columns of `rows` rows --------------------------------------------------

template <int rows, class T, class S>
ANYNORM_LOOP void add_columns(const T* x, int64_t width, const S* points, int64_t n, S* first,
                              S* second) {
  each_block(n, [&](int64_t j, auto part) __attribute__((always_inline)) {
    const Block<S> point = load(points + j);
    Block<S> sums = load(first + j), squares = load(second + j);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const Block<S> d = as<S>(part.get(x + r * width + j)) - point;
      sums = sums + d;
      squares = fma(d, d, squares);
    }
    store(first + j, sums, false);
    store(second + j, squares, false);
  });
}

template <Dz from, int rows, class T>
ANYNORM_LOOP void add_gradients(const OfColumn<Compute<T>>& given, int64_t k, const Strip<T>* strips,
                                int64_t n, Compute<T>* dzs, Compute<T>* products) {
  using C = Compute<T>;
  const OfColumn<C> of = given;
  each_block(n, [&](int64_t j, auto part) __attribute__((always_inline)) {
    Block<C> dz_sum = load(dzs + j), product = load(products + j);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const Strip<T>& s = strips[r];
      const Block<C> centred = of.centred(k + j, part.get(s.x + j));
      const Block<C> dz = dz_of<from>(of, k, s, j, centred, part);
      dz_sum = dz_sum + dz;
      product = fma(dz, centred, product);
    }
    store(dzs + j, dz_sum, false);
    store(products + j, product, false);
  });
}

// Statistics from sums in S.
template <class T, class S>
class ColumnsStatistics : public Columns<T> {
  using Base = Columns<T>;
  using Base::chunks_, Base::g_, Base::p_;
  enum { kFirst, kSecond, kLow, kHigh, kTables };

 protected:
  using Base::stride_;

 public:
  explicit ColumnsStatistics(const Params& p)
      : Base(p),
        tables_(largest() ? kTables : kLow),
        parts_(rounds() ? Base::cells() * chunks_ * tables_ * stride_ : 0),
        points_(rounds() ? Base::cells() * stride_ : 0) {}

  int rounds() const { return forward_rounds(p_.statistic); }

  // Sums are relative to one point for a whole set, so they can be added.
  void begin(int64_t cell) {
    if (!rounds()) return;
    S* points = &points_[cell * stride_];
    const T* x = values<T>(p_.x, Base::row_at(cell, 0));
    Base::each_set(cell, [&](int64_t first, int64_t, int64_t) {
      const S point = near_mean<S>(g_.runs * g_.length, g_.length, [&](int64_t i) {
        const int64_t row = g_.length == 1 ? i : i / g_.length;  // a division takes long
        return value_of(x[row * Base::width_ + first + i - row * g_.length]);
      });
      set_to(points + first, g_.length, point);
    });
    Base::zero_rest(points, Base::size(cell));
  }

  void collect(int64_t cell, int64_t chunk, int round) {
    if (round == 1) return collect_absolutes(cell, chunk);
    const Flushed<S> sums(part(cell, chunk, kFirst), 2 * stride_);
    Base::add_rows(chunk, sums, [&](int64_t row, auto count) {
      add<count.value>(cell, row, sums.get());
    });
    if (largest()) collect_extremes(cell, chunk);
  }

  void settle(int64_t cell, int round) {
    take_together(cell);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const Moments all = set_moments(cell, first, round);
      const double mean = round == 0 ? all.mean : p_.mean[set];
      set_statistics(p_, set, mean, square_of<Compute<T>>(all, p_.statistic));
    });
  }

  void prepare(int64_t) {}
  void emit(int64_t, int64_t) {}
  void finish() const {}

 private:
  bool largest() const { return p_.statistic.power == Power::largest; }

  double* part(int64_t cell, int64_t chunk, int table) const {
    return &parts_[((cell * chunks_ + chunk) * tables_ + table) * stride_];
  }

  template <int count>
  void add(int64_t cell, int64_t row, S* sums) const {
    add_columns<count>(values<T>(p_.x, Base::row_at(cell, row)), Base::width_,
                       &points_[cell * stride_], Base::size(cell), sums, sums + stride_);
  }

  // Calls f(column, value) for all values of a chunk.
  template <class F>
  void each_value(int64_t cell, int64_t chunk, F f) const {
    const auto rows = Base::rows(chunk);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const T* x = values<T>(p_.x, Base::row_at(cell, row));
      for (int64_t j = 0; j < Base::size(cell); ++j) f(j, value_of(x[j]));
    }
  }

  void collect_extremes(int64_t cell, int64_t chunk) {
    double *low = part(cell, chunk, kLow), *high = part(cell, chunk, kHigh);
    set_to(low, stride_, double(INFINITY));
    set_to(high, stride_, double(-INFINITY));
    each_value(cell, chunk, [&](int64_t j, double x) {
      low[j] = least(low[j], x);
      high[j] = most(high[j], x);
    });
  }

  // Replaces the squares, which L1 does not need.
  void collect_absolutes(int64_t cell, int64_t chunk) {
    double* total = part(cell, chunk, kSecond);
    set_zero(part(cell, chunk, kFirst), 2 * stride_);
    Array<double> about(stride_);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const double mean = p_.statistic.about_mean ? p_.mean[set] : 0;
      set_to(about.get() + first, g_.length, mean);
    });
    each_value(cell, chunk, [&](int64_t j, double x) { total[j] += std::fabs(x - about[j]); });
  }

  // Adds the sums of the other chunks to the first.
  void take_together(int64_t cell) {
    add_tables(part(cell, 0, kFirst), chunks_, tables_ * stride_, 2 * stride_);
    if (!largest()) return;
    for (int64_t chunk = 1; chunk < chunks_; ++chunk) {
      for (int64_t j = 0; j < stride_; ++j) {
        double &low = part(cell, 0, kLow)[j], &high = part(cell, 0, kHigh)[j];
        low = least(low, part(cell, chunk, kLow)[j]);
        high = most(high, part(cell, chunk, kHigh)[j]);
      }
    }
  }

  Moments set_moments(int64_t cell, int64_t first, int round) const {
    Sums sums = kNothing;
    sums.count = double(g_.runs) * double(g_.length);
    sums.first = sum_table(part(cell, 0, kFirst) + first, g_.length);
    sums.second = sum_table(part(cell, 0, kSecond) + first, g_.length);
    for (int64_t j = first; largest() && j < first + g_.length; ++j) {
      sums.low = least(sums.low, part(cell, 0, kLow)[j]);
      sums.high = most(sums.high, part(cell, 0, kHigh)[j]);
    }
    Moments out = moments(sums, points_[cell * stride_ + first]);
    if (round == 1) out.absolute = sums.second;
    return out;
  }

  const int tables_;
  Array<double> parts_;
  Array<S> points_;
};

template <class T>
class ColumnsForward : public ColumnsStatistics<T, Compute<T>> {
  using C = Compute<T>;
  using Base = ColumnsStatistics<T, C>;
  using Base::stride_;

 public:
  explicit ColumnsForward(const Params& p)
      : Base(p),
        emit_(p),
        high_(Base::cells() * stride_),
        low_(Base::cells() * stride_),
        scale_(Base::cells() * stride_),
        shift_(Base::cells() * stride_) {}

  void prepare(int64_t cell) {
    const int64_t at = cell * stride_;
    Base::fill(cell, &high_[at], &low_[at], &scale_[at], &shift_[at]);
  }

  void emit(int64_t cell, int64_t chunk) {
    const auto rows = Base::rows(chunk);
    const int64_t at = cell * stride_;
    const OfColumn<C> of{&high_[at], &low_[at], &scale_[at], &shift_[at], nullptr, nullptr, nullptr};
    for (int64_t row = rows.end; row-- > rows.begin;) {
      emit_(of, 0, Base::row_at(cell, row), Base::size(cell));
    }
  }

 private:
  const Emit<T> emit_;
  Array<C> high_, low_, scale_, shift_;
};

template <class T>
class ColumnsBackward : public Columns<T> {
  using Base = Columns<T>;
  using typename Base::C;
  using Base::chunks_, Base::g_, Base::p_, Base::stride_;
  enum { kHigh, kLow, kScale, kShift, kSlope, kConstant, kLimit, kCoefficients };
  enum { kDz, kProduct, kSigns, kLargest };

 public:
  explicit ColumnsBackward(const Params& p)
      : Base(p),
        back_(p),
        tables_(back_.signs() ? 4 : 2),
        parts_(Base::cells() * chunks_ * tables_ * stride_),
        coefficients_(Base::cells() * kCoefficients * stride_) {}

  int rounds() const { return backward_rounds(p_); }

  void begin(int64_t cell) {
    Base::fill(cell, table(cell, kHigh), table(cell, kLow), table(cell, kScale),
               table(cell, kShift));
    C* limits = table(cell, kLimit);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const C limit = threshold<C>(p_.square[set], p_.statistic);
      set_to(limits + first, g_.length, limit);
    });
    Base::zero_rest(limits, Base::size(cell));
  }

  void collect(int64_t cell, int64_t chunk, int) {
    const Flushed<C> sums(part(cell, chunk, kDz), tables_ * stride_);
    Base::add_rows(chunk, sums, [&](int64_t row, auto count) {
      add<count.value>(cell, row, sums.get());
    });
  }

  // Adds the sums of the other chunks to the first, and turns Σ dz·(x − high) into
  // Σ dz·(x − μ)/σ.
  void settle(int64_t cell, int) {
    add_tables(part(cell, 0, kDz), chunks_, tables_ * stride_, tables_ * stride_);
    double *dz = part(cell, 0, kDz), *product = part(cell, 0, kProduct);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const ToUnit<C> unit(p_.mean[set], p_.square[set], p_.statistic.eps);
      for (int64_t j = first; j < first + g_.length; ++j) product[j] = unit(product[j], dz[j]);
    });
  }

  void prepare(int64_t cell) {
    C *slope = table(cell, kSlope), *constant = table(cell, kConstant);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t affine) {
      const Gradient pull = pull_of(cell, first, set, affine);
      set_to(slope + first, g_.length, C(pull.slope));
      set_to(constant + first, g_.length, C(pull.constant));
    });
    for (C* t : {slope, constant}) Base::zero_rest(t, Base::size(cell));
  }

  void emit(int64_t cell, int64_t chunk) {
    const auto rows = Base::rows(chunk);
    const OfColumn<C> of = coefficients(cell);
    for (int64_t row = rows.end; row-- > rows.begin;) {
      back_.emit(of, 0, Base::row_at(cell, row), Base::size(cell));
    }
  }

  void finish() const {
    if (!clear_affine(p_)) return;
    for (int64_t cell = 0; cell < Base::cells(); ++cell) {
      Base::each_set(cell, [&](int64_t first, int64_t, int64_t affine) {
        add_affine(p_.dgamma, affine, part(cell, 0, kProduct) + first);
        add_affine(p_.dbeta, affine, part(cell, 0, kDz) + first);
      });
    }
  }

 private:
  double* part(int64_t cell, int64_t chunk, int table) const {
    return &parts_[((cell * chunks_ + chunk) * tables_ + table) * stride_];
  }
  C* table(int64_t cell, int which) const {
    return &coefficients_[(cell * kCoefficients + which) * stride_];
  }
  OfColumn<C> coefficients(int64_t cell) const {
    return {table(cell, kHigh),  table(cell, kLow),      table(cell, kScale), table(cell, kShift),
            table(cell, kSlope), table(cell, kConstant), table(cell, kLimit)};
  }

  // The gradient of γ or β, from the sums for the columns of a set.
  void add_affine(double* gradient, int64_t affine, const double* columns) const {
    if (!gradient) return;
    if (Base::one_gamma()) {
      gradient[affine] += sum_table(columns, g_.length);
    } else {
      add_to(gradient + affine, columns, g_.length);
    }
  }
  // Σ γ · the sums for the columns of a set.
  double weighted_sum(int64_t affine, const double* columns) const {
    if (Base::one_gamma()) return gamma_at(p_, affine) * sum_table(columns, g_.length);
    double sum = 0;
    for (int64_t k = 0; k < g_.length; ++k) sum += gamma_at(p_, affine + k) * columns[k];
    return sum;
  }

  Gradient pull_of(int64_t cell, int64_t first, int64_t set, int64_t affine) const {
    Pulled sums;
    if (!p_.statistic.given) {
      sums.g = weighted_sum(affine, part(cell, 0, kDz) + first);
      sums.unit = weighted_sum(affine, part(cell, 0, kProduct) + first);
    }
    if (back_.signs()) {
      sums.signs = sum_table(part(cell, 0, kSigns) + first, g_.length);
      sums.largest = sum_table(part(cell, 0, kLargest) + first, g_.length);
    }
    const double count = double(g_.runs) * double(g_.length);
    return gradient(sums, p_.statistic, count, p_.mean[set], C(p_.mean[set]), p_.square[set]);
  }

  template <int count>
  void add(int64_t cell, int64_t row, C* sums) const {
    Rooms<C> rooms[kRows];
    Strip<T> strips[kRows];
    const OfColumn<C> of = coefficients(cell);
    each_step(Base::size(cell), back_.step(), [&](int64_t begin, int64_t n) {
      C* at = sums + begin;
      for (int k = 0; k < count; ++k) {
        strips[k] = back_.strip(of, begin, Base::row_at(cell, row + k) + begin, n, rooms[k]);
        if (!back_.signs()) continue;
        add_to(at + kSigns * stride_, rooms[k].q.values, n);
        add_to(at + kLargest * stride_, rooms[k].counts.values, n);
      }
      back_.with_from([&](auto from) {
        add_gradients<from.value, count>(of, begin, strips, n, at, at + stride_);
      });
    });
  }

  const Back<T> back_;
  const int tables_;
  Array<double> parts_;
  Array<C> coefficients_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
