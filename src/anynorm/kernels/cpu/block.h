// Sixteen lanes of float or double, independent of the width of the machine's registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define ANYNORM_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define ANYNORM_REGISTER_BYTES 32
#else
#define ANYNORM_REGISTER_BYTES 16
#endif

#define ANYNORM_INLINE inline __attribute__((always_inline))

namespace anynorm {
namespace ANYNORM_ISA {

constexpr int64_t kLanes = 16;

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// The type for computations with values of a storage type.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};

template <class C>
struct Block {
  static constexpr int kWidth = ANYNORM_REGISTER_BYTES / sizeof(C);
  static constexpr int kParts = kLanes / kWidth;
  using Integer = typename IntegerOf<C>::type;
  typedef C Vector __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));
  typedef Integer Mask __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));

  Vector part[kParts];

  Block() = default;
  ANYNORM_INLINE explicit Block(C value) {
    for (int i = 0; i < kParts; ++i) part[i] = Vector{} + value;
  }
};

// All lanes set or none, as comparisons give them.
template <class C>
struct Lanes {
  typename Block<C>::Mask part[Block<C>::kParts];
};

#define ANYNORM_EACH for (int i = 0; i < Block<C>::kParts; ++i)
#define ANYNORM_BINARY(op)                                        \
  template <class C>                                              \
  ANYNORM_INLINE Block<C> operator op(Block<C> a, Block<C> b) {   \
    Block<C> out;                                                 \
    ANYNORM_EACH out.part[i] = a.part[i] op b.part[i];            \
    return out;                                                   \
  }
ANYNORM_BINARY(+)
ANYNORM_BINARY(-)
ANYNORM_BINARY(*)
ANYNORM_BINARY(/)
#undef ANYNORM_BINARY

#define ANYNORM_COMPARE(op)                                       \
  template <class C>                                              \
  ANYNORM_INLINE Lanes<C> operator op(Block<C> a, Block<C> b) {   \
    Lanes<C> out;                                                 \
    ANYNORM_EACH out.part[i] = a.part[i] op b.part[i];            \
    return out;                                                   \
  }
ANYNORM_COMPARE(<)
ANYNORM_COMPARE(<=)
ANYNORM_COMPARE(>)
ANYNORM_COMPARE(>=)
ANYNORM_COMPARE(==)
#undef ANYNORM_COMPARE

template <class C>
ANYNORM_INLINE Block<C> choose(Lanes<C> where, Block<C> a, Block<C> b) {
  Block<C> out;
  ANYNORM_EACH out.part[i] = where.part[i] ? a.part[i] : b.part[i];
  return out;
}

template <class C>
ANYNORM_INLINE Block<C> fma(Block<C> a, Block<C> b, Block<C> c) {
  return a * b + c;  // contracted where the machine can
}

template <class C>
ANYNORM_INLINE Block<C> absolute(Block<C> a) {
  return choose(a < Block<C>(0), Block<C>(0) - a, a);
}

// Minimum and maximum; a lane that was NaN stays NaN.
template <class C>
ANYNORM_INLINE Block<C> least(Block<C> seen, Block<C> a) {
  return choose(seen <= a, seen, choose(a < seen, a, seen + a));
}

template <class C>
ANYNORM_INLINE Block<C> most(Block<C> seen, Block<C> a) {
  return choose(seen >= a, seen, choose(a > seen, a, seen + a));
}

template <class C>
ANYNORM_INLINE Block<C> sign(Block<C> a) {
  const Block<C> zero(0);
  return choose(a > zero, Block<C>(1), choose(a < zero, Block<C>(-1), a));
}

// ---- memory ---------------------------------------------------------------------------------

template <class V>
ANYNORM_INLINE V read(const void* from) {
  V out;
  std::memcpy(&out, from, sizeof(V));
  return out;
}

template <class V>
ANYNORM_INLINE void write(void* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

// Bypasses the caches; `to` is aligned to the size of a register.
template <class V>
ANYNORM_INLINE void write_through(void* to, V value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return _mm512_stream_si512((__m512i*)to, read<__m512i>(&value));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) return _mm256_stream_si256((__m256i*)to, read<__m256i>(&value));
#endif
#if defined(__x86_64__)
  if constexpr (sizeof(V) == 16) return _mm_stream_si128((__m128i*)to, read<__m128i>(&value));
#endif
  write(to, value);
}

