// The kernels for baseline; the build gives the compiler its flags.
#define ANYNORM_ISA baseline
#include "isa.h"

const anynorm::Kernels anynorm::baseline_kernels{"baseline", anynorm::baseline::forward,
                                                 anynorm::baseline::backward,
                                                 anynorm::baseline::statistics};
