// Sets of columns of several rows, with a γ for each column: batch norm on (N, C) and on
// channels_last inputs, group and instance norm on channels_last inputs, and batch norm on small
// planes, where the positions of a channel are neighbouring columns.
#pragma once

#include "drive.h"
#include "run.h"
#include "statistics.h"

namespace anynorm {
namespace ANYNORM_ISA {

// Cells are some columns of all rows of an outer index; `length` columns make one set.  A chunk is
// some rows of a cell.
template <class T>
class Columns {
  using C = Compute<T>;

 public:
  explicit Columns(const Problem& p)
      : p_(p),
        g_(p.geometry),
        width_(g_.sets * g_.length),
        tile_(tile(g_)),
        tiles_(pieces(width_, tile_)),
        stride_(pieces(tile_, kLanes) * kLanes),
        rows_(larger(pieces(g_.runs, kChunks), smaller(g_.runs, larger(8, kChunkBytes / row_bytes())))),
        chunks_(pieces(g_.runs, rows_)) {}

  int64_t cells() const { return g_.outer * tiles_; }
  int64_t chunks() const { return chunks_; }
  int64_t cell_bytes() const { return g_.runs * row_bytes(); }

 protected:
  static constexpr int64_t kTile = 2048;   // columns whose sums stay in the first cache
  static constexpr int64_t kChunks = 32;   // at most, so that sums of chunks stay few
  static constexpr int64_t kChunkBytes = 128 << 10;
  static constexpr int64_t kFlush = 256;   // rows that single precision adds up

  struct Span {
    int64_t begin, end;
  };

  static int64_t tile(const Geometry& g) {
    const int64_t width = g.sets * g.length;
    if (width <= 2 * kTile || g.length > kTile) return width;
    return kTile / g.length * g.length;
  }

  int64_t row_bytes() const { return tile_ * int64_t(sizeof(T)); }
  int64_t outer(int64_t cell) const { return cell / tiles_; }
  Span columns(int64_t cell) const {
    const int64_t begin = cell % tiles_ * tile_;
    return {begin, smaller(width_, begin + tile_)};
  }
  Span rows(int64_t chunk) const {
    return {chunk * rows_, smaller(g_.runs, (chunk + 1) * rows_)};
  }
  int64_t row_at(int64_t cell, int64_t row) const {
    return (outer(cell) * g_.runs + row) * width_ + columns(cell).begin;
  }
  // Calls f(first column, set, index of γ) for every set of a cell.
  template <class F>
  void each_set(int64_t cell, F f) const {
    const Span span = columns(cell);
    const int64_t set = outer(cell) * g_.sets + span.begin / g_.length;
    const int64_t affine = (outer(cell) % g_.affine_period) * g_.affine_outer;
    for (int64_t j = 0; j < span.end - span.begin; j += g_.length) {
      f(j, set + j / g_.length, affine + (span.begin + j) / g_.affine_repeat);
    }
  }
  // γ's index goes on with the columns of a set, or is the same for all of them.
  int64_t affine_step() const { return g_.affine_repeat == 1 ? 1 : 0; }
  // Bits of the whole row, so that tiles that share a byte are noticed.
  int64_t bits_length() const { return (width_ | tile_) % 8 ? 1 : 8; }

  // Fills the tables of a cell that every output needs.
  void fill(int64_t cell, C* high, C* low, C* scale, C* shift) const {
    each_set(cell, [&](int64_t first, int64_t set, int64_t affine) {
      const Standard<C> s(p_.mean[set], p_.square[set], p_.statistic.eps);
      for (int64_t k = 0; k < g_.length; ++k, affine += affine_step()) {
        const int64_t j = first + k;
        high[j] = s.high;
        low[j] = s.low;
        scale[j] = C(gamma_at(p_, affine)) * s.inverse;
        shift[j] = C(beta_at(p_, affine)) - s.low * scale[j];
      }
    });
    const Span span = columns(cell);
    for (C* table : {high, low, scale, shift}) zero_rest(table, span.end - span.begin);
  }
  void zero_rest(C* table, int64_t size) const {
    for (int64_t j = size; j < stride_; ++j) table[j] = 0;
  }

