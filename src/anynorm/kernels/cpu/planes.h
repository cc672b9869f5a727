// Sets of contiguous runs, with one γ for each run: batch, group and instance norm on contiguous
// inputs, weight norm.
#pragma once

#include "backward.h"
#include "drive.h"
#include "tables.h"

namespace anynorm {
namespace ANYNORM_ISA {

// A cell is several adjacent sets, so that contiguous reads are long enough to be streamed.
// A chunk is several runs of a set, or a piece of one long run.
template <class T>
class Planes {
 protected:
  using C = Compute<T>;

 public:
  explicit Planes(const Params& p)
      : p_(p),
        g_(p.geometry),
        together_(together()),
        blocks_(pieces(g_.sets, together_)),
        piece_(g_.length > kLong ? kLong : g_.length),
        pieces_(pieces(g_.length, piece_)),
        runs_(pieces_ > 1 ? 1 : smaller(g_.runs, larger(1, kLong / larger(1, g_.length)))),
        chunks_(pieces(g_.runs, runs_) * pieces_) {}

  int64_t cells() const { return g_.outer * blocks_; }
  int64_t chunks() const { return chunks_; }
  int64_t cell_bytes() const { return together_ * g_.runs * g_.length * int64_t(sizeof(T)); }

 protected:
  static constexpr int64_t kLong = 8 * kPiece;
  static constexpr int64_t kTogether = 64;

  struct Span {
    int64_t begin, end;
  };

  int64_t together() const {
    const int64_t run_bytes = larger(1, g_.length * int64_t(sizeof(T)));
    const int64_t streamed = pieces(16 << 10, run_bytes);
    const int64_t shared = larger(1, g_.outer * g_.sets / (4 * p_.threads.count));
    return smaller(smaller(streamed, shared), smaller(g_.sets, kTogether));
  }

  int64_t outer(int64_t cell) const { return cell / blocks_; }
  Span sets(int64_t cell) const {
    const int64_t begin = cell % blocks_ * together_;
    return {begin, smaller(g_.sets, begin + together_)};
  }
  Span runs(int64_t chunk) const {
    const int64_t begin = chunk / pieces_ * runs_;
    return {begin, smaller(g_.runs, begin + runs_)};
  }
  Span piece(int64_t chunk) const {
    const int64_t begin = chunk % pieces_ * piece_;
    return {begin, smaller(g_.length, begin + piece_)};
  }
  int64_t set_index(int64_t cell, int64_t set) const { return outer(cell) * g_.sets + set; }
  int64_t run_index(int64_t cell, int64_t run, int64_t set) const {
    return (outer(cell) * g_.runs + run) * g_.sets + set;
  }
  double count() const { return double(g_.runs) * double(g_.length); }

  Standard<C> standard(int64_t set) const {
    return {p_.mean[set], p_.square[set], p_.statistic.eps};
  }

  OfRun<C> coefficients(int64_t cell, int64_t run, int64_t set, Gradient pull = {}) const {
    const int64_t index = set_index(cell, set);
    const int64_t affine = affine_index(g_, outer(cell), run, set);
    const C limit = p_.dy ? threshold<C>(p_.square[index], p_.statistic) : C(0);
    return {standard(index), C(gamma_at(p_, affine)), C(beta_at(p_, affine)), pull, limit};
  }

  // Calls f(set, its index among all sets) for the sets of a cell.
  template <class F>
  void each_set(int64_t cell, F f) const {
    const Span sets = this->sets(cell);
    for (int64_t set = sets.begin; set < sets.end; ++set) f(set, set_index(cell, set));
  }

  // Calls f(set, run, at, length) for the piece of every run in a chunk.
  template <class F>
  void each_run(int64_t cell, int64_t chunk, F f) const {
    const Span runs = this->runs(chunk), sets = this->sets(cell), piece = this->piece(chunk);
    for (int64_t run = runs.begin; run < runs.end; ++run) {
      for (int64_t set = sets.begin; set < sets.end; ++set) {
        const int64_t at = run_index(cell, run, set) * g_.length + piece.begin;
        f(set, run, at, piece.end - piece.begin);
      }
    }
  }

