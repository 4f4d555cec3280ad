// The calls that make, replace and confine processes: what must happen around them, whatever the calls side knows.
//
//   fork, clone without CLONE_VM     both sides are told; descriptors became the kernel's before, so offsets stay shared
//   vfork, posix_spawn, CLONE_VFORK  the child runs on the parent's memory and thread-local storage: while it does, every
//                                    call passes. Nobody says when it is gone; the parent's thread notices at its next call
//   clone with a stack               the child starts on it behind the `syscall`, so the call must be made there: both sides
//                                    are told at their next call
//   pthread_create                   nothing to do
//   execve                           descriptors that survive become the kernel's first
//   chroot, unshare, setns, seccomp, CLONE_FILES without CLONE_THREAD ...   the shim gives up for this process
// Invariant: the state is the thread's own (initial-exec TLS), so threads that fork at once do not meet.
#include "shim.h"

#include <errno.h>
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/uio.h>

enum { FORK_NONE = 0, FORK_BORROWS, FORK_COPIES };

// A child that this thread made and that both sides have not been told of yet.
static __thread struct {
    int kind;
    int parent;       // process id of the side that made it
    uintptr_t stack;  // where the call that made it stood
} pending __attribute__((tls_model("initial-exec")));

static uint32_t given_up;

void fos_process_hooks(uint8_t *hooks) {
    static const uint16_t numbers[] = {
        SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_execve, SYS_execveat,
        SYS_chroot, SYS_pivot_root, SYS_unshare, SYS_setns, SYS_seccomp, SYS_prctl,
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) hooks[numbers[i]] = FOS_HOOK_PROCESS;
}

static long repeat(const struct fos_call *call) {
    const long *a = call->arguments;
    return fos_system(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void fos_give_up(void) {
    if (__atomic_exchange_n(&given_up, 1, __ATOMIC_ACQ_REL) != 0) return;
    fos_calls_give_up();
    for (int i = 0; i < FOS_SYSTEM_CALLS; i++) __atomic_store_n(&fos_hooks[i], FOS_HOOK_NONE, __ATOMIC_RELAXED);
}

int fos_process_borrowed(const struct fos_call *call) {
    if (__builtin_expect(pending.kind == FORK_NONE, 1)) return 0;
    int here = (int)fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0);
    if (here != pending.parent && pending.kind == FORK_BORROWS) return 1;
    // The parent may not have made its child yet: a signal handler came in between, further down the stack. Then the note
    // stays for the child to find.
    if (here == pending.parent && (uintptr_t)call < pending.stack) return 0;
    pending.kind = FORK_NONE;
    fos_calls_after_fork(here != pending.parent);
    return 0;
}

// What a clone asks for.
struct clone_wish {
    uint64_t flags, stack;
};

static long handle_clone(struct fos_call *call, struct clone_wish wish) {
    if (wish.flags & CLONE_THREAD) {
        // A thread with a descriptor table or a working directory of its own is more than one table can describe.
        if (!(wish.flags & CLONE_FILES) || !(wish.flags & CLONE_FS)) fos_give_up();
        return FOS_PASS;
    }
    const uint64_t apart = CLONE_NEWNS | CLONE_NEWUSER | CLONE_FS | CLONE_FILES;
    int shares = (wish.flags & CLONE_VM) != 0;
    // A borrower with tables of its own is vfork; it lives only until its exec, so what it shares besides cannot hurt much, but
    // descriptors that it changes would be the parent's. A child with thread-local storage of its own cannot be recognised.
    if ((shares && !(wish.flags & CLONE_VFORK)) || (wish.flags & apart) || (wish.flags & CLONE_SETTLS)) {
        fos_give_up();
        return FOS_PASS;
    }
    fos_calls_before_fork(shares);
    if (!shares && wish.stack == 0) {
        long result = repeat(call);
        fos_calls_after_fork(result == 0);
        return result;
    }
    // In a handler that interrupted the making of another child, the outer one counts for both.
    if (pending.kind == FORK_NONE || pending.stack < (uintptr_t)call) pending.stack = (uintptr_t)call;
    pending.parent = (int)fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0);
    pending.kind = shares ? FORK_BORROWS : FORK_COPIES;
    return FOS_PASS;
}

// What a clone3 asks for. A pointer that leads nowhere is the kernel's to refuse: it must not be followed here.
static struct clone_wish wish_of_clone3(const struct fos_call *call) {
    const struct clone_wish thread = {CLONE_THREAD | CLONE_FILES | CLONE_FS, 0};
    struct clone_args arguments = {.flags = 0};
    if ((unsigned long)call->arguments[1] < CLONE_ARGS_SIZE_VER0) return thread;
    struct iovec to = {&arguments, CLONE_ARGS_SIZE_VER0}, from = {(void *)call->arguments[0], CLONE_ARGS_SIZE_VER0};
    long self = fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0);
    long got = fos_system(SYS_process_vm_readv, self, (long)&to, 1, (long)&from, 1, 0);
    if (got == -EFAULT || (got >= 0 && got < CLONE_ARGS_SIZE_VER0)) return thread;
    // Where a filter forbids the question, the pointer is libc's.
    if (got < 0) arguments = *(const struct clone_args *)call->arguments[0];
    return (struct clone_wish){arguments.flags, arguments.stack};
}

long fos_process_handle(struct fos_call *call) {
    const long *a = call->arguments;
    switch (call->number) {
    case SYS_fork: return handle_clone(call, (struct clone_wish){0, 0});
    case SYS_vfork: return handle_clone(call, (struct clone_wish){CLONE_VM | CLONE_VFORK, 0});
    case SYS_clone: return handle_clone(call, (struct clone_wish){(uint64_t)a[0], (uint64_t)a[1]});
    case SYS_clone3: return handle_clone(call, wish_of_clone3(call));
    case SYS_execve:
    case SYS_execveat:
        fos_calls_before_exec();
        return repeat(call);
    case SYS_prctl:
        if (a[0] == PR_SET_SECCOMP) fos_give_up();
        return FOS_PASS;
    case SYS_unshare:
        if (a[0] & (CLONE_NEWNS | CLONE_NEWUSER | CLONE_FS | CLONE_FILES)) fos_give_up();
        return FOS_PASS;
    case SYS_chroot:
    case SYS_pivot_root:
    case SYS_setns:
    case SYS_seccomp: fos_give_up(); return FOS_PASS;
    default: return FOS_PASS;
    }
}
