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
// Those that a fault raises: blocked, the kernel ends the program instead of telling it.
static inline uint64_t fos_fault_signals(void) {
    return fos_signal_bit(SIGSEGV) | fos_signal_bit(SIGBUS) | fos_signal_bit(SIGILL) | fos_signal_bit(SIGFPE) | fos_signal_bit(SIGTRAP) |
           fos_signal_bit(SIGSYS);
}

// Blocks these signals too; `before`: what was blocked, for fos_let_signals_in. 0 or -errno (a system call filter).
static inline long fos_block_signals(uint64_t signals, uint64_t *before) {
    return fos_raw(SYS_rt_sigprocmask, SIG_BLOCK, &signals, before, sizeof signals);
}
static inline void fos_let_signals_in(uint64_t before) { fos_raw(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof before); }

// For a lock: all of them, a fault's too, which another process may send and whose handler may jump. What to let in afterwards.
static inline uint64_t fos_put_signals_off(void) {
    uint64_t before = 0;
    fos_block_signals(~UINT64_C(0), &before);
    return before;
}

#endif