constexpr int kFloats = Block<float>::kWidth;
typedef float FloatVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));
typedef uint32_t WordVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));
typedef int32_t IntVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));
typedef uint16_t HalfVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES / 2)));

ANYNORM_INLINE WordVector as_words(FloatVector a) { return (WordVector)a; }
ANYNORM_INLINE FloatVector as_floats(WordVector a) { return (FloatVector)a; }
ANYNORM_INLINE WordVector select(IntVector where, WordVector a, WordVector b) {
  return where ? a : b;
}

template <class T>
ANYNORM_INLINE FloatVector widen(HalfVector half);
template <class T>
ANYNORM_INLINE HalfVector narrow(FloatVector value);

template <>
ANYNORM_INLINE FloatVector widen<BFloat16>(HalfVector half) {
#if defined(__AVX512F__)  // which GCC 12 does in four instructions
  return as_floats((WordVector)_mm512_cvtepu16_epi32((__m256i)half) << 16);
#elif defined(__AVX2__)
  return as_floats((WordVector)_mm256_cvtepu16_epi32((__m128i)half) << 16);
#else
  return as_floats(__builtin_convertvector(half, WordVector) << 16);
#endif
}

// Rounded to nearest, even; the result is in the upper half of each word.
ANYNORM_INLINE WordVector round_to_bfloat16(FloatVector value) {
  const WordVector words = as_words(value);
  const WordVector rounded = words + 0x7fff + ((words >> 16) & 1);
  return select(value == value, rounded, WordVector{} + 0x7fc00000);
}

template <>
ANYNORM_INLINE HalfVector narrow<BFloat16>(FloatVector value) {
  return __builtin_convertvector(round_to_bfloat16(value) >> 16, HalfVector);
}

#if defined(__F16C__)
template <>
ANYNORM_INLINE FloatVector widen<Float16>(HalfVector half) {
#if defined(__AVX512F__)
  return (FloatVector)_mm512_cvtph_ps((__m256i)half);
#else
  return (FloatVector)_mm256_cvtph_ps((__m128i)half);
#endif
}

template <>
ANYNORM_INLINE HalfVector narrow<Float16>(FloatVector value) {
#if defined(__AVX512F__)
  return (HalfVector)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return (HalfVector)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
}
#else
template <>
ANYNORM_INLINE FloatVector widen<Float16>(HalfVector half) {
  const WordVector words = __builtin_convertvector(half, WordVector);
  const WordVector magnitude = words & 0x7fff, sign = (words & 0x8000) << 16;
  // Moved to a float's place, the exponent lacks 127 − 15; the product also makes subnormals normal.
  const FloatVector finite = as_floats(magnitude << 13) * 0x1p112f;
  const WordVector special = (magnitude << 13) | 0x7f800000;
  return as_floats(select((IntVector)(magnitude >= 0x7c00), special, as_words(finite)) | sign);
}

template <>
ANYNORM_INLINE HalfVector narrow<Float16>(FloatVector value) {
  const WordVector words = as_words(value);
  const WordVector magnitude = words & 0x7fffffff, sign = (words >> 16) & 0x8000;
  const WordVector rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  const WordVector normal = (rounded - (112u << 23)) >> 13;
  // One half has a last place as large as the smallest half-precision number.
  const FloatVector half = FloatVector{} + 0.5f;
  const WordVector subnormal = as_words(as_floats(magnitude) + half) - as_words(half);
  WordVector out = select((IntVector)(magnitude < (113u << 23)), subnormal, normal);
  out = select((IntVector)(rounded >= (143u << 23)), WordVector{} + 0x7c00, out);
  out = select((IntVector)(magnitude > 0x7f800000u), WordVector{} + 0x7e00, out);
  return __builtin_convertvector(out | sign, HalfVector);
}
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
// A block of 16-bit values is one register: GCC 12 takes more instructions to narrow its halves.
template <class T>
ANYNORM_INLINE __m256i narrow_block(const Block<float>& value) {
  return _mm256_set_m128i((__m128i)narrow<T>(value.part[1]), (__m128i)narrow<T>(value.part[0]));
}

template <>
ANYNORM_INLINE __m256i narrow_block<BFloat16>(const Block<float>& value) {
  const WordVector low = round_to_bfloat16(value.part[0]) >> 16;
  const WordVector high = round_to_bfloat16(value.part[1]) >> 16;
  return _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)low, (__m256i)high), 0xd8);
}

