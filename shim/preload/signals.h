// Signals put off while a thread holds what the whole process waits for.
//
// A handler may jump out of a call, and a thread that is cancelled is unwound by a handler of libc's: what such a call held would be
// held for ever. Locks that others wait for are therefore held with signals put off, libc's own among them, which its sigprocmask
// leaves out. What is left half done otherwise (sequence locks, turns) costs those that meet it speed only.
#ifndef FOS_SIGNALS_H
#define FOS_SIGNALS_H

#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include "shim.h"

static inline uint64_t fos_signal_bit(int signal) { return UINT64_C(1) << (signal - 1); }

// What was blocked before, for fos_let_signals_in. Those that a fault raises stay: blocked, the kernel would end the program instead
// of telling it.
static inline uint64_t fos_put_signals_off(void) {
    const uint64_t faults = fos_signal_bit(SIGSEGV) | fos_signal_bit(SIGBUS) | fos_signal_bit(SIGILL) | fos_signal_bit(SIGFPE) |
                            fos_signal_bit(SIGTRAP) | fos_signal_bit(SIGSYS);
    uint64_t blocked = ~faults, before = 0;
    fos_raw(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, &before, sizeof before);
    return before;
}
static inline void fos_let_signals_in(uint64_t before) { fos_raw(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof before); }

#endif
