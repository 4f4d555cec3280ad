// File service messages: request and reply payloads of operations 300 to 399.
//
// Routing: `inode` in the header names the inode that owns the operation (for a directory operation the parent).
// Names follow the fixed part of a payload, without NUL; their lengths are fields. Replies with status < 0 have
// no payload. An inode number is index × FOS_SLOTS + slot; 1 × FOS_SLOTS + 0 is not special: the root is FOS_ROOT_INODE.
//
// What may be kept of an answer: `epoch` in a reply's header is the word of the reply's inode on the board
// (fos_inode_epoch), as the owner read it when it made the answer; `epoch` in attributes is that of the inode they
// describe. What came with it stays true while the word on the board is the same, unless a flag of the reply or of the
// attributes says that it may not be kept. For an answer without an epoch of its own (the entry that a LOOKUP followed on its way
// to another inode, which is the directory's) the client reads the board before it sends the request.
#ifndef FOS_FILE_H
#define FOS_FILE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <fos/limits.h>

enum { FOS_ROOT_INODE = 1 };  // slot 1, index 0; the number FUSE gives the root

struct fos_time {
    int64_t seconds;
    uint32_t nanoseconds;  // 0 ..< 1_000_000_000
    uint32_t reserved;
};

struct fos_attributes {  // 128 bytes, as stat(2) has them
    uint64_t inode;
    uint64_t size;
    uint64_t blocks;      // of 512 bytes
    struct fos_time accessed, modified, changed, born;
    uint32_t mode;        // type and permission bits
    uint32_t links;
    uint32_t uid, gid;
    uint32_t device;      // of a device node, as the kernel's 32-bit encoding (new_encode_dev)
    uint32_t generation;
    uint64_t version;     // counts changes of data or attributes
    uint32_t epoch;       // of the inode, on the board, when these were true
    uint32_t flags;       // enum fos_attributes_flag
};
static_assert(sizeof(struct fos_attributes) == 128, "attributes layout");

// The reply to who has made a name in a directory (not to the front end, whose kernel knows what it has changed): so that
// what was kept of the directory, whose epoch has moved, need not be asked for. `directory` is there if the reply's length
// says so.
struct fos_made {
    struct fos_attributes made, directory;
};
static_assert(offsetof(struct fos_made, directory) == 128, "made layout");

// The reply to who has moved a name, likewise: what was moved, the directory where it is now, and the one that it came from if
// that is another one. Empty if both names meant one inode already, two names were exchanged, a directory is sharded, or it
// took more than one server.
struct fos_renamed {
    struct fos_attributes moved, to, from;
};
static_assert(offsetof(struct fos_renamed, to) == 128 && offsetof(struct fos_renamed, from) == 256, "renamed layout");

enum fos_attributes_flag {
    FOS_ATTRIBUTES_VOLATILE = 1,  // may change without the epoch: ask again each time
    FOS_ATTRIBUTES_SHARDED = 2,   // of a sharded directory: the epoch keeps type, mode, owner and group true, nothing else
    FOS_ATTRIBUTES_INEXACT = 4,   // with the above: size, links, times and version leave out its other shards; GETATTR says them
};
// In message.flags of replies.
enum fos_reply_flag {
    FOS_CREATED = 1,         // CREATE, TMPFILE: the file is new
    FOS_REPLY_VOLATILE = 2,  // READ: the bytes may change without the epoch (the kernel may have the file mapped)
    FOS_REPLY_END = 4,       // READDIR: no entry follows the last record
    FOS_REPLY_PLACES = 16,   // READ: bulk has the places of the bytes, which are lent (struct fos_page_place)
    FOS_REPLY_LOOK_AGAIN = 8,  // what the kernel decides by changed (owner and mode, the size of a file that it may have mapped)
                               // of an inode that it holds: see that it asks again (stat it)
    FOS_REPLY_CHANGED_FROM = 64,  // header.pid is the epoch that the inode had before this request, and from there to the one that the
                                  // reply tells of it, nothing of it changed but what was asked for. So who knew all of a directory's
                                  // entries under the one epoch knows them under the other too, but for the names in the request
    FOS_REPLY_DELEGATED = 128,  // CREATE, WRITE, OPEN, SETATTR of the size: the file is delegated to the channel while its epoch is the reply's
    FOS_REPLY_NOTHING_TO_SYNC = 32,  // FSYNC: no server of this instance has anything that outlives it, so no FSYNC of any file
                                     // does anything, and none needs to be sent while the instance lives
};

// LOOKUP: payload = name. Reply: fos_attributes. From the kernel-cache client it also takes one kernel reference,
// as do MKNOD, MKDIR, SYMLINK, LINK, CREATE, TMPFILE and each entry of READDIR with FOS_READDIR_PLUS (but "." and "..").
// An absent name: -ENOENT; from the kernel-cache client that also grants a lease on the absence.
// Names "." and ".." are answered (".." from the directory's parent).

// GETATTR: no payload. Reply: fos_attributes.

