// Threads, CPUs, clocks and futexes.
#ifndef FOS_CPLATFORM_THREAD_H
#define FOS_CPLATFORM_THREAD_H

#include <stdint.h>
#include <time.h>

// Sleeps while *word == expected, at most timeout_ns (UINT64_MAX: no limit). The word may lie in shared memory.
// 0 woken, -EAGAIN the word already differs, -EINTR, -ETIMEDOUT. (futex(2), FUTEX_WAIT without FUTEX_PRIVATE_FLAG)
int fos_platform_futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns);
// Wakes at most `count` sleepers; returns how many. The word may be mapped read-only.
int fos_platform_futex_wake(uint32_t *word, int count);

// The CPUs that this process may use, ascending. Stores at most `room`, returns how many there are.
int fos_platform_allowed_cpus(int32_t *cpus, int room);
// Binds the calling thread to the given CPUs.
int fos_platform_pin_thread(const int32_t *cpus, int count);
// The CPU the calling thread runs on now.
int fos_platform_current_cpu(void);
// Names the calling thread (15 bytes), for ps and top.
void fos_platform_name_thread(const char *name);
// Sets the calling thread's nice value alone (Linux keeps one a thread).
int fos_platform_nice_thread(int nice);
// Blocks every signal but the synchronous ones (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT) on this thread.
void fos_platform_block_signals(void);
// Fills bytes from the kernel's generator.
int fos_platform_random(void *bytes, uint32_t count);
// Nanoseconds of CPU time that the calling thread has used.
uint64_t fos_platform_thread_cpu_ns(void);

static inline uint64_t fos_platform_monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
// The CPU's own clock, if it runs at a constant rate on all CPUs and can be read without a system call: ticks since some
// start. A third of the cost of clock_gettime, which waits for all earlier instructions. 0 if there is none.
static inline uint64_t fos_platform_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}
// Whether fos_platform_ticks can be trusted (on x86: the kernel's own clock source is the TSC).
int fos_platform_ticks_are_steady(void);

static inline void fos_platform_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }

// Wall-clock time: seconds through the pointer, nanoseconds as the result.
static inline uint32_t fos_platform_realtime(int64_t *seconds) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    *seconds = t.tv_sec;
    return (uint32_t)t.tv_nsec;
}

#endif
