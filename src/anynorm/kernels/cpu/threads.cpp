#include "threads.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <new>

namespace anynorm {
namespace {

constexpr int64_t kAlone = 32 << 10;  // fewer values are finished before another thread wakes up
constexpr int64_t kCached = 8 << 20;  // bytes that fit in the caches: threads keep their parts

using Task = void (*)(void* context, int64_t task);

// An exception must not leave a thread that is not the caller's.  Kernels throw but one.
class Tasks {
 public:
  Tasks(Task f, void* context) : f_(f), context_(context) {}

  void run(int64_t task) {
    try {
      f_(context_, task);
    } catch (const std::bad_alloc&) {
      failed_.store(true, std::memory_order_relaxed);
    }
  }
  int64_t next() { return next_.fetch_add(1, std::memory_order_relaxed); }
  void finish() const {
    if (failed_.load(std::memory_order_relaxed)) throw std::bad_alloc();
  }

 private:
  const Task f_;
  void* const context_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
};

void run_alone(int64_t tasks, Task f, void* context) {
  for (int64_t task = 0; task < tasks; ++task) f(context, task);
}

// Adjacent tasks, the same number for each thread.
void run_parts(int64_t count, Task f, void* context) {
  if (count == 1) return f(context, 0);
  Tasks tasks(f, context);
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) tasks.run(task);
  });
  tasks.finish();
}

// Each thread takes the next task.  Inside another parallel region torch runs all on one thread.
void run_queue(int64_t count, Task f, void* context) {
  if (count == 1) return f(context, 0);
  Tasks tasks(f, context);
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t task; (task = tasks.next()) < count;) tasks.run(task);
  });
  tasks.finish();
}

}  // namespace

Threads threads_for(int64_t values, int64_t bytes) {
  const int threads = values < kAlone ? 1 : int(torch::stable::get_num_threads());
  if (threads == 1) return {1, run_alone};
  return {threads, bytes < kCached ? run_parts : run_queue};
}

}  // namespace anynorm
