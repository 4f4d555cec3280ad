// What the files that serve memory share: `fos run --memory`.
//
// Role: private anonymous memory of the program (mmap, brk, mremap) above a threshold is mapped from extents that the memory
// fleet has zeroed ahead (fos/memory.h). Linux makes every mapping first, exactly as asked, so that its rules, limits and
// addresses hold; then extents are mapped over it, MAP_SHARED. What the fleet does not give, stays Linux's.
//
//   memory.c           from a system call to its handler; one at a time; withdrawing
//   memory_ranges.c    which addresses are served, sorted: the registry
//   memory_regions.c   the fleet's regions that they are mapped from; what is to be given back
//   memory_fleet.c     the messages (tests put a fleet of their own in its place)
//   memory_map.c       mmap, munmap, brk
//   memory_move.c      mremap
//   memory_advise.c    mprotect, madvise, mlock and their kind
//   memory_fork.c      private semantics for both sides of a fork
//
// A range of the registry is of one kind:
//   SHARED  mapped from an extent that this process alone has
//   FROZEN  after a fork: MAP_PRIVATE on the same frames, which nobody writes any more; Linux copies on write
//   LINUX   a part of a served mapping that is Linux's own anonymous memory: not granted, or given up by MADV_DONTNEED. Kept
//           because the program takes the whole for one mapping, which mremap must treat as one
// Invariants: the registry changes together with the mappings, under one lock, with all signals blocked; so a fork, which
// takes the lock, and a handler, which may call mmap, always find both in agreement. Everything that the shim cannot do with
// a range as Linux would, makes it Linux's first (fos_evacuate).
#ifndef FOS_MEMORY_SHIM_H
#define FOS_MEMORY_SHIM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <fos/memory.h>
#include "shim.h"

#pragma GCC visibility push(hidden)

enum {
    FOS_PAGE = 4096,
    FOS_HUGE = 2097152,
    FOS_KEPT_DESCRIPTORS = 4,
    FOS_EXTENTS_ROOM = 64,       // extents that one mapping is made of at most; the rest of it is Linux's
};
#define FOS_SERVED_BYTES_MAX (UINT64_C(2) << 30)  // a larger mapping is taken for a reservation that will stay sparse

static inline int fos_failed(long result) { return (unsigned long)result > -4096UL; }
static inline uintptr_t fos_pages(uintptr_t bytes) { return (bytes + FOS_PAGE - 1) & ~(uintptr_t)(FOS_PAGE - 1); }

// ---- the registry (memory_ranges.c); all under the lock --------------------------------------------------------------

enum fos_range_kind { FOS_RANGE_SHARED = 1, FOS_RANGE_FROZEN, FOS_RANGE_LINUX };
enum fos_range_flag { FOS_RANGE_LOCKED = 1, FOS_RANGE_NO_FORK = 2, FOS_RANGE_NO_DUMP = 4 };

struct fos_range {
    uintptr_t start, end;
    uint64_t offset;      // of `start` in the region
    uint16_t region;      // index (memory_regions.c); of LINUX ranges nothing
    uint8_t kind;         // enum fos_range_kind
    uint8_t flags;        // enum fos_range_flag
    int32_t protection;   // PROT_READ ...
};

// 0 if there may be a range that meets [start, end): cheap, without the lock, for what the caller knows of.
int fos_ranges_miss(uintptr_t start, uintptr_t end);
uint32_t fos_ranges_count(void);
struct fos_range *fos_range_at(uint32_t index);
// The first range that ends behind `address`; the count if there is none.
uint32_t fos_ranges_find(uintptr_t address);
int fos_ranges_meet(uintptr_t start, uintptr_t end);
// Room for so many ranges more. 0 or -ENOMEM. Everything below needs room for two more than it adds.
int fos_ranges_reserve(uint32_t more);
void fos_ranges_insert(const struct fos_range *range);
// Afterwards no range crosses `address`.
void fos_ranges_split(uintptr_t address);
// Takes [start, end) out. Frames of SHARED ranges are noted for giving back (fos_regions_drop).
void fos_ranges_remove(uintptr_t start, uintptr_t end);
// Takes range `index` out, for another place: nothing is given back.
struct fos_range fos_ranges_take(uint32_t index);
// Changes protection (-1: not) and flags in [start, end).
void fos_ranges_change(uintptr_t start, uintptr_t end, int32_t protection, uint8_t set, uint8_t clear);

// ---- regions (memory_regions.c); under the lock where not said otherwise ---------------------------------------------

