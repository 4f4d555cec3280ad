// Waking a core ahead of the request that is likely to come.
//
// Why: a program that computes for a while and then works on files for a moment finds its core asleep each time, and the first
// request waits for the wake (20 to 40 us). But that moment mostly begins with calls that are answered by what the client keeps
// (the names on the way to a file). Who answers such a call says so here, and the core wakes up meanwhile.
// Protocol: only what has been learnt: when a sleeping core was noticed and a request followed as soon as a wake takes and
// before the core would have slept again, the channel is surer that it will be so the next time; else less. A core is woken
// at most once between two requests of a channel.
#define _GNU_SOURCE
#include "proxy.h"

enum {
    FORESIGHT_ENOUGH = 3, FORESIGHT_MOST = 8,
    SOONEST_NS = 5000, LATEST_NS = 150000,  // of the request after the notice: when waking pays
};

void fos_expect_request(struct fos_client *client, int channel) {
    struct fos_channel_state *state = &client->state[channel];
    uint32_t core = state->destination >> 16;
    const uint32_t *parked = &client->board->core[core].parked;
    if (__builtin_expect(fos_load_relaxed_u32(parked) == 0, 1) || state->noticed_at != 0 || state->sequence == 0) return;
    state->noticed_at = fos_clock();
    if (state->foresight < FORESIGHT_ENOUGH || client->spin_ns == 0) return;
    // On the core's own CPU it would put this thread aside.
    int here = sched_getcpu();
    if (here >= 0 && here != fos_board_cpu(client->board, core)) fos_futex_wake(parked);
}

void fos_learn_foresight(struct fos_channel_state *state) {
    uint64_t passed = fos_clock() - state->noticed_at;
    state->noticed_at = 0;
    if (passed >= SOONEST_NS && passed <= LATEST_NS) state->foresight += state->foresight < FORESIGHT_MOST;
    else if (state->foresight > 0) state->foresight--;
}
