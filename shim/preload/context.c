// Contexts: what one call needs while it runs, and requests through its channel.
//
// Protocol: a call takes a context with one compare-and-swap and gives it back with one store, so nothing has to be
// told when a thread ends. The channel of context i is channel i of every connection. A signal handler that
// interrupts a call finds its thread's context taken and takes another one.
// A call that never comes back (a handler that jumped out of it, a thread that was cancelled) leaves its context taken
// and perhaps a request in flight. Its own thread takes it back at a later call, when it sees that it stands further
// up the stack; others when no context is free and that thread has ended. Who gets a channel with a request in flight waits
// for the reply first.
#define _GNU_SOURCE
#include <signal.h>
#include "calls.h"

static struct fos_context contexts[FOS_CONTEXTS_MAX] FOS_LARGE;
// Contexts from here on have never been taken: their pages are not touched, neither at the start nor in a child of fork.
static uint32_t contexts_used = 1;
static __thread struct {
    uint32_t self;    // this thread's id; 0: not asked for yet
    uint32_t nested;  // 1: a handler of this thread has interrupted a call
    uint32_t hint;    // the context that it had last
} mine __attribute__((tls_model("initial-exec")));

static uint32_t myself(void) {
    if (__builtin_expect(mine.self == 0, 0)) mine.self = (uint32_t)fos_raw(SYS_gettid);
    return mine.self;
}

static int take(struct fos_context *context, uint32_t before, uint32_t owner, uintptr_t stack, long number) {
    if (!fos_own_compare_exchange_u32(&context->owner, before, owner)) return 0;
    context->stack = stack;
    context->number = number;
    return 1;
}

// Whether the call that holds this thread's context is over: it began further down the stack than this one. On an
// alternate stack, or one of ours instead, nothing can be said.
static int abandoned(const struct fos_context *context, uintptr_t stack) {
    if (context->stack > stack || fos_stack_is_own(stack)) return 0;
    stack_t now;
    return fos_raw(SYS_sigaltstack, 0, &now) == 0 && (now.ss_flags & SS_ONSTACK) == 0;
}

// 1: the thread that had it was cancelled, or ended otherwise, in the middle of a call.
static int is_of_the_dead(uint32_t owner) {
    return owner != 0 && fos_raw(SYS_tgkill, fos_raw(SYS_getpid), owner, 0) == -ESRCH;
}

// Takes the context of this index if it is free, or, when none is, if nobody comes back for it.
static struct fos_context *take_at(uint32_t index, int from_the_dead, uint32_t owner, uintptr_t stack, long number) {
    struct fos_context *context = &contexts[index];
    uint32_t used = fos_load_relaxed_u32(&contexts_used);
    while (used <= index && !fos_compare_exchange_u32(&contexts_used, used, index + 1)) used = fos_load_relaxed_u32(&contexts_used);
    uint32_t before = from_the_dead ? __atomic_load_n(&context->owner, __ATOMIC_RELAXED) : 0;
    if (from_the_dead && !is_of_the_dead(before)) return NULL;
    return take(context, before, owner, stack, number) ? context : NULL;
}

// Frees what calls of this thread that never came back have left.
static void sweep(uint32_t owner, uintptr_t stack) {
    uint32_t used = fos_load_relaxed_u32(&contexts_used), live = 0;
    for (uint32_t index = 0; index < used; index++) {
        if (__atomic_load_n(&contexts[index].owner, __ATOMIC_RELAXED) != owner) continue;
        if (abandoned(&contexts[index], stack)) fos_leave(&contexts[index]);
        else live = 1;
    }
    mine.nested = live;
}

// The context that this thread had last is not free, or may not be the only one it has.
__attribute__((noinline)) static struct fos_context *enter_elsewhere(uint32_t owner, uintptr_t stack, long number) {
    if (mine.nested) sweep(owner, stack);
    struct fos_context *context = &contexts[mine.hint % FOS_CONTEXTS_MAX];
    if (take(context, 0, owner, stack, number)) return context;
    if (__atomic_load_n(&context->owner, __ATOMIC_RELAXED) == owner && abandoned(context, stack)) {
        context->stack = stack;
        context->number = number;
        return context;
    }
    if (__atomic_load_n(&context->owner, __ATOMIC_RELAXED) == owner) mine.nested = 1;
    for (int round = 0; round < 200; round++) {
        for (uint32_t step = 0; step < 2 * FOS_CONTEXTS_MAX; step++) {
            uint32_t index = (mine.hint + step) % FOS_CONTEXTS_MAX;
            context = take_at(index, step >= FOS_CONTEXTS_MAX, owner, stack, number);
            if (context == NULL) continue;
            context->index = index;
            mine.hint = index;
            return context;
        }
        fos_sleep(100000);
    }
    return NULL;
}

struct fos_context *fos_enter(long number) {
    uint32_t owner = myself();
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    struct fos_context *context = &contexts[mine.hint % FOS_CONTEXTS_MAX];
    if (__builtin_expect(mine.nested == 0 && take(context, 0, owner, stack, number), 1)) return context;
    return enter_elsewhere(owner, stack, number);
}

void fos_leave(struct fos_context *context) { __atomic_store_n(&context->owner, 0, __ATOMIC_RELEASE); }

void fos_contexts_reset(void) {
    mine.self = 0;
    for (uint32_t index = 0; index < contexts_used; index++) {
        contexts[index].owner = 0;
        contexts[index].posted = 0;
        contexts[index].delegation = contexts[index].brought_by = 0;
    }
}

