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
Work& all_rows(Work& work, const Pool& pool) {
  each_task(pool, work.tasks(), [&](int64_t task) { work.run(task); });
  return work;
}

template <class Work>
Work& all_cells(Work& work, const Pool& pool) {
  drive(work, pool, work.cell_bytes());
  return work;
}

template <class T>
void forward_of(const Problem& p) {
  switch (p.geometry.pattern) {
    case Pattern::rows: {
      RowsForward<T> work(p);
      all_rows(work, p.pool);
      return;
    }
    case Pattern::planes: {
      PlanesForward<T> work(p);
      all_cells(work, p.pool);
      return;
    }
    default: {
      ColumnsForward<T> work(p);
      all_cells(work, p.pool);
    }
  }
}

template <class T>
void backward_of(const Problem& p) {
  switch (p.geometry.pattern) {
    case Pattern::rows: {
      RowsBackward<T> work(p);
      return all_rows(work, p.pool).finish();
    }
    case Pattern::planes: {
      PlanesBackward<T> work(p);
      return all_cells(work, p.pool).finish();
    }
    default: {
      ColumnsBackward<T> work(p);
      all_cells(work, p.pool).finish();
    }
  }
}

inline void forward(const Problem& p) {
  with_type(p.type, [&](auto zero) { forward_of<decltype(zero)>(p); });
}

inline void backward(const Problem& p) {
  with_type(p.type, [&](auto zero) { backward_of<decltype(zero)>(p); });
}

}  // namespace ANYNORM_ISA
}  // namespace anynorm
