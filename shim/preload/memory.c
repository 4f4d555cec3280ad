// From a system call that changes memory to its handler; the lock; and when nothing more is served.
//
// The lock is the process's. It is held for a few system calls, with signals put off, so that no handler of this thread
// finds it taken; a child of vfork may have it too, in its parent's name. A holder that was killed is not waited for
// for ever.
// Withdrawing: what the program does next may keep frames beyond its mappings (pipes, io_uring, zero copy), or forbid the
// messages that a later fork needs (a system call filter). Then all that is served becomes private to this process, and
// nothing new is served.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "calls_numbers.h"
#include "memory.h"
#include "signals.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

enum { HOLDER_GONE_NS = 2000000000 };

int fos_memory_active;
uint32_t fos_memory_stopped = FOS_LEFT_OFF, fos_memory_lock_future;
uint64_t fos_memory_threshold;
static uint32_t word;  // of the lock: 0 free, 1 held, 2 held and waited for

// ---- the lock --------------------------------------------------------------------------------------------------------

static void wait_for_lock(void) {
    for (int look = 0; look < 200; look++) {
        uint32_t none = 0;
        if (__atomic_compare_exchange_n(&word, &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return;
        __builtin_ia32_pause();
    }
    uint64_t start = 0;
    while (__atomic_exchange_n(&word, 2, __ATOMIC_ACQUIRE) != 0) {
        struct timespec nap = fos_timespec(HOLDER_GONE_NS / 8);
        uint64_t now = fos_clock();
        if (start == 0) start = now;
        if (now - start > HOLDER_GONE_NS) return;
        fos_raw(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, &nap);
    }
}

void fos_memory_lock(struct fos_memory_lock *lock) {
    lock->more_follows = 0;
    lock->mask = fos_put_signals_off();
    uint32_t none = 0;
    if (!__atomic_compare_exchange_n(&word, &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) wait_for_lock();
}

void fos_memory_unlock(const struct fos_memory_lock *lock) {
    if (!lock->more_follows) fos_regions_settle();
    if (__atomic_exchange_n(&word, 0, __ATOMIC_RELEASE) == 2) fos_raw(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    fos_let_signals_in(lock->mask);
}

// ---- what is not served ----------------------------------------------------------------------------------------------

void fos_memory_count(uint32_t reason, uint64_t bytes) {
    fos_tally_add(&fos_tally->memory_linux[reason < FOS_LEFT_REASONS ? reason : FOS_LEFT_NONE], 1);
    if (reason != FOS_LEFT_SMALL) fos_tally_add(&fos_tally->memory_linux_bytes, bytes);
}

static void stop(uint32_t reason) {
    uint32_t none = 0;
    __atomic_compare_exchange_n(&fos_memory_stopped, &none, reason, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

void fos_memory_lock_reset(void) { word = 0; }

void fos_memory_withdraw(uint32_t reason, enum fos_freeze_extent what) {
    static int owned;  // once all pages are the process's own, they stay so
    if (!fos_memory_active || owned) return;
    stop(reason);
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    owned = fos_freeze(what) == 0 && what == FOS_FREEZE_OWN;
    fos_memory_unlock(&lock);
}

void fos_memory_give_up(void) { fos_memory_withdraw(FOS_LEFT_ASIDE, FOS_FREEZE_ALL); }

static int limited(void) {
    struct rlimit limit;
    for (int i = 0; i < 2; i++) {
        if (fos_raw(SYS_prlimit64, 0, i == 0 ? RLIMIT_AS : RLIMIT_DATA, 0, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) return 1;
    }
    return 0;
}

// Linux counts private memory that may be written against RLIMIT_DATA, and shared memory not; a program with such a limit,
// or with one on its address space, gets Linux's memory alone.
static long change_limit(struct fos_call *call) {
    const long *a = call->arguments;
    int sets = call->number == SYS_setrlimit || a[2] != 0;
    long what = call->number == SYS_setrlimit ? a[0] : a[1];
    if (!sets || (what != RLIMIT_AS && what != RLIMIT_DATA)) return FOS_PASS;
    long result = fos_raw(call->number, a[0], a[1], a[2], a[3]);
    if (result == 0 && limited()) fos_memory_withdraw(FOS_LEFT_LIMITED, FOS_FREEZE_ALL);
    return result;
}

// The kernel keeps frames of these beyond the mapping.
static long keeps_frames(struct fos_call *call) {
    enum { SO_ZEROCOPY_RAW = 60 };
    if (call->number == SYS_setsockopt && (call->arguments[1] != SOL_SOCKET || call->arguments[2] != SO_ZEROCOPY_RAW)) return FOS_PASS;
    fos_memory_withdraw(FOS_LEFT_KEPT, FOS_FREEZE_OWN);
    return FOS_PASS;
}

// Faults that the program wants to serve itself do not happen on memory that is there already.
static long serves_faults(struct fos_call *call) {
    (void)call;
    fos_memory_withdraw(FOS_LEFT_FAULTS, FOS_FREEZE_ALL);
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    fos_evacuate(0, UINTPTR_MAX);
    fos_memory_unlock(&lock);
    return FOS_PASS;
}

// A name for a mapping is for people who look at /proc/PID/maps; only anonymous memory can have one.
static long name_memory(struct fos_call *call) {
    const long *a = call->arguments;
    if (a[0] != PR_SET_VMA || fos_ranges_miss((uintptr_t)a[2], (uintptr_t)a[2] + (uintptr_t)a[3])) return FOS_PASS;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    int served = fos_ranges_meet((uintptr_t)a[2], (uintptr_t)a[2] + (uintptr_t)a[3]);
    fos_memory_unlock(&lock);
    return served ? 0 : FOS_PASS;
}

// ---- from call to handler --------------------------------------------------------------------------------------------

#define FOS_MEMORY_CALL(name, handler) {SYS_##name, handler},
static const struct {
    uint16_t number;
    long (*handler)(struct fos_call *call);
} handlers[] = {
#include "memory_calls.h"
};
#undef FOS_MEMORY_CALL

long fos_memory_handle(struct fos_call *call) {
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        if (handlers[i].number == call->number) return handlers[i].handler(call);
    }
    return FOS_PASS;
}

// Sanitizers keep their own books of memory, in mappings of enormous size.
extern void __asan_init(void) __attribute__((weak, visibility("default")));
extern void __tsan_init(void) __attribute__((weak, visibility("default")));
extern void __msan_init(void) __attribute__((weak, visibility("default")));

void fos_memory_start(uint64_t threshold) {
    if (threshold == 0) return;
    fos_memory_threshold = threshold < FOS_PAGE ? FOS_PAGE : threshold;
    fos_memory_stopped = 0;
    if (__asan_init != NULL || __tsan_init != NULL || __msan_init != NULL) fos_memory_stopped = FOS_LEFT_SANITIZER;
    else if (limited()) fos_memory_stopped = FOS_LEFT_LIMITED;
    fos_memory_active = 1;
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) fos_hooks[handlers[i].number] |= FOS_HOOK_MEMORY;
}
