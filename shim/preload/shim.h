// The seam of the preload shim: between interception (start, redirect, entry, process hooks) and the calls it answers.
//
// Role: interception hands each redirected system call that somebody wants to fos_calls_handle; everything that knows
// files is behind it. Both sides run in other people's programs: in any thread, inside signal handlers, on small stacks,
// between fork and exec.
// Rules for all code under shim/preload:
//   - system calls are raw (fos_system): libc's functions are what is redirected, and errno is the program's;
//   - no malloc, no stdio, no locks that a signal handler in the same thread could wait for;
//   - general registers only: a system call keeps the vector registers, so the hook may not touch them. memcpy and its
//     kind come from bytes.c;
//   - per-thread state is initial-exec TLS. A vfork or posix_spawn child shares memory and TLS with its parent's thread.
#ifndef FOS_SHIM_H
#define FOS_SHIM_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <fos/calltrace.h>
#include <fos/sites.h>
#include <fos/tally.h>
#include "../proxy/system.h"

#pragma GCC visibility push(hidden)

// A part of what every call does: worth its copies in each place that uses it.
#define FOS_WITH_EACH_CALL static inline __attribute__((always_inline))

// For tables of more than some kilobytes. They lie behind everything else, the largest last, so that the small variables share
// two pages: each page that a program touches for the first time costs it 2 us, and each 2 MiB of addresses 3 us more.
#define FOS_LARGE __attribute__((section(".bss.large")))
#define FOS_LARGEST __attribute__((section(".bss.largest")))

// A system call as the program made it. `resume` is the address of its `syscall` instruction.
struct fos_call {
    long number;
    long arguments[6];
    const void *resume;
};

// A system call of our own, with as many arguments as it takes.
#define FOS_RAW_ARGUMENTS(n, a, b, c, d, e, f, ...) fos_system(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define fos_raw(...) FOS_RAW_ARGUMENTS(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

// Not ours: the kernel gets the call as the program made it, at the program's own `syscall` instruction (changes to
// struct fos_call are ignored). A handler that needs other arguments makes the call itself and returns its result.
#define FOS_PASS LONG_MIN

// What the environment asked for; filled before fos_calls_start.
struct fos_options {
    const char *mount;  // FOS_MOUNT: the only mount to serve, an absolute path free of links; NULL: all that are found
    int verbose;        // FOS_VERBOSE=1
    int strict;         // FOS_STRICT=1: a bypass ends the program with a message
    int no_cache;       // FOS_NO_CACHE=1: nothing is kept under epochs
    int tracing;        // FOS_TRACE=FILE was given and works: calls and messages are recorded (trace.c)
    int counting;       // FOS_STATS=FILE was given and works: fos_tally is shared, and times are worth taking
};
extern struct fos_options fos_options;
enum { FOS_STRICT_STATUS = 125 };  // exit status of a program that FOS_STRICT ended

// Never NULL: a private one while nobody asked for figures. See fos/tally.h.
extern struct fos_tally *fos_tally;
// For what happens with every call: while nobody asks for figures, that costs one look.
static inline void fos_count(uint64_t *counter, uint64_t amount) {
    if (__builtin_expect(fos_options.counting, 0)) fos_tally_add(counter, amount);
}

// ---- What the calls side provides ------------------------------------------------------------------------------------

// 1 for each system call that fos_calls_handle wants to see; the others stay untouched and cost nothing.
extern const uint8_t fos_calls_wanted[FOS_SYSTEM_CALLS];

// From the constructor, before anything is redirected: no system call unless it must be. 0, or a negative errno: the shim
// then stands aside. `environment` is the program's; words that are the shim's alone are taken out of it.
int fos_calls_start(char **environment);
// After it, when nothing is redirected: the program goes on as without the shim, and is to find nothing of it.
void fos_calls_stand_aside(void);

// The result (0 or more, or a negative errno), or FOS_PASS. Re-entrant. Fast to say FOS_PASS for strangers. Not called in a
// child of vfork or posix_spawn, nor after fos_calls_give_up.
long fos_calls_handle(struct fos_call *call);

// Around fork and its kind. Before: descriptors become the kernel's, because both sides will share their offsets.
// `shares_memory`: a vfork or posix_spawn child will run in this memory until it execs or exits.
void fos_calls_before_fork(int shares_memory);
// In the parent (`child` 0) and, if it has memory of its own, in the child (1). With shared memory the parent's comes late: at
// the thread's next redirected call after the child has gone. After a clone with a stack of the caller's, both come at each
// side's next redirected call, in that thread.
void fos_calls_after_fork(int child);

// Before execve and execveat. 1: `word` (FOS_WORD_BYTES) belongs into the environment of the new program, which then goes on
// with what this one leaves it; if the call fails, fos_calls_exec_failed must follow. NULL: there is no place for a word. `program`:
// the path that is executed; NULL: it is not known.
enum { FOS_WORD_BYTES = 64, FOS_SEEN_BYTES = 128 };
int fos_calls_before_exec(char *word, const char *program);
// Before the same, also in a child of vfork: it only reads. 1: `word` (FOS_SEEN_BYTES) belongs into the environment too.
int fos_calls_tell(char *word);
void fos_calls_exec_failed(void);
// Earlier yet, of an execveat: its descriptor, if it is ours, becomes the kernel's.
void fos_calls_before_execveat(long fd);

