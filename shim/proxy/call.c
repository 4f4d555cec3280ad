// Calling: post a request, wait for its reply, and handle the transport's own outcomes.
//
// Post: write the request into the channel, its sequence last (release), ring the bell of the destination's core
// (seq_cst), fence, and only if that core is parked make the system call that wakes it. A caller that
// waits at once looks for a quick reply before it rings: a core that watches the channel needs no bell.
// Wait: spin a while, then announce the sleep (client_parked), fence, look again, and sleep on reply_sequence.
// A client on the server's own CPU parks at once: as long as it spins, the server cannot run.
//
// One wake can miss: clients see the board read-only, so the futex word of a core does not change when they ring, and
// a core that has announced its sleep but not begun it does not notice a wake. FUTEX_WAKE says how many it woke; after
// a miss the wake is repeated while the core says parked and the bell bit is still set, also from within the client's
// own sleep.
//
// RETRY and FULL are sent again after a randomised, exponentially growing pause (up to 1 ms); STALE after a look-up.
#define _GNU_SOURCE
#include "proxy.h"

static uint32_t core_of(fos_mailbox mailbox) { return mailbox >> 16; }

// Wakes the core if it is parked and has not taken the channel's bell. Notes a miss in the channel's state.
static void ring(struct fos_client *client, int channel) {
    struct fos_channel_state *state = &client->state[channel];
    uint32_t core = core_of(state->destination);
    const uint32_t *parked = &client->board->core[core].parked;
    const uint64_t *bell = &client->bells[core].bits[channel / 64];
    state->wake_missed = 0;
    for (int attempt = 0; fos_load_acquire_u32(parked) != 0; attempt++) {
        if ((fos_load_relaxed_u64(bell) >> (channel % 64) & 1) == 0) return;
        if (fos_futex_wake(parked) > 0) return;
        if (attempt == 3) {
            state->wake_missed = 1;
            return;
        }
        for (int pause = 0; pause < 20; pause++) fos_spin_pause();
    }
}

// True if the reply must come from a server on this CPU.
static int is_servers_cpu(const struct fos_client *client, const struct fos_channel_state *state, int cpu) {
    return cpu >= 0 && cpu == fos_board_cpu(client->board, core_of(state->destination));
}
// The same of the CPU that this thread runs on.
static int shares_cpu(const struct fos_client *client, const struct fos_channel_state *state) {
    return is_servers_cpu(client, state, sched_getcpu());
}

// Says whether this thread sleeps. The core reads the word after each reply, so it is written only when it changes.
static void say_parked(struct fos_client *client, int channel, uint32_t parked) {
    if (client->state[channel].parked == parked) return;
    client->state[channel].parked = parked;
    fos_store_release_u32(&client->channel[channel].client_parked, parked);
}

// Puts a request into its channel: from then on it is posted.
static void publish(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch) {
    struct fos_channel_state *state = &client->state[channel];
    struct fos_message *request = &state->request;
    if (__builtin_expect(state->noticed_at != 0, 0)) fos_learn_foresight(state);
    if (++state->sequence == 0) state->sequence = 1;
    state->destination = destination;
    state->epoch = epoch;
    state->in_flight = 1;
    state->unannounced = 1;
    state->resend = 0;
    request->destination = destination;
    request->epoch = epoch;
    int here = sched_getcpu();
    request->status = here >= 0 ? here + 1 : 0;
    // On the server's own CPU a wake puts this thread aside at once, before it could say that it sleeps. The server must know
    // even so that somebody waits for its CPU, or it spins in the way for as long as it would for others.
    int shares = is_servers_cpu(client, state, here);
    if (shares) state->shared++;
    say_parked(client, channel, shares ? 2 : 0);
    // A longer one is refused by the core, whatever its payload.
    uint32_t length = request->length <= FOS_PAYLOAD_BYTES_MAX ? request->length : FOS_PAYLOAD_BYTES_MAX;
    fos_write_message(&client->channel[channel].request, request, length, state->sequence);
    if (client->timed) state->times.posted = fos_clock();
}

