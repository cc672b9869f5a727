// Torch's own threads for the kernels' tasks.
#pragma once

#include <cstdint>

#include "problem.h"

namespace anynorm {

// The way to run tasks on a tensor of so many values and bytes.
Pool pool_for(int64_t values, int64_t bytes);

}  // namespace anynorm