  const Problem& p_;
  const Geometry& g_;
  const int64_t width_, tile_, tiles_, stride_, rows_, chunks_;
};

// Calls f(row, is<how many>) for four rows at a time, and then for those left over one by one.
template <class F>
ANYNORM_INLINE void four_rows(int64_t begin, int64_t end, F f) {
  for (; begin + 4 <= end; begin += 4) f(begin, Is<4>{});
  for (; begin < end; ++begin) f(begin, Is<1>{});
}

template <class C>
inline void set_zero(C* table, int64_t size) {
  for (int64_t i = 0; i < size; ++i) table[i] = 0;
}

// Adds `table` to `total` and clears it.
template <class C>
inline void flush(C* table, double* total, int64_t size) {
  for (int64_t i = 0; i < size; ++i) total[i] += table[i];
  set_zero(table, size);
}

// Adds `size` numbers of each of the following tables, `stride` apart, to the first.
inline void add_tables(double* total, int64_t tables, int64_t stride, int64_t size) {
  for (int64_t table = 1; table < tables; ++table) {
    const double* more = total + table * stride;
    for (int64_t j = 0; j < size; ++j) total[j] += more[j];
  }
}

template <class T>
class ColumnsForward : public Columns<T> {
  using C = Compute<T>;
  using Base = Columns<T>;
  using Base::chunks_, Base::g_, Base::p_, Base::stride_;
  enum { kFirst, kSecond, kLow, kHigh, kTables };

 public:
  explicit ColumnsForward(const Problem& p)
      : Base(p),
        tables_(largest() ? kTables : kLow),
        parts_(rounds() ? Base::cells() * chunks_ * tables_ * stride_ : 0),
        points_(rounds() ? Base::cells() * stride_ : 0),
        high_(Base::cells() * stride_),
        low_(Base::cells() * stride_),
        scale_(Base::cells() * stride_),
        shift_(Base::cells() * stride_) {}

  int rounds() const { return forward_rounds(p_.statistic); }

  // The point that sums are seen from is the same for a whole set: they can be added.
  void begin(int64_t cell) {
    if (!rounds()) return;
    const auto span = Base::columns(cell);
    C* points = &points_[cell * stride_];
    Base::each_set(cell, [&](int64_t first, int64_t, int64_t) {
      double total = 0;
      for (int64_t k = 1; k < 8; k += 2) {
        const int64_t at = Base::row_at(cell, k * g_.runs / 8) + first + k * g_.length / 8;
        total += value_of(*values<T>(p_.x, at));
      }
      for (int64_t j = first; j < first + g_.length; ++j) points[j] = C(total / 4);
    });
    Base::zero_rest(points, span.end - span.begin);
  }

  void collect(int64_t cell, int64_t chunk, int round) {
    if (round == 1) return collect_absolutes(cell, chunk);
    const auto rows = Base::rows(chunk);
    set_zero(part(cell, chunk, kFirst), 2 * stride_);
    Array<C> sums(2 * stride_);
    set_zero(sums.get(), 2 * stride_);
    for (int64_t row = rows.begin; row < rows.end; row += Base::kFlush) {
      const int64_t end = smaller(rows.end, row + Base::kFlush);
      four_rows(row, end, [&](int64_t r, auto count) { add<count.value>(cell, r, sums.get()); });
      flush(sums.get(), part(cell, chunk, kFirst), 2 * stride_);
    }
    if (largest()) collect_extremes(cell, chunk);
  }

  void settle(int64_t cell, int round) {
    take_together(cell);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const Moments all = set_moments(cell, first, round);
      const double mean = round == 0 ? all.mean : p_.mean[set];
      set_statistics(p_, set, mean, square_of<C>(all, p_.statistic));
    });
  }

  void prepare(int64_t cell) {
    const int64_t at = cell * stride_;
    Base::fill(cell, &high_[at], &low_[at], &scale_[at], &shift_[at]);
  }

  void emit(int64_t cell, int64_t chunk) {
    const auto rows = Base::rows(chunk);
    const auto span = Base::columns(cell);
    const int64_t size = span.end - span.begin, at = cell * stride_;
    const OfColumn<C> of{&high_[at], &low_[at], &scale_[at], &shift_[at], nullptr, nullptr, nullptr};
    with_output(p_, [&](auto way, auto added) {
      for (int64_t row = rows.end; row-- > rows.begin;) {
        const int64_t first = Base::row_at(cell, row);
        T* y = values<T>(p_.y, first);
        const Output<T> out{p_.phi, through(p_, y), bits_of(p_, first, Base::bits_length())};
        apply<way.value, added.value>(of, values<T>(p_.x, first), values<T>(p_.residual, first), y,
                                      size, out);
      }
    });
  }

 private:
  bool largest() const { return p_.statistic.power == Power::largest; }

  double* part(int64_t cell, int64_t chunk, int table) const {
    return &parts_[((cell * chunks_ + chunk) * tables_ + table) * stride_];
  }

