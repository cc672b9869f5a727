// The kernels of one instruction set: included once by each isa_*.cpp.
#pragma once

#include "columns.h"
#include "planes.h"
#include "rows.h"

namespace anynorm {
namespace ANYNORM_ISA {

template <class F>
void with_type(Type type, F f) {
  switch (type) {
    case Type::float32: return f(float{});
    case Type::float64: return f(double{});
    case Type::bfloat16: return f(BFloat16{});
    default: return f(Float16{});
  }
}

// Runs the work of the access pattern.
template <class Rows, class Planes, class Columns>
void run(const Params& p) {
  switch (p.geometry.pattern) {
    case Pattern::rows: {
      Rows work(p);
      each_task(p.threads, work.tasks(), [&](int64_t task) { work.run(task); });
      return work.finish();
    }
    case Pattern::planes: {
      Planes work(p);
      drive(work, p.threads, work.cell_bytes());
      return work.finish();
    }
    default: {
      Columns work(p);
      drive(work, p.threads, work.cell_bytes());
      work.finish();
    }
  }
}

template <class T>
void forward_of(const Params& p) {
  run<RowsForward<T>, PlanesForward<T>, ColumnsForward<T>>(p);
}

template <class T>
void backward_of(const Params& p) {
  run<RowsBackward<T>, PlanesBackward<T>, ColumnsBackward<T>>(p);
}

template <class T>
void statistics_of(const Params& p) {
  run<RowsStatistics<T, double>, PlanesStatistics<T, double>, ColumnsStatistics<T, double>>(p);
}

inline void forward(const Params& p) {
  with_type(p.type, [&](auto zero) { forward_of<decltype(zero)>(p); });
}

inline void backward(const Params& p) {
  with_type(p.type, [&](auto zero) { backward_of<decltype(zero)>(p); });
}

inline void statistics(const Params& p) {
  with_type(p.type, [&](auto zero) { statistics_of<decltype(zero)>(p); });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
