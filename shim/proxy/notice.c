// Notices: what the servers tell a client without being asked (invalidations of what it caches).
//
// Each core has a ring to each client; the client keeps its own copy of every tail, publishes it so that the core
// knows the room, and sleeps on one bell that all cores ring. A notice that wants it is acknowledged by a message to
// the server that sent it, after the client has acted on it.
#define _GNU_SOURCE
#include <string.h>
#include "proxy.h"

enum { NOTICE_CHECK_NS = 250000000 };  // an idle notice thread looks this often whether the instance still lives

// Takes the next notice of any ring, beginning after the one served last. 1 or 0.
static int take(struct fos_client *client, struct fos_notice *notice) {
    for (uint32_t step = 0; step < client->cores; step++) {
        uint32_t core = (client->notice_next + step) % client->cores;
        struct fos_notice_ring *ring = &client->notice_rings[core];
        uint32_t tail = client->notice_tails[core];
        uint32_t head = fos_load_acquire_u32(&ring->head);
        if (head == tail) continue;
        if (head - tail > FOS_NOTICES) tail = head - FOS_NOTICES;  // never by a core that keeps the room
        memcpy(notice, &ring->slots[tail % FOS_NOTICES], sizeof *notice);
        if (notice->name_length > FOS_NAME_BYTES_MAX) notice->name_length = FOS_NAME_BYTES_MAX;
        notice->name[notice->name_length] = 0;
        client->notice_tails[core] = tail + 1;
        fos_store_release_u32(&ring->tail, tail + 1);
        client->notice_next = core + 1;
        return 1;
    }
    return 0;
}

int fos_notice_take(struct fos_client *client, struct fos_notice *notice, uint64_t timeout_ns) {
    if (fos_load_relaxed_u32(&client->gone)) return -ENOTCONN;
    struct fos_notice_control *control = client->notice_control;
    uint64_t deadline = UINT64_MAX;
    if (timeout_ns != UINT64_MAX) {
        uint64_t now = fos_clock();
        deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    }
    int result;
    for (;;) {
        // The bell is read before the rings: a notice written after that look changes it, and the sleep ends at once.
        uint32_t bell = fos_load_acquire_u32(&control->notice_bell);
        result = take(client, notice);
        if (result != 0) break;
        fos_store_release_u32(&control->notice_parked, 1);
        fos_fence();
        if (fos_load_acquire_u32(&control->notice_bell) != bell) continue;
        uint64_t now = fos_clock();
        if (now >= deadline) break;
        fos_futex_wait(&control->notice_bell, bell, deadline - now < NOTICE_CHECK_NS ? deadline - now : NOTICE_CHECK_NS);
        if (fos_load_acquire_u32(&control->notice_bell) == bell && !fos_client_alive(client)) {
            result = -ENOTCONN;
            break;
        }
    }
    fos_store_release_u32(&control->notice_parked, 0);
    return result;
}

int fos_notice_acknowledge(struct fos_client *client, int channel, const struct fos_notice *notice) {
    if (!notice->want_ack) return 0;
    if (!fos_channel_valid(client, channel)) return -EINVAL;
    int result = -ESTALE;
    for (int attempt = 0; attempt < 2 && result == -ESTALE; attempt++) {
        uint32_t epoch = 0;
        if (attempt > 0 || !fos_cached_epoch(client, notice->reply_to, &epoch)) {
            struct fos_name_member members[FOS_LOOKUP_MEMBERS_MAX];
            int count = fos_lookup(client, channel, FOS_FILE_FLEET, members, FOS_LOOKUP_MEMBERS_MAX, 1);
            if (count < 0) return count;
            for (int i = 0; i < count; i++) {
                if (members[i].mailbox == notice->reply_to) epoch = members[i].epoch;
            }
        }
        struct fos_message *request = fos_request(client, channel, FOS_OP_LEASE_ACK, notice->inode);
        struct fos_lease_ack ack = {.cookie = notice->cookie};
        memcpy(fos_payload(request), &ack, sizeof ack);
        request->length = sizeof ack;
        result = fos_call_mailbox(client, channel, notice->reply_to, epoch);
    }
    return result;
}