  template <int count>
  ANYNORM_INLINE void add(int64_t cell, int64_t row, C* sums) const {
    const auto span = Base::columns(cell);
    const C* points = &points_[cell * stride_];
    const T* x = values<T>(p_.x, Base::row_at(cell, row));
    const int64_t width = Base::width_, stride = stride_;
    each_block(span.end - span.begin, [&](int64_t j, auto part, auto)
               __attribute__((always_inline)) {
      const Block<C> point = load(points + j);
      Block<C> first(0), second(0);
#pragma GCC unroll 4
      for (int k = 0; k < count; ++k) {
        const Block<C> d = part.get(x + k * width + j) - point;
        first = first + d;
        second = fma(d, d, second);
      }
      store(sums + j, load(sums + j) + first, false);
      store(sums + stride + j, load(sums + stride + j) + second, false);
    });
  }

  // Calls f(row, block of columns, loaded with `part`) for all values of a chunk.
  template <class F>
  void each_value(int64_t cell, int64_t chunk, F f) const {
    const auto rows = Base::rows(chunk);
    const auto span = Base::columns(cell);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const T* x = values<T>(p_.x, Base::row_at(cell, row));
      for (int64_t j = 0; j < span.end - span.begin; ++j) f(j, C(value_of(x[j])));
    }
  }

  void collect_extremes(int64_t cell, int64_t chunk) {
    double *low = part(cell, chunk, kLow), *high = part(cell, chunk, kHigh);
    for (int64_t j = 0; j < stride_; ++j) low[j] = INFINITY, high[j] = -INFINITY;
    each_value(cell, chunk, [&](int64_t j, C x) {
      low[j] = least(low[j], x);
      high[j] = most(high[j], x);
    });
  }

  // In place of the squares, which L1 has no use for.
  void collect_absolutes(int64_t cell, int64_t chunk) {
    double* total = part(cell, chunk, kSecond);
    set_zero(part(cell, chunk, kFirst), 2 * stride_);
    Array<double> about(stride_);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const double mean = p_.statistic.about_mean ? p_.mean[set] : 0;
      for (int64_t j = first; j < first + g_.length; ++j) about[j] = mean;
    });
    each_value(cell, chunk, [&](int64_t j, C x) { total[j] += std::fabs(x - about[j]); });
  }

  // The first chunk takes in the others.
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
    Sums sums;
    sums.count = double(g_.runs) * double(g_.length);
    for (int64_t j = first; j < first + g_.length; ++j) {
      sums.first += part(cell, 0, kFirst)[j];
      sums.second += part(cell, 0, kSecond)[j];
      if (largest()) {
        sums.low = least(sums.low, part(cell, 0, kLow)[j]);
        sums.high = most(sums.high, part(cell, 0, kHigh)[j]);
      }
    }
    Moments out = moments(sums, points_[cell * stride_ + first]);
    if (round == 1) out.absolute = sums.second;
    return out;
  }

  const int tables_;
  Array<double> parts_;
  Array<C> points_, high_, low_, scale_, shift_;
};

template <class T>
class ColumnsBackward : public Columns<T> {
  using C = Compute<T>;
  using Base = Columns<T>;
  using Base::chunks_, Base::g_, Base::p_, Base::stride_;
  enum { kHigh, kLow, kScale, kShift, kSlope, kConstant, kLimit, kCoefficients };
  enum { kDz, kProduct, kSigns, kLargest };

 public:
  explicit ColumnsBackward(const Problem& p)
      : Base(p),
        tables_(p.statistic.power == Power::square ? 2 : 4),
        parts_(Base::cells() * chunks_ * tables_ * stride_),
        coefficients_(Base::cells() * kCoefficients * stride_) {}

  int rounds() const { return backward_rounds(p_); }

