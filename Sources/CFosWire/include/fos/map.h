// Direct mapping: a client reads and overwrites a file's pages in memory that it shares with the file's owner, without a
// message.
//
// MAP (header inode = the file): the client has the file open for what it asks (a reference with that right). The owner moves
// the pages into a region of their own, a memfd of `bytes` bytes of the file from its start and one control page after
// them, sealed: nobody can shrink or grow it. The reply has a token; the descriptor, for reading only or for both as was
// asked, comes over the connection's socket, in one packet with struct fos_map_packet that carries the same token,
// before or after the reply. One request at a time a connection, or packets are taken by whoever does not wait for them.
//
// Reading [offset, offset + count), all of which must lie below `bytes`:
//   grant = control.grant (acquire); 0: no direct access now, send READ
//   control.read_until <= now, in seconds of CLOCK_REALTIME: the access time is due. Who may write to the control page puts
//   the time into control.accessed; others send READ
//   size = control.size; count ends at size
//   copy
//   fence (acquire); control.grant is still `grant`: the bytes are the file's. Else they are thrown away, and READ is sent
// The owner takes the grant away before it changes anything, and gives another one when the change is complete and before
// it is answered; so what was read is what the file held at one moment. While the kernel may hold pages of the file, which
// a program may have mapped and may change without a message, there is no grant; a READ has them given back.
//
// Overwriting [offset, offset + count), all of which must lie below control.size, while control.writing is not 0:
//   grant as above; copy; control.written = now, in ns of CLOCK_REALTIME, and control.read_until = 0
//   fence (full); control.grant is still `grant` and control.writing not 0: written. Else WRITE is sent, all of it
// The owner looks at control.written whenever the file is used by a message, and the file is then modified since that time,
// which it believes between the last change and now. Meanwhile nobody keeps anything of the file: attributes and data
// come with FOS_ATTRIBUTES_VOLATILE and FOS_REPLY_VOLATILE. The kernel's caches are told of no such write, so the owner ends
// the writing (control.writing = 0 under a new grant) before it answers the kernel, and never waits for a client: one that was
// in the middle of a copy finds the grant changed and sends the same bytes by WRITE. It also ends when nothing has been
// written for a while, when holes appear, and while the file has privileges that a write takes away. MAP with
// FOS_MAP_RENEW begins it again, without another descriptor.
//
// Bytes of the region beyond the file's size are zeros. The region never becomes smaller: a truncation faults nobody. A
// file that outgrows its region is read by message beyond it, until somebody maps it again; the old region then has no
// grant for ever (control.ended), as when the file is gone or was cut to nothing.
// Whoever has mapped it for writing can write anything into it, the control page too, and so mislead those who read this
// file; the owner keeps its own account and takes nothing from the region but data and the two times. The right to read or
// write stays with whoever has mapped it, as with mmap(2).
#ifndef FOS_MAP_H
#define FOS_MAP_H

#include <assert.h>
#include <stdint.h>
#include <fos/atomic.h>
#include <fos/limits.h>

#define FOS_MAP_MAGIC UINT64_C(0x316e6f69676572)  // "region1"

struct fos_map_request {  // MAP. -EACCES not open for reading; -EINVAL no regular file, or an empty one; -EFBIG beyond
    uint32_t access;      // FOS_MAP_BYTES_MAX; -ENOSPC; -EMFILE too many files are mapped. access: 4, as R_OK, or 6, with
    uint32_t flags;       // W_OK: -EOPNOTSUPP while the file has holes or privileges. flags: enum fos_map_flag
};
enum fos_map_flag {
    FOS_MAP_RENEW = 1,    // the client has the region already: no descriptor is sent. -ESTALE: it is another one now
};
struct fos_map_reply {
    uint64_t token;
    uint64_t bytes;       // of the file that the region holds, whole pages; the control page follows
};
struct fos_map_packet {   // over the socket, with one descriptor
    uint64_t magic;
    uint64_t token;
};
struct fos_map_control {
    uint64_t size;        // of the file; may be beyond the region
    int64_t read_until;   // seconds of CLOCK_REALTIME from which on a read must be a message, for the access time
    uint32_t grant;       // 0: none. Another number each time
    uint32_t ended;       // 1: there will be no other; map the file again
    uint64_t written;     // ns of CLOCK_REALTIME: the last write without a message that the owner has not seen; 0: none
    uint64_t accessed;    // the same of reads that were due
    uint32_t writing;     // not 0: who has mapped it for writing may write
    uint32_t spare;
    uint8_t reserved[FOS_PAGE_BYTES - 48];
};
static_assert(sizeof(struct fos_map_control) == FOS_PAGE_BYTES, "a control page is a page");
static_assert(sizeof(struct fos_map_reply) == 16 && sizeof(struct fos_map_packet) == 16, "map layout");

// The owner's side, as Swift cannot take these addresses.
static inline void fos_map_take_grant(struct fos_map_control *control) {
    fos_store_relaxed_u32(&control->grant, 0);
    fos_fence();  // before any change of what it covers
}
static inline void fos_map_give_grant(struct fos_map_control *control, uint64_t size, int64_t read_until, uint32_t writing,
                                      uint32_t grant) {
    fos_store_relaxed_u32(&control->writing, writing);
    fos_store_relaxed_u64(&control->size, size);
    __atomic_store_n(&control->read_until, read_until, __ATOMIC_RELAXED);
    fos_store_release_u32(&control->grant, grant);
}
static inline void fos_map_end(struct fos_map_control *control) {
    fos_map_take_grant(control);
    fos_store_release_u32(&control->ended, 1);
}
// The times since the last look, 0: nothing was written, or read when it was due.
static inline uint64_t fos_map_take_time(uint64_t *time) {
    return fos_load_relaxed_u64(time) == 0 ? 0 : __atomic_exchange_n(time, 0, __ATOMIC_ACQ_REL);
}
static inline uint64_t fos_map_take_written(struct fos_map_control *control) { return fos_map_take_time(&control->written); }
static inline uint64_t fos_map_take_accessed(struct fos_map_control *control) { return fos_map_take_time(&control->accessed); }
static inline void fos_map_set_read_until(struct fos_map_control *control, int64_t read_until) {
    __atomic_store_n(&control->read_until, read_until, __ATOMIC_RELAXED);
}
static inline uint64_t fos_map_magic(void) { return FOS_MAP_MAGIC; }

#endif
