// Delegations: changes of a file that its owner has left to one client, and takes from it when they matter.
//
// Why: who writes a new file and then sets its times, owner and mode would wait for five messages, of which nobody else needs to
// know before somebody asks for the file. The name is NFSv4's for the same thing (RFC 8881, section 10.4).
//
// Granting: the reply to a CREATE that made a file, to what truncated one (OPEN or CREATE for writing, SETATTR), to a WRITE that asks
// for attributes, or to an OPEN that brings a small file's content whose reading would move the access time, has
// FOS_REPLY_DELEGATED. After the last of these only attributes and the reading may be left. From then on the file is delegated to
// the channel, as long as its epoch is the one in the reply: nobody else keeps anything of it, the kernel does not know it, and
// memory for two records is set aside. A channel has one delegation at a time at each file server; the next replaces it.
//
// Records: the client writes what it changes into the channel's area, where the owner finds it. The area has two cells; a record is
// in one of them, the next one in the other. A client that fills one sends the owner for it, and goes on with the other.
//   client: `state` of the cell says that it is empty: data, then line[i].record, then state = record i (compare-and-swap); fence; if
//           the file's epoch is still the same, the change is made. To add to a record that has not been taken: data behind the
//           data, or over it; the other line's record; state by compare-and-swap. If that fails, the owner has the record.
//   epoch is another one after the swap: a message to the owner, after which the record is taken, or will not be: then the client
//           takes it back (compare-and-swap) and sends the change. A record with something older in it has been taken.
//   owner:  copies line[i].record, then state = taken (compare-and-swap); only then is the record what it copied. It applies it, and
//           then empties the cell (release). It does so for a request of the same channel that says FOS_GIVEN_RECORD, after the reply,
//           or before if the request is about the file; before it does anything else with the file for anybody; and when the client
//           is gone. If it ends the delegation it moves the epoch first, and fences.
//
// So a record is seen by whoever looks at the file after the call that made it has returned: either the owner sees the record, or the
// client sees the epoch. The owner believes nothing: a record counts only for the file that its own table says is delegated to the
// channel, attributes only if the client's user may set them, times of changes only between the last one and now.
#ifndef FOS_DELEGATION_H
#define FOS_DELEGATION_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <fos/atomic.h>
#include <fos/limits.h>

enum fos_delegated_change {  // in `state`: what a record changes
    FOS_DELEGATED_DATA = 1,
    FOS_DELEGATED_MODE = 2,
    FOS_DELEGATED_UID = 4,
    FOS_DELEGATED_GID = 8,
    FOS_DELEGATED_ACCESSED = 16,
    FOS_DELEGATED_MODIFIED = 32,
    FOS_DELEGATED_READ = 64,  // it was read at the time in `accessed`; without the others no other time changes
};

struct fos_delegation_record {
    uint64_t inode;
    uint64_t offset;    // in the file, of the first byte of data
    uint64_t when;      // ns of CLOCK_REALTIME: of the last change
    int64_t accessed;   // ns of CLOCK_REALTIME
    int64_t modified;   // the same, if it was set after the last write
    uint32_t mode;      // permission bits without setuid, setgid and sticky
    uint32_t uid, gid;
    uint32_t order;     // of two records the older one has the lower number (modulo 2^32)
};
static_assert(sizeof(struct fos_delegation_record) == 56, "a record and a word are one cache line");

enum { FOS_DELEGATION_CELL_BYTES = 65536, FOS_DELEGATED_BYTES_MAX = FOS_DELEGATION_CELL_BYTES - 2 * FOS_CACHE_LINE };
struct fos_delegation_cell {
    struct {
        uint64_t state;  // of the cell, in line 0; line 1 has none
        struct fos_delegation_record record;
    } line[2];
    uint8_t data[FOS_DELEGATED_BYTES_MAX];
};
struct fos_delegation {
    struct fos_delegation_cell cell[2];
};
static_assert(sizeof(struct fos_delegation) == FOS_DELEGATION_BYTES, "two cells");