// Rings for a posted request, and wakes the core if it sleeps.
static void announce(struct fos_client *client, int channel) {
    fos_mailbox destination = client->state[channel].destination;
    fos_fetch_or_u64(&client->bells[core_of(destination)].bits[channel / 64], UINT64_C(1) << (channel % 64));
    client->state[channel].unannounced = 0;
    fos_fence_after_update();
    ring(client, channel);
}

void fos_publish(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch) {
    publish(client, channel, destination, epoch);
    announce(client, channel);
}

// The sequence in the reply's own header is its last word to change: one cache line brings the news and the reply.
static int replied(const struct fos_client *client, int channel) {
    return fos_load_acquire_u32(&client->channel[channel].reply.sequence) == client->state[channel].sequence;
}

// Readies a channel for a new request. 0 or -errno.
static int begin(struct fos_client *client, int channel, uint32_t route) {
    if (fos_load_relaxed_u32(&client->gone)) return -ENOTCONN;
    if (!fos_channel_valid(client, channel)) return -EINVAL;
    if (client->state[channel].in_flight) return -EBUSY;
    client->state[channel].route = route;
    client->state[channel].attempts = client->state[channel].stale = 0;
    return 0;
}

// Where the message goes is said, or found.
static void note_route(struct fos_client *client, int channel) {
    struct fos_call_times *times = &client->state[channel].times;
    fos_note_sent(client, channel);
    if (client->timed && times->resolved == 0) times->resolved = fos_clock();
}

int fos_post(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch) {
    int result = begin(client, channel, FOS_ROUTE_MAILBOX);
    if (result != 0) return result;
    if (!fos_destination_valid(client, destination)) return -EINVAL;
    note_route(client, channel);
    fos_publish(client, channel, destination, epoch);
    return 0;
}

// Finds the owner of request.inode, for a channel that is ready. 0 or -errno.
static int resolve(struct fos_client *client, int channel, fos_mailbox *destination, uint32_t *epoch) {
    int result = begin(client, channel, FOS_ROUTE_OWNER);
    if (result == 0) fos_note_sent(client, channel);
    if (result == 0) result = fos_resolve_owner(client, channel, 0, destination, epoch);
    if (result != 0) return result;
    client->state[channel].route = FOS_ROUTE_OWNER;  // a look-up on this channel has changed it
    client->state[channel].attempts = client->state[channel].stale = 0;
    note_route(client, channel);
    return 0;
}

int fos_post_owner(struct fos_client *client, int channel) {
    fos_mailbox destination;
    uint32_t epoch;
    int result = resolve(client, channel, &destination, &epoch);
    if (result == 0) fos_publish(client, channel, destination, epoch);
    return result;
}

// Waits until the reply is likely there. Each look before fetches the reply's line from the core that is about to write it, and
// the core has to fetch it back.
static void wait_before_looking(const struct fos_channel_state *state) {
    for (int pauses = (FOS_PATIENCE_START + state->patience) / 16; pauses > 0; pauses--) fos_spin_pause();
}

// A reply has come at a look. To look too early costs more than to look too late, so the time settles where seven replies
// in eight are there at the first look. Those that take much longer say nothing.
static void learn_patience(struct fos_channel_state *state, int look) {
    int patience = FOS_PATIENCE_START + state->patience;
    if (look == 0 && patience > 0) state->patience--;
    else if (look > 0 && look < FOS_EAGER_LOOKS && patience < FOS_PATIENCE_MOST) state->patience += FOS_PATIENCE_STEP;
}

