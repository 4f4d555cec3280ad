// File service, between its members only: operations 400 to 499 and their payloads.
//
// Role: what one file server asks of another when an operation touches inodes of two owners. A request is accepted
// only from a member's mailbox (envelope.from, which the microkernel fills in), except PEER_LOOKUP, which is a
// client's LOOKUP passed on and grants no more than GETATTR does.
// Notices: a participant whose inode the kernel has cached sends the revocation at once, with the coordinator as
// `reply_to` and the coordinator's `cookie`, and says in its reply how many it sent; the coordinator alone awaits the
// acknowledgements, after it has let go of every lock. So no lock is ever held while the kernel is waited for.
// Invariants: a reply with status FOS_TRANSPORT_RETRY or a negative errno changed nothing at the participant.
#ifndef FOS_FILE_PEER_H
#define FOS_FILE_PEER_H

#include <assert.h>
#include <stdint.h>
#include <fos/limits.h>
#include <fos/file.h>

enum fos_peer_operation {
    FOS_OP_PEER_LOOKUP = 400,            // the rest of a LOOKUP, at the child's owner; answered to the client
    FOS_OP_PEER_CREATE_INODE = 401,      // make a directory inode: fos_peer_create -> fos_peer_reply
    FOS_OP_PEER_LINK = 402,              // one link more: fos_peer_change -> fos_peer_reply
    FOS_OP_PEER_UNLINK = 403,            // one link less: fos_peer_change -> fos_peer_reply
    FOS_OP_PEER_REMOVE_DIRECTORY = 404,  // must be empty, is dead afterwards: fos_peer_change -> fos_peer_reply
    FOS_OP_PEER_MOVED = 405,             // its entry has moved: fos_peer_change -> fos_peer_reply
    FOS_OP_PEER_RENAME_PREPARE = 406,    // lock the new name: fos_peer_rename + name -> fos_peer_reply
    FOS_OP_PEER_RENAME_COMMIT = 407,     // the new name now means `source`: fos_peer_rename + name -> fos_peer_reply
    FOS_OP_PEER_RENAME_ABORT = 408,      // unlock the new name: fos_peer_rename + name; one-way
    FOS_OP_PEER_TREE_LOCK = 409,         // to member 0: begin a move of a directory; RETRY if one is in progress
    FOS_OP_PEER_TREE_UNLOCK = 410,       // to member 0; one-way
    FOS_OP_PEER_ANCESTRY = 411,          // walk up: fos_peer_ancestry -> fos_peer_ancestry
    FOS_OP_PEER_ATTRIBUTES = 412,        // for permission rules: empty -> fos_peer_reply
    FOS_OP_PEER_CREDITS = 413,           // hand over pages: fos_peer_credits -> fos_peer_credits
    FOS_OP_PEER_SPACE = 414,             // for STATFS: empty -> fos_peer_space
    FOS_OP_PEER_READ = 415,              // for COPY_RANGE: fos_peer_read -> fos_peer_read + bytes

    // Sharded directories, from the directory's owner to the owner of a shard's slot. Header inode: the directory.
    FOS_OP_PEER_SHARD_FILL = 440,     // makes the shard, sealed, at the first; adds entries: fos_peer_shard + entries -> empty
    FOS_OP_PEER_SHARD_SUMMARY = 441,  // fos_peer_shard -> fos_peer_shard_summary
    FOS_OP_PEER_SHARD_SEAL = 442,     // its entries are answered RETRY from now on: fos_peer_shard -> fos_peer_shard_summary
    FOS_OP_PEER_SHARD_UNSEAL = 443,   // with the directory's new state, or as it was: fos_peer_shard -> empty
    FOS_OP_PEER_SHARD_DROP = 444,     // a sealed shard goes: fos_peer_shard -> empty
    FOS_OP_PEER_SHARD_LIST = 445,     // a READDIR that the directory's owner has allowed, from shard to shard; answered to the client
    FOS_OP_PEER_SHARD_USED = 446,     // to the directory's owner, from who has a shard and knows of a server's death: is it in use?
                                      // fos_peer_shard -> fos_peer_shard, FOS_SHARD_UNUSED if not

