// From the entry to whoever answers: calls that change memory to memory.c, calls of the process's own life to
// process.c, the rest to the calls side.
#include "shim.h"

uint8_t fos_hooks[FOS_SYSTEM_CALLS];

// Called by entry.S. The result for the program, or FOS_PASS.
long fos_dispatch(struct fos_call *call) __attribute__((visibility("hidden")));
long fos_dispatch(struct fos_call *call) {
    // A child of vfork runs on its parent's memory: what it does to descriptors must not show there, what it does to memory
    // is the parent's.
    int borrowed = fos_process_borrowed(call);
    uint8_t hook = __atomic_load_n(&fos_hooks[call->number], __ATOMIC_RELAXED);
    if ((hook & FOS_HOOK_MEMORY) != 0) {
        long result = fos_memory_handle(call);
        if (result != FOS_PASS) return result;
    }
    if (borrowed) return (hook & FOS_HOOK_PROCESS) != 0 ? fos_process_handle_borrowed(call) : FOS_PASS;
    if ((hook & FOS_HOOK_CALLS) == 0) return (hook & FOS_HOOK_PROCESS) != 0 ? fos_process_handle(call) : FOS_PASS;
    // The call lies on the program's stack.
    int is_small = (uintptr_t)call - fos_small_stack.start < fos_small_stack.room;
    return __builtin_expect(is_small, 0) ? fos_answer_on_own_stack(call) : fos_answer_call(call);
}

// With figures and traces.
__attribute__((noinline)) static long answer_and_count(struct fos_call *call) {
    long number = call->number;
    uint64_t start = fos_options.counting ? fos_clock() : 0;
    long result = fos_options.tracing ? fos_trace_call(call) : fos_calls_handle(call);
    if (fos_options.counting && result != FOS_PASS) {
        fos_tally_add(&fos_tally->handled[number], 1);
        fos_tally_add(&fos_tally->time_handled, fos_clock() - start);
    }
    return result;
}

long fos_answer_call(struct fos_call *call) {
    int is_plain = (fos_options.counting | fos_options.tracing) == 0;
    return __builtin_expect(is_plain, 1) ? fos_calls_handle(call) : answer_and_count(call);
}