struct fos_extent {
    uint64_t offset, bytes;
    uint16_t region;
};
// Extents for `bytes`; no lock. How many, 0: none, and `why` says it (enum fos_left).
int fos_regions_take(uint64_t bytes, struct fos_extent extents[FOS_EXTENTS_ROOM], uint32_t *why);
// Extents that came to no use; no lock.
void fos_regions_put_back(const struct fos_extent *extents, int count);
// A descriptor of the region, or -errno. It stays the shim's, and may be another one after the next call.
int fos_region_descriptor(uint32_t region);
// A new range maps frames of a region; a range of it is gone.
void fos_regions_use(const struct fos_range *range);
void fos_regions_drop(const struct fos_range *range);
int fos_region_is_huge(uint32_t region);
// Gives back what was noted, and closes descriptors: at the end of every change.
void fos_regions_settle(void);
// This process alone has its regions no longer. 0, or -errno: the fleet does not know it yet.
int fos_regions_retire(void);
void fos_regions_after_fork(void);  // in the child: the regions are the parent's

// ---- the fleet (memory_fleet.c) --------------------------------------------------------------------------------------

// Descriptors that come with a reply, by token.
struct fos_descriptors {
    uint64_t token[FOS_MEMORY_EXTENTS_MAX];
    int fd[FOS_MEMORY_EXTENTS_MAX];
    int count;
};
// At most `bytes`, in extents of frames of `frame_bytes`. How many extents, or -errno.
int fos_fleet_allocate(uint64_t bytes, uint32_t frame_bytes, struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX], struct fos_descriptors *descriptors);
int fos_fleet_region(uint64_t token);  // a descriptor, or -errno
// Keeps a descriptor as one of the shim's own, which the program does not see: the number it has then, or -errno. Closes what
// was kept in that place; -1: only that.
int fos_fleet_keep(int place, int fd);
int fos_fleet_kept(int place);     // -1: none
void fos_fleet_forget(int place);  // the number has become the program's
void fos_fleet_free(const struct fos_memory_extent *extents, uint32_t count);
int fos_fleet_retire(void);

enum fos_freeze_extent {
    FOS_FREEZE_INHERITED,  // what a child would have
    FOS_FREEZE_ALL,
    FOS_FREEZE_OWN,        // and the pages become this process's own copies, so that nothing outside can be left with a frame
};

// ---- one at a time (memory.c) ----------------------------------------------------------------------------------------

struct fos_memory_lock {
    uint64_t mask;     // the thread's signal mask, for afterwards
    int more_follows;  // 1: what is noted and open is still needed (0 from fos_memory_lock)
};
void fos_memory_lock(struct fos_memory_lock *lock);
void fos_memory_unlock(const struct fos_memory_lock *lock);
// After fos_memory_unlock, in a child of fork: nobody has the lock.
void fos_memory_lock_reset(void);

// Nothing new is served, and what is served becomes this process's alone. Takes the lock.
void fos_memory_withdraw(uint32_t reason, enum fos_freeze_extent what);
extern uint32_t fos_memory_stopped;     // enum fos_left: nothing new is served; 0: it is
extern uint64_t fos_memory_threshold;   // bytes; smaller mappings are Linux's
extern uint32_t fos_memory_lock_future; // MCL_FUTURE: what is mapped from now on is locked
void fos_memory_count(uint32_t reason, uint64_t bytes);  // left to Linux

// ---- handlers; FOS_PASS or the result --------------------------------------------------------------------------------

long fos_memory_mmap(struct fos_call *call);
long fos_memory_munmap(struct fos_call *call);
long fos_memory_brk(struct fos_call *call);
long fos_memory_mremap(struct fos_call *call);
long fos_memory_mprotect(struct fos_call *call);
long fos_memory_madvise(struct fos_call *call);
long fos_memory_process_madvise(struct fos_call *call);
long fos_memory_mlock(struct fos_call *call);
long fos_memory_mlockall(struct fos_call *call);
long fos_memory_to_linux(struct fos_call *call);  // a call that only Linux's own memory can bear, on (address, bytes)
long fos_memory_shmat(struct fos_call *call);

// ---- changing what is mapped (memory_map.c, memory_fork.c); under the lock --------------------------------------------

// Maps extents over [at, at + bytes), which Linux has just mapped with these properties, and notes all of it.
// What is left of the extents when a mapping fails is given back.
void fos_memory_overlay(uintptr_t at, uint64_t bytes, int32_t protection, const struct fos_extent *extents, int count);
// What a new mapping at the place of an old one has to be told again.
void fos_advise_again(uintptr_t at, uint64_t bytes, uint8_t flags);
// Makes [start, end) of the served ranges Linux's own memory with the same contents. Not atomic towards other threads that
// write there meanwhile. 0 or -ENOMEM.
long fos_evacuate(uintptr_t start, uintptr_t end);
int fos_memory_is_forking(void);  // a clone is under way whose sides have not been told: nothing is served
// Makes SHARED ranges FROZEN, and retires the regions. 0 or -ENOMEM.
long fos_freeze(enum fos_freeze_extent what);

#pragma GCC visibility pop

#endif
