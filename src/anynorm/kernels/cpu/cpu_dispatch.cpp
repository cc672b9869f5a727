#include "cpu_dispatch.h"

#include <cstdlib>
#include <cstring>

namespace anynorm {
namespace {

#ifdef ANYNORM_X86
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

bool says(const char* variable, const char* value) {
  const char* set = std::getenv(variable);
  return set && std::strcmp(set, value) == 0;
}

// Python reports a name that is unknown, or that this machine lacks.
const Kernels* choose() {
#ifdef ANYNORM_X86
  __builtin_cpu_init();
  if (says("ANYNORM_ISA", "baseline")) return &baseline_kernels;
  if (has_avx512() && !says("ANYNORM_ISA", "avx2")) return &avx512_kernels;
  if (has_avx2()) return &avx2_kernels;
#endif
  return &baseline_kernels;
}

const Kernels* const chosen = choose();
const bool wanted = !says("ANYNORM_HUGE_PAGES", "0");

}  // namespace

const Kernels& kernels() { return *chosen; }

bool huge_pages() { return wanted; }

}  // namespace anynorm

extern "C" __attribute__((visibility("default"))) const char* anynorm_isa() {
  return anynorm::kernels().name;
}
