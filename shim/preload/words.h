// Texts a word at a time, in general registers.
//
// Names and paths are short: what they cost is the loop, a byte at a time. Whole words are read where they are aligned, so that a
// text that ends before the end of a page is not read beyond it; or, of a text whose length is known, where they lie.
#ifndef FOS_WORDS_H
#define FOS_WORDS_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t __attribute__((may_alias, aligned(1))) fos_word;
typedef uint32_t __attribute__((may_alias, aligned(1))) fos_half;

static inline uint64_t fos_word_at(const char *text) { return *(const fos_word *)text; }
static inline uint64_t fos_each_byte(uint8_t value) { return value * UINT64_C(0x0101010101010101); }
// The highest bit of the first byte of a word that is 0, and perhaps of later ones; 0: none is.
static inline uint64_t fos_zero_bytes(uint64_t word) { return (word - fos_each_byte(1)) & ~word & fos_each_byte(0x80); }
// The place of the first of these bits, in bytes.
static inline size_t fos_first_byte(uint64_t bits) { return (size_t)__builtin_ctzll(bits) / 8; }
// The aligned word that a text begins in, and the bits of it that lie before the text.
static inline const uint64_t *fos_aligned(const char *text) { return (const uint64_t *)((uintptr_t)text & ~(uintptr_t)7); }
static inline uint64_t fos_bits_before(const char *text) { return (UINT64_C(1) << ((uintptr_t)text & 7) * 8) - 1; }

// The length of a text up to a byte `end` or its NUL.
static inline size_t fos_length_until(const char *text, char end) {
    const fos_word *at = (const fos_word *)fos_aligned(text);
    uint64_t all = fos_each_byte((uint8_t)end), before = fos_bits_before(text);
    // What lies before the text counts as neither.
    uint64_t found = (fos_zero_bytes(*at | before) | fos_zero_bytes((*at ^ all) | before));
    while (found == 0) {
        at++;
        found = fos_zero_bytes(*at) | fos_zero_bytes(*at ^ all);
    }
    return (size_t)((const char *)at - text) + fos_first_byte(found);
}

// strlen(3).
static inline size_t fos_length(const char *text) {
    const fos_word *at = (const fos_word *)fos_aligned(text);
    uint64_t found = fos_zero_bytes(*at | fos_bits_before(text));
    while (found == 0) found = fos_zero_bytes(*++at);
    return (size_t)((const char *)at - text) + fos_first_byte(found);
}

// strnlen(3), which in libc uses vector registers: what lies behind `most` bytes is not looked at, but for the rest of a word.
static inline size_t fos_length_within(const char *text, size_t most) {
    const fos_word *at = (const fos_word *)fos_aligned(text);
    uint64_t found = fos_zero_bytes(*at | fos_bits_before(text));
    while (found == 0 && (size_t)((const char *)(at + 1) - text) < most) found = fos_zero_bytes(*++at);
    size_t length = found == 0 ? most : (size_t)((const char *)at - text) + fos_first_byte(found);
    return length < most ? length : most;
}

// The last eight bytes of a text, or all of a shorter one, in one word: what is read twice of a short one tells no more.
static inline uint64_t fos_last_bytes(const char *text, size_t length) {
    if (length >= 8) return fos_word_at(text + length - 8);
    if (length >= 4) return (uint64_t)*(const fos_half *)text << 32 | *(const fos_half *)(text + length - 4);
    return length == 0 ? 0 : (uint64_t)(uint8_t)text[0] << 16 | (uint64_t)(uint8_t)text[length / 2] << 8 | (uint8_t)text[length - 1];
}
static inline int fos_is_same_text(const char *one, const char *other, size_t length) {
    for (size_t at = 0; at + 8 < length; at += 8) {
        if (fos_word_at(one + at) != fos_word_at(other + at)) return 0;
    }
    return fos_last_bytes(one, length) == fos_last_bytes(other, length);
}

#endif
