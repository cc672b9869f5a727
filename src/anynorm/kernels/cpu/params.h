// The parameters of a kernel: plain data, without torch and without templates of the standard
// library, because the linker would share their instances between instruction sets.
#pragma once

#include <cstdint>

#include "activations.h"

namespace anynorm {

enum class Type : int { float32, float64, bfloat16, float16 };

#define ANYNORM_NAME(name, by_sign, value, gradient) name,
enum class Phi : int { ANYNORM_ACTIVATIONS(ANYNORM_NAME) };
#undef ANYNORM_NAME

// s = factor · (mean |d|^p)^(1/p) for p = 2, 1 and ∞.
enum class Power : int { square, absolute, largest };

// The access patterns.  Every set of values that share μ and σ lies in memory as
//   rows     one contiguous row, with a γ for each value
//   planes   several contiguous runs, with one γ for each run
//   columns  the same columns of several rows, with a γ for each column
enum class Pattern : int { rows, planes, columns };

// Memory is (outer, runs, sets, length), statistics are over runs and length.  Sets are numbered
// outer · sets + set.  For columns, sets · length are the columns of a row.
struct Geometry {
  Pattern pattern;
  int64_t outer, runs, sets, length;
  // γ has `affine` values.  Its index for (outer o, run r, set s, value v) is
  //   (o % affine_period) · affine_outer + r · affine_run + s · affine_set + v / affine_repeat
  int64_t affine, affine_period, affine_outer, affine_run, affine_set, affine_repeat;
};

struct Statistic {
  bool center, about_mean;
  bool given;  // μ and s² are inputs (eval mode), and constants in the backward pass
  Power power;
  double factor, eps;
};

// Runs f(context, task) for all tasks, on several threads if there are any.
struct Threads {
  int count;
  void (*run)(int64_t tasks, void (*f)(void* context, int64_t task), void* context);
};

struct Params {
  Geometry geometry;
  Statistic statistic;
  Phi phi;
  Type type;
  Threads threads;
  bool stream;  // bypass the caches when writing
  const void *x, *dy, *residual;
  void *y, *dx, *dresidual;
  uint8_t* bits;             // z > 0: written by the forward pass, read by the backward pass
  double *mean, *square;     // one for each set
  const double *gamma, *beta;  // `affine` values each, or null
  double *dgamma, *dbeta;      // the same, written by the backward pass
};

// One for each instruction set.
struct Kernels {
  const char* name;
  void (*forward)(const Params&);
  void (*backward)(const Params&);
  void (*statistics)(const Params&);
};

extern const Kernels baseline_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;

}  // namespace anynorm
