// A client of the memory fleet: every page it is given must be zeros, and is poisoned at once; or one that only holds.
//
// Regions come over the connection's socket (fos/memory.h). "frames" allocates, frees in parts and retires until the
// deadline; "hold" allocates what it can, says so, and waits to be killed.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "client.h"

enum { EXTENTS = 512, REGIONS = 256, POISON = 0xa5 };
#define FLEET "/sys/memory"

static struct fos_client client;
static int channel;
static struct held {
    struct fos_memory_extent extent;
    uint8_t *address;
} held[EXTENTS];
static unsigned count;
static struct {
    uint64_t token;
    int fd;
} regions[REGIONS];
static unsigned region_count;

static int call(void) {
    int status = fos_call_name(&client, channel, FLEET);
    if (status == -ENOTCONN) _exit(EXIT_GONE);
    return status;
}

static int region_of(uint64_t token) {
    for (unsigned i = 0; i < region_count; i++) {
        if (regions[i].token == token) return regions[i].fd;
    }
    violation("an extent of a region whose descriptor did not come");
}

static void check_zero(const uint8_t *bytes, uint64_t length) {
    for (uint64_t i = 0; i < length; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        if (word != 0) violation("a page that is not zeros at %llu of %llu", (unsigned long long)i, (unsigned long long)length);
    }
}

// Asks for memory; maps, checks and poisons what is given. 0 or -errno.
static int allocate(uint64_t bytes, uint32_t frame) {
    struct fos_message *request = fos_request(&client, channel, FOS_OP_MEMORY_ALLOCATE, 0);
    if (request == NULL) _exit(EXIT_GONE);
    struct fos_memory_request wanted = {.bytes = bytes, .frame_bytes = frame};
    memcpy(fos_payload(request), &wanted, sizeof wanted);
    request->length = sizeof wanted;
    int status = call();
    if (status < 0) return status;
    const struct fos_message *reply = fos_reply(&client, channel);
    struct fos_memory_grant grant;
    struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX];
    memcpy(&grant, fos_payload_const(reply), sizeof grant);
    if (grant.extents == 0 || grant.extents > FOS_MEMORY_EXTENTS_MAX) violation("%u extents in a grant", grant.extents);
    memcpy(extents, (const uint8_t *)fos_payload_const(reply) + sizeof grant, grant.extents * sizeof *extents);
    for (uint32_t i = 0; i < grant.regions; i++) {
        struct fos_map_packet packet;
        int fd;
        int received = fos_packet_receive(&client, &packet, &fd);
        if (received != 0) violation("a region's descriptor: %d", received);
        if (region_count == REGIONS) violation("too many regions");
        regions[region_count].token = packet.token;
        regions[region_count++].fd = fd;
    }
    for (uint32_t i = 0; i < grant.extents; i++) {
        if (count == EXTENTS) violation("too many extents");
        struct held *h = &held[count];
        h->extent = extents[i];
        h->address = mmap(NULL, extents[i].bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region_of(extents[i].token), (off_t)extents[i].offset);
        if (h->address == MAP_FAILED) violation("mmap: %s", strerror(errno));
        check_zero(h->address, extents[i].bytes);
        memset(h->address, POISON, extents[i].bytes);
        count++;
    }
    return 0;
}

static void free_extent(struct fos_memory_extent extent) {
    struct fos_message *request = fos_request(&client, channel, FOS_OP_MEMORY_FREE, extent.token);
    if (request == NULL) _exit(EXIT_GONE);
    struct fos_memory_free head = {.extents = 1};
    memcpy(fos_payload(request), &head, sizeof head);
    memcpy((uint8_t *)fos_payload(request) + sizeof head, &extent, sizeof extent);
    request->length = sizeof head + sizeof extent;
    int status = call();
    if (status != 0) violation("FREE of what was granted: %d", status);
}

// Frees an extent, or its first part.
static void give_back(struct random *random, uint32_t frame) {
    struct held *h = &held[below(random, count)];
    for (uint64_t i = 0; i < h->extent.bytes; i += 4096) {
        if (h->address[i] != POISON) violation("somebody else wrote to a page");
    }
    uint64_t frames = h->extent.bytes / frame;
    uint64_t part = (1 + below(random, frames)) * frame;
    struct fos_memory_extent extent = h->extent;
    extent.bytes = part;
    munmap(h->address, part);
    free_extent(extent);
    h->extent.offset += part;
    h->extent.bytes -= part;
    h->address += part;
    if (h->extent.bytes == 0) *h = held[--count];
}

static void retire_all(void) {
    for (unsigned i = 0; i < count; i++) munmap(held[i].address, held[i].extent.bytes);
    for (unsigned i = 0; i < region_count; i++) close(regions[i].fd);
    count = region_count = 0;
    if (fos_request(&client, channel, FOS_OP_MEMORY_RETIRE, 0) == NULL) _exit(EXIT_GONE);
    int status = call();
    if (status != 0) violation("RETIRE: %d", status);
}

static void connect_frames(void) {
    int status = fos_client_connect(&client, instance_uid, instance_name, 1, 0);
    if (status != 0) {
        fprintf(stderr, "fos-hostile frames: no connection: %s\n", strerror(-status));
        _exit(EXIT_GONE);
    }
    channel = fos_channel_acquire(&client);
}

int run_frames(struct random *random, uint64_t deadline) {
    connect_frames();
    uint64_t rounds = 0, granted = 0;
    uint32_t frame = chance(random, 70) ? FOS_MEMORY_FRAME_BYTES : FOS_MEMORY_HUGE_FRAME_BYTES;
    while (clock_ns() < deadline) {
        rounds++;
        if (count > 0 && chance(random, 45)) {
            give_back(random, frame);
        } else if (chance(random, 4) || count > EXTENTS - FOS_MEMORY_EXTENTS_MAX || region_count > REGIONS - FOS_MEMORY_EXTENTS_MAX) {
            retire_all();
            frame = chance(random, 70) ? FOS_MEMORY_FRAME_BYTES : FOS_MEMORY_HUGE_FRAME_BYTES;
        } else {
            int status = allocate(1 + below(random, chance(random, 10) ? 16 << 20 : 256 << 10), frame);
            if (status == -EOPNOTSUPP && frame == FOS_MEMORY_HUGE_FRAME_BYTES) frame = FOS_MEMORY_FRAME_BYTES;
            else if (status != 0 && status != -ENOMEM) violation("ALLOCATE: %d", status);
            granted += status == 0;
        }
    }
    printf("frames: %llu rounds, %llu grants\n", (unsigned long long)rounds, (unsigned long long)granted);
    return EXIT_OK;
}

int run_hold(struct random *random, uint64_t deadline) {
    connect_frames();
    for (int i = 0; i < 8; i++) {
        if (allocate((1 + below(random, 4)) << 20, FOS_MEMORY_FRAME_BYTES) != 0) break;
    }
    // A child that shares it all, and lives a little longer.
    if (chance(random, 30) && fork() == 0) {
        usleep(100000);
        for (unsigned i = 0; i < count; i++) {
            if (held[i].address[0] != POISON) abort();
        }
        _exit(EXIT_OK);
    }
    while (clock_ns() < deadline) usleep(10000);
    return EXIT_OK;
}
