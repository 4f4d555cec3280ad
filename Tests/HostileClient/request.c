// Hostile requests: real operations with broken fields, and noise.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "client.h"

// What may be asked without harm by a client of the instance's own user, who is entitled to change everything.
static uint16_t harmless_operation(struct random *random) {
    static const uint16_t list[] = {FOS_OP_PING, FOS_OP_STATISTICS, FOS_OP_TRACE, FOS_OP_NAME_LOOKUP, FOS_OP_NAME_LIST, FOS_OP_LOOKUP,
        FOS_OP_GETATTR, FOS_OP_READLINK, FOS_OP_READ, FOS_OP_STATFS, FOS_OP_READDIR, FOS_OP_ACCESS, FOS_OP_GETXATTR, FOS_OP_LISTXATTR,
        FOS_OP_LSEEK, FOS_OP_GETLK, FOS_OP_CLIENT_GONE, FOS_OP_TICK, 450, 999, 65535};
    return list[below(random, sizeof list / sizeof list[0])];
}

// Every operation a client could name, and some that only servers and microkernels may send.
static uint16_t any_operation(struct random *random) {
    if (is_entitled()) return harmless_operation(random);
    switch (below(random, 10)) {
    case 0: return (uint16_t)draw(random);
    case 1: return (uint16_t)(1 + below(random, 6));
    case 2: return (uint16_t)(100 + below(random, 8));
    case 3: return (uint16_t)(200 + below(random, 6));
    case 4: return (uint16_t)(400 + below(random, 200));
    case 5: return (uint16_t)(500 + below(random, 6));
    default: return (uint16_t)(300 + below(random, 36));
    }
}

static uint64_t any_token(struct random *random) {
    return fos_memory_token((uint32_t)below(random, 3), (uint32_t)below(random, 40), (uint32_t)below(random, 8));
}

static uint64_t any_inode(struct random *random, uint64_t directory) {
    switch (below(random, 6)) {
    case 0: return directory;
    case 4: return directory + below(random, 32);  // directories made after it
    case 1: return FOS_ROOT_INODE;
    case 2: return below(random, 8) * FOS_SLOTS + below(random, 4);
    case 3: return chance(random, 50) ? directory + below(random, 64) * FOS_SLOTS : any_token(random);
    default: return odd_number(random);
    }
}

static uint32_t name_length(struct random *random) {
    return (uint32_t)(chance(random, 70) ? below(random, 12) : chance(random, 70) ? below(random, 300) : odd_number(random));
}

