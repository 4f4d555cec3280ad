// The calls that make, replace and confine processes: what must happen around them, whatever the calls side knows.
//
//   fork, clone without CLONE_VM     both sides are told; descriptors became the kernel's before, so offsets stay shared; served
//                                    memory became copy-on-write before (memory.h)
//   vfork, posix_spawn, CLONE_VFORK  the child runs on the parent's memory and thread-local storage: while it does, every
//                                    call passes. Nobody says when it is gone; the parent's thread notices at its next call
//   clone with a stack               the child starts on it behind the `syscall`, so the call must be made there: both sides
//                                    are told at their next call
//   pthread_create                   nothing to do
//   sigaltstack                      a small stack is noted (stacks.c)
//   execve                           descriptors that survive become the kernel's first; words more in the environment tell the
//                                    new program where this one's connection is, and which mounts are fos
//   chroot, unshare, setns, seccomp, CLONE_FILES without CLONE_THREAD ...   the shim gives up for this process
// Invariant: the state is the thread's own (initial-exec TLS), so threads that fork at once do not meet.
#include "alone.h"
#include "shim.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
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

// alone.h. A libc without the mark may have threads for all we know.
extern char __libc_single_threaded __attribute__((weak, visibility("default")));
static const char several = 0;
const volatile char *fos_alone_mark = &several;

void fos_alone_start(void) {
    if (&__libc_single_threaded != NULL) fos_alone_mark = &__libc_single_threaded;
}

void fos_process_hooks(uint8_t *hooks) {
    static const uint16_t numbers[] = {
        SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_execve, SYS_execveat,
        SYS_chroot, SYS_pivot_root, SYS_unshare, SYS_setns, SYS_seccomp, SYS_prctl, SYS_sigaltstack,
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
    fos_memory_give_up();
    // Served memory needs to be looked after for as long as it is there, and before every fork.
    uint8_t keep = fos_memory_active ? FOS_HOOK_MEMORY | FOS_HOOK_PROCESS : FOS_HOOK_NONE;
    for (int i = 0; i < FOS_SYSTEM_CALLS; i++) __atomic_store_n(&fos_hooks[i], fos_hooks[i] & keep, __ATOMIC_RELAXED);
}

static void after_fork(int child) {
    if (child) fos_stacks_after_fork();
    fos_calls_after_fork(child);
}

int fos_process_borrowed(const struct fos_call *call) {
    if (__builtin_expect(pending.kind == FORK_NONE, 1)) return 0;
    int here = (int)fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0);
    if (here != pending.parent && pending.kind == FORK_BORROWS) return 1;
    // The parent may not have made its child yet: a signal handler came in between, further down the stack. Then the note
    // stays for the child to find.
    if (here == pending.parent && (uintptr_t)call < pending.stack) return 0;
    int copies = pending.kind == FORK_COPIES;
    pending.kind = FORK_NONE;
    if (copies) fos_memory_after_fork(here != pending.parent, 1);
    if (given_up == 0) after_fork(here != pending.parent);
    return 0;
}

// What a clone asks for.
struct clone_wish {
    uint64_t flags, stack;
};

