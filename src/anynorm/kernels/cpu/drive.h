// How the work is divided and in which order it is done, for every access pattern.
#pragma once

#include "block.h"
#include "params.h"
#include "statistics.h"
#include "tables.h"

namespace anynorm {
namespace ANYNORM_ISA {

template <class F>
void each_task(const Threads& threads, int64_t tasks, F f) {
  threads.run(tasks, [](void* context, int64_t task) { (*static_cast<F*>(context))(task); }, &f);
}

// Small cells are grouped into one task, as long as there are enough tasks for all threads.
inline int64_t cells_of_task(int64_t cells, int64_t cell_bytes, int threads) {
  constexpr int64_t kTaskBytes = 64 << 10, kTasksOfThread = 8;
  return larger(1, smaller(kTaskBytes / larger(1, cell_bytes), cells / (kTasksOfThread * threads)));
}

template <class Work>
void whole_cell(Work& work, int64_t cell) {
  const int64_t chunks = work.chunks();
  work.begin(cell);
  for (int round = 0; round < work.rounds(); ++round) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) work.collect(cell, chunk, round);
    work.settle(cell, round);
  }
  work.prepare(cell);
  for (int64_t chunk = chunks; chunk-- > 0;) work.emit(cell, chunk);
}

// Runs work that is divided into cells, each with its own statistics, and cells into chunks.
//
//   begin(cell)                  prepares for collecting
//   collect(cell, chunk, round)  adds up a chunk
//   settle(cell, round)          combines a cell's chunks
//   prepare(cell)                computes the coefficients
//   emit(cell, chunk)            writes a chunk
//
// If there are enough cells for all threads and a cell fits in the cache, each thread does all steps
// for one cell after the other; it writes the chunks in reverse order, since the last is still in
// the cache.  Otherwise all threads do one step after the other.  Sums are bitwise equal either way.
template <class Work>
void drive(Work& work, const Threads& threads, int64_t cell_bytes) {
  constexpr int64_t kHot = 8 << 20;
  const int64_t cells = work.cells(), chunks = work.chunks();
  if (chunks == 1 || (cell_bytes <= kHot && cells >= threads.count)) {
    const int64_t batch = cells_of_task(cells, cell_bytes, threads.count);
    each_task(threads, pieces(cells, batch), [&](int64_t task) {
      const int64_t end = smaller(cells, (task + 1) * batch);
      for (int64_t cell = task * batch; cell < end; ++cell) whole_cell(work, cell);
      fence();
    });
    return;
  }
  const int64_t tasks = cells * chunks;
  each_task(threads, cells, [&](int64_t cell) { work.begin(cell); });
  for (int round = 0; round < work.rounds(); ++round) {
    each_task(threads, tasks, [&](int64_t t) { work.collect(t / chunks, t % chunks, round); });
    each_task(threads, cells, [&](int64_t cell) { work.settle(cell, round); });
  }
  each_task(threads, cells, [&](int64_t cell) { work.prepare(cell); });
  each_task(threads, tasks, [&](int64_t t) {
    const int64_t last = tasks - 1 - t;
    work.emit(last / chunks, last % chunks);
    fence();
  });
}

// ---- what the patterns share ----------------------------------------------------------------

// The number of passes over the values for the statistics: L1 needs the mean first.
inline int forward_rounds(const Statistic& s) {
  if (s.given) return 0;
  return s.power == Power::absolute ? 2 : 1;
}

// The number of passes for sums in the backward pass: for the statistics, or only for γ and β.
inline int backward_rounds(const Params& p) {
  return p.statistic.given && !p.gamma && !p.beta ? 0 : 1;
}

// Index of γ for a run: (outer, run, set).
inline int64_t affine_index(const Geometry& g, int64_t outer, int64_t run, int64_t set) {
  return (outer % g.affine_period) * g.affine_outer + run * g.affine_run + set * g.affine_set;
}

// Clears dγ and dβ; returns whether there are any.
inline bool clear_affine(const Params& p) {
  for (double* gradient : {p.dgamma, p.dbeta}) {
    if (gradient) set_zero(gradient, p.geometry.affine);
  }
  return p.dgamma || p.dbeta;
}

inline void set_statistics(const Params& p, int64_t set, double mean, double square) {
  p.mean[set] = p.statistic.center ? mean : 0;
  p.square[set] = square;
}

inline double gamma_at(const Params& p, int64_t i) { return p.gamma ? p.gamma[i] : 1.0; }
inline double beta_at(const Params& p, int64_t i) { return p.beta ? p.beta[i] : 0.0; }

}  // namespace ANYNORM_ISA
}  // namespace anynorm
