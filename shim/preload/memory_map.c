// mmap, munmap and brk.
//
// Serving: extents are asked for before the lock is taken; then Linux maps as the program asked, the extents are mapped over
// it, and after the lock the kernel is made to map their frames: one read in each 64 KiB, around which it maps what is there
// (fault-around), which costs half of what MAP_POPULATE does.
//
// brk: most of a heap grows in small steps, each less than a message is worth. So the kernel's break is kept ahead of the
// program's, by a quarter of the heap, in served memory; steps up to there need no system call at all. A step back that is
// small leaves it there too: what the program gave up is zeroed when it comes back to it.
#define _GNU_SOURCE
#include "memory.h"

enum { AROUND = 65536, BREAK_AHEAD_MAX = 16777216, BREAK_KEPT = 2097152 };

// ---- what is served --------------------------------------------------------------------------------------------------

// Why a private anonymous mapping is left to Linux; 0: it is to be served.
static uint32_t refusal(uint64_t bytes, long protection, long flags) {
    const long known = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_NONBLOCK | MAP_32BIT | MAP_DENYWRITE | MAP_EXECUTABLE;
    if (bytes < fos_memory_threshold) return FOS_LEFT_SMALL;
    uint32_t stopped = __atomic_load_n(&fos_memory_stopped, __ATOMIC_RELAXED);
    if (stopped != 0) return stopped;
    if (fos_memory_is_forking()) return FOS_LEFT_FORKING;
    if ((flags & MAP_GROWSDOWN) != 0) return FOS_LEFT_GROWS;
    if ((flags & MAP_STACK) != 0) return FOS_LEFT_STACK;
    if ((flags & MAP_NORESERVE) != 0 || bytes > FOS_SERVED_BYTES_MAX) return FOS_LEFT_SPARSE;
    if ((protection & PROT_WRITE) == 0) return FOS_LEFT_NO_ACCESS;
    if ((flags & ~known) != 0 || (protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0) return FOS_LEFT_OTHER;
    return 0;
}

void fos_memory_overlay(uintptr_t at, uint64_t bytes, int32_t protection, const struct fos_extent *extents, int count) {
    uint8_t flags = fos_memory_lock_future ? FOS_RANGE_LOCKED : 0;
    uintptr_t end = at + bytes;
    for (int i = 0; i < count; i++) {
        struct fos_extent extent = extents[i];
        uint64_t part = extent.bytes < end - at ? extent.bytes : end - at;
        int fd = part == 0 ? -1 : fos_region_descriptor(extent.region);
        if (fd < 0 || fos_failed(fos_raw(SYS_mmap, at, part, protection, MAP_SHARED | MAP_FIXED, fd, extent.offset))) part = 0;
        if (part > 0) {
            struct fos_range range = {at, at + part, extent.offset, extent.region, FOS_RANGE_SHARED, flags, protection};
            fos_regions_use(&range);
            fos_ranges_insert(&range);
            fos_tally_add(&fos_tally->memory_served_bytes, part);
            at += part;
        }
        extent.offset += part;
        extent.bytes -= part;
        if (extent.bytes > 0) fos_regions_put_back(&extent, 1);
    }
    if (at < end) {
        struct fos_range rest = {at, end, 0, 0, FOS_RANGE_LINUX, flags, protection};
        fos_ranges_insert(&rest);
        fos_tally_add(&fos_tally->memory_linux_bytes, end - at);
    }
}

// The frames of what was granted, from the start of a mapping on. What is not granted stays untouched.
static void map_ahead(uintptr_t at, uint64_t bytes, const struct fos_extent *extents, int count) {
    uint64_t served = 0;
    for (int i = 0; i < count; i++) served += extents[i].bytes;
    if (served > bytes) served = bytes;
    for (uintptr_t page = at; page < at + served; page += AROUND) (void)*(const volatile uint8_t *)page;
}

// ---- mmap ------------------------------------------------------------------------------------------------------------

// As asked; but where Linux may choose the address, one where huge frames fit.
static long map_by_linux(const struct fos_call *call, uint64_t bytes, int huge) {
    const long *a = call->arguments;
    const long fixed = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT;
    if (huge && a[0] == 0 && (a[3] & fixed) == 0) {
        long wide = fos_raw(SYS_mmap, 0, bytes + FOS_HUGE, a[2], a[3] & ~MAP_POPULATE, -1);
        if (!fos_failed(wide)) {
            uintptr_t from = (uintptr_t)wide, at = (from + FOS_HUGE - 1) & ~(uintptr_t)(FOS_HUGE - 1);
            if (at > from) fos_raw(SYS_munmap, from, at - from);
            fos_raw(SYS_munmap, at + bytes, from + FOS_HUGE - at);
            return (long)at;
        }
    }
    return fos_raw(SYS_mmap, a[0], a[1], a[2], a[3] & ~MAP_POPULATE, a[4], a[5]);
}

// A mapping that replaces served ranges, or is served itself, or both.
static long map(struct fos_call *call, uint64_t bytes, const struct fos_extent *extents, int count) {
    const long *a = call->arguments;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    long at = -ENOMEM;
    if (fos_ranges_reserve(FOS_EXTENTS_ROOM) == 0) {
        at = count > 0 ? map_by_linux(call, bytes, fos_region_is_huge(extents[0].region)) : fos_raw(SYS_mmap, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    if (fos_failed(at)) {
        fos_regions_put_back(extents, count);
    } else {
        fos_ranges_remove((uintptr_t)at, (uintptr_t)at + bytes);
        if (count > 0) fos_memory_overlay((uintptr_t)at, bytes, (int32_t)a[2], extents, count);
    }
    fos_memory_unlock(&lock);
    if (!fos_failed(at) && count > 0) {
        map_ahead((uintptr_t)at, bytes, extents, count);
        if ((a[3] & MAP_POPULATE) != 0) fos_raw(SYS_madvise, at, bytes, MADV_POPULATE_WRITE);
        fos_tally_add(&fos_tally->memory_served, 1);
    }
    return at;
}

long fos_memory_mmap(struct fos_call *call) {
    const long *a = call->arguments;
    uint64_t bytes = fos_pages((uint64_t)a[1]);
    if (bytes == 0 || bytes > UINT64_C(1) << 47) return FOS_PASS;
    int anonymous = (a[3] & (MAP_TYPE | MAP_ANONYMOUS)) == (MAP_PRIVATE | MAP_ANONYMOUS);
    int replaces = (a[3] & MAP_FIXED) != 0 && !fos_ranges_miss((uintptr_t)a[0], (uintptr_t)a[0] + bytes);
    uint32_t why = anonymous ? refusal(bytes, a[2], a[3]) : FOS_LEFT_NONE;
    struct fos_extent extents[FOS_EXTENTS_ROOM];
    int count = anonymous && why == 0 ? fos_regions_take(bytes, extents, &why) : 0;
    if (count == 0 && anonymous) fos_memory_count(why, bytes);
    if (count == 0 && !replaces) return FOS_PASS;
    if (!anonymous && !fos_process_borrowed(call)) {
        // A file of a mount must be the kernel's before it can be mapped.
        long result = fos_calls_handle(call);
        if (result != FOS_PASS) return result;
    }
    return map(call, bytes, extents, count);
}

// ---- munmap ----------------------------------------------------------------------------------------------------------

long fos_memory_munmap(struct fos_call *call) {
    uintptr_t start = (uintptr_t)call->arguments[0], bytes = fos_pages((uintptr_t)call->arguments[1]);
    if (start % FOS_PAGE != 0 || bytes == 0 || start + bytes < start || fos_ranges_miss(start, start + bytes)) return FOS_PASS;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    long result = FOS_PASS;
    if (fos_ranges_meet(start, start + bytes)) {
        result = fos_ranges_reserve(0) == 0 ? fos_raw(SYS_munmap, start, bytes) : -ENOMEM;
        if (result == 0) fos_ranges_remove(start, start + bytes);
    }
    fos_memory_unlock(&lock);
    return result;
}

// A segment of System V may be mapped over what is there (SHM_REMAP).
long fos_memory_shmat(struct fos_call *call) {
    enum { SHM_REMAP_RAW = 040000, IPC_STAT_RAW = 2 };
    if ((call->arguments[2] & SHM_REMAP_RAW) == 0 || fos_ranges_count() == 0) return FOS_PASS;
    struct { uint64_t words[32]; } segment;  // struct shmid_ds: the seventh word is its size
    if (fos_failed(fos_raw(SYS_shmctl, call->arguments[0], IPC_STAT_RAW, &segment))) return FOS_PASS;
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    long at = fos_ranges_reserve(0) != 0 ? -ENOMEM : fos_raw(SYS_shmat, call->arguments[0], call->arguments[1], call->arguments[2]);
    if (!fos_failed(at)) fos_ranges_remove((uintptr_t)at, (uintptr_t)at + fos_pages(segment.words[6]));
    fos_memory_unlock(&lock);
    return at;
}

// ---- brk -------------------------------------------------------------------------------------------------------------

static struct {
    uintptr_t first;    // where the heap ended when it was first seen
    uintptr_t program;  // the break as the program knows it; 0: not seen yet
    uintptr_t kernel;   // the kernel's, never below
    uintptr_t used;     // the highest that the program's was since: up to there pages may hold data
} heap;

static uintptr_t set_break(uintptr_t to) { return (uintptr_t)fos_raw(SYS_brk, to); }

// How far to move the kernel's break when the program wants `wanted`.
static uintptr_t break_target(uintptr_t wanted) {
    if (fos_memory_stopped != 0 || fos_memory_is_forking() || heap.program == 0 || wanted - heap.first < fos_memory_threshold) return wanted;
    uintptr_t ahead = (wanted - heap.first) / 4;
    if (ahead < fos_memory_threshold) ahead = fos_memory_threshold;
    if (ahead > BREAK_AHEAD_MAX) ahead = BREAK_AHEAD_MAX;
    return fos_pages(wanted + ahead);
}

// New memory is zeros from the next page on; the page that the break was in keeps what it has.
static void move_up(uintptr_t wanted) {
    uintptr_t from = fos_pages(heap.program), to = fos_pages(wanted < heap.used ? wanted : heap.used);
    if (to > from) memset((void *)from, 0, to - from);
    heap.program = wanted;
    if (wanted > heap.used) heap.used = wanted;
}

static void grow(uintptr_t wanted, uintptr_t target, const struct fos_extent *extents, int count) {
    uintptr_t before = fos_pages(heap.kernel), now = set_break(target);
    if (now != target) now = set_break(wanted);
    heap.kernel = now;
    if (now < wanted) {
        fos_regions_put_back(extents, count);
        return;
    }
    move_up(wanted);
    if (count > 0 && fos_pages(now) > before && fos_ranges_reserve(FOS_EXTENTS_ROOM) == 0) {
        fos_memory_overlay(before, fos_pages(now) - before, PROT_READ | PROT_WRITE, extents, count);
        fos_tally_add(&fos_tally->memory_served, 1);
        map_ahead(before, fos_pages(now) - before, extents, count);
    } else {
        fos_regions_put_back(extents, count);
    }
}

static void shrink(uintptr_t wanted) {
    uintptr_t before = fos_pages(heap.kernel);
    if (heap.kernel != heap.program && wanted > heap.first && before - wanted <= BREAK_KEPT) {
        heap.program = wanted;
        return;
    }
    if (fos_ranges_reserve(0) != 0) return;
    heap.kernel = set_break(wanted);
    if (heap.kernel != wanted) return;  // no place for a break: nothing has changed
    heap.program = heap.used = wanted;
    fos_ranges_remove(fos_pages(wanted), before);
}

long fos_memory_brk(struct fos_call *call) {
    uintptr_t wanted = (uintptr_t)call->arguments[0], from = fos_pages(heap.kernel);
    struct fos_extent extents[FOS_EXTENTS_ROOM];
    int count = 0;
    uintptr_t target = wanted;
    if (heap.program != 0 && wanted > heap.kernel && wanted - heap.kernel < FOS_SERVED_BYTES_MAX) {
        target = break_target(wanted);
        uint64_t bytes = fos_pages(target) - from;
        uint32_t why = fos_memory_stopped != 0 ? fos_memory_stopped : FOS_LEFT_SMALL;
        if (why == FOS_LEFT_SMALL && bytes >= fos_memory_threshold) count = fos_regions_take(bytes, extents, &why);
        if (count == 0) target = wanted;
        if (count == 0) fos_memory_count(why, fos_pages(wanted) - from);
    }
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    if (heap.program == 0) heap.first = heap.program = heap.kernel = heap.used = set_break(0);
    if (wanted > heap.kernel) {
        grow(wanted, target, extents, count);
    } else {
        fos_regions_put_back(extents, count);
        if (wanted >= heap.program) move_up(wanted);
        else if (wanted != 0) shrink(wanted);
    }
    uintptr_t now = heap.program;
    fos_memory_unlock(&lock);
    return (long)now;
}