    // 460 to 479: slots that move from one server (the giver) to another (the taker), inode by inode
    FOS_OP_PEER_SLOT_BEGIN = 460,        // the slot is coming: fos_peer_slot -> empty; RETRY if the taker is at another one
    FOS_OP_PEER_SLOT_PIECE = 461,        // a part of an inode: fos_peer_piece + its content -> fos_peer_taken
    FOS_OP_PEER_SLOT_END = 462,          // all is there, the slot is yours: fos_peer_slot -> empty
    FOS_OP_PEER_SLOT_NEWS = 463,         // to all members: a slot has a new owner: fos_peer_slot; one-way
    FOS_OP_PEER_SLOT_SYNC = 464,         // along the old way to the new owner, behind all that went before: fos_peer_slot -> fos_peer_slot
    FOS_OP_PEER_GIFT = 465,              // pages of the size limit, for those that moved inodes take: fos_peer_credits; one-way
    FOS_OP_PEER_TABLE = 466,             // owners of slots, for a member that joins: fos_peer_table -> fos_peer_table
    FOS_OP_PEER_TAKEN = 467,             // a server has died: did its transaction `cookie` (`parent`: its mailbox) take a link of
                                         // this inode? fos_peer_change -> fos_peer_reply, FOS_PEER_GONE if so
    FOS_OP_PEER_OUTCOME = 468,           // to a participant, from a coordinator that is back with its store: did its transaction
                                         // change this inode (0: the directory that it had made)? fos_peer_change -> fos_peer_reply,
                                         // FOS_PEER_DONE if so
    FOS_OP_PEER_DECISION = 469,          // to a coordinator, of a name that it had prepared: will it say what becomes of it?
                                         // fos_peer_change -> fos_peer_reply, FOS_PEER_DONE if so; otherwise it was aborted
};

struct fos_peer_create {
    uint64_t cookie;
    uint64_t parent;
    uint32_t slot;
    uint32_t mode;  // with type, umask applied
    uint32_t uid, gid;
};

enum fos_peer_flag {
    FOS_PEER_STICKY = 1,         // the directory is sticky: only owners of it or of the inode may remove
    FOS_PEER_NO_REPLACE = 2,     // RENAME_PREPARE: the new name must be free
    FOS_PEER_EXCHANGE = 4,       // RENAME_*: the new name must exist and will mean the old one's inode
    FOS_PEER_LOCKED_VICTIM = 8,  // reply of RENAME_PREPARE: `inode` and `kind` are what the new name means now
    FOS_PEER_SAME = 16,          // reply of RENAME_PREPARE: both names mean one inode, nothing is to be done
    FOS_PEER_FOUND = 32,         // reply of ANCESTRY: `seek` is `start` or one of its ancestors
    FOS_PEER_AT_ROOT = 64,       // reply of ANCESTRY: the walk ended at the root
    FOS_PEER_ONLY_FILE = 128,    // LINK: refuse a directory with -EPERM
    FOS_PEER_SHARD = 512,        // reply of RENAME_PREPARE: the name is in a shard, whose slot is in the upper half of the flags
    FOS_PEER_SLOT_SHIFT = 16,
    FOS_PEER_GONE = 256,         // reply of UNLINK, REMOVE_DIRECTORY; RENAME_COMMIT: that was its last name, and the kernel holds it
    FOS_PEER_DONE = 512,         // reply of OUTCOME, DECISION
    FOS_PEER_AGAIN = 1024,       // RENAME_COMMIT: may have been done before the coordinator crashed
};

struct fos_peer_change {      // header inode = the inode to change
    uint64_t cookie;
    uint64_t parent;          // MOVED: new parent of a directory, 0 = as it was
    uint32_t flags;           // enum fos_peer_flag
    uint32_t directory_uid;   // owner of the directory, for FOS_PEER_STICKY
};

