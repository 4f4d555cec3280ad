// Shared memory between one client process and the cores: its segment, and the board of all cores.
//
// Segment: one memfd a client process, sealed against any change of size, written by both sides. A client can
// corrupt only its own segment. Its parts: header, doorbells (a line a core), notice rings (one a core), channels, bulk
// areas with what was delegated (fos/delegation.h); the header says where each begins. A channel carries one request at
// a time: a thread owns one or more channels.
//
//   request:  client builds the request in memory of its own, writes it into channel.request in one go (and bulk), with
//             request.sequence = n (release) as the very last word to change, sets its bit in bell[core] (seq_cst),
//             fences, and wakes the core if board.core[core].parked. A core that has just served the channel watches
//             request.sequence, and takes the request without its bell. So one cache line brings the news and the request,
//             and it crosses over once: a line that is written bit by bit is fetched by the watching core in between.
//             A core ignores a bell whose request has the number of the one before, or names another core.
//   reply:    a core writes channel.reply (and bulk), stores reply_sequence = n (release), fences, and wakes the
//             client (futex on reply_sequence) if client_parked. The slot was reserved by the request, so a reply
//             never fails. reply.sequence is the last word of the reply to change (release), so a client may spin on it.
//   notice:   a core writes notice ring[core] slot, stores head (release), increments notice_bell, and wakes
//             (futex on notice_bell) if notice_parked. The client answers a notice with FOS_OP_LEASE_ACK.
//
// The cores keep their own copies of every index they depend on; what a client writes is copied, then checked.
//
// Waking a core: the board is read-only to clients, so a client cannot change the futex word `parked`, and a wake
// that comes between the core's last look at the bells and its sleep finds nobody. The client therefore repeats:
// while parked is 1 and its own bell bit is still set, futex wake until one sleeper was woken.
//
// Board: one memfd an instance, which clients can map read-only (F_SEAL_FUTURE_WRITE). It holds per core the
// parked flag (also the futex word), the CPU, the slot table hint, the inode epochs, and the table of sharded directories.
//
// Inode epochs: what a client has learnt of an inode it may use again, without a message, while the inode's word is what
// it was when the owner answered. A file server adds 1 to the word after each change of the inode's data, attributes or
// entries, and before it answers the change; so whoever has seen a change acknowledged finds the word moved. The word is
// hashed from the inode's number: a change of another inode may move it too, which costs a message and nothing else.
// Which epoch an answer belongs to, and what may not be kept at all, the answer says (fos/file.h).
#ifndef FOS_CHANNEL_H
#define FOS_CHANNEL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <fos/atomic.h>
#include <fos/limits.h>
#include <fos/message.h>
#include <fos/shard.h>

#define FOS_SEGMENT_MAGIC UINT64_C(0x31746e656d676573)  // "segment1"
#define FOS_BOARD_MAGIC UINT64_C(0x31302d6472616f62)    // "board-01"

struct fos_segment_header {  // written by the microkernel before the client sees it, never read back
    uint64_t magic;
    uint32_t version;
    uint32_t client;        // client index, for messages and logs
    uint32_t cores;
    uint32_t channels;
    uint64_t bells_offset;     // cores × struct fos_bell
    uint64_t notices_offset;   // one struct fos_notice_control, then cores × struct fos_notice_ring
    uint64_t channels_offset;  // channels × struct fos_channel
    uint64_t bulk_offset;      // channels × FOS_CHANNEL_AREA_BYTES: a bulk area, and behind it a struct fos_delegation
    uint64_t bytes;            // of the whole segment
};
// From here on the header's page is the client's own: the instance neither reads nor writes it.
enum { FOS_SEGMENT_CLIENT_AT = 1024 };
static_assert(sizeof(struct fos_segment_header) <= FOS_SEGMENT_CLIENT_AT, "the header and the client's own part are apart");

struct fos_bell {  // one line: a client sets bits, the core takes them
    uint64_t bits[FOS_BELL_WORDS];
    uint64_t reserved[8 - FOS_BELL_WORDS];
};
static_assert(sizeof(struct fos_bell) == FOS_CACHE_LINE, "a doorbell is one cache line");

// When the microkernel did what to a request with `timed` set, CLOCK_MONOTONIC in ns; 0: not yet.
struct fos_request_times {
    uint64_t taken;     // out of the channel, into its server's mailbox
    uint64_t begun;     // out of the mailbox, for the first server that had it
    uint64_t answered;  // the server's answer is there, and goes into the channel
};
struct fos_channel {
    uint32_t client_parked;  // client: 1 while it sleeps on reply_sequence; 2 from its request on if it runs on its core's own
                             // CPU, so that the core parks after the reply instead of spinning in its way. Alone on its
                             // line, which then stays in both caches: the core reads it after each reply
    uint8_t reserved0[FOS_CACHE_LINE - 4];
    uint32_t reply_sequence;    // core: number of the request that `reply` answers
    uint32_t reserved1;
    struct fos_request_times times;  // core
    uint8_t reserved2[FOS_CACHE_LINE - 8 - sizeof(struct fos_request_times)];
    struct fos_message request;  // client: request.sequence is its number, never 0
    uint8_t request_payload[FOS_PAYLOAD_BYTES_MAX];
    struct fos_message reply;
    uint8_t reply_payload[FOS_PAYLOAD_BYTES_MAX];
};
static_assert(sizeof(struct fos_channel) == 2048, "a channel control is half a page");
static_assert(offsetof(struct fos_channel, times) == 72 && sizeof(struct fos_request_times) == 24, "channel layout");
static_assert(offsetof(struct fos_channel, request) == 128, "channel layout");
static_assert(offsetof(struct fos_channel, reply) == 1088, "channel layout");

