// Torch's own threads for the kernels' tasks.
#pragma once

#include <cstdint>

#include "params.h"

namespace anynorm {

// Returns how to run tasks on a tensor with this number of values and bytes.
Threads threads_for(int64_t values, int64_t bytes);

}  // namespace anynorm
