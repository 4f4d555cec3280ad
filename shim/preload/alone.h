// Atomic changes of words that only this process knows (contexts, descriptions, slots), without a lock while it has one thread.
//
// Why: a locked instruction costs some 20 cycles, and an open with its close made seventeen. Most programs that work on many files
// have one thread. Then only a signal handler can come in between, and to it any single instruction is atomic.
// Protocol: libc's mark (sys/single_threaded.h) says whether it has made another thread. It is not believed any more once a thread
// was seen to be made, which a program can do by clone(2) itself. Both happen before the thread begins, in the thread that makes
// it. Each function here looks at the mark and then makes its one change.
// Invariant: never for memory that another process maps (channels, regions, tallies).
#ifndef FOS_ALONE_H
#define FOS_ALONE_H

#include <stdint.h>
#include <fos/atomic.h>

#pragma GCC visibility push(hidden)
// process.c: libc's mark, or a byte that is 0.
extern const volatile char *fos_alone_mark;
void fos_alone_start(void);
#pragma GCC visibility pop

static inline int fos_is_alone(void) { return *fos_alone_mark != 0; }

// The value before.
static inline uint32_t fos_own_fetch_add_u32(uint32_t *word, uint32_t amount) {
#if defined(__x86_64__)
    if (__builtin_expect(fos_is_alone(), 1)) {
        __asm__ __volatile__("xaddl %0, %1" : "+r"(amount), "+m"(*word) : : "memory", "cc");
        return amount;
    }
#endif
    return __atomic_fetch_add(word, amount, __ATOMIC_ACQ_REL);
}

// 1: the word was `expected` and is `desired`.
static inline int fos_own_compare_exchange_u32(uint32_t *word, uint32_t expected, uint32_t desired) {
#if defined(__x86_64__)
    if (__builtin_expect(fos_is_alone(), 1)) {
        int is_done;
        __asm__ __volatile__("cmpxchgl %3, %1" : "=@ccz"(is_done), "+m"(*word), "+a"(expected) : "r"(desired) : "memory");
        return is_done;
    }
#endif
    return fos_compare_exchange_u32(word, expected, desired);
}

static inline int fos_own_compare_exchange_u64(uint64_t *word, uint64_t expected, uint64_t desired) {
#if defined(__x86_64__)
    if (__builtin_expect(fos_is_alone(), 1)) {
        int is_done;
        __asm__ __volatile__("cmpxchgq %3, %1" : "=@ccz"(is_done), "+m"(*word), "+a"(expected) : "r"(desired) : "memory");
        return is_done;
    }
#endif
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

// The value before. An exchange with memory is always locked, so alone it is tried as a comparison.
static inline uint32_t fos_own_exchange_u32(uint32_t *word, uint32_t value) {
    while (__builtin_expect(fos_is_alone(), 1)) {
        uint32_t before = fos_load_relaxed_u32(word);
        if (fos_own_compare_exchange_u32(word, before, value)) return before;
    }
    return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}

#endif
