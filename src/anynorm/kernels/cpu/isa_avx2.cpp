// The kernels for avx2; the build gives the compiler its flags.
#define ANYNORM_ISA avx2
#include "isa.h"

const anynorm::Kernels anynorm::avx2_kernels{"avx2", anynorm::avx2::forward,
                                             anynorm::avx2::backward,
                                             anynorm::avx2::statistics};
