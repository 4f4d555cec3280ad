// System calls of the proxy, made directly.
//
// Role: the proxy runs inside other people's programs, also in the middle of their system calls (under the preload
// shim), so it must neither touch errno nor depend on libc functions that might be redirected. Each call returns the
// kernel's result: a negative errno on failure. Only vDSO functions (clock_gettime, sched_getcpu) come from libc.
#ifndef FOS_PROXY_SYSTEM_H
#define FOS_PROXY_SYSTEM_H

#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#if defined(__x86_64__)
static inline long fos_system(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ __volatile__("syscall"
                         : "=a"(result)
                         : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                         : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long fos_system(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ __volatile__("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "fos runs on x86-64 and AArch64"
#endif

// CLOCK_MONOTONIC in nanoseconds; no system call (vDSO).
static inline uint64_t fos_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline struct timespec fos_timespec(uint64_t nanoseconds) {
    return (struct timespec){.tv_sec = (time_t)(nanoseconds / 1000000000u), .tv_nsec = (long)(nanoseconds % 1000000000u)};
}

// Sleeps while *word == value, at most timeout_ns. The memory is shared between processes: no FUTEX_PRIVATE_FLAG.
static inline long fos_futex_wait(const uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = fos_timespec(timeout_ns);
    return fos_system(SYS_futex, (long)word, FUTEX_WAIT, value, (long)&timeout, 0, 0);
}
// Wakes one sleeper; returns how many woke. Works on a read-only mapping (futex(2): waking only needs the page).
static inline long fos_futex_wake(const uint32_t *word) { return fos_system(SYS_futex, (long)word, FUTEX_WAKE, 1, 0, 0, 0); }

static inline void fos_sleep(uint64_t nanoseconds) {
    struct timespec time = fos_timespec(nanoseconds);
    fos_system(SYS_nanosleep, (long)&time, 0, 0, 0, 0, 0);
}

#endif
