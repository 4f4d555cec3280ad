// The messages to the memory fleet (fos/memory.h), and the descriptors that come with their replies.
//
// One mount serves a process: the one that FOS_MOUNT names, or the first that can be connected to. Without one, or when its
// daemon has gone, memory is Linux's; what is mapped already stays, since the process holds it.
#define _GNU_SOURCE
#include <unistd.h>
#include "calls.h"
#include "memory.h"

#define FOS_MEMORY_FLEET "/sys/memory"

static struct fos_mount *serving;
static uint32_t without;  // mounts that have no memory fleet, bits by index

static void close_all(struct fos_descriptors *descriptors) {
    for (int i = 0; i < descriptors->count; i++) fos_raw(SYS_close, descriptors->fd[i]);
    descriptors->count = 0;
}

static struct fos_mount *find_mount(void) {
    struct fos_mount *mount = serving;
    if (mount != NULL && mount->state == FOS_MOUNT_CONNECTED && !fos_load_acquire_u32(&mount->client.board->down)) return mount;
    return serving = fos_mount_for_memory(without);
}

// Another thread may be taking its descriptors; or this one, interrupted by a handler, which is not waited for long. Before a
// fork patience pays: without the descriptor all would have to be copied.
static int claim_packets(int patient) {
    for (int attempt = patient ? 500 : 20; attempt > 0; attempt--) {
        if (fos_packets_claim()) return 1;
        fos_sleep(100000);
    }
    return 0;
}

// Sends a request and takes the descriptors that its reply speaks of. The status, or -errno.
static int ask(uint16_t operation, uint64_t token, const void *payload, uint32_t bytes, void *reply, uint32_t reply_bytes, struct fos_descriptors *descriptors) {
    struct fos_context *context = fos_enter(SYS_mmap);
    if (context == NULL) return -EAGAIN;
    struct fos_mount *mount = find_mount();
    int status = mount == NULL ? -ENOTCONN : 0;
    if (status == 0 && descriptors != NULL && !claim_packets(operation == FOS_OP_MEMORY_REGION)) status = -EAGAIN;
    if (status != 0) {
        fos_leave(context);
        return status;
    }
    fos_put_fixed(fos_build(context, mount, operation, token), payload, bytes);
    status = fos_send_to(context, mount, FOS_MEMORY_FLEET);
    if (status == -ENOENT && operation == FOS_OP_MEMORY_ALLOCATE) {
        without |= 1u << mount->index;
        serving = NULL;
        status = -EHOSTUNREACH;
    }
    uint32_t expected = 0;
    if (status >= 0) {
        const struct fos_message *answer = fos_answer(context, mount);
        uint32_t length = answer->length < reply_bytes ? answer->length : reply_bytes;
        memset(reply, 0, reply_bytes);
        memcpy(reply, fos_payload_const(answer), length);
        if (operation == FOS_OP_MEMORY_ALLOCATE) expected = ((const struct fos_memory_grant *)reply)->regions;
        else if (operation == FOS_OP_MEMORY_REGION) expected = 1;
        if (expected > FOS_MEMORY_EXTENTS_MAX) status = -EPROTO;
    }
    for (uint32_t i = 0; status >= 0 && i < expected; i++) {
        struct fos_map_packet packet;
        int fd;
        int result = fos_packet_receive(&mount->client, &packet, &fd);
        if (result != 0) {
            status = result;
        } else if ((packet.token & FOS_MEMORY_TOKEN) == 0) {
            // Left over from a MAP that was given up.
            fos_raw(SYS_close, fd);
            i--;
        } else {
            descriptors->token[descriptors->count] = packet.token;
            descriptors->fd[descriptors->count++] = fd;
        }
    }
    if (descriptors != NULL) {
        fos_packets_release();
        if (status < 0) close_all(descriptors);
    }
    fos_leave(context);
    return status;
}

int fos_fleet_allocate(uint64_t bytes, uint32_t frame_bytes, struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX], struct fos_descriptors *descriptors) {
    struct fos_memory_request request = {.bytes = bytes, .frame_bytes = frame_bytes};
    struct {
        struct fos_memory_grant grant;
        struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX];
    } reply;
    int status = -EHOSTUNREACH;
    for (int attempt = 0; status == -EHOSTUNREACH && attempt < FOS_MOUNTS_MAX; attempt++) {
        status = ask(FOS_OP_MEMORY_ALLOCATE, 0, &request, sizeof request, &reply, sizeof reply, descriptors);
    }
    if (status < 0) return status;
    if (reply.grant.extents > FOS_MEMORY_EXTENTS_MAX) return -EPROTO;
    memcpy(extents, reply.extents, reply.grant.extents * sizeof *extents);
    return (int)reply.grant.extents;
}

int fos_fleet_region(uint64_t token) {
    struct fos_memory_region reply;
    struct fos_descriptors descriptors = {.count = 0};
    int status = ask(FOS_OP_MEMORY_REGION, token, "", 0, &reply, sizeof reply, &descriptors);
    if (status < 0) return status;
    if (descriptors.count == 1 && descriptors.token[0] == token) return descriptors.fd[0];
    close_all(&descriptors);
    return -EPROTO;
}

// Nobody waits for the answer.
void fos_fleet_free(const struct fos_memory_extent *extents, uint32_t count) {
    struct fos_mount *mount = serving;
    if (mount == NULL || mount->state != FOS_MOUNT_CONNECTED) return;
    struct fos_context *context = fos_enter(SYS_munmap);
    if (context == NULL) return;
    struct {
        struct fos_memory_free free;
        struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX];
    } request = {.free = {.extents = count}};
    memcpy(request.extents, extents, count * sizeof *extents);
    fos_put_fixed(fos_build(context, mount, FOS_OP_MEMORY_FREE, extents[0].token), &request, (uint32_t)(sizeof request.free + count * sizeof *extents));
    fos_post_to(context, mount, FOS_MEMORY_FLEET);
    fos_leave(context);
}

int fos_fleet_retire(void) {
    uint64_t reply;
    return serving == NULL ? 0 : ask(FOS_OP_MEMORY_RETIRE, 0, "", 0, &reply, sizeof reply, NULL);
}

int fos_fleet_keep(int place, int fd) { return fos_hide_for_memory(place, fd); }
int fos_fleet_kept(int place) { return fos_hidden_for_memory(place); }
void fos_fleet_forget(int place) { fos_forget_for_memory(place); }