// Looks for a quick reply to what was posted. 1: it has come.
static int look_for_reply(struct fos_client *client, int channel) {
    struct fos_channel_state *state = &client->state[channel];
    int looks = FOS_EAGER_LOOKS + FOS_QUIET_LOOKS + (int)(state->request.bulk_length / FOS_BYTES_A_LOOK);
    wait_before_looking(state);
    for (int look = 0; look < looks; look++) {
        if (replied(client, channel)) {
            learn_patience(state, look);
            state->in_vain = 0;
            return 1;
        }
        if (look >= FOS_EAGER_LOOKS) fos_spin_pause();
    }
    if (++state->in_vain < FOS_LOOKS_IN_VAIN) return 0;
    state->in_vain = 0;
    state->loud = FOS_LOUD_CALLS;
    return 0;
}

// Posts for a caller that waits for the reply at once. A core that watches the channel answers within a microsecond
// without a bell, and the bell's cache line then stays where it is; so the client looks for that long before it rings.
// When looks are in vain, there is none for some calls. One reply may be late for reasons of its own.
static void publish_and_look(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch) {
    struct fos_channel_state *state = &client->state[channel];
    publish(client, channel, destination, epoch);
    int is_awake = fos_load_relaxed_u32(&client->board->core[core_of(destination)].parked) == 0;
    if (is_awake && client->spin_ns != 0 && state->parked == 0 && state->request.bulk_length <= FOS_QUIET_BYTES) {
        if (state->loud > 0) state->loud--;
        else if (look_for_reply(client, channel)) return;
    }
    announce(client, channel);
}

// Puts a request that met a transaction or a full mailbox aside until a random moment of the next interval.
static void back_off(struct fos_channel_state *state) {
    uint64_t x = state->random != 0 ? state->random : (fos_clock() ^ (uint64_t)(uintptr_t)state) | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state->random = x;
    uint32_t shift = ++state->attempts < 10 ? state->attempts : 10;
    state->resend_at = fos_clock() + x % (UINT64_C(1000) << shift);
    state->resend = 1;
    if (state->times.retries != UINT32_MAX) state->times.retries++;
}

// A reply has come: with it what the microkernel wrote down of its request.
static void note_reply(struct fos_client *client, int channel) {
    struct fos_call_times *times = &client->state[channel].times;
    const struct fos_request_times *core = &client->channel[channel].times;
    times->replied = fos_clock();
    times->taken = core->taken;
    times->begun = core->begun;
    times->answered = core->answered;
}

// Asks for the lines that a caller will look at: the attributes in the reply, and the epoch of the inode that it is about.
static void fetch_what_follows(const struct fos_client *client, const struct fos_message *reply) {
    __builtin_prefetch(reply + 1);
    __builtin_prefetch(reply + 2);
    __builtin_prefetch(&client->board->inode_epoch[fos_inode_epoch_index(reply->inode)]);
}

// Takes a reply that has come: 1 for the caller, 0 to be sent again, or -errno.
static int settle(struct fos_client *client, int channel) {
    struct fos_channel_state *state = &client->state[channel];
    const struct fos_message *reply = &client->channel[channel].reply;
    int32_t status = reply->status;
    fetch_what_follows(client, reply);
    if (client->timed) note_reply(client, channel);
    if (status == FOS_TRANSPORT_RETRY || status == FOS_TRANSPORT_FULL) {
        // A server has seen it and asks for it once more: what was given with it has been taken.
        if (status == FOS_TRANSPORT_RETRY) state->request.given = 0;
        back_off(state);
        return 0;
    }
    state->in_flight = 0;
    if (status <= 0) return reply->length <= FOS_PAYLOAD_BYTES_MAX && reply->bulk_length <= FOS_BULK_BYTES ? 1 : -EPROTO;
    if (status == FOS_TRANSPORT_DENIED) return -EPERM;
    if (status != FOS_TRANSPORT_STALE) return -EPROTO;
    if (state->route != FOS_ROUTE_OWNER) return -ESTALE;
    uint32_t attempts = state->attempts, stale = state->stale + 1;
    fos_mailbox destination;
    uint32_t epoch;
    int result = fos_resolve_owner(client, channel, 1, &destination, &epoch);
    if (result != 0) return result;
    state->route = FOS_ROUTE_OWNER;
    state->attempts = attempts;
    state->stale = stale;
    state->destination = destination;
    state->epoch = epoch;
    state->in_flight = 1;
    // The first time at once; should the names lag behind the mailboxes, then with pauses.
    back_off(state);
    if (stale == 1) state->resend_at = 0;
    return 0;
}

