// Small stacks: a call that is made on an alternate signal stack with little room (sigaltstack(2)) is answered on one of ours.
//
// What the shim does for a call takes some kilobytes of stack at the worst, where the kernel takes none of the program's. The
// process side notes each thread's alternate stack; fos_dispatch compares, which costs two loads. Signals are blocked
// meanwhile: the kernel would take an alternate stack that is not being stood on for free, and put the next handler over
// the frames of the one that made this call. So nothing can jump out, and a stack that was taken is given back.
// Protocol: a stack is taken with one compare-and-swap and given back with one store; who finds none waits, as no holder waits for
// anything but a server. Calls that may wait for other programs (F_SETLKW) are left where they are, for a signal to end them.
#define _GNU_SOURCE
#include "shim.h"
#include "signals.h"

#include <fcntl.h>

enum { STACKS = 4, STACK_BYTES = 32768, ENOUGH = 16384 };
static uint8_t stacks[STACKS][STACK_BYTES] FOS_LARGE __attribute__((aligned(64)));
static uint32_t taken[STACKS];

__thread struct fos_small_stack fos_small_stack __attribute__((tls_model("initial-exec")));

// entry.S: fos_answer_call(call) with this stack.
long fos_on_stack(struct fos_call *call, void *top) __attribute__((visibility("hidden")));

void fos_stack_noted(uintptr_t start, size_t bytes) {
    fos_small_stack.start = start;
    fos_small_stack.room = bytes < ENOUGH ? bytes : ENOUGH;
}

int fos_stack_is_own(uintptr_t address) { return address - (uintptr_t)stacks < sizeof stacks; }

void fos_stacks_after_fork(void) {
    for (int i = 0; i < STACKS; i++) taken[i] = 0;
}

static int take(void) {
    for (uint32_t i = 0;; i = (i + 1) % STACKS) {
        uint32_t none = 0;
        if (__atomic_compare_exchange_n(&taken[i], &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return (int)i;
        if (i == STACKS - 1) fos_sleep(50000);
    }
}

static int may_wait(const struct fos_call *call) {
    return call->number == SYS_fcntl && (call->arguments[1] == F_SETLKW || call->arguments[1] == F_OFD_SETLKW);
}

long fos_answer_on_own_stack(struct fos_call *call) {
    if (may_wait(call)) return fos_answer_call(call);
    uint64_t before;
    if (fos_block_signals(~fos_fault_signals(), &before) != 0) return fos_answer_call(call);
    int which = take();
    long result = fos_on_stack(call, stacks[which] + STACK_BYTES);
    __atomic_store_n(&taken[which], 0, __ATOMIC_RELEASE);
    fos_let_signals_in(before);
    return result;
}
