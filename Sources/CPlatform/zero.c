// Zeroing past the caches: streaming stores of 32 bytes where the processor has them, of 16 on any other x86-64, memset elsewhere.
#include <cplatform/zero.h>

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx"))) static void zero_wide(char *start, size_t bytes) {
    __m256i zero = _mm256_setzero_si256();
    for (char *line = start; line < start + bytes; line += 64) {
        _mm256_stream_si256((__m256i *)line, zero);
        _mm256_stream_si256((__m256i *)(line + 32), zero);
    }
}

static void zero_narrow(char *start, size_t bytes) {
    __m128i zero = _mm_setzero_si128();
    for (char *line = start; line < start + bytes; line += 64) {
        for (int part = 0; part < 64; part += 16) { _mm_stream_si128((__m128i *)(line + part), zero); }
    }
}

void fos_platform_zero(void *start, size_t bytes) {
    if (__builtin_cpu_supports("avx")) {
        zero_wide(start, bytes);
    } else {
        zero_narrow(start, bytes);
    }
    // Streaming stores are not ordered with others, so neither with the message that grants the memory.
    _mm_sfence();
}
#else
void fos_platform_zero(void *start, size_t bytes) { memset(start, 0, bytes); }
#endif