template <class T>
ANYNORM_INLINE Block<float> widen_block(__m256i halves) {
  Block<float> out;
  out.part[0] = widen<T>((HalfVector)_mm256_castsi256_si128(halves));
  out.part[1] = widen<T>((HalfVector)_mm256_extracti128_si256(halves, 1));
  return out;
}

// The first `count` < 16 halves, by pairs; the others are zero.
ANYNORM_INLINE __m256i read_halves(const void* from, int64_t count) {
  const __m256i pairs = _mm256_set1_epi32(int(count / 2));
  const __m256i numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto whole = _mm256_maskload_epi32((const int*)from, _mm256_cmpgt_epi32(pairs, numbers));
  if (count % 2 == 0) return whole;
  const __m256i last = _mm256_set1_epi32(read<uint16_t>((const char*)from + 2 * (count - 1)));
  return _mm256_or_si256(whole, _mm256_and_si256(last, _mm256_cmpeq_epi32(pairs, numbers)));
}

// The first `bytes` < 32 of a register: memcpy would be a call, and masked writes are slow on Zen.
ANYNORM_INLINE void write_first(void* to, __m256i value, int64_t bytes) {
  char* at = (char*)to;
  __m128i rest = _mm256_castsi256_si128(value);
  if (bytes & 16) write(at, rest), at += 16, rest = _mm256_extracti128_si256(value, 1);
  if (bytes & 8) write(at, _mm_cvtsi128_si64(rest)), at += 8, rest = _mm_srli_si128(rest, 8);
  if (bytes & 4) write(at, _mm_cvtsi128_si32(rest)), at += 4, rest = _mm_srli_si128(rest, 4);
  if (bytes & 2) write(at, uint16_t(_mm_extract_epi16(rest, 0)));
}
#endif

template <class T>
ANYNORM_INLINE Block<Compute<T>> load(const T* from) {
  using C = Compute<T>;
  Block<C> out;
  ANYNORM_EACH {
    if constexpr (sizeof(T) == sizeof(C)) {
      out.part[i] = read<typename Block<C>::Vector>(from + i * Block<C>::kWidth);
    } else {
      out.part[i] = widen<T>(read<HalfVector>(from + i * kFloats));
    }
  }
  return out;
}

template <class T>
ANYNORM_INLINE void store(T* to, Block<Compute<T>> value, bool through) {
  using C = Compute<T>;
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == 2) {
    const __m256i halves = narrow_block<T>(value);
    return through ? write_through(to, halves) : write(to, halves);
  }
#endif
  ANYNORM_EACH {
    T* place = to + i * Block<C>::kWidth;
    if constexpr (sizeof(T) == sizeof(C)) {
      through ? write_through(place, value.part[i]) : write(place, value.part[i]);
    } else {
      const HalfVector half = narrow<T>(value.part[i]);
      through ? write_through(place, half) : write(place, half);
    }
  }
}

// The first `count` < 16 lanes; the others are zero.
template <class T>
ANYNORM_INLINE Block<Compute<T>> load_first(const T* from, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    Block<float> out;
    out.part[0] = (FloatVector)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
    return out;
  }
  if constexpr (sizeof(T) == 2) {
    Block<float> out;
    out.part[0] = widen<T>((HalfVector)_mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), from));
    return out;
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    Block<float> out;
    for (int i = 0; i < Block<float>::kParts; ++i) {
      const __m256i numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      const __m256i wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32(count - i * kFloats), numbers);
      out.part[i] = (FloatVector)_mm256_maskload_ps(from + i * kFloats, wanted);
    }
    return out;
  }
  if constexpr (sizeof(T) == 2) return widen_block<T>(read_halves(from, count));
#endif
  T padded[kLanes] = {};
  std::memcpy(padded, from, count * sizeof(T));
  return load(padded);
}

template <class T>
ANYNORM_INLINE void store_first(T* to, Block<Compute<T>> value, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value.part[0]);
  }
  if constexpr (sizeof(T) == 2) {
    return _mm256_mask_storeu_epi16(to, (__mmask16)((1u << count) - 1),
                                    (__m256i)narrow<T>(value.part[0]));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 2) return write_first(to, narrow_block<T>(value), 2 * count);
  if constexpr (sizeof(T) == 4) {
    if (count < kFloats) return write_first(to, (__m256i)value.part[0], 4 * count);
    write(to, value.part[0]);
    return write_first(to + kFloats, (__m256i)value.part[1], 4 * (count - kFloats));
  }
