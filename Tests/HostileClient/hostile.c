// A hostile client's life: connect, attack in a random order, leave in a random way, again.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "client.h"

static struct fos_client client;

// Rewrites requests and bulk while servers read them: what was validated must be what is used.
struct scribbler {
    struct random random;
    uint32_t stop;
};
static void *scribble(void *context) {
    struct scribbler *scribbler = context;
    struct random *random = &scribbler->random;
    while (!fos_load_relaxed_u32(&scribbler->stop)) {
        for (int i = 0; i < 200; i++) {
            struct fos_channel *channel = &client.channel[below(random, client.channels)];
            uint32_t *words = (uint32_t *)&channel->request;
            uint64_t first = is_entitled() ? FOS_MESSAGE_HEADER_BYTES / 4 : 0;
            words[first + below(random, FOS_MESSAGE_BYTES / 4 - first)] = (uint32_t)odd_number(random);
            client.bulk[below(random, 65536)] ^= (uint8_t)draw(random);
        }
        usleep(50);
    }
    return NULL;
}

static void deface(struct random *random) {
    size_t control = (size_t)(client.bulk - client.segment);
    size_t at = below(random, control), length = 1 + below(random, 2048);
    if (length > control - at) length = control - at;
    fill(random, client.segment + at, length);
}

static void deface_notices(struct random *random) {
    for (uint32_t core = 0; core < client.cores; core++) {
        client.notice_rings[core].tail = (uint32_t)odd_number(random);
        client.notice_rings[core].head = (uint32_t)odd_number(random);
    }
    client.notice_control->notice_bell = (uint32_t)draw(random);
    client.notice_control->notice_parked = (uint32_t)draw(random);
}

static void wait_a_little(struct random *random, int channel) {
    uint64_t limit = clock_ns() + below(random, 2000000);
    while (clock_ns() < limit) {
        if (fos_load_acquire_u32(&client.channel[channel].reply_sequence) == client.channel[channel].request.sequence) return;
        if (client.board->down) return;
        usleep(20);
    }
}

// The inode of the directory that everybody may write to; the root if it is not there.
static uint64_t public_directory(void) {
    int channel = fos_channel_acquire(&client);
    if (channel < 0) return FOS_ROOT_INODE;
    uint64_t inode = FOS_ROOT_INODE;
    struct fos_message *request = fos_request(&client, channel, FOS_OP_LOOKUP, FOS_ROOT_INODE);
    memcpy(fos_payload(request), "public", 6);
    request->length = 6;
    if (fos_post_owner(&client, channel) == 0 && fos_wait(&client, channel, 1000000000) == 1 && fos_reply(&client, channel)->status == 0) {
        struct fos_attributes attributes;
        memcpy(&attributes, fos_payload_const(fos_reply(&client, channel)), sizeof attributes);
        inode = attributes.inode;
    }
    fos_channel_release(&client, channel);
    return inode;
}

static void leave(struct random *random) {
    switch (below(random, 12)) {
    case 0: _exit(EXIT_OK);
    case 1: kill(getpid(), SIGKILL); break;
    case 2: {
        // Dies, but leaves its socket and its mapping to a child for a while.
        pid_t child = fork();
        if (child == 0) {
            usleep(30000);
            for (uint32_t core = 0; core < client.cores; core++) client.bells[core].bits[0] = UINT64_MAX;
            usleep(30000);
            _exit(EXIT_OK);
        }
        _exit(EXIT_OK);
    }
    case 3: close(client.socket); client.socket = -1; usleep(1000); deface(random); fos_client_disconnect(&client); break;
    default: fos_client_disconnect(&client); break;
    }
}

static void live(struct random *random) {
    uint64_t directory = public_directory();
    pthread_t thread;
    struct scribbler scribbler = {.random = {draw(random) | 1}, .stop = 0};
    int scribbling = chance(random, 30) && pthread_create(&thread, NULL, scribble, &scribbler) == 0;
    unsigned steps = 1 + (unsigned)below(random, 400);
    for (unsigned step = 0; step < steps && !client.board->down; step++) {
        int channel = (int)below(random, client.channels);
        switch (below(random, 40)) {
        case 0: deface(random); break;
        case 1: client.bells[below(random, client.cores)].bits[below(random, FOS_BELL_WORDS)] = draw(random); break;
        case 2: deface_notices(random); break;
        case 3: attack_memory(random, &client); break;
        case 4:
            for (uint32_t each = 0; each < client.channels; each++) attack_request(random, &client, (int)each, directory);
            break;
        case 5: client.channel[channel].request.sequence = (uint32_t)odd_number(random); break;
        case 6: client.channel[channel].reply_sequence = (uint32_t)odd_number(random); break;
        case 7: client.channel[channel].client_parked = (uint32_t)below(random, 4); break;
        default:
            attack_request(random, &client, channel, directory);
            if (chance(random, 80)) wait_a_little(random, channel);
            break;
        }
    }
    if (scribbling) {
        fos_store_release_u32(&scribbler.stop, 1);
        pthread_join(thread, NULL);
    }
    leave(random);
}

int run_hostile(struct random *random, uint64_t deadline) {
    int refused = 0;
    while (clock_ns() < deadline) {
        if (chance(random, 25)) attack_handshake(random);
        uint32_t channels = (uint32_t)(chance(random, 80) ? 1 + below(random, 8) : 1 + below(random, FOS_CHANNELS_MAX));
        int result = fos_client_connect(&client, instance_uid, instance_name, channels, chance(random, 10) ? FOS_HELLO_FRONT_END : 0);
        if (result == 0) {
            refused = 0;
            if (!is_entitled() && client.rights != 0) violation("rights %u were granted to user %u", client.rights, getuid());
            live(random);
            continue;
        }
        // No room, or a front end that it is not: another try. Nobody listening any more: the end.
        if (result == -ECONNREFUSED && ++refused > 50) return EXIT_GONE;
        usleep(5000);
    }
    return EXIT_OK;
}