  // Calls f(its coefficients, set, run, at, length).  Runs of a set that have the same γ have the same
  // coefficients, whose root and division take as long as a hundred values.
  template <class F>
  void each_run(int64_t cell, int64_t chunk, const Gradient* pulls, F f) const {
    OfRun<C> of[kTogether];
    const int64_t first_run = runs(chunk).begin, first_set = sets(cell).begin;
    each_run(cell, chunk, [&](int64_t set, int64_t run, int64_t at, int64_t length) {
      OfRun<C>& mine = of[set - first_set];
      if (run == first_run || g_.affine_run) {
        mine = coefficients(cell, run, set, pulls ? pulls[set_index(cell, set)] : Gradient{});
      }
      f(mine, set, run, at, length);
    });
  }

  // For statistics: calls f(set, at, length); if there is only one set, its contiguous runs count as
  // one.
  template <class F>
  void each_stretch(int64_t cell, int64_t chunk, F f) const {
    if (g_.sets > 1) {
      return each_run(cell, chunk, [&](int64_t set, int64_t, int64_t at, int64_t length) {
        f(set, at, length);
      });
    }
    const Span runs = this->runs(chunk), piece = this->piece(chunk);
    const int64_t before = (runs.end - 1 - runs.begin) * g_.length;
    f(0, run_index(cell, runs.begin, 0) * g_.length + piece.begin, before + piece.end - piece.begin);
  }

  const Params& p_;
  const Geometry& g_;
  const int64_t together_, blocks_, piece_, pieces_, runs_, chunks_;
};

// Statistics from sums in S.
template <class T, class S>
class PlanesStatistics : public Planes<T> {
  using Base = Planes<T>;
  using Base::chunks_, Base::g_, Base::p_, Base::together_;

 public:
  explicit PlanesStatistics(const Params& p)
      : Base(p), parts_(rounds() ? Base::cells() * together_ * chunks_ : 0) {}

  int rounds() const { return forward_rounds(p_.statistic); }

  void begin(int64_t) {}

  void collect(int64_t cell, int64_t chunk, int round) {
    if (round == 1) return collect_absolutes(cell, chunk);
    Sums sums[Base::kTogether];
    S points[Base::kTogether];
    const auto sets = Base::sets(cell), runs = Base::runs(chunk);
    const auto piece = Base::piece(chunk);
    for (int64_t set = sets.begin; set < sets.end; ++set) {
      sums[set - sets.begin] = kNothing;
      const T* x = values<T>(p_.x, Base::run_index(cell, runs.begin, set) * g_.length + piece.begin);
      const int64_t length = piece.end - piece.begin, next = g_.sets * g_.length;
      const auto value = [&](int64_t i) { return value_of(x[i / length * next + i % length]); };
      const int64_t count = (runs.end - runs.begin) * length;
      points[set - sets.begin] = near_mean<S>(count, kLanes * kChains<S>, value);
    }
    Base::each_stretch(cell, chunk, [&](int64_t set, int64_t at, int64_t length) {
      const int64_t i = set - sets.begin;
      anynorm::ANYNORM_ISA::collect(values<T>(p_.x, at), length, points[i], p_.statistic.power, sums[i]);
    });
    for (int64_t i = 0; i < sets.end - sets.begin; ++i) {
      part(cell, sets.begin + i, chunk) = moments(sums[i], points[i]);
    }
  }

  void settle(int64_t cell, int) {
    Base::each_set(cell, [&](int64_t set, int64_t index) {
      Moments all;
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) merge(all, part(cell, set, chunk));
      set_statistics(p_, index, all.mean, square_of<Compute<T>>(all, p_.statistic));
    });
  }

  void prepare(int64_t) {}
  void emit(int64_t, int64_t) {}
  void finish() const {}

 private:
  void collect_absolutes(int64_t cell, int64_t chunk) {
    Base::each_set(cell, [&](int64_t set, int64_t) { part(cell, set, chunk).absolute = 0; });
    Base::each_stretch(cell, chunk, [&](int64_t set, int64_t at, int64_t length) {
      const double mean = p_.statistic.about_mean ? p_.mean[Base::set_index(cell, set)] : 0;
      const Standard<S> about(mean, 1, 0);
      part(cell, set, chunk).absolute += collect_absolute(values<T>(p_.x, at), length, about);
    });
  }

  Moments& part(int64_t cell, int64_t set, int64_t chunk) const {
    const int64_t begin = Base::sets(cell).begin;
    return parts_[(cell * together_ + set - begin) * chunks_ + chunk];
  }

  Array<Moments> parts_;
};

template <class T>
class PlanesForward : public PlanesStatistics<T, Compute<T>> {
  using Base = PlanesStatistics<T, Compute<T>>;