// `state`: changes (8 bits; 0: empty, or taken), which line (1 bit), taken (1 bit), bytes of data (24 bits from 16), a count of changes.
static inline uint32_t fos_delegation_changes(uint64_t state) { return (uint32_t)(state & 0xff); }
static inline uint32_t fos_delegation_line(uint64_t state) { return (uint32_t)(state >> 8 & 1); }
static inline int fos_delegation_is_taken(uint64_t state) { return (int)(state >> 9 & 1); }
static inline uint32_t fos_delegation_bytes(uint64_t state) { return (uint32_t)(state >> 16 & 0xffffff); }
// A record in `line` after `state`; with no changes: the empty cell after it.
static inline uint64_t fos_delegation_next(uint64_t state, uint32_t changes, uint32_t line, uint32_t bytes) {
    return ((state >> 40) + 1) << 40 | (uint64_t)bytes << 16 | (uint64_t)line << 8 | changes;
}
static inline uint64_t fos_delegation_state(const struct fos_delegation_cell *cell) { return fos_load_acquire_u64(&cell->line[0].state); }
// Sequentially consistent.
static inline int fos_delegation_swap(struct fos_delegation_cell *cell, uint64_t before, uint64_t after) {
    return __atomic_compare_exchange_n(&cell->line[0].state, &before, after, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

// ---- the owner's side, as Swift cannot take these addresses ----

// A client that changes a record so often while it is read is no proxy of ours: the owner goes on without it.
enum { FOS_DELEGATION_TRIES = 64 };

struct fos_delegated {  // what was taken
    struct fos_delegation_record record;
    uint32_t changes;
    uint32_t bytes;     // of data, at most FOS_DELEGATED_BYTES_MAX
    uint32_t cell;
    uint32_t reserved;
    uint64_t empty;     // the state of the cell afterwards
};
// Copies the record of a cell that is about this inode. Its state; 0: there is none.
static inline uint64_t fos_delegation_read(const struct fos_delegation_cell *cell, uint64_t inode, struct fos_delegation_record *record) {
    for (int tries = 0; tries < FOS_DELEGATION_TRIES; tries++) {
        uint64_t state = fos_delegation_state(cell);
        if (fos_delegation_changes(state) == 0 || fos_delegation_is_taken(state)) return 0;
        memcpy(record, &cell->line[fos_delegation_line(state)].record, sizeof *record);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (fos_delegation_state(cell) == state) return record->inode == inode ? state : 0;
    }
    return 0;
}
// Takes the older record of this inode. 0: there is none.
static inline int fos_delegation_take(struct fos_delegation *area, uint64_t inode, struct fos_delegated *taken) {
    for (int tries = 0; tries < FOS_DELEGATION_TRIES; tries++) {
        struct fos_delegation_record other;
        uint64_t state = fos_delegation_read(&area->cell[0], inode, &taken->record);
        uint64_t second = fos_delegation_read(&area->cell[1], inode, &other);
        taken->cell = 0;
        if (second != 0 && (state == 0 || (int32_t)(other.order - taken->record.order) < 0)) {
            state = second;
            taken->record = other;
            taken->cell = 1;
        }
        if (state == 0) return 0;
        taken->empty = fos_delegation_next(state, 0, 0, 0);
        if (!fos_delegation_swap(&area->cell[taken->cell], state, taken->empty | 1 << 9)) continue;
        taken->changes = fos_delegation_changes(state);
        taken->bytes = fos_delegation_bytes(state);
        if (taken->bytes > FOS_DELEGATED_BYTES_MAX) taken->bytes = FOS_DELEGATED_BYTES_MAX;
        return 1;
    }
    return 0;
}
static inline const uint8_t *fos_delegation_data(const struct fos_delegation *area, uint32_t cell) { return area->cell[cell & 1].data; }
// What was taken has been applied: the cell is the client's again.
static inline void fos_delegation_done(struct fos_delegation *area, uint32_t cell, uint64_t empty) {
    fos_store_release_u64(&area->cell[cell & 1].line[0].state, empty);
}

#endif