static void resend(struct fos_client *client, int channel) {
    fos_publish(client, channel, client->state[channel].destination, client->state[channel].epoch);
}

int fos_poll(struct fos_client *client, int channel) {
    if (!fos_channel_valid(client, channel) || !client->state[channel].in_flight) return -EINVAL;
    if (client->state[channel].resend) {
        if (fos_clock() < client->state[channel].resend_at) return 0;
        resend(client, channel);
    }
    if (!replied(client, channel)) return fos_is_gone(client) ? fos_lost(client) : 0;
    return settle(client, channel);
}

// Spins for the reply. 1 it came, 0 the time is up. The clock is read only every 32 looks: a quick reply costs none.
static int spin(struct fos_client *client, int channel, uint64_t nanoseconds) {
    uint64_t start = 0;
    for (;;) {
        for (int look = 0; look < 32; look++) {
            if (replied(client, channel)) return 1;
            fos_spin_pause();
        }
        // The core was about to sleep when it was woken: by now it does.
        if (client->state[channel].wake_missed) ring(client, channel);
        uint64_t now = fos_clock();
        if (start == 0) start = now;
        else if (now - start >= nanoseconds) return 0;
    }
}

// How long a channel spins at present.
static uint32_t longest_spin(const struct fos_client *client, const struct fos_channel_state *state) {
    return state->spin_ns != 0 && state->spin_ns < client->spin_ns ? state->spin_ns : client->spin_ns;
}

// Keeps a channel's spinning at what pays: replies that come later than the longest spin would have caught are waited
// for asleep. Windows of 16 calls; halves after a mostly late one, doubles after a mostly early one.
static void adapt(struct fos_client *client, struct fos_channel_state *state, int late) {
    state->late += (uint32_t)late;
    if (++state->calls < 16) return;
    state->spin_ns = longest_spin(client, state);
    if (state->late >= 12) state->spin_ns /= 2;
    else if (state->late <= 4) state->spin_ns = state->spin_ns * 2;
    if (state->spin_ns < FOS_SPIN_LEAST_NS) state->spin_ns = FOS_SPIN_LEAST_NS;
    if (state->spin_ns > client->spin_ns) state->spin_ns = client->spin_ns;
    state->calls = state->late = 0;
}

static void about_to_sleep(struct fos_client *client, int channel) {
    if (client->before_sleep != NULL) client->before_sleep(client->before_sleep_context, channel);
}

// Sleeps until the reply, the deadline, or the instance's end. 0, -ETIMEDOUT or -ENOTCONN.
static int park(struct fos_client *client, int channel, uint64_t deadline) {
    struct fos_channel *shared = &client->channel[channel];
    struct fos_channel_state *state = &client->state[channel];
    uint64_t start = fos_clock(), checked = start;
    int result = 0;
    state->times.parked = 1;
    about_to_sleep(client, channel);
    for (;;) {
        // On the server's own CPU this thread runs again only once the server steps aside, which it does if it is told.
        say_parked(client, channel, shares_cpu(client, state) ? 2 : 1);
        fos_fence();
        uint32_t seen = fos_load_acquire_u32(&shared->reply_sequence);
        if (seen == state->sequence || replied(client, channel)) break;
        uint64_t now = fos_clock();
        if (now >= deadline) {
            result = -ETIMEDOUT;
            break;
        }
        uint64_t nap = state->wake_missed ? 100000 : FOS_CHECK_NS;
        if (nap > deadline - now) nap = deadline - now;
        fos_futex_wait(&shared->reply_sequence, seen, nap);
        if (replied(client, channel)) break;
        if (state->wake_missed) ring(client, channel);
        now = fos_clock();
        if (now - checked >= FOS_CHECK_NS) {
            checked = now;
            if (!fos_client_alive(client)) {
                result = -ENOTCONN;
                break;
            }
            // Cheap insurance against a core that went to sleep with the bell rung.
            ring(client, channel);
        }
    }
    say_parked(client, channel, 0);
    if (result == 0) adapt(client, state, fos_clock() - start > client->spin_ns);
    return result;
}

