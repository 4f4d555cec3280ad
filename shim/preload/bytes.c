// memcpy and its kind for the hook: general registers only, and never libc's.
//
// Why: a system call keeps the vector registers, and libc's own versions use them. These are hidden, so that they serve
// this library alone; compilers also call them for copies of structures. x86-64's string instructions are as fast as vectors
// for the sizes that matter (pages), and start slowly, so short copies go by words.
#include <stddef.h>
#include <stdint.h>
#include "words.h"

#define OWN __attribute__((visibility("hidden")))

typedef fos_word word;
typedef fos_half half;

OWN void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    uint8_t *target = to;
    const uint8_t *source = from;
    if (bytes >= 8 && bytes <= 128) {
        size_t last = bytes - 8;
        uint64_t end = *(const word *)(source + last);
        for (size_t i = 0; i < last; i += 8) {
            *(word *)(target + i) = *(const word *)(source + i);
            __asm__ __volatile__("" : : : "memory");  // or the compiler makes a call of memcpy of it
        }
        *(word *)(target + last) = end;
        return to;
    }
    if (bytes < 8) {
        if (bytes >= 4) {
            uint32_t end = *(const half *)(source + bytes - 4);
            *(half *)target = *(const half *)source;
            *(half *)(target + bytes - 4) = end;
        } else if (bytes > 0) {
            uint8_t middle = source[bytes / 2], end = source[bytes - 1];
            *target = *source;
            target[bytes / 2] = middle;
            target[bytes - 1] = end;
        }
        return to;
    }
    __asm__ __volatile__("rep movsb" : "+D"(target), "+S"(source), "+c"(bytes) : : "memory");
    return to;
}

OWN void *memmove(void *to, const void *from, size_t bytes) {
    uint8_t *target = to;
    const uint8_t *source = from;
    if ((uintptr_t)target - (uintptr_t)source >= bytes) {
        __asm__ __volatile__("rep movsb" : "+D"(target), "+S"(source), "+c"(bytes) : : "memory");
    } else {
        while (bytes-- > 0) {
            target[bytes] = source[bytes];
            __asm__ __volatile__("" : : : "memory");
        }
    }
    return to;
}

OWN void *memset(void *to, int value, size_t bytes) {
    uint8_t *target = to;
    if (bytes <= 256) {
        uint64_t all = (uint8_t)value * UINT64_C(0x0101010101010101);
        size_t at = 0;
        for (; at + 8 <= bytes; at += 8) {
            *(word *)(target + at) = all;
            __asm__ __volatile__("" : : : "memory");  // as above
        }
        for (; at < bytes; at++) {
            target[at] = (uint8_t)value;
            __asm__ __volatile__("" : : : "memory");
        }
        return to;
    }
    __asm__ __volatile__("rep stosb" : "+D"(target), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

OWN int memcmp(const void *one, const void *other, size_t bytes) {
    const uint8_t *a = one, *b = other;
    for (; bytes >= 8 && *(const word *)a == *(const word *)b; bytes -= 8) a += 8, b += 8;
    for (; bytes > 0; bytes--, a++, b++) {
        if (*a != *b) return *a < *b ? -1 : 1;
    }
    return 0;
}

OWN void *memchr(const void *text, int value, size_t bytes) {
    const char *start = text;
    const word *at = (const word *)fos_aligned(start);
    uint64_t all = fos_each_byte((uint8_t)value);
    size_t within = (uintptr_t)start & 7;
    if (bytes == 0) return NULL;
    uint64_t found = fos_zero_bytes((*at ^ all) | fos_bits_before(start));
    // How far the word that comes next is from the start.
    for (size_t passed = 8 - within; found == 0; passed += 8) {
        if (passed >= bytes) return NULL;
        found = fos_zero_bytes(*++at ^ all);
    }
    size_t where = (size_t)((const char *)at - start) + fos_first_byte(found);
    return where < bytes ? (void *)(uintptr_t)(start + where) : NULL;
}

OWN size_t strlen(const char *text) {
    return fos_length(text);
}

OWN char *strchr(const char *text, int value) {
    for (;; text++) {
        if (*text == (char)value) return (char *)(uintptr_t)text;
        if (*text == 0) return NULL;
    }
}

// 1: a word that begins here is all in one page, where there may be nothing behind the text.
static int lies_in_page(const char *text) { return ((uintptr_t)text & 4095) <= 4096 - 8; }

OWN int strncmp(const char *one, const char *other, size_t bytes) {
    while (bytes >= 8 && lies_in_page(one) && lies_in_page(other)) {
        uint64_t here = fos_word_at(one);
        if (here != fos_word_at(other) || fos_zero_bytes(here) != 0) break;
        bytes -= 8, one += 8, other += 8;
    }
    for (; bytes > 0; bytes--, one++, other++) {
        if (*one != *other) return (uint8_t)*one < (uint8_t)*other ? -1 : 1;
        if (*one == 0) return 0;
    }
    return 0;
}

OWN int strcmp(const char *one, const char *other) { return strncmp(one, other, SIZE_MAX); }