int fos_context_is_left(uint32_t index) {
    uint32_t owner = index < FOS_CONTEXTS_MAX ? __atomic_load_n(&contexts[index].owner, __ATOMIC_RELAXED) : 0;
    return owner == 0 || is_of_the_dead(owner);
}

int fos_context_is_mine(uint32_t index) {
    return index < FOS_CONTEXTS_MAX && __atomic_load_n(&contexts[index].owner, __ATOMIC_RELAXED) == myself();
}

int fos_contexts_alone(const struct fos_context *context) {
    uint32_t used = fos_load_relaxed_u32(&contexts_used);
    for (uint32_t index = 0; index < used; index++) {
        if (&contexts[index] != context && __atomic_load_n(&contexts[index].owner, __ATOMIC_RELAXED) != 0) return 0;
    }
    return 1;
}

// The channel may still carry a request that nobody waited for. 1: it is answered.
static int drain(struct fos_context *context, struct fos_mount *mount) {
    context->posted &= ~(1u << mount->index);
    return !fos_take_over(&mount->client, (int)context->index) || fos_wait(&mount->client, (int)context->index, UINT64_C(5000000000)) == 1;
}

uint32_t fos_contexts_settle(struct fos_context *context) {
    if (!fos_contexts_alone(context)) return 0;
    uint32_t used = fos_load_relaxed_u32(&contexts_used);
    for (uint32_t index = 0; index < used; index++) {
        for (uint32_t mount = 0; contexts[index].posted != 0; mount++) {
            if ((contexts[index].posted >> mount & 1) != 0 && !drain(&contexts[index], &fos_mounts[mount])) return 0;
        }
        for (uint32_t mount = 0; contexts[index].delegation != 0 && mount < fos_mounts_used; mount++) {
            if (fos_mounts[mount].state == FOS_MOUNT_CONNECTED) fos_delegation_settle(&contexts[index], &fos_mounts[mount]);
        }
    }
    return used;
}

// ---- requests -------------------------------------------------------------------------------------------------------

// What RELEASE calls the access that a file was opened for.
static uint32_t opened_for(uint32_t open_flags) {
    uint32_t access = open_flags & O_ACCMODE;
    if ((open_flags & O_PATH) != 0) return 0;
    return (access != O_WRONLY ? FOS_RELEASE_READING : 0) | (access != O_RDONLY ? FOS_RELEASE_WRITING : 0);
}

struct fos_message *fos_build(struct fos_context *context, struct fos_mount *mount, uint16_t operation, uint64_t inode) {
    if (context->posted >> mount->index & 1) drain(context, mount);
    if (context->brought_by != 0) fos_drop_brought(context);
    struct fos_message *request = fos_request(&mount->client, (int)context->index, operation, inode);
    if (operation >= FOS_OP_LOOKUP && operation < FOS_OP_PEER_FIRST) {
        uint32_t open_flags = 0;
        request->given = fos_reference_given(mount, inode, &open_flags);
        request->given_for = request->given == 0 ? 0 : (uint16_t)opened_for(open_flags);
        if (context->delegation != 0 && fos_delegation_pending(context, mount)) request->given_for |= FOS_GIVEN_RECORD;
    }
    return request;
}

// Notes that the daemon has gone: its open files fail from now on, and the mount table will have changed.
static int lost(struct fos_mount *mount) {
    __atomic_store_n(&mount->state, FOS_MOUNT_DEAD, __ATOMIC_RELEASE);
    fos_mounts_doubtful = 1;
    return -ENOTCONN;
}

int fos_check_alive(struct fos_mount *mount) { return fos_client_alive(&mount->client) ? 0 : lost(mount); }

int fos_send(struct fos_context *context, struct fos_mount *mount) { return fos_send_to(context, mount, NULL); }

int fos_send_to(struct fos_context *context, struct fos_mount *mount, const char *name) {
    struct fos_message request;
    int again = 0, result;
    for (;;) {
        uint64_t start = fos_options.counting ? fos_clock() : 0;
        context->posted |= 1u << mount->index;
        result = name == NULL ? fos_call(&mount->client, (int)context->index) : fos_call_name(&mount->client, (int)context->index, name);
        context->posted &= ~(1u << mount->index);
        fos_count(&fos_tally->messages, 1);
        if (start != 0) fos_count(&fos_tally->time_messages, fos_clock() - start);
        if (fos_options.tracing) {
            const struct fos_message *sent = fos_draft(&mount->client, (int)context->index);
            fos_trace_message(&mount->client, (int)context->index, sent->operation, sent->inode, result);
        }
        if (result != -EBUSY || again++ > 0) break;
        // A call that was left by a jump has its request in flight in this channel; ours is put aside while it ends.
        struct fos_message *built = fos_draft(&mount->client, (int)context->index);
        request = *built;
        drain(context, mount);
        *built = request;
    }
    if (result == -ENOTCONN) return lost(mount);
    fos_step_aside(context, mount);
    return result;
}

void fos_give_back(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint32_t open_flags) {
    struct fos_release_request give = {.count = 1, .flags = opened_for(open_flags)};
    fos_put_fixed(fos_build(context, mount, FOS_OP_RELEASE, inode), &give, sizeof give);
    fos_send_and_forget(context, mount);
}

void fos_send_and_forget(struct fos_context *context, struct fos_mount *mount) { fos_post_to(context, mount, NULL); }

void fos_post_to(struct fos_context *context, struct fos_mount *mount, const char *name) {
    int channel = (int)context->index;
    int result = name == NULL ? fos_post_owner(&mount->client, channel) : fos_post_name(&mount->client, channel, name);
    fos_count(&fos_tally->messages, 1);
    if (result == 0) context->posted |= 1u << mount->index;
    else if (result == -ENOTCONN) lost(mount);
}
