// mremap of what is served.
//
// The program takes for one mapping what are several: extents, and Linux's parts between them. So every piece is moved by
// itself, whole, and what a mapping grows by is Linux's own memory, beside it or at a new place. The kernel must not grow a
// piece: behind an extent of a region come the frames of another.
#define _GNU_SOURCE
#include "memory.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

struct move {
    uintptr_t from, to;
    uint64_t old_bytes, new_bytes;
    long flags;
};

// What the last page is part of decides for what is added behind it.
static struct fos_range last_piece(const struct move *move) {
    uintptr_t last = move->from + move->old_bytes - FOS_PAGE;
    uint32_t index = fos_ranges_find(last);
    if (index < fos_ranges_count() && fos_range_at(index)->start <= last) return *fos_range_at(index);
    return (struct fos_range){.kind = FOS_RANGE_LINUX, .protection = PROT_READ | PROT_WRITE};
}

static void note_linux(uintptr_t start, uintptr_t end, const struct fos_range *like) {
    struct fos_range range = {start, end, 0, 0, FOS_RANGE_LINUX, like->flags, like->protection};
    fos_ranges_insert(&range);
}

static long map_linux(uintptr_t at, uint64_t bytes, int32_t protection, long flags) {
    return fos_raw(SYS_mmap, at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

// New memory behind a served piece gets what the kernel would have given it.
static void add_tail(uintptr_t start, uintptr_t end, const struct fos_range *like) {
    fos_advise_again(start, end - start, like->flags);
    if ((like->flags & FOS_RANGE_LOCKED) != 0) fos_raw(SYS_mlock, start, end - start);
    note_linux(start, end, like);
}

// Moves [from, from + bytes) piece by piece to memory that may be mapped over; the last piece grows by `more`, which may be
// so only if it is Linux's. 0 or -errno.
static long move_pieces(uintptr_t from, uintptr_t to, uint64_t bytes, uint64_t more, long flags) {
    uintptr_t end = from + bytes;
    fos_ranges_split(from);
    fos_ranges_split(end);
    for (uintptr_t at = from; at < end;) {
        uint32_t index = fos_ranges_find(at);
        int noted = index < fos_ranges_count() && fos_range_at(index)->start <= at;
        uintptr_t next = end;
        if (noted) next = fos_range_at(index)->end;
        else if (index < fos_ranges_count() && fos_range_at(index)->start < end) next = fos_range_at(index)->start;
        uintptr_t target = to + (at - from);
        uint64_t added = next == end ? more : 0;
        long moved = fos_raw(SYS_mremap, at, next - at, next - at + added, MREMAP_MAYMOVE | MREMAP_FIXED | flags, target);
        if (fos_failed(moved)) return moved;
        if (noted) {
            struct fos_range range = fos_ranges_take(index);
            struct fos_range left = range;
            range.start = target;
            range.end = target + (next - at) + added;
            fos_ranges_insert(&range);
            if ((flags & MREMAP_DONTUNMAP) != 0) {
                // What stays behind of an extent is a mapping of the same frames: it becomes empty memory.
                if (left.kind != FOS_RANGE_LINUX) {
                    map_linux(at, next - at, left.protection, MAP_FIXED);
                    fos_advise_again(at, next - at, left.flags);
                }
                note_linux(at, next, &left);
            }
        }
        at = next;
    }
    return 0;
}

// A place for the whole, of Linux's own memory: where the program wants it, or anywhere.
static long make_room(const struct move *move, int32_t protection) {
    if ((move->flags & MREMAP_FIXED) == 0) return map_linux(0, move->new_bytes, protection, 0);
    long at = map_linux(move->to, move->new_bytes, protection, MAP_FIXED);
    if (!fos_failed(at)) fos_ranges_remove(move->to, move->to + move->new_bytes);
    return at;
}

static long move_whole(const struct move *move, const struct fos_range *last) {
    uint64_t bytes = move->old_bytes < move->new_bytes ? move->old_bytes : move->new_bytes, more = move->new_bytes - bytes;
    long at = make_room(move, last->protection);
    if (fos_failed(at)) return at;
    int by_linux = last->kind == FOS_RANGE_LINUX;
    long result = move_pieces(move->from, (uintptr_t)at, bytes, by_linux ? more : 0, move->flags & MREMAP_DONTUNMAP);
    if (result != 0) return result;
    if (more > 0 && !by_linux) add_tail((uintptr_t)at + bytes, (uintptr_t)at + move->new_bytes, last);
    return at;
}

// Grows what ends where nothing follows. 0, or -ENOMEM: something does.
static long grow_in_place(uintptr_t end, uint64_t more, const struct fos_range *last) {
    if (last->kind == FOS_RANGE_LINUX && last->end == end) {
        if (fos_failed(fos_raw(SYS_mremap, last->start, end - last->start, end - last->start + more, 0))) return -ENOMEM;
        note_linux(end, end + more, last);
        return 0;
    }
    long at = map_linux(end, more, last->protection, MAP_FIXED_NOREPLACE);
    if (at == (long)end) {
        add_tail(end, end + more, last);
        return 0;
    }
    if (!fos_failed(at)) fos_raw(SYS_munmap, at, more);  // a kernel that takes the flag for a hint
    return -ENOMEM;
}

static long unmap(uintptr_t start, uint64_t bytes) {
    long result = fos_raw(SYS_munmap, start, bytes);
    if (result == 0) fos_ranges_remove(start, start + bytes);
    return result;
}

static long change(const struct move *move) {
    struct fos_range last = last_piece(move);
    if (move->new_bytes < move->old_bytes) {
        long result = unmap(move->from + move->new_bytes, move->old_bytes - move->new_bytes);
        if (result != 0) return result;
    }
    if ((move->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) return move_whole(move, &last);
    if (move->new_bytes <= move->old_bytes) return (long)move->from;
    if (grow_in_place(move->from + move->old_bytes, move->new_bytes - move->old_bytes, &last) == 0) return (long)move->from;
    return (move->flags & MREMAP_MAYMOVE) != 0 ? move_whole(move, &last) : -ENOMEM;
}

// 1 if every page of [start, start + bytes) is mapped: mincore says so of all kinds of memory.
static int is_mapped(uintptr_t start, uint64_t bytes) {
    uint8_t pages[256];
    for (uint64_t at = 0; at < bytes; at += sizeof pages * FOS_PAGE) {
        uint64_t part = bytes - at < sizeof pages * FOS_PAGE ? bytes - at : sizeof pages * FOS_PAGE;
        if (fos_raw(SYS_mincore, start + at, part, pages) != 0) return 0;
    }
    return 1;
}

long fos_memory_mremap(struct fos_call *call) {
    const long *a = call->arguments;
    struct move move = {(uintptr_t)a[0], (uintptr_t)a[4], fos_pages((uintptr_t)a[1]), fos_pages((uintptr_t)a[2]), a[3]};
    int fixed = (move.flags & MREMAP_FIXED) != 0, stays = (move.flags & MREMAP_DONTUNMAP) != 0;
    uintptr_t end = move.from + (move.old_bytes == 0 ? FOS_PAGE : move.old_bytes);
    int from = !fos_ranges_miss(move.from, end), onto = fixed && !fos_ranges_miss(move.to, move.to + move.new_bytes);
    if (!from && !onto) return FOS_PASS;
    // What the kernel refuses by the arguments alone, it shall refuse.
    if ((move.flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0 || move.from % FOS_PAGE != 0 || move.new_bytes == 0) return FOS_PASS;
    if ((fixed || stays) && (move.flags & MREMAP_MAYMOVE) == 0) return FOS_PASS;
    if (stays && move.old_bytes != move.new_bytes) return FOS_PASS;
    if (fixed && (move.to % FOS_PAGE != 0 || move.to + move.new_bytes < move.to ||
                  (move.from + move.old_bytes > move.to && move.to + move.new_bytes > move.from))) return FOS_PASS;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    long result = FOS_PASS;
    if (fos_ranges_reserve(2 * (fos_ranges_count() + 4)) != 0) {
        result = -ENOMEM;
    } else if (fos_ranges_meet(move.from, end)) {
        if (move.old_bytes == 0) result = -EINVAL;  // would duplicate a shared mapping; private ones cannot be
        else if (!is_mapped(move.from, move.old_bytes)) result = -EFAULT;
        else result = change(&move);
    } else if (fixed && fos_ranges_meet(move.to, move.to + move.new_bytes)) {
        result = fos_raw(SYS_mremap, a[0], a[1], a[2], a[3], a[4]);
        if (!fos_failed(result)) fos_ranges_remove(move.to, move.to + move.new_bytes);
    }
    fos_memory_unlock(&lock);
    return result;
}