struct fos_peer_rename {      // header inode = the new parent; the new name follows
    uint64_t cookie;
    uint64_t source;          // inode that moves
    uint64_t old_parent;
    uint32_t source_kind;     // DT_*
    uint32_t flags;
    uint32_t name_length;
    uint32_t reserved;
};

struct fos_peer_reply {
    uint32_t notices;         // sent on behalf of the cookie; as many acknowledgements will come to the coordinator
    uint32_t flags;
    uint64_t inode;           // RENAME_PREPARE: what the new name means now
    uint32_t kind;            // of `inode`, DT_*
    uint32_t mode, uid, gid;  // RENAME_PREPARE: of the new parent
    struct fos_attributes attributes;  // CREATE_INODE, LINK, ATTRIBUTES
};

struct fos_peer_ancestry {
    uint64_t start, seek;     // reply: `start` is where to go on, at its owner
    uint32_t flags, reserved;
};

struct fos_peer_credits {
    uint64_t pages;           // wanted; reply: given
};

struct fos_peer_space {
    uint64_t credits, used, inodes;
};

enum { FOS_PEER_READ_BYTES_MAX = 768 };
struct fos_peer_read {        // header inode = the file
    uint64_t offset;
    uint64_t length;          // wanted; reply: bytes that `offset` onwards has of this kind, 0 at the end of the file
    uint32_t hole;            // reply: 1 = `length` zeros of a hole, no bytes follow
    uint32_t reserved;
};

// A slot in motion. Its inodes go one after the other; each is at its giver until it is whole at the taker, and is served
// where it is. `version` counts the moves of a slot: of two statements about its owner the one with the higher is newer.
struct fos_peer_slot {
    uint32_t slot;
    uint32_t owner;           // member
    uint32_t version;
    uint32_t generation;      // END: the last generation that an inode of this slot was given
    uint16_t incarnation;     // BEGIN: bits 48 and up of the slot's numbers
    uint16_t has_losses;      // BEGIN: 1 = some of its inodes were lost with another server, no number is given again
    uint32_t reserved;
};

enum fos_piece_kind {
    FOS_PIECE_INODE = 1,      // fos_peer_inode: another inode begins
    FOS_PIECE_DATA = 2,       // bytes of a file from `offset` on, within one page
    FOS_PIECE_ENTRIES = 3,    // `count` fos_peer_entry, each with its name, in rising order of cookies
    FOS_PIECE_TARGET = 4,     // of a symbolic link: bytes from `offset` on, of `total`
    FOS_PIECE_XATTR = 5,      // a name of `count` bytes, then bytes of its value from `offset` on, of `total`
    FOS_PIECE_OPEN = 6,       // `count` fos_peer_open
    FOS_PIECE_LOCK = 7,       // `count` fos_peer_lock that are held
    FOS_PIECE_FINISH = 8,     // fos_peer_inode as it is now: the inode is whole, and the taker's from the answer on
    // 9 was a request that waits for a lock; such a one is passed on as what it is
    FOS_PIECE_CANCEL = 10,    // what came of this inode is void
    FOS_PIECE_TAKEN = 11,     // `count` fos_peer_link: transactions that have lately taken a link of it
};

struct fos_peer_piece {       // header inode = the inode
    uint32_t kind;            // enum fos_piece_kind
    uint32_t count;
    uint64_t offset;
    uint32_t total;
    uint32_t reserved;
};

struct fos_peer_inode {
    uint64_t number, size, version, kernel_references, parent, next_cookie;
    struct fos_time accessed, modified, changed, born;
    uint32_t mode, uid, gid, links, device, generation, subdirectories;
    uint8_t leases, flags;
    uint16_t reserved;
};

struct fos_peer_entry {
    uint64_t inode, cookie;
    uint16_t flags;
    uint8_t kind;             // DT_*
    uint8_t name_length;
    uint32_t reserved;
};

