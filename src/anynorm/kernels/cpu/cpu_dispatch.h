// Choices that are made once, when the library is loaded.
#pragma once

#include "params.h"

namespace anynorm {

// The kernels for the machine's best instruction set, or for the one that ANYNORM_ISA names.
const Kernels& kernels();

// Whether ANYNORM_HUGE_PAGES allows huge pages.
bool huge_pages();

}  // namespace anynorm
