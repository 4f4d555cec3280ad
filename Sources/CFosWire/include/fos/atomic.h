// Atomic access to words in shared memory, as static inline functions that both C and Swift call.
//
// Swift does not import structs with _Atomic fields, so shared words are plain integers and every access to
// one goes through here. Each name says its memory order; there is no relaxed store on a word that publishes data.
#ifndef FOS_ATOMIC_H
#define FOS_ATOMIC_H

#include <stdint.h>

static inline uint32_t fos_load_acquire_u32(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline uint64_t fos_load_acquire_u64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline uint32_t fos_load_relaxed_u32(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline uint64_t fos_load_relaxed_u64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void fos_store_release_u32(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline void fos_store_release_u64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline void fos_store_relaxed_u32(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void fos_store_relaxed_u64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline uint64_t fos_exchange_u64(uint64_t *word, uint64_t value) { return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL); }
static inline uint64_t fos_fetch_or_u64(uint64_t *word, uint64_t bits) { return __atomic_fetch_or(word, bits, __ATOMIC_SEQ_CST); }
static inline uint32_t fos_fetch_add_u32(uint32_t *word, uint32_t amount) { return __atomic_fetch_add(word, amount, __ATOMIC_SEQ_CST); }
static inline uint64_t fos_fetch_add_u64(uint64_t *word, uint64_t amount) { return __atomic_fetch_add(word, amount, __ATOMIC_SEQ_CST); }
static inline int fos_compare_exchange_u32(uint32_t *word, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
// The full fence of the sleep protocol: publish, fence, look at the other side's parked flag.
// A locked instruction on the stack does on x86 what mfence does, in a third of the time.
static inline void fos_fence(void) {
#if defined(__x86_64__)
    __asm__ __volatile__("lock; addl $0, -4(%%rsp)" ::: "memory", "cc");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
// The same right after a sequentially consistent fetch_or or fetch_add. On x86 its locked instruction is a full barrier
// already, and a second one costs a tenth of a round trip; elsewhere a later load may still come before its store.
static inline void fos_fence_after_update(void) {
#if defined(__x86_64__) || defined(__i386__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    fos_fence();
#endif
}
// A cache line will be written soon: it is asked for now, while what is to be written is still being worked out.
static inline void fos_prefetch_to_write(const void *address) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)address));
#else
    __builtin_prefetch(address, 1, 3);
#endif
}
// A cache line was written for another CPU: it is on its way to where both find it, before that one asks. A hint (Intel's SDM,
// CLDEMOTE); a processor that has no such instruction takes it for none. Of a round trip with three lines it saves a fifth.
static inline void fos_demote(const void *address) {
#if defined(__x86_64__)
    __asm__ __volatile__("cldemote %0" : : "m"(*(const char *)address));
#else
    (void)address;
#endif
}
static inline void fos_spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