enum fos_set_attribute {
    FOS_SET_MODE = 1, FOS_SET_UID = 2, FOS_SET_GID = 4, FOS_SET_SIZE = 8,
    FOS_SET_ACCESSED = 16, FOS_SET_MODIFIED = 32, FOS_SET_ACCESSED_NOW = 64, FOS_SET_MODIFIED_NOW = 128,
    FOS_SET_CHANGED = 256,
    FOS_SET_KILL_PRIVILEGE = 512,  // drop setuid and setgid bits as a truncate or chown must
};
struct fos_setattr_request {  // SETATTR. Reply: fos_attributes
    uint32_t valid;  // enum fos_set_attribute
    uint32_t mode, uid, gid;
    uint64_t size;
    struct fos_time accessed, modified, changed;
};

// READLINK: no payload. Reply: target in bulk, bulk_length its bytes.

struct fos_symlink_request {  // SYMLINK; name follows; target in bulk. Reply: fos_made
    uint32_t name_length, target_length;
};

struct fos_make_request {  // MKNOD, MKDIR, CREATE, TMPFILE; name follows (none for TMPFILE). Reply: fos_made, of what
                           // was there already or has no name its attributes alone
    uint32_t mode;         // type (MKNOD) and permission bits, before umask
    uint32_t umask;
    uint32_t device;       // MKNOD of a device
    uint32_t open_flags;   // CREATE, TMPFILE: open(2) flags; O_EXCL, O_TRUNC are honoured; reply flag below
    uint32_t name_length;
    uint32_t take_reference;  // CREATE, TMPFILE: 1 = as OPEN, count a reference for this client
};
// Reply flag FOS_CREATED: the file is new.

// UNLINK, RMDIR: payload = name. Reply: fos_attributes of the directory, or empty.

struct fos_rename_request {  // RENAME; header inode = old parent; old name then new name follow. Reply: fos_renamed, or empty
    uint64_t new_parent;
    uint32_t flags;          // RENAME_NOREPLACE 1, RENAME_EXCHANGE 2; others -EINVAL
    uint32_t old_length, new_length;
    uint32_t reserved;
};

struct fos_link_request {  // LINK; header inode = parent of the new name; name follows. Reply: fos_made
    uint64_t target;
    uint32_t name_length;
    uint32_t reserved;
};

struct fos_io_request {  // READ, WRITE: bulk_length bytes at `offset` through bulk. Reply: see below
    uint64_t offset;
    uint64_t owner;        // lock owner (mandatory locks are not a thing; kept for traces)
    uint32_t flags;        // enum fos_io_flag
    uint32_t open_flags;   // open(2) flags of the descriptor
};
enum fos_io_flag {
    FOS_IO_APPEND = 1,          // WRITE: at the end, atomically
    FOS_IO_KILL_PRIVILEGE = 2,  // WRITE: drop setuid and setgid bits
    FOS_IO_WRITEBACK = 4,       // WRITE from the kernel's page cache (a dirty mapped page): never extends the file
    FOS_IO_DIRECT = 8,          // O_DIRECT: the kernel keeps no page of it
    FOS_IO_PLACES = 16,         // READ of the front end, which is in the servers' process: places will do
    FOS_IO_ATTRIBUTES = 32,     // WRITE: the reply is to tell the attributes too
};
// Where bytes lie, in the process of the servers and the front end; address 0: zeros. Until GIVE_BACK, whose header names
// the inode, on the same channel. The lengths add up to bulk_length.
struct fos_page_place { uint64_t address, length; };
static_assert(sizeof(struct fos_page_place) == 16, "place layout");
struct fos_io_reply {  // bulk_length = bytes done (READ: fewer at end of file). fos_attributes follow if a READ moved the access time, or a
                       // WRITE was asked to tell them
    uint64_t offset;    // where it happened (APPEND)
    uint64_t size;      // of the file afterwards
};

struct fos_statfs_reply {
    uint64_t blocks, blocks_free, blocks_available;  // of FOS_PAGE_BYTES
    uint64_t files, files_free;
    uint32_t name_max, block_bytes;
};

// FSYNC: payload none; message.flags 1 = data only. Empty reply; see FOS_REPLY_NOTHING_TO_SYNC.

struct fos_xattr_request {  // SETXATTR (value in bulk), GETXATTR, REMOVEXATTR; name follows
    uint32_t flags;         // XATTR_CREATE 1, XATTR_REPLACE 2
    uint32_t name_length;
    uint32_t value_length;  // SETXATTR: bytes in bulk; GETXATTR, LISTXATTR: room, 0 asks for the size
    uint32_t reserved;
};
struct fos_xattr_reply { uint64_t bytes; };  // GETXATTR, LISTXATTR: size of the value; value or list in bulk if room > 0