 public:
  explicit PlanesForward(const Params& p) : Base(p), emit_(p) {}

  void emit(int64_t cell, int64_t chunk) {
    Base::each_run(cell, chunk, nullptr, [&](auto& of, int64_t, int64_t, int64_t at, int64_t length) {
      emit_(of, 0, at, length);
    });
  }

 private:
  const Emit<T> emit_;
};

template <class T>
class PlanesBackward : public Planes<T> {
  using Base = Planes<T>;
  using typename Base::C;
  using Base::g_, Base::p_, Base::pieces_, Base::piece_;

 public:
  explicit PlanesBackward(const Params& p)
      : Base(p),
        back_(p),
        sums_(rounds() ? g_.outer * g_.runs * g_.sets * pieces_ : 0),
        pulls_(g_.outer * g_.sets) {}

  int rounds() const { return backward_rounds(p_); }

  void begin(int64_t) {}

  void collect(int64_t cell, int64_t chunk, int) {
    Base::each_run(cell, chunk, nullptr, [&](auto& of, int64_t set, int64_t run, int64_t at,
                                             int64_t length) {
      Reduced reduced;
      back_.sums(of, 0, at, length, reduced);
      const int64_t index = Base::run_index(cell, run, set);
      sums_[index * pieces_ + (pieces_ == 1 ? 0 : (at - index * g_.length) / piece_)] = reduced;
    });
  }

  // Adds the sums of the other pieces of a run to the first, and turns Σ dz·(x − high) into
  // Σ dz·(x − μ)/σ.
  void settle(int64_t cell, int) {
    Base::each_set(cell, [&](int64_t set, int64_t index) {
      const ToUnit<C> unit(p_.mean[index], p_.square[index], p_.statistic.eps);
      for (int64_t run = 0; run < g_.runs; ++run) settle(sums(cell, run, set), unit);
    });
  }

  void prepare(int64_t cell) {
    Base::each_set(cell, [&](int64_t set, int64_t index) {
      const auto s = Base::standard(index);
      const Pulled pulled = p_.statistic.given ? Pulled{} : pulled_of(cell, set);
      pulls_[index] = gradient(pulled, p_.statistic, Base::count(), p_.mean[index], s.high,
                               p_.square[index]);
    });
  }

  void emit(int64_t cell, int64_t chunk) {
    Base::each_run(cell, chunk, pulls_.get(), [&](auto& of, int64_t, int64_t, int64_t at,
                                                  int64_t length) {
      back_.emit(of, 0, at, length);
    });
  }

  // dγ and dβ, summed in the order of memory.
  void finish() const {
    if (!clear_affine(p_)) return;
    for (int64_t cell = 0; cell < Base::cells(); ++cell) {
      Base::each_set(cell, [&](int64_t set, int64_t) { add_affine(cell, set); });
    }
  }

 private:
  Reduced* sums(int64_t cell, int64_t run, int64_t set) const {
    return &sums_[Base::run_index(cell, run, set) * pieces_];
  }

  void settle(Reduced* run, const ToUnit<C>& unit) const {
    for (int64_t i = 1; i < pieces_; ++i) {
      run->dz += run[i].dz;
      run->product += run[i].product;
      run->signs += run[i].signs;
      run->largest += run[i].largest;
    }
    run->product = unit(run->product, run->dz);
  }

  Pulled pulled_of(int64_t cell, int64_t set) const {
    Pulled out;
    for (int64_t run = 0; run < g_.runs; ++run) {
      const Reduced& sum = *sums(cell, run, set);
      const double gamma = gamma_at(p_, affine_index(g_, Base::outer(cell), run, set));
      out.g += gamma * sum.dz;
      out.unit += gamma * sum.product;
      out.signs += sum.signs;
      out.largest += sum.largest;
    }
    return out;
  }

  void add_affine(int64_t cell, int64_t set) const {
    for (int64_t run = 0; run < g_.runs; ++run) {
      const Reduced& sum = *sums(cell, run, set);
      const int64_t i = affine_index(g_, Base::outer(cell), run, set);
      if (p_.dgamma) p_.dgamma[i] += sum.product;
      if (p_.dbeta) p_.dbeta[i] += sum.dz;
    }
  }

  const Back<T> back_;
  Array<Reduced> sums_;
  Array<Gradient> pulls_;
};

}  // namespace ANYNORM_ISA
}  // namespace anynorm