static int await(struct fos_client *client, int channel, uint64_t deadline) {
    struct fos_channel_state *state = &client->state[channel];
    if (replied(client, channel)) return 0;
    if (fos_is_gone(client)) return fos_lost(client);
    uint64_t nanoseconds = longest_spin(client, state);
    if (nanoseconds != 0 && !shares_cpu(client, state)) {
        if (spin(client, channel, nanoseconds)) {
            adapt(client, state, 0);
            return 0;
        }
    }
    return park(client, channel, deadline);
}

// Waits out a back-off. -ETIMEDOUT if the deadline comes first.
static int pause_until_resend(struct fos_client *client, int channel, uint64_t deadline) {
    const struct fos_channel_state *state = &client->state[channel];
    for (;;) {
        uint64_t now = fos_clock();
        if (now >= state->resend_at) return fos_is_gone(client) ? fos_lost(client) : 0;
        if (now >= deadline) return -ETIMEDOUT;
        if (state->resend_at - now > 30000 || shares_cpu(client, state)) {
            about_to_sleep(client, channel);
            fos_sleep(state->resend_at - now);
        } else {
            fos_spin_pause();
        }
    }
}

int fos_take_over(struct fos_client *client, int channel) {
    struct fos_channel_state *state = &client->state[channel];
    if (!state->in_flight || replied(client, channel)) {
        // One that was to be sent again has done nothing yet.
        if (state->resend) state->in_flight = state->resend = 0;
    } else if (fos_load_relaxed_u32(&client->channel[channel].request.sequence) != state->sequence) {
        state->in_flight = state->resend = 0;
    } else if (state->unannounced) {
        announce(client, channel);
    }
    return state->in_flight != 0;
}

int fos_wait(struct fos_client *client, int channel, uint64_t timeout_ns) {
    if (!fos_channel_valid(client, channel) || !client->state[channel].in_flight) return -EINVAL;
    struct fos_channel_state *state = &client->state[channel];
    uint64_t deadline = UINT64_MAX;
    if (timeout_ns != UINT64_MAX) {
        uint64_t now = fos_clock();
        deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    }
    for (;;) {
        int result = 0;
        if (state->resend) {
            result = pause_until_resend(client, channel, deadline);
            if (result == 0) resend(client, channel);
        }
        if (result == 0) result = await(client, channel, deadline);
        if (result == 0) result = settle(client, channel);
        if (result != 0) return result;
    }
}

// Waits for what was posted and returns the operation's status.
static int finish(struct fos_client *client, int channel) {
    int result = fos_wait(client, channel, UINT64_MAX);
    if (client->timed) client->state[channel].times.returned = fos_clock();
    return result == 1 ? client->channel[channel].reply.status : result;
}

int fos_call_mailbox(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch) {
    int result = begin(client, channel, FOS_ROUTE_MAILBOX);
    if (result != 0) return result;
    if (!fos_destination_valid(client, destination)) return -EINVAL;
    note_route(client, channel);
    publish_and_look(client, channel, destination, epoch);
    return finish(client, channel);
}

int fos_call(struct fos_client *client, int channel) {
    fos_mailbox destination;
    uint32_t epoch;
    int result = resolve(client, channel, &destination, &epoch);
    if (result != 0) return result;
    publish_and_look(client, channel, destination, epoch);
    return finish(client, channel);
}