static long handle_clone(struct fos_call *call, struct clone_wish wish) {
    if (wish.flags & CLONE_THREAD) {
        __atomic_store_n(&fos_alone_mark, &several, __ATOMIC_RELAXED);
        // A thread with a descriptor table or a working directory of its own is more than one table can describe.
        if (!(wish.flags & CLONE_FILES) || !(wish.flags & CLONE_FS)) fos_give_up();
        return FOS_PASS;
    }
    const uint64_t apart = CLONE_NEWNS | CLONE_NEWUSER | CLONE_FS | CLONE_FILES;
    int shares = (wish.flags & CLONE_VM) != 0;
    // A borrower with tables of its own is vfork; it lives only until its exec, so what it shares besides cannot hurt much, but
    // descriptors that it changes would be the parent's. A child with thread-local storage of its own cannot be recognised.
    if ((shares && !(wish.flags & CLONE_VFORK)) || (wish.flags & apart) || (wish.flags & CLONE_SETTLS)) fos_give_up();
    int gone = given_up != 0;
    // Whoever shares memory shares what is known of it; a copy of it must be told, even by a shim that has given up.
    if (gone && (shares || !fos_memory_active)) return FOS_PASS;
    if (!gone) fos_calls_before_fork(shares);
    if (!shares) {
        long error = fos_memory_before_fork(wish.stack != 0);
        if (error != 0) return error;
    }
    if (!shares && wish.stack == 0) {
        long result = repeat(call);
        fos_memory_after_fork(result == 0, 0);
        if (!gone) after_fork(result == 0);
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

// Where LD_PRELOAD has this library, if the new program gets an environment that does; and how many words it has.
static int is_preloaded(char *const *environment, size_t *words) {
    static const char variable[] = "LD_PRELOAD=", library[] = "libfos";
    int found = 0;
    for (*words = 0; environment[*words] != NULL; ++*words) {
        const char *text = environment[*words];
        if (strncmp(text, variable, sizeof variable - 1) != 0) continue;
        for (text += sizeof variable - 1; *text != 0 && !found; text++) found = strncmp(text, library, sizeof library - 1) == 0;
    }
    return found;
}

// Makes an execve or execveat whose environment is argument `place`. It returns only if it fails. A child of vfork only tells
// what the parent has seen: connection and descriptors are the parent's.
__attribute__((noinline)) static long execute(struct fos_call *call, int place, int borrowed) {
    enum { WORDS = 509 };
    if (given_up != 0) return FOS_PASS;
    if (!borrowed) fos_memory_before_exec();
    char *const *given = (char *const *)call->arguments[place];
    char *words[WORDS + 3], kept[FOS_WORD_BYTES], seen[FOS_SEEN_BYTES];
    size_t count = 0;
    int may_tell = (uintptr_t)given >= 4096 && is_preloaded(given, &count) && count <= WORDS;
    int keeps = !borrowed && fos_calls_before_exec(may_tell ? kept : NULL, call->number == SYS_execve ? (const char *)call->arguments[0] : NULL);
    int tells = may_tell && fos_calls_tell(seen);
    if (keeps || tells) {
        memcpy(words, given, count * sizeof *words);
        if (keeps) words[count++] = kept;
        if (tells) words[count++] = seen;
        words[count] = NULL;
        call->arguments[place] = (long)words;
    }
    long result = repeat(call);
    call->arguments[place] = (long)given;
    if (keeps) fos_calls_exec_failed();
    return result;
}

// A stack that cannot be read, or is refused, is not noted: the kernel's answer says so.
static long change_signal_stack(struct fos_call *call) {
    long result = repeat(call);
    const stack_t *stack = (const stack_t *)call->arguments[0];
    if (result == 0 && stack != NULL) fos_stack_noted((uintptr_t)stack->ss_sp, stack->ss_flags & SS_DISABLE ? 0 : stack->ss_size);
    return result;
}

long fos_process_handle_borrowed(struct fos_call *call) {
    return call->number == SYS_execve ? execute(call, 2, 1) : call->number == SYS_execveat ? execute(call, 3, 1) : FOS_PASS;
}

long fos_process_handle(struct fos_call *call) {
    const long *a = call->arguments;
    switch (call->number) {
    case SYS_fork: return handle_clone(call, (struct clone_wish){0, 0});
    case SYS_vfork: return handle_clone(call, (struct clone_wish){CLONE_VM | CLONE_VFORK, 0});
    case SYS_clone: return handle_clone(call, (struct clone_wish){(uint64_t)a[0], (uint64_t)a[1]});
    case SYS_clone3: return handle_clone(call, wish_of_clone3(call));
    case SYS_execve: return execute(call, 2, 0);
    case SYS_execveat:
        fos_calls_before_execveat(a[0]);
        return execute(call, 3, 0);
    case SYS_prctl:
        if (a[0] == PR_SET_SECCOMP) fos_give_up();
        return FOS_PASS;
    case SYS_unshare:
        if (a[0] & (CLONE_NEWNS | CLONE_NEWUSER | CLONE_FS | CLONE_FILES)) fos_give_up();
        return FOS_PASS;
    case SYS_sigaltstack: return change_signal_stack(call);
    case SYS_chroot:
    case SYS_pivot_root:
    case SYS_setns:
    case SYS_seccomp: fos_give_up(); return FOS_PASS;
    default: return FOS_PASS;
    }
}