#endif
  T padded[kLanes];
  store(padded, value, false);
  std::memcpy(to, padded, count * sizeof(T));
}

// The index of each lane.
template <class C>
ANYNORM_INLINE Block<C> numbers() {
  Block<C> out;
  ANYNORM_EACH for (int k = 0; k < Block<C>::kWidth; ++k) out.part[i][k] = i * Block<C>::kWidth + k;
  return out;
}

// The first `count` lanes, and `rest` in the others.
template <class C>
ANYNORM_INLINE Block<C> first(Block<C> value, int64_t count, C rest) {
  return choose(numbers<C>() < Block<C>(C(count)), value, Block<C>(rest));
}

typedef double DoubleVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES)));
typedef float HalfFloatVector __attribute__((vector_size(ANYNORM_REGISTER_BYTES / 2)));

ANYNORM_INLINE DoubleVector doubles(HalfFloatVector value) {
#if defined(__AVX512F__)
  return (DoubleVector)_mm512_cvtps_pd((__m256)value);
#elif defined(__AVX2__)
  return (DoubleVector)_mm256_cvtps_pd((__m128)value);
#else
  return __builtin_convertvector(value, DoubleVector);
#endif
}

// The same values in a type that is as precise or more.
template <class C, class B>
ANYNORM_INLINE Block<C> as(Block<B> value) {
  if constexpr (sizeof(B) == sizeof(C)) {
    return value;
  } else {
    Block<C> out;
    const char* bytes = (const char*)&value;
    ANYNORM_EACH {
      out.part[i] = doubles(read<HalfFloatVector>(bytes + i * sizeof(HalfFloatVector)));
    }
    return out;
  }
}

// The sum of all lanes, in double precision.
template <class C>
ANYNORM_INLINE double sum(Block<C> value) {
  const Block<double> wide = as<double>(value);
  DoubleVector total{};
  for (const DoubleVector& part : wide.part) total += part;
  double out = 0;
  for (int i = 0; i < Block<double>::kWidth; i += 2) out += total[i] + total[i + 1];
  return out;
}

inline double least(double a, double b) { return a < b || a != a ? a : b; }
inline double most(double a, double b) { return a > b || a != a ? a : b; }

// The reduction of all lanes by `least` or `most`.
template <class C>
inline double fold(Block<C> value, double (*together)(double, double)) {
  C lanes[kLanes];
  store(lanes, value, false);
  double out = lanes[0];
  for (C lane : lanes) out = together(out, lane);
  return out;
}

// ---- bits -----------------------------------------------------------------------------------

// Bit i is lane i.
template <class C>
ANYNORM_INLINE uint32_t pack(Lanes<C> lanes) {
#if defined(__AVX512F__)
  if constexpr (sizeof(C) == 4) {
    return _mm512_movepi32_mask((__m512i)lanes.part[0]);
  } else {
    return _mm512_movepi64_mask((__m512i)lanes.part[0]) |
           _mm512_movepi64_mask((__m512i)lanes.part[1]) << 8;
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(C) == 4) {
    return _mm256_movemask_ps((__m256)lanes.part[0]) |
           _mm256_movemask_ps((__m256)lanes.part[1]) << 8;
  }
#endif
  uint32_t bits = 0;
  for (int64_t i = 0; i < kLanes; ++i) {
    bits |= (uint32_t)(lanes.part[i / Block<C>::kWidth][i % Block<C>::kWidth] & 1) << i;
  }
  return bits;
}

template <class C>
ANYNORM_INLINE Lanes<C> unpack(uint32_t bits) {
  using Mask = typename Block<C>::Mask;
  Lanes<C> out;
  ANYNORM_EACH {
    Mask bit;
    for (int k = 0; k < Block<C>::kWidth; ++k) bit[k] = 1 << (i * Block<C>::kWidth + k);
    out.part[i] = ((Mask{} + (typename Block<C>::Integer)bits) & bit) != 0;
  }
  return out;
}

ANYNORM_INLINE void fence() {
#if defined(__x86_64__)
  _mm_sfence();  // makes writes that bypassed the caches visible to other threads
#endif
}

// ---- small helpers --------------------------------------------------------------------------

// A compile-time constant as an argument.
template <auto v>
struct Is {
  static constexpr auto value = v;
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

}  // namespace ANYNORM_ISA
}  // namespace anynorm
