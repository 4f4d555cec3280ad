// Channels: which of the client's request slots are taken.
//
// A channel carries one request at a time and belongs to one thread at a time. Taking and giving back are single
// atomic operations on bit words of the client's own memory, safe among threads and in signal handlers.
// A channel given back while its request is unanswered (a wait that timed out, a thread that was cancelled) drains:
// it is handed out again only after the reply has come, so a late reply never meets a stranger's request.
#include <string.h>
#include "proxy.h"

static int answered(const struct fos_client *client, int channel) {
    return fos_load_acquire_u32(&client->channel[channel].reply.sequence) == client->state[channel].sequence;
}

static int take(struct fos_client *client, int channel) {
    uint64_t bit = UINT64_C(1) << (channel % 64);
    return (fos_fetch_or_u64(&client->channels_used[channel / 64], bit) & bit) == 0;
}

int fos_channel_acquire(struct fos_client *client) {
    if (client->gone) return -ENOTCONN;
    for (uint32_t word = 0; word * 64 < client->channels; word++) {
        uint64_t free = ~fos_load_relaxed_u64(&client->channels_used[word]);
        while (free != 0) {
            int channel = (int)word * 64 + __builtin_ctzll(free);
            if ((uint32_t)channel >= client->channels) break;
            if (take(client, channel)) return channel;
            free &= free - 1;
        }
    }
    for (uint32_t word = 0; word < FOS_BELL_WORDS; word++) {
        uint64_t draining = fos_load_relaxed_u64(&client->channels_draining[word]);
        for (; draining != 0; draining &= draining - 1) {
            int channel = (int)word * 64 + __builtin_ctzll(draining);
            uint64_t bit = draining & -draining;
            if (!answered(client, channel)) continue;
            // Whoever clears the bit has the channel.
            if ((__atomic_fetch_and(&client->channels_draining[word], ~bit, __ATOMIC_ACQ_REL) & bit) == 0) continue;
            client->state[channel].in_flight = client->state[channel].resend = 0;
            return channel;
        }
    }
    return -EAGAIN;
}

void fos_channel_release(struct fos_client *client, int channel) {
    if (!fos_channel_valid(client, channel)) return;
    uint64_t bit = UINT64_C(1) << (channel % 64);
    struct fos_channel_state *state = &client->state[channel];
    if (state->in_flight && !state->resend && !answered(client, channel)) {
        __atomic_fetch_or(&client->channels_draining[channel / 64], bit, __ATOMIC_ACQ_REL);
        return;
    }
    state->in_flight = state->resend = 0;
    __atomic_fetch_and(&client->channels_used[channel / 64], ~bit, __ATOMIC_ACQ_REL);
}

struct fos_message *fos_draft(struct fos_client *client, int channel) { return &client->state[channel].request; }

struct fos_message *fos_request(struct fos_client *client, int channel, uint16_t operation, uint64_t inode) {
    struct fos_message *message = fos_draft(client, channel);
    fos_prefetch_to_write(&client->channel[channel].request);
    memset(message, 0, sizeof *message);
    message->operation = operation;
    message->inode = inode;
    if (client->timed) {
        message->timed = 1;
        memset(&client->state[channel].times, 0, sizeof client->state[channel].times);
        client->state[channel].times.built = fos_clock();
    }
    return message;
}

const struct fos_message *fos_reply(const struct fos_client *client, int channel) { return &client->channel[channel].reply; }

uint8_t *fos_bulk(struct fos_client *client, int channel) { return client->bulk + (size_t)channel * FOS_CHANNEL_AREA_BYTES; }

struct fos_delegation *fos_delegation_area(struct fos_client *client, int channel) {
    return (struct fos_delegation *)(fos_bulk(client, channel) + FOS_BULK_BYTES);
}

void fos_call_timing(const struct fos_client *client, int channel, struct fos_call_times *times) {
    *times = client->state[channel].times;
}