// Builds a payload of the operation's own shape, its fields mostly within reason; returns its length.
static uint32_t shape(struct random *random, uint16_t operation, uint8_t *payload, uint64_t directory) {
    uint32_t fixed = 0;
    fill(random, payload, FOS_PAYLOAD_BYTES_MAX);
    switch (operation) {
    case FOS_OP_SYMLINK: {
        struct fos_symlink_request r = {name_length(random), name_length(random)};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_MKNOD: case FOS_OP_MKDIR: case FOS_OP_CREATE: case FOS_OP_TMPFILE: {
        struct fos_make_request r = {.mode = (uint32_t)odd_number(random), .umask = (uint32_t)below(random, 512), .device = (uint32_t)draw(random),
            .open_flags = (uint32_t)odd_number(random), .name_length = name_length(random), .take_reference = (uint32_t)below(random, 2)};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_RENAME: {
        struct fos_rename_request r = {any_inode(random, directory), (uint32_t)below(random, 5), name_length(random), name_length(random), 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_LINK: {
        struct fos_link_request r = {any_inode(random, directory), name_length(random), 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_SETATTR: {
        struct fos_setattr_request r;
        fill(random, &r, sizeof r);
        r.size = odd_number(random);
        r.valid = (uint32_t)below(random, 1024);
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_READ: case FOS_OP_WRITE: {
        struct fos_io_request r = {odd_number(random), draw(random), (uint32_t)below(random, 16), (uint32_t)odd_number(random)};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_SETXATTR: case FOS_OP_GETXATTR: case FOS_OP_REMOVEXATTR: case FOS_OP_LISTXATTR: {
        struct fos_xattr_request r = {(uint32_t)below(random, 4), name_length(random), (uint32_t)odd_number(random), 0};
        memcpy(payload, &r, fixed = sizeof r);
        memcpy(payload + fixed, "user.", 5);
        break;
    }
    case FOS_OP_FALLOCATE: {
        struct fos_fallocate_request r = {odd_number(random), odd_number(random), (uint32_t)below(random, 128), 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_COPY_RANGE: {
        struct fos_copy_request r = {any_inode(random, directory), odd_number(random), odd_number(random), odd_number(random), 0, 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_GETLK: case FOS_OP_SETLK: {
        struct fos_lock_request r = {below(random, 4), odd_number(random), odd_number(random), (uint32_t)below(random, 4), (uint32_t)draw(random), (uint32_t)below(random, 2), 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_FORGET: {
        struct fos_forget_item r = {any_inode(random, directory), odd_number(random)};
        for (fixed = 0; fixed < below(random, 8) * sizeof r; fixed += sizeof r) memcpy(payload + fixed, &r, sizeof r);
        break;
    }
    case FOS_OP_MEMORY_ALLOCATE: case FOS_OP_MEMORY_RESERVE: {
        struct fos_memory_request r = {chance(random, 50) ? below(random, 1 << 20) : odd_number(random), chance(random, 80) ? FOS_MEMORY_FRAME_BYTES : (uint32_t)odd_number(random), 0};
        memcpy(payload, &r, fixed = sizeof r);
        break;
    }
    case FOS_OP_MEMORY_FREE: {
        struct fos_memory_free r = {(uint32_t)(chance(random, 80) ? below(random, 34) : odd_number(random)), 0};
        memcpy(payload, &r, fixed = sizeof r);
        for (int i = 0; i < 8; i++, fixed += sizeof(struct fos_memory_extent)) {
            struct fos_memory_extent e = {any_token(random), chance(random, 50) ? below(random, 64) * 4096 : odd_number(random), chance(random, 50) ? below(random, 64) * 4096 : odd_number(random)};
            memcpy(payload + fixed, &e, sizeof e);
        }
        break;
    }
    case FOS_OP_NAME_LOOKUP: case FOS_OP_NAME_REGISTER: case FOS_OP_NAME_DEREGISTER: case FOS_OP_NAME_REDIRECT: case FOS_OP_NAME_MEMBER_DEAD: case FOS_OP_NAME_LOAD: {
        struct fos_name_request r = {name_length(random), name_length(random), (uint32_t)odd_number(random), (uint32_t)below(random, 4),
            {(fos_mailbox)odd_number(random), (uint32_t)odd_number(random), (uint32_t)odd_number(random), (uint32_t)draw(random), (uint32_t)draw(random), (uint32_t)below(random, 3)}};
        memcpy(payload, &r, fixed = sizeof r);
        if (chance(random, 30)) memcpy(payload + fixed, "/sys/file", 9);
        break;
    }
    default: break;
    }
    if (chance(random, 10)) payload[below(random, FOS_PAYLOAD_BYTES_MAX)] ^= (uint8_t)draw(random);
    return fixed + (uint32_t)below(random, 64);
}

static fos_mailbox any_destination(struct random *random, const struct fos_client *client, uint32_t *epoch) {
    *epoch = chance(random, 80) ? 1 : (uint32_t)odd_number(random);
    if (chance(random, 20)) return (fos_mailbox)odd_number(random);
    if (chance(random, 20)) return client->name_server[below(random, 4)];
    if (chance(random, 60)) return client->board->slot_owner[below(random, FOS_SLOTS)];
    return (fos_mailbox)(below(random, client->cores) << 16 | below(random, 12));
}

void attack_request(struct random *random, struct fos_client *client, int channel, uint64_t directory) {
    struct fos_channel *shared = &client->channel[channel];
    struct fos_message header;
    uint8_t payload[FOS_PAYLOAD_BYTES_MAX];
    memset(&header, 0, sizeof header);
    header.operation = any_operation(random);
    header.inode = any_inode(random, directory);
    header.length = shape(random, header.operation, payload, directory);
    header.destination = any_destination(random, client, &header.epoch);
    header.bulk_offset = (uint32_t)(chance(random, 70) ? 0 : odd_number(random));
    header.bulk_length = (uint32_t)(chance(random, 70) ? below(random, 70000) : odd_number(random));
    header.uid = (uint32_t)(chance(random, 50) ? 0 : draw(random));
    header.gid = (uint32_t)draw(random);
    header.flags = (uint16_t)(chance(random, 60) ? 0 : odd_number(random));
    if (chance(random, 10)) header.length = (uint32_t)odd_number(random);
    if (chance(random, 5) && !is_entitled()) fill(random, &header, sizeof header);
    uint32_t before = fos_load_relaxed_u32(&shared->request.sequence), sequence = before + 1;
    if (chance(random, 10)) sequence = (uint32_t)odd_number(random);
    if (chance(random, 5)) sequence = before;
    if (chance(random, 5)) sequence = (uint32_t)draw(random);
    header.sequence = chance(random, 90) ? before : (uint32_t)draw(random);  // a core may see it before the rest is there
    shared->request = header;
    memcpy(shared->request_payload, payload, sizeof payload);
    fos_store_release_u32(&shared->request.sequence, sequence);
    // Rings at the right core, or anywhere.
    uint32_t core = header.destination >> 16 < client->cores && chance(random, 95) ? header.destination >> 16 : (uint32_t)below(random, client->cores);
    fos_fetch_or_u64(&client->bells[core].bits[channel / 64], UINT64_C(1) << (channel % 64));
    fos_fence();
    if (fos_load_acquire_u32(&client->board->core[core].parked)) syscall(SYS_futex, &client->board->core[core].parked, FUTEX_WAKE, 1, NULL, NULL, 0);
}
