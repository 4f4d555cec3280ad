// From a system call to its handler, and what interception tells the calls side of the process.
//
// The list of calls is calls_table.h. A call that no file of a mount can be part of passes after one look at a table.
#define _GNU_SOURCE
#include "calls.h"
#include "calls_numbers.h"

// A call that the kernel makes, once these descriptors are its own.
struct kernel_call {
    uint8_t descriptors;  // bits by argument
    uint8_t reason;       // enum fos_bypass
};

#define FOS_NO_FILE(name)
#define FOS_UNTOUCHED(name, text)
#define FOS_MEMORY(name, text)
#define FOS_ELSEWHERE(name, text)

#define FOS_MESSAGE(name, handler, text) [SYS_##name] = 1,
#define FOS_SPECIAL(name, handler, text) [SYS_##name] = 1,
#define FOS_KERNEL(name, fds, reason, text) [SYS_##name] = (fds) != 0,
const uint8_t fos_calls_wanted[FOS_SYSTEM_CALLS] = {
#include "calls_table.h"
};
#undef FOS_MESSAGE
#undef FOS_SPECIAL
#undef FOS_KERNEL

#define FOS_MESSAGE(name, handler, text) [SYS_##name] = fos_##handler,
#define FOS_SPECIAL(name, handler, text) [SYS_##name] = fos_##handler,
#define FOS_KERNEL(name, fds, reason, text)
static fos_handler *const handlers[FOS_SYSTEM_CALLS] = {
#include "calls_table.h"
};
#undef FOS_MESSAGE
#undef FOS_SPECIAL
#undef FOS_KERNEL

#define FOS_MESSAGE(name, handler, text)
#define FOS_SPECIAL(name, handler, text)
#define FOS_KERNEL(name, fds, reason, text) [SYS_##name] = {fds, reason},
static const struct kernel_call kernel_calls[FOS_SYSTEM_CALLS] = {
#include "calls_table.h"
};

long fos_calls_handle(struct fos_call *call) {
    if ((unsigned long)call->number >= FOS_SYSTEM_CALLS) return FOS_PASS;
    fos_handler *handler = handlers[call->number];
    if (handler == NULL) return fos_via_kernel(call, kernel_calls[call->number].descriptors, kernel_calls[call->number].reason);
    return handler(call);
}

// ---- the process ----------------------------------------------------------------------------------------------------

int fos_calls_start(char **environment) {
    fos_alone_start();
    fos_mounts_start(environment);
    // Reading the mask means setting it; later another thread could make a file in between.
    fos_umask = (uint32_t)fos_raw(SYS_umask, 077);
    fos_raw(SYS_umask, fos_umask);
    fos_cache_start(!fos_options.no_cache);
    return 0;
}

void fos_calls_stand_aside(void) { fos_mounts_leave_kept(); }

static void give_all(long number, int inherited_only, enum fos_bypass reason) {
    if (!inherited_only) fos_handed_forget_all();
    if (fos_table_highest() < 0) return;
    struct fos_context *context = fos_enter(number);
    if (context == NULL) return;
    if (fos_materialise_all(context, inherited_only) > 0) fos_bypass(reason, number);
    fos_leave(context);
}

void fos_calls_before_fork(int shares_memory) { give_all(shares_memory ? SYS_vfork : SYS_fork, 0, FOS_BYPASS_FORK); }

void fos_calls_after_fork(int child) {
    if (!child) return;
    fos_contexts_reset();
    fos_handed_after_fork();
    // Without a connection there was nothing to keep: their memory was not touched yet, and is not to be now.
    if (fos_mounts_served) {
        fos_cache_after_fork();
        fos_files_after_fork();
        fos_references_after_fork();
        fos_maps_after_fork();
    }
    fos_mounts_after_fork();
}

// 1: descriptions of ours are open, so the servers hold references for this program, that do not go on in the next.
static int anything_open(void) {
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *file = fos_file_get(fd);
        if (file == NULL) continue;
        int stays = file->goes_on == 0;
        fos_file_put(NULL, file);
        if (stays) return 1;
    }
    return 0;
}

// Leaves the connection to the next program, with what it may go on with by message. 1: it may.
static int leave(char *word, const char *program) {
    struct fos_context *context = fos_enter(SYS_execve);
    if (context == NULL) return 0;
    // A program without the shim would have the descriptors of the connection for its own, and so would all that it starts.
    int may_leave = fos_mounts_in_use() && program != NULL && fos_program_is_served(program);
    if (may_leave && (fos_table_highest() >= 0 || fos_handed_count > 0)) fos_hand_on(context);
    else fos_handed_forget_all();
    if (fos_materialise_all(context, 1) > 0) fos_bypass(FOS_BYPASS_EXEC, SYS_execve);
    int kept = 0;
    if (may_leave && !anything_open()) {
        fos_references_settle(context, 1);
        kept = fos_mounts_keep(context, word);
    }
    fos_leave(context);
    return kept;
}

int fos_calls_before_exec(char *word, const char *program) {
    if (word != NULL && leave(word, program)) return 1;
    // What was marked for the next program becomes the kernel's too.
    fos_hand_on_ends();
    give_all(SYS_execve, 1, FOS_BYPASS_EXEC);
    return 0;
}
int fos_calls_tell(char *word) { return fos_mounts_tell(word); }

// What is executed may be named by a descriptor that is closed by it.
void fos_calls_before_execveat(long fd) {
    if (fos_ours(fd) && fos_materialise(NULL, fd) == 0) fos_bypass(FOS_BYPASS_EXEC, SYS_execveat);
}

void fos_calls_exec_failed(void) {
    fos_hand_on_ends();
    fos_mounts_keep_failed();
}

void fos_calls_give_up(void) { give_all(SYS_unshare, 0, FOS_BYPASS_ASIDE); }