struct fos_peer_open {        // references of one client to the inode
    uint32_t client, generation, count, readers, writers, reserved;
};

struct fos_peer_lock {
    uint64_t owner, start, end;
    uint32_t client, generation, pid;
    uint8_t kind;             // enum fos_lock_kind
    uint8_t is_description, is_flock, reserved;
};

struct fos_peer_link {        // see TAKEN
    uint64_t cookie, coordinator;
};

struct fos_peer_taken {
    uint64_t pages;           // FINISH: credits that the inode takes at its new owner
};

enum { FOS_PEER_TABLE_SLOTS = 128 };
struct fos_peer_table {       // request: `first` alone
    uint32_t first, count;
    uint32_t versions[FOS_PEER_TABLE_SLOTS];
    uint16_t owners[FOS_PEER_TABLE_SLOTS];
};

static_assert(sizeof(struct fos_peer_slot) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_piece) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_inode) == 144, "peer layout");
static_assert(sizeof(struct fos_peer_entry) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_open) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_lock) == 40, "peer layout");
static_assert(sizeof(struct fos_peer_link) == 16, "peer layout");
static_assert(sizeof(struct fos_peer_table) <= FOS_PAYLOAD_BYTES_MAX, "a part of the table fits a message");

enum fos_shard_flag {
    FOS_SHARD_EMPTY = 1,     // SEAL: only if it has no entry, else -ENOTEMPTY, or RETRY if a transaction decides it.
                             // DROP: only if it is such a one; without it, only if it is being filled
    FOS_SHARD_AS_IT_WAS = 2, // UNSEAL: the fields below say nothing
    FOS_SHARD_MODIFIED = 4,  // summary: entries have changed since the times below were given to the shard
    FOS_SHARD_ACCESSED = 8,  // summary: it was listed since
    FOS_SHARD_FIRST = 16,    // FILL: the first one of this shard, which makes it
    FOS_SHARD_UNUSED = 32,   // reply of USED: the directory has no such shard, or is gone
    FOS_SHARD_LOST = 64,     // reply of USED: the directory was lost with a server, and no other one gets its number
};
struct fos_peer_shard {
    uint32_t index;          // of the shard, from 1
    uint32_t bits;
    uint32_t flags;          // enum fos_shard_flag
    uint32_t mode, uid, gid; // of the directory
    uint32_t leases;         // FILL: what the kernel may hold of the directory
    uint32_t entries;        // FILL: how many follow
    uint64_t first_cookie;   // FILL: smaller ones are of entries that were there before the directory was sharded
    uint64_t next_cookie;    // FILL: of the first entry that the shard gets by itself
    struct fos_time accessed, modified, changed;
};
struct fos_peer_shard_entry {  // then the name, then zeros to a multiple of 8
    uint64_t inode;
    uint64_t cookie;
    uint8_t kind;
    uint8_t name_length;
    uint8_t is_held;         // the kernel may hold the entry
    uint8_t reserved[5];
};
struct fos_peer_shard_summary {
    uint64_t entries;
    uint64_t version;        // changes of the shard
    uint32_t subdirectories;
    uint32_t flags;          // enum fos_shard_flag
    struct fos_time accessed, modified, changed;
};

static_assert(sizeof(struct fos_peer_shard) == 96, "peer layout");
static_assert(sizeof(struct fos_peer_shard_entry) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_shard_summary) == 72, "peer layout");
static_assert(sizeof(struct fos_peer_create) == 32, "peer layout");
static_assert(sizeof(struct fos_peer_change) == 24, "peer layout");
static_assert(sizeof(struct fos_peer_rename) == 40, "peer layout");
static_assert(sizeof(struct fos_peer_reply) == 32 + sizeof(struct fos_attributes), "peer layout");
static_assert(sizeof(struct fos_peer_read) + FOS_PEER_READ_BYTES_MAX <= FOS_PAYLOAD_BYTES_MAX, "a chunk fits a message");

#endif