// The process is about to do something after which the shim cannot keep its promises (chroot, unshare, a system call
// filter, a shared descriptor table): every descriptor becomes the kernel's, and no handler is called any more.
void fos_calls_give_up(void);

// ---- What interception provides --------------------------------------------------------------------------------------

// Counts a call on a mount that goes to the kernel; under FOS_STRICT=1 says so and ends the program.
void fos_bypass(enum fos_bypass reason, long number);
// Records a message that has been answered, while fos_options.tracing; the connection has `timed` set then.
struct fos_client;
void fos_trace_message(const struct fos_client *client, int channel, uint16_t operation, uint64_t inode, int result);
// One line to standard error, "fos: ...": only where the user asked for it by FOS_VERBOSE=1 or FOS_STRICT=1. The parts are
// joined; NULL ends them.
void fos_say(const char *part, ...);

// ---- Between the files of interception -------------------------------------------------------------------------------

enum fos_hook { FOS_HOOK_NONE = 0, FOS_HOOK_CALLS = 1, FOS_HOOK_PROCESS = 2, FOS_HOOK_MEMORY = 4 };
// Bits of enum fos_hook by number of system call; entry.S reads it. All zero: everything passes.
extern uint8_t fos_hooks[FOS_SYSTEM_CALLS];

// entry.S: what trampolines jump to.
void fos_entry(void);
// dispatch.c: hands the call to the calls side, with figures and traces if they are wanted.
long fos_answer_call(struct fos_call *call);
// stacks.c: the part of this thread's alternate signal stack in which a call has too little room; none: no bytes.
struct fos_small_stack {
    uintptr_t start;
    size_t room;
};
extern __thread struct fos_small_stack fos_small_stack __attribute__((tls_model("initial-exec")));
// The same as fos_answer_call, for a call made there.
long fos_answer_on_own_stack(struct fos_call *call);
void fos_stack_noted(uintptr_t start, size_t bytes);  // the thread's alternate stack is now this; 0 bytes: it has none
int fos_stack_is_own(uintptr_t address);              // 1: on a stack of the shim's
void fos_stacks_after_fork(void);                     // in the child: the other threads' are free
// process.c
void fos_process_hooks(uint8_t *hooks);
long fos_process_handle(struct fos_call *call);
// The same for a call of a child of vfork, which runs on its parent's memory.
long fos_process_handle_borrowed(struct fos_call *call);
// 1 in a child of vfork or posix_spawn, which runs in its parent's memory.
int fos_process_borrowed(const struct fos_call *call);
// Hands everything to the kernel from now on.
void fos_give_up(void);

// memory.c and memory_fork.c: `fos run --memory` (memory.h).
// From the constructor, when the hooks are set. `threshold` in bytes; 0: memory stays Linux's, and nothing is hooked for it.
void fos_memory_start(uint64_t threshold);
extern int fos_memory_active;
// The result, or FOS_PASS. Also in a child of vfork, which changes its parent's memory.
long fos_memory_handle(struct fos_call *call);
// Around a fork and its kind with memory of its own; both do nothing if nothing is served. `told_later`: the child does not
// come back to this call. 0 or -errno: the fork must not happen, and `after` must not follow.
long fos_memory_before_fork(int told_later);
void fos_memory_after_fork(int child, int told_later);
// Before execve: what is served ends with this program, but its connection may go on in the next.
void fos_memory_before_exec(void);
// The shim gives up: what is served stays looked after, but nothing new is.
void fos_memory_give_up(void);

// trace.c: opens FOS_TRACE's file; calls fos_calls_handle and records it.
void fos_trace_open(const char *path);
long fos_trace_call(struct fos_call *call);

// A loaded ELF file, as its program headers describe it.
struct fos_object {
    const char *path;
    uintptr_t base;              // load address
    uintptr_t text, text_end;    // the executable segment, page aligned
    const uint8_t *build_id;
    uint32_t build_id_length;
};
// 1 for a site that is to be redirected: somebody wants its call, or its number is known only when it runs.
static inline int fos_site_hooked(const struct fos_site *site) {
    return site->number >= FOS_SYSTEM_CALLS || fos_hooks[site->number] != FOS_HOOK_NONE;
}
// sites.c: finds, reads and checks the table of an object. NULL, and `why` says what is wrong.
const struct fos_sites_header *fos_sites_load(const struct fos_object *object, const char *directory, const char **why);
// 1 if memory holds, where a site is, the bytes that its table was made from.
int fos_site_fits(const struct fos_object *object, const struct fos_site *site);
void fos_sites_unload(const struct fos_sites_header *table);
// redirect.c: redirects every hooked site. 0 or a negative errno (-EILSEQ: a site does not fit); on error nothing is changed.
int fos_redirect(const struct fos_object *object, const struct fos_sites_header *table);

#pragma GCC visibility pop

#endif