  void begin(int64_t cell) {
    const auto span = Base::columns(cell);
    Base::fill(cell, table(cell, kHigh), table(cell, kLow), table(cell, kScale),
               table(cell, kShift));
    C* limits = table(cell, kLimit);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const C limit = threshold<C>(p_.square[set], p_.statistic);
      for (int64_t j = first; j < first + g_.length; ++j) limits[j] = limit;
    });
    Base::zero_rest(limits, span.end - span.begin);
  }

  void collect(int64_t cell, int64_t chunk, int) {
    const auto rows = Base::rows(chunk);
    double* total = part(cell, chunk, kDz);
    set_zero(total, tables_ * stride_);
    Array<C> sums(tables_ * stride_);
    set_zero(sums.get(), tables_ * stride_);
    with_source(p_, [&](auto source, auto power) {
      for (int64_t row = rows.begin; row < rows.end; row += Base::kFlush) {
        const int64_t end = smaller(rows.end, row + Base::kFlush);
        four_rows(row, end, [&](int64_t r, auto count) {
          add<source.value, power.value, count.value>(cell, r, sums.get());
        });
        flush(sums.get(), total, tables_ * stride_);
      }
    });
  }

  // The first chunk takes in the others, and Σ dz·(x − high) becomes Σ dz·(x − μ)/σ.
  void settle(int64_t cell, int) {
    add_tables(part(cell, 0, kDz), chunks_, tables_ * stride_, tables_ * stride_);
    double *dz = part(cell, 0, kDz), *product = part(cell, 0, kProduct);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t) {
      const ToUnit<C> unit(p_.mean[set], p_.square[set], p_.statistic.eps);
      for (int64_t j = first; j < first + g_.length; ++j) product[j] = unit(product[j], dz[j]);
    });
  }

  void prepare(int64_t cell) {
    const auto span = Base::columns(cell);
    C *slope = table(cell, kSlope), *constant = table(cell, kConstant);
    Base::each_set(cell, [&](int64_t first, int64_t set, int64_t affine) {
      const Gradient pull = pull_of(cell, first, set, affine);
      for (int64_t j = first; j < first + g_.length; ++j) {
        slope[j] = C(pull.slope);
        constant[j] = C(pull.constant);
      }
    });
    for (C* t : {slope, constant}) Base::zero_rest(t, span.end - span.begin);
  }

  void emit(int64_t cell, int64_t chunk) {
    const auto rows = Base::rows(chunk);
    const auto span = Base::columns(cell);
    const OfColumn<C> of = coefficients(cell);
    with_source(p_, [&](auto source, auto power) {
      for (int64_t row = rows.end; row-- > rows.begin;) {
        const int64_t at = Base::row_at(cell, row);
        pull_back<source.value, power.value>(of, input_of<T>(p_, at, Base::bits_length()),
                                             span.end - span.begin, gradient_output<T>(p_, at));
      }
    });
  }

  void finish() const {
    if (!clear_affine(p_)) return;
    for (int64_t cell = 0; cell < Base::cells(); ++cell) {
      const double *dz = part(cell, 0, kDz), *unit = part(cell, 0, kProduct);
      Base::each_set(cell, [&](int64_t first, int64_t, int64_t i) {
        for (int64_t j = first; j < first + g_.length; ++j, i += Base::affine_step()) {
          if (p_.dgamma) p_.dgamma[i] += unit[j];
          if (p_.dbeta) p_.dbeta[i] += dz[j];
        }
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

  Gradient pull_of(int64_t cell, int64_t first, int64_t set, int64_t affine) const {
    Pulled sums;
    const double *dz = part(cell, 0, kDz), *unit = part(cell, 0, kProduct);
    const int64_t end = p_.statistic.given ? first : first + g_.length;
    for (int64_t j = first; j < end; ++j, affine += Base::affine_step()) {
      const double gamma = gamma_at(p_, affine);
      sums.g += gamma * dz[j];
      sums.unit += gamma * unit[j];
      if (tables_ == 4) {
        sums.signs += part(cell, 0, kSigns)[j];
        sums.largest += part(cell, 0, kLargest)[j];
      }
    }
    const double count = double(g_.runs) * double(g_.length);
    return gradient(sums, p_.statistic, count, p_.mean[set], C(p_.mean[set]), p_.square[set]);
  }

  template <Source source, Power power, int count>
  ANYNORM_INLINE void add(int64_t cell, int64_t row, C* sums) const {
    const auto span = Base::columns(cell);
    const OfColumn<C> of = coefficients(cell);
    const int64_t stride = stride_, width = Base::width_;
    const Input<T> in = input_of<T>(p_, Base::row_at(cell, row), Base::bits_length());
    each_block(span.end - span.begin, [&](int64_t j, auto part, auto)
               __attribute__((always_inline)) {
      Block<C> dzs(0), products(0), signs(0), largest(0);
#pragma GCC unroll 4
      for (int k = 0; k < count; ++k) {
        Input<T> line = in;
        line.x += k * width, line.dy += k * width, line.bits.start += k * width;
        if (line.residual) line.residual += k * width;
        const Block<C> centred = of.centred(j, part.get(line.x + j));
        const Block<C> dz = dz_of<source>(of, line, j, centred, part);
        dzs = dzs + dz;
        products = fma(dz, centred, products);
        if constexpr (power != Power::square) {
          const auto c = counted<power>(of, j, centred);
          signs = signs + c.q;
          largest = largest + c.one;
        }
      }
      store(sums + j, load(sums + j) + dzs, false);
      store(sums + stride + j, load(sums + stride + j) + products, false);
      if constexpr (power != Power::square) {
        store(sums + 2 * stride + j, load(sums + 2 * stride + j) + signs, false);
        store(sums + 3 * stride + j, load(sums + 3 * stride + j) + largest, false);
      }
    });
  }

  const int tables_;
  Array<double> parts_;
  Array<C> coefficients_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
