// Requests about one entry of a directory: where the name is in them, and what that says of where they go.
//
// One rule for the clients that route requests and the servers that serve them (fos/shard.h).
#ifndef FOS_ENTRY_H
#define FOS_ENTRY_H

#include <stddef.h>
#include <stdint.h>
#include <fos/channel.h>
#include <fos/file.h>
#include <fos/file_peer.h>
#include <fos/message.h>
#include <fos/operations.h>
#include <fos/shard.h>

// The name of the entry that a request is about, in the directory that its header's inode names; NULL if it is about the
// directory itself, or if there is no such name in the payload. Of RENAME the old name; "." and ".." are no entries.
static inline const uint8_t *fos_entry_name(uint32_t operation, const uint8_t *payload, uint32_t payload_length, uint32_t *length) {
    uint32_t offset = 0, count = 0, at = 0;
    switch (operation) {
    case FOS_OP_LOOKUP: case FOS_OP_UNLINK: case FOS_OP_RMDIR: count = payload_length; break;
    case FOS_OP_CREATE: case FOS_OP_MKNOD: case FOS_OP_MKDIR:
        offset = sizeof(struct fos_make_request);
        at = offsetof(struct fos_make_request, name_length);
        break;
    case FOS_OP_SYMLINK: offset = sizeof(struct fos_symlink_request); at = offsetof(struct fos_symlink_request, name_length); break;
    case FOS_OP_LINK: offset = sizeof(struct fos_link_request); at = offsetof(struct fos_link_request, name_length); break;
    case FOS_OP_RENAME: offset = sizeof(struct fos_rename_request); at = offsetof(struct fos_rename_request, old_length); break;
    case FOS_OP_PEER_RENAME_PREPARE: case FOS_OP_PEER_RENAME_COMMIT: case FOS_OP_PEER_RENAME_ABORT:
        offset = sizeof(struct fos_peer_rename);
        at = offsetof(struct fos_peer_rename, name_length);
        break;
    default: return NULL;
    }
    if (payload_length > FOS_PAYLOAD_BYTES_MAX || payload_length < offset) return NULL;
    if (offset != 0) __builtin_memcpy(&count, payload + at, sizeof count);
    if (count == 0 || count > FOS_NAME_BYTES_MAX || count > payload_length - offset) return NULL;
    const uint8_t *name = payload + offset;
    if (name[0] == '.' && (count == 1 || (count == 2 && name[1] == '.'))) return NULL;
    *length = count;
    return name;
}

// The slot whose owner a request is best sent to: that of its inode, or of the shard that its name is in.
static inline uint32_t fos_request_slot(const struct fos_shard_table *table, uint32_t operation, uint64_t inode, const uint8_t *payload,
                                        uint32_t payload_length) {
    uint32_t bits = fos_shard_bits(table, inode), length = 0;
    if (bits == 0) return (uint32_t)(inode % FOS_SLOTS);
    const uint8_t *name = fos_entry_name(operation, payload, payload_length, &length);
    return fos_shard_slot(inode, name == NULL ? 0 : fos_shard_of(inode, name, length, bits));
}

// As fos_entry_epoch, of any directory. Apart from it, because it needs more registers than a whole directory's does.
__attribute__((cold)) static inline uint64_t fos_entry_epoch_in_shard(const struct fos_board *board, uint64_t directory,
                                                                      const void *name, uint32_t length) {
    for (;;) {
        uint32_t bits = fos_shard_bits(&board->sharded, directory);
        uint64_t key = bits == 0 ? directory : fos_shard_key(directory, fos_shard_of(directory, name, length, bits));
        uint32_t place = fos_inode_epoch_index(key);
        uint32_t word = fos_load_acquire_u32(&board->inode_epoch[place]);
        if (fos_shard_bits(&board->sharded, directory) == bits) return (uint64_t)place << 32 | word;
    }
}

// What a client keeps beside an entry of a directory, or beside its absence: which word of the board, and its value now.
// The table is read again after the word, as the word of a directory that has just been sharded, or has just become
// whole, is not the one to watch any more.
static inline uint64_t fos_entry_epoch(const struct fos_board *board, uint64_t directory, const void *name, uint32_t length) {
    if (__builtin_expect(fos_shard_bits(&board->sharded, directory) == 0, 1)) {
        uint32_t place = fos_inode_epoch_index(directory);
        uint32_t word = fos_load_acquire_u32(&board->inode_epoch[place]);
        if (__builtin_expect(fos_shard_bits(&board->sharded, directory) == 0, 1)) return (uint64_t)place << 32 | word;
    }
    return fos_entry_epoch_in_shard(board, directory, name, length);
}

#endif