struct fos_readdir_request {  // READDIR: bulk_length = room. Reply: records in bulk, bulk_length bytes of them; fos_attributes of the
                              // directory if that moved its access time
    uint64_t cookie;          // 0 = from the start; else the `next` of the last record taken
    uint32_t flags;           // enum fos_readdir_flag
    uint32_t filled;          // between servers: bytes of the room that shards before this one have filled. 0 from clients
};
enum fos_readdir_flag {
    FOS_READDIR_PLUS = 1,   // with attributes, where this server owns the entry's inode
    FOS_READDIR_AHEAD = 2,  // the client looks ahead, nobody has read the directory: its access time stays
    FOS_READDIR_SHORT = 4,  // records without attributes have no room for them: the name follows at offset 24
    FOS_READDIR_SHARDS_SHIFT = 16,  // between servers: the upper half says how many shards the directory has
};
struct fos_directory_entry {  // then name, then zeros to a multiple of 8
    uint64_t inode;
    uint64_t next;            // cookie of the entry after this one
    uint32_t record_length;   // of all, padding too
    uint16_t name_length;
    uint8_t type;             // DT_*
    uint8_t has_attributes;   // 1: `attributes` holds the entry's own (FOS_READDIR_PLUS, and the owner was this server)
                              // 0: they are zeros. 2: they are left out (FOS_READDIR_SHORT)
    struct fos_attributes attributes;
};
static_assert(offsetof(struct fos_directory_entry, attributes) == 24, "entry layout");
static_assert(offsetof(struct fos_directory_entry, record_length) == 16, "entry layout");
static_assert(offsetof(struct fos_directory_entry, name_length) == 20, "entry layout");
static_assert(offsetof(struct fos_directory_entry, type) == 22, "entry layout");
static_assert(offsetof(struct fos_directory_entry, has_attributes) == 23, "entry layout");

struct fos_fallocate_request { uint64_t offset, length; uint32_t mode, reserved; };  // mode as fallocate(2). Empty reply
struct fos_lseek_request { uint64_t offset; uint32_t whence, reserved; };            // SEEK_DATA 3, SEEK_HOLE 4
struct fos_lseek_reply { uint64_t offset; };

struct fos_copy_request {  // COPY_RANGE; header inode = destination
    uint64_t source, source_offset, offset, length;
    uint32_t flags, reserved;
};
struct fos_copy_reply { uint64_t bytes; };  // and the source's fos_attributes, if the copy moved its access time

// ACCESS: message.flags = R_OK 4, W_OK 2, X_OK 1. Empty reply.

enum fos_lock_kind { FOS_LOCK_READ = 0, FOS_LOCK_WRITE = 1, FOS_LOCK_UNLOCK = 2 };
struct fos_lock_request {  // GETLK, SETLK. Reply of GETLK: the conflicting lock, or kind FOS_LOCK_UNLOCK
    uint64_t owner;          // POSIX: process; OFD: open file description
    uint64_t start, end;     // end inclusive; UINT64_MAX >> 1 = to the end of file
    uint32_t kind;           // enum fos_lock_kind
    uint32_t pid;
    uint32_t wait;           // SETLK: 1 = wait for it (F_SETLKW); the reply comes when granted, -EDEADLK or -EINTR
    uint32_t reserved;
};
struct fos_flock_request { uint64_t owner; uint32_t kind, wait; };  // FLOCK
struct fos_cancel_request { uint32_t channel, sequence; };          // CANCEL: end a waiting request of the same client with -EINTR

// FORGET: payload = array of these; empty reply. Mixed owners allowed. Of a single one with count 0 the reply is another,
// whose count is how many references of the kernel the owner counts.
struct fos_forget_item { uint64_t inode, count; };

struct fos_open_request {  // OPEN: check access, count a reference that keeps an unlinked file. Reply: fos_attributes
    uint32_t open_flags;  // with O_PATH the reference is for nothing, and needs no access
    uint32_t room;        // not 0, O_RDONLY: a regular file of at most so many bytes may come along, whole, in bulk (bulk_length of the reply;
                          // 0: it does not). That is no reading yet: while the epoch in the reply stands, the client may read what has come,
                          // and if the access time is due by the attributes in the reply, the file is delegated, to leave the reading there
};
// RELEASE: `count` references. What they granted ends with them if the flags say what all of these were open for; without READING
// and WRITING it ends with the client's last reference to the inode.
enum fos_release_flag {
    FOS_RELEASE_LOCKS = 1,  // also drops flocks of owner
    FOS_RELEASE_READING = 2, FOS_RELEASE_WRITING = 4,
};
// LOOKUP_OPEN, from the kernel-cache client only: the inode of the header, if a client connection of process `pid` holds a
// reference of it by OPEN, CREATE or TMPFILE; -ENOENT if not, or for a directory. Counts a kernel reference, as LOOKUP.
// Reply: fos_attributes.
struct fos_lookup_open_request { uint32_t pid, reserved; };
struct fos_release_request { uint64_t owner; uint32_t flags, count; };
struct fos_flush_request { uint64_t owner; };             // FLUSH: drop POSIX locks of owner on the inode

struct fos_lease_ack { uint64_t cookie; };                // LEASE_ACK: to notice.reply_to. Empty reply

#endif
