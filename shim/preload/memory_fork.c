// Private semantics for both sides of a fork, and memory that becomes Linux's.
//
// Before a fork every SHARED range is mapped anew, at its place and atomically, MAP_PRIVATE from the same frames. From then
// on nobody writes the frames: parent and child read them, and Linux copies what either writes. The regions are retired, so
// the fleet has the frames again when the last process that maps them has unmapped them or ended.
// A range that the child will not have (MADV_DONTFORK) stays as it is.
// The lock is held over the fork, so that the child finds the registry as it was; where the child cannot start in the
// middle of the call (a clone with a stack of its own), nothing is served until both sides were told.
#define _GNU_SOURCE
#include "memory.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint32_t forking;   // clones under way whose sides have not been told
static struct fos_memory_lock fork_lock;

// ---- Linux's own memory ----------------------------------------------------------------------------------------------

static int is_zero(const void *page) {
    const uint64_t *words = page;
    for (size_t i = 0; i < FOS_PAGE / sizeof *words; i++) {
        if (words[i] != 0) return 0;
    }
    return 1;
}

void fos_advise_again(uintptr_t at, uint64_t bytes, uint8_t flags) {
    if ((flags & FOS_RANGE_NO_FORK) != 0) fos_raw(SYS_madvise, at, bytes, MADV_DONTFORK);
    if ((flags & FOS_RANGE_NO_DUMP) != 0) fos_raw(SYS_madvise, at, bytes, MADV_DONTDUMP);
}

// Copies what is not zeros to new memory, and moves that over the range.
static long evacuate(struct fos_range *range) {
    uint64_t bytes = range->end - range->start;
    long copy = fos_raw(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fos_failed(copy)) return -ENOMEM;
    if ((range->protection & PROT_READ) == 0) fos_raw(SYS_mprotect, range->start, bytes, PROT_READ);
    for (uint64_t at = 0; at < bytes; at += FOS_PAGE) {
        if (!is_zero((const void *)(range->start + at))) memcpy((void *)(copy + (long)at), (const void *)(range->start + at), FOS_PAGE);
    }
    if (range->protection != (PROT_READ | PROT_WRITE)) fos_raw(SYS_mprotect, copy, bytes, range->protection);
    long moved = fos_raw(SYS_mremap, copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, range->start);
    if (fos_failed(moved)) {
        fos_raw(SYS_munmap, copy, bytes);
        return -ENOMEM;
    }
    fos_advise_again(range->start, bytes, range->flags);
    if ((range->flags & FOS_RANGE_LOCKED) != 0) fos_raw(SYS_mlock, range->start, bytes);
    fos_regions_drop(range);
    range->kind = FOS_RANGE_LINUX;
    fos_tally_add(&fos_tally->memory_copied, bytes);
    return 0;
}

long fos_evacuate(uintptr_t start, uintptr_t end) {
    if (!fos_ranges_meet(start, end)) return 0;
    if (fos_ranges_reserve(0) != 0) return -ENOMEM;
    fos_ranges_split(start);
    fos_ranges_split(end);
    long result = 0;
    for (uint32_t index = fos_ranges_find(start); index < fos_ranges_count() && fos_range_at(index)->start < end && result == 0; index++) {
        if (fos_range_at(index)->kind != FOS_RANGE_LINUX) result = evacuate(fos_range_at(index));
    }
    return result;
}

// ---- freezing --------------------------------------------------------------------------------------------------------

static long freeze(struct fos_range *range) {
    uint64_t bytes = range->end - range->start;
    int fd = fos_region_descriptor(range->region);
    // Without the fleet there is no descriptor.
    if (fd < 0) return evacuate(range);
    long at = fos_raw(SYS_mmap, range->start, bytes, range->protection, MAP_PRIVATE | MAP_FIXED, fd, range->offset);
    if (fos_failed(at)) return evacuate(range);
    range->kind = FOS_RANGE_FROZEN;
    fos_advise_again(range->start, bytes, range->flags);
    fos_tally_add(&fos_tally->memory_frozen_bytes, bytes);
    return 0;
}

// The pages as this process's own copies. What may not be written cannot be populated, and is copied.
static long own_pages(struct fos_range *range) {
    if ((range->protection & PROT_WRITE) == 0) return evacuate(range);
    return fos_raw(SYS_madvise, range->start, range->end - range->start, MADV_POPULATE_WRITE) == 0 ? 0 : -ENOMEM;
}

long fos_freeze(enum fos_freeze_extent what) {
    long result = 0;
    int any = 0;
    for (uint32_t index = 0; index < fos_ranges_count() && result == 0; index++) {
        struct fos_range *range = fos_range_at(index);
        if (range->kind == FOS_RANGE_SHARED && (what != FOS_FREEZE_INHERITED || (range->flags & FOS_RANGE_NO_FORK) == 0)) {
            result = freeze(range);
            any = 1;
        }
        if (result == 0 && what == FOS_FREEZE_OWN && range->kind == FOS_RANGE_FROZEN) result = own_pages(range);
    }
    if (any && result == 0) {
        fos_tally_add(&fos_tally->memory_frozen, 1);
        fos_regions_retire();
    }
    return result;
}

// ---- around a fork ---------------------------------------------------------------------------------------------------

int fos_memory_is_forking(void) { return __atomic_load_n(&forking, __ATOMIC_RELAXED) != 0; }

long fos_memory_before_fork(int told_later) {
    if (!fos_memory_active) return 0;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    uint64_t start = fos_options.counting ? fos_clock() : 0;
    long result = fos_freeze(FOS_FREEZE_INHERITED);
    if (start != 0) fos_tally_add(&fos_tally->memory_time_freezing, fos_clock() - start);
    if (told_later && result == 0) __atomic_add_fetch(&forking, 1, __ATOMIC_RELAXED);
    if (told_later || result != 0) fos_memory_unlock(&lock);
    else fork_lock = lock;
    return result;
}

// Locks are not inherited; the parent's were lost with the old mappings.
static void lock_again(void) {
    for (uint32_t index = 0; index < fos_ranges_count(); index++) {
        const struct fos_range *range = fos_range_at(index);
        if (range->kind == FOS_RANGE_FROZEN && (range->flags & FOS_RANGE_LOCKED) != 0) fos_raw(SYS_mlock, range->start, range->end - range->start);
    }
}

static void begin_as_child(void) {
    fos_regions_after_fork();
    for (uint32_t index = 0; index < fos_ranges_count();) {
        struct fos_range *range = fos_range_at(index);
        range->flags &= (uint8_t)~FOS_RANGE_LOCKED;
        if ((range->flags & FOS_RANGE_NO_FORK) == 0) {
            index++;
        } else {
            struct fos_range gone = fos_ranges_take(index);
            fos_regions_drop(&gone);
        }
    }
    fos_memory_lock_future = 0;
}

void fos_memory_after_fork(int child, int told_later) {
    if (!fos_memory_active) return;
    struct fos_memory_lock lock = fork_lock;
    if (told_later) {
        if (child) {
            fos_memory_lock_reset();
            forking = 0;
        } else if (fos_memory_is_forking()) {
            __atomic_sub_fetch(&forking, 1, __ATOMIC_RELAXED);
        }
        fos_memory_lock(&lock);
    }
    if (child) begin_as_child();
    else lock_again();
    fos_memory_unlock(&lock);
}

void fos_memory_before_exec(void) {
    if (!fos_memory_active || fos_ranges_count() == 0) return;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    fos_regions_retire();
    fos_memory_unlock(&lock);
}
