// Where a program runs: not on the CPU of the core that serves it, while another one has nothing to do.
//
// Linux sees a sleeping core's CPU as idle and likes to start programs there. Client and server then take turns on one CPU,
// at some microseconds a message, with the other CPU idle; and nothing moves the program, since nobody else wants to run.
// So a thread that has sent a number of messages from the core's CPU, and is alone in wanting to run, asks to run anywhere but
// there, and at once to run where it might before: the scheduler has moved it by then, and is free again. One that does little but
// send does so beside a few others too: it loses less by taking turns with them than with the core.
// Invariant: the thread's mask of CPUs is what it was.
#define _GNU_SOURCE
#include <limits.h>
#include "calls.h"
#include "../proxy/proxy.h"

enum {
    DENSE_NS = 50000,    // a message in so long, on the average: it does little but send
    PATIENCE = 8,        // messages from the core's CPU before something is done
    MOST_PATIENCE = 256, // what it grows to while nothing can be done: a look costs 3 us, as much as a message there
    MASK_WORDS = 16,     // of 1,024 CPUs
    WORD_BITS = sizeof(long) * CHAR_BIT,
};

static uint32_t patience = PATIENCE;

// How many threads of the machine run or want to (proc(5), loadavg); -1: not known.
static int runnable(void) {
    char text[64];
    long fd = fos_raw(SYS_openat, AT_FDCWD, "/proc/loadavg", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    long length = fos_raw(SYS_read, fd, text, sizeof text);
    fos_raw(SYS_close, fd);
    int spaces = 0, count = 0;
    long at = 0;
    while (at < length && spaces < 3) spaces += text[at++] == ' ';
    for (; at < length && text[at] >= '0' && text[at] <= '9' && count < 100000; at++) count = count * 10 + (text[at] - '0');
    return at < length && text[at] == '/' ? count : -1;
}

// Moves this thread off a CPU, if it is alone in wanting to run, or, `beside_others`, if not more than two do for each CPU that it may
// run on. 0, or -errno: it may run nowhere else, or the others are too many.
static long leave(uint32_t cpu, int beside_others) {
    unsigned long before[MASK_WORDS] = {0}, elsewhere[MASK_WORDS];
    if (cpu >= MASK_WORDS * WORD_BITS) return -EINVAL;
    long bytes = fos_raw(SYS_sched_getaffinity, 0, sizeof before, before);
    if (bytes < 0) return bytes;
    int cpus = 0, all = runnable();
    for (int word = 0; word < MASK_WORDS; word++) cpus += __builtin_popcountl(before[word]);
    if (all < 0 || all > (beside_others ? 2 * cpus : 1)) return -EBUSY;
    memcpy(elsewhere, before, sizeof before);
    elsewhere[cpu / WORD_BITS] &= ~(1ul << (cpu % WORD_BITS));
    long result = fos_raw(SYS_sched_setaffinity, 0, bytes, elsewhere);
    if (result == 0) fos_raw(SYS_sched_setaffinity, 0, bytes, before);
    return result;
}

void fos_step_aside(struct fos_context *context, struct fos_mount *mount) {
    struct fos_channel_state *state = &mount->client.state[context->index];
    uint32_t messages = fos_load_relaxed_u32(&patience);
    if (state->shared < messages) return;
    state->shared = 0;
    int32_t cpu = fos_board_cpu(mount->client.board, state->destination >> 16);
    uint64_t clock = fos_clock();
    int is_dense = clock - state->shared_at < (uint64_t)messages * DENSE_NS;
    state->shared_at = clock;
    // This thread is one; with more, another CPU may be taken, and then sharing is right, unless it does little but send.
    int moved = cpu >= 0 && leave((uint32_t)cpu, is_dense) == 0;
    fos_store_relaxed_u32(&patience, moved ? PATIENCE : messages < MOST_PATIENCE ? messages * 2 : MOST_PATIENCE);
}
