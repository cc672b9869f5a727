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

template <class Work>
Work& all_rows(Work& work, const Threads& threads) {
  each_task(threads, work.tasks(), [&](int64_t task) { work.run(task); });
  return work;
}

template <class Work>
Work& all_cells(Work& work, const Threads& threads) {
  drive(work, threads, work.cell_bytes());
  return work;
}

template <class T>
void forward_of(const Params& p) {
  switch (p.geometry.pattern) {
    case Pattern::rows: {
      RowsForward<T> work(p);
      all_rows(work, p.threads);
      return;
    }
    case Pattern::planes: {
      PlanesForward<T> work(p);
      all_cells(work, p.threads);
      return;
    }
    default: {
      ColumnsForward<T> work(p);
      all_cells(work, p.threads);
    }
  }
}

template <class T>
void backward_of(const Params& p) {
  switch (p.geometry.pattern) {
    case Pattern::rows: {
      RowsBackward<T> work(p);
      return all_rows(work, p.threads).finish();
    }
    case Pattern::planes: {
      PlanesBackward<T> work(p);
      return all_cells(work, p.threads).finish();
    }
    default: {
      ColumnsBackward<T> work(p);
      all_cells(work, p.threads).finish();
    }
  }
}

inline void forward(const Params& p) {
  with_type(p.type, [&](auto zero) { forward_of<decltype(zero)>(p); });
}

inline void backward(const Params& p) {
  with_type(p.type, [&](auto zero) { backward_of<decltype(zero)>(p); });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