enum fos_notice_kind {
    FOS_NOTICE_INODE_ATTRIBUTES = 1,  // cached attributes of `inode` are void
    FOS_NOTICE_INODE_PAGES = 2,       // write back dirty pages of `inode`, then drop its pages and attributes
    FOS_NOTICE_ENTRY = 3,             // cached entry `name` (positive or negative) of directory `inode` is void
    FOS_NOTICE_DIRECTORY = 4,         // cached listing and attributes of directory `inode` are void
    FOS_NOTICE_SHUTDOWN = 5,          // the instance ends
    FOS_NOTICE_REMOVED = 6,           // as FOS_NOTICE_ENTRY, and `child` has no name any more: let go of it too
};
struct fos_notice {
    uint32_t kind;
    uint32_t name_length;
    uint64_t inode;
    uint64_t child;        // with FOS_NOTICE_ENTRY and _REMOVED: the inode the entry led to, 0 if none
    uint64_t cookie;       // repeated in the acknowledgement
    fos_mailbox reply_to;  // the server that awaits the acknowledgement
    uint32_t want_ack;
    uint64_t offset, length;  // of pages; length 0 = to the end
    uint8_t name[FOS_NAME_BYTES_MAX + 1];
    uint8_t reserved[8];
};
static_assert(sizeof(struct fos_notice) == 320, "a notice is five cache lines");

struct fos_notice_control {
    uint32_t notice_bell;    // core: incremented after each notice; the client's futex word
    uint32_t notice_parked;  // client: 1 while it sleeps
    uint8_t reserved[FOS_CACHE_LINE - 8];
};
struct fos_notice_ring {
    uint32_t head;  // core: notices ever written
    uint8_t reserved0[FOS_CACHE_LINE - 4];
    uint32_t tail;  // client: notices ever taken (a wrong value only loses the client's own notices)
    uint8_t reserved1[FOS_CACHE_LINE - 4];
    struct fos_notice slots[FOS_NOTICES];
};

struct fos_board_core {
    uint32_t parked;  // 1 while the core sleeps; futex word
    int32_t cpu;      // the CPU it is pinned to now (a core may move to another), -1 if none
    uint32_t epoch;   // counts restarts of the core
    uint8_t reserved0[FOS_CACHE_LINE - 12];
    uint64_t beats;   // run-loop turns, best effort; away from what clients read with each call
    uint8_t reserved1[FOS_CACHE_LINE - 8];
};
static_assert(sizeof(struct fos_board_core) == 2 * FOS_CACHE_LINE, "a board core is two cache lines");

struct fos_board {
    uint64_t magic;
    uint32_t version;
    uint32_t cores;
    uint32_t down;             // 1 once the instance is ending: clients fail at once
    uint32_t slot_epoch;       // counts changes of slot_owner
    uint8_t reserved[FOS_CACHE_LINE - 24];
    struct fos_board_core core[FOS_CORES_MAX];
    fos_mailbox slot_owner[FOS_SLOTS];  // hint: the file server that owns a slot; a wrong one only costs a forward
    uint32_t inode_epoch[FOS_INODE_EPOCHS];  // by fos_inode_epoch_index
    struct fos_shard_table sharded;          // the directories that are sharded
};
static_assert(offsetof(struct fos_board, slot_owner) == FOS_CACHE_LINE + FOS_CORES_MAX * 2 * FOS_CACHE_LINE, "board layout");
static_assert(offsetof(struct fos_board, inode_epoch) % FOS_CACHE_LINE == 0, "board layout");

// The CPU of a core now.
static inline int32_t fos_board_cpu(const struct fos_board *board, uint32_t core) {
    return (int32_t)fos_load_relaxed_u32((const uint32_t *)&board->core[core].cpu);
}
// The daemon's: the core moves.
static inline void fos_board_set_cpu(struct fos_board *board, uint32_t core, int32_t cpu) {
    fos_store_relaxed_u32((uint32_t *)&board->core[core].cpu, (uint32_t)cpu);
}

// Where the epoch of an inode is (Fibonacci hashing: neighbouring numbers lie far apart).
static inline uint32_t fos_inode_epoch_index(uint64_t inode) {
    return (uint32_t)(inode * UINT64_C(0x9e3779b97f4a7c15) >> (64 - FOS_INODE_EPOCH_BITS));
}
// The epoch of an inode now. Read it before what is kept under it is used.
static inline uint32_t fos_inode_epoch(const struct fos_board *board, uint64_t inode) {
    return fos_load_acquire_u32(&board->inode_epoch[fos_inode_epoch_index(inode)]);
}

#endif
