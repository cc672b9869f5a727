// The kernels for avx512; the build gives the compiler its flags.
#define ANYNORM_ISA avx512
#include "isa.h"

const anynorm::Kernels anynorm::avx512_kernels{"avx512", anynorm::avx512::forward,
                                               anynorm::avx512::backward,
                                               anynorm::avx512::statistics};
