// Name service messages: operations 100 to 199. Mailboxes have symbolic names; a name may have many members.
#ifndef FOS_NAME_H
#define FOS_NAME_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <fos/limits.h>
#include <fos/message.h>

struct fos_name_member {
    fos_mailbox mailbox;
    uint32_t epoch;      // of the mailbox; refused by the receiver when it has changed
    uint32_t core;
    uint32_t load;       // best effort: queue length when last told
    uint32_t distance;   // from the asking core to this member
    uint32_t alive;      // 0: being steered away from
};
static_assert(sizeof(struct fos_name_member) == 24, "member layout");

// FNV-1a, then mixed so that both halves are good: the high one picks the server, the low one is for tables.
static inline uint64_t fos_name_hash(const uint8_t *name, size_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ name[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 29;
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    return hash ^ (hash >> 32);
}
// Which of so many name servers has a name while all live. Any other passes a request on, so whoever asks may be wrong about it.
static inline uint32_t fos_name_place(uint64_t hash, uint32_t servers) { return (uint32_t)((hash >> 32) % servers); }

// LOOKUP: payload = fos_name_request + name. Reply: fos_name_reply, then up to 32 members, best first.
// -ENOENT: no such name. A redirected name is followed; `redirects` counts how often (at most 8, then -ELOOP).
// message.flags of a LOOKUP counts the redirects followed before (0 from the asker; servers forward it with the count).
struct fos_name_request {
    uint32_t name_length;
    uint32_t target_length;  // REDIRECT: the name that follows `name`; else 0
    uint32_t from_core;      // for distances
    uint32_t flags;          // enum fos_name_flag
    struct fos_name_member member;  // REGISTER, DEREGISTER, MEMBER_DEAD, LOAD
};
enum fos_name_flag {
    FOS_NAME_MANY = 1,       // REGISTER: join a one-to-many name, do not demand to be its only member
    FOS_NAME_COPY = 0x8000,  // in message.flags, see below
};
struct fos_name_reply {
    uint32_t members;
    uint32_t redirects;
    uint64_t version;        // of the name: grows with each change
};
// REGISTER: -EEXIST a name with one member is taken; -EACCES a protected prefix ("/sys/") or another user's name.
// LIST: message.flags 0. Reply: bulk = records of fos_name_record. Names other members hold are gathered by the server asked.
// message.inode is a cookie: 0 to begin; in the reply what to ask on with, 0 = that was all. -ERANGE: room for not one record.
struct fos_name_record {
    uint32_t record_length;  // of all, padded to 8
    uint16_t name_length, target_length;
    uint32_t members;        // fos_name_member each, directly after this struct; then name, then target
    uint32_t owner_uid;
};
// Copies: each name is at two name servers. FOS_NAME_COPY in message.flags: a REGISTER, REDIRECT, DEREGISTER or MEMBER_DEAD that a
// name's server has made, for the one that has the other copy. SHARD_PIECE: a member of a name, or a redirect, of before a server's
// death, for who is to have the copy now; the reply is empty. Both between name servers only.
// A server that is back, empty, asks all (JOIN, in rising order; the payload is a bit for each member, set if the sender believes it to
// serve) for copies of what it is to have: each helps one such server at a time, makes copies, sends every change from then on, and
// answers when all are there. -EAGAIN: I join myself; -EBUSY: I help another one; RETRY: begin again. JOIN one-way: I do not need you.
// Then YIELD to all (answered when all changes have arrived; nothing that will be the sender's is served from then on), and NEWS to all.
// The header's inode of JOIN and YIELD, and of copies made for them, is the number of the sender's attempt. END, one-way: to who was the
// sender's follower.
enum fos_name_piece_flag {
    FOS_NAME_PIECE_MANY = 1,
    FOS_NAME_PIECE_REDIRECT = 2,
    FOS_NAME_PIECE_FIRST = 4,  // the first of all: copies that the receiver has of the sender's names are old
};
struct fos_name_piece {      // SHARD_PIECE; the name follows, then its target
    uint32_t reserved, flags;
    uint64_t version;        // of the name
    uint32_t name_length, target_length;
    uint32_t owner_uid;      // of the name
    uint32_t member_uid;     // who made the member
    uint32_t client, client_generation;  // whose death ends it; 0: nobody's
    struct fos_name_member member;
};
static_assert(sizeof(struct fos_name_piece) == 64, "piece layout");
// Distance on a machine: 0 same core, 10 same cache, 20 same package, 40 another package (from hwloc in the live system).

#endif
