// A calls side for tests of interception: wants every system call, so that every site is redirected, and either passes each
// on (libfos_pass.so) or makes it itself (libfos_answer.so, ANSWER=1). Programs must not notice either.
// It also holds interception to its promise that no handler runs in a child that borrows its parent's memory, nor in one with
// memory of its own before the child was told: the process id must be the one last heard of.
#include "../preload/shim.h"

const uint8_t fos_calls_wanted[FOS_SYSTEM_CALLS] = {[0 ... FOS_SYSTEM_CALLS - 1] = 1};

static long process;

static long process_id(void) { return fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0); }

int fos_calls_start(char **environment) {
    (void)environment;
    process = process_id();
    return 0;
}

long fos_calls_handle(struct fos_call *call) {
    if (process_id() != process) {
        fos_say("a handler runs in a child that was not told", NULL);
        fos_system(SYS_exit_group, 99, 0, 0, 0, 0, 0);
    }
    fos_tally_add(&fos_tally->messages, 1);
#if ANSWER
    const long *a = call->arguments;
    // rt_sigreturn looks at the stack pointer, exit of a thread must not leave a frame to a stack that is given back.
    if (call->number == SYS_rt_sigreturn || call->number == SYS_exit) return FOS_PASS;
    return fos_system(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
#else
    (void)call;
    return FOS_PASS;
#endif
}

void fos_calls_before_fork(int shares_memory) { (void)shares_memory; }
void fos_calls_after_fork(int child) {
    if (child) process = process_id();
}
int fos_calls_before_exec(char *word, const char *program) {
    (void)word, (void)program;
    return 0;
}
void fos_calls_exec_failed(void) {}
int fos_calls_tell(char *word) {
    (void)word;
    return 0;
}
void fos_calls_before_execveat(long fd) { (void)fd; }
void fos_calls_stand_aside(void) {}
void fos_calls_give_up(void) {}
