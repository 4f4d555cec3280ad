// The registry: which addresses are served, as sorted ranges.
//
// An array in memory of its own, which doubles when it is full. Ranges are few (a mapping is one or a handful; mprotect and
// partial unmapping cut them), so a search is a bisection and a change moves what lies behind. Neighbours that differ in
// nothing are joined, as Linux joins them.
// Invariants: sorted, disjoint, none empty. `lowest` and `highest` never exclude an address that is served.
#define _GNU_SOURCE
#include "memory.h"

enum { FIRST_BYTES = 65536 };

static struct fos_range *ranges;
static uint32_t count, room;
static uintptr_t lowest = UINTPTR_MAX, highest;

uint32_t fos_ranges_count(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }
struct fos_range *fos_range_at(uint32_t index) { return &ranges[index]; }

int fos_ranges_miss(uintptr_t start, uintptr_t end) {
    return fos_ranges_count() == 0 || end <= __atomic_load_n(&lowest, __ATOMIC_RELAXED) || start >= __atomic_load_n(&highest, __ATOMIC_RELAXED);
}

uint32_t fos_ranges_find(uintptr_t address) {
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranges[middle].end <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

int fos_ranges_meet(uintptr_t start, uintptr_t end) {
    uint32_t index = fos_ranges_find(start);
    return index < count && ranges[index].start < end;
}

int fos_ranges_reserve(uint32_t more) {
    if (count + more + 2 <= room) return 0;
    size_t old = room * sizeof *ranges, bytes = old == 0 ? FIRST_BYTES : old;
    while (bytes / sizeof *ranges < (size_t)count + more + 2) bytes *= 2;
    long at = old == 0 ? fos_raw(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
                       : fos_raw(SYS_mremap, ranges, old, bytes, MREMAP_MAYMOVE);
    if (fos_failed(at)) return -ENOMEM;
    ranges = (struct fos_range *)at;
    room = (uint32_t)(bytes / sizeof *ranges);
    return 0;
}

// The bounds only matter to calls that nothing served could meet: they are wide until the registry is empty again.
static void note_bounds(uintptr_t start, uintptr_t end) {
    if (start < lowest) __atomic_store_n(&lowest, start, __ATOMIC_RELAXED);
    if (end > highest) __atomic_store_n(&highest, end, __ATOMIC_RELAXED);
}

static void open_gap(uint32_t index) {
    memmove(&ranges[index + 1], &ranges[index], (count - index) * sizeof *ranges);
    __atomic_store_n(&count, count + 1, __ATOMIC_RELAXED);
}

static void close_gap(uint32_t index, uint32_t gone) {
    memmove(&ranges[index], &ranges[index + gone], (count - index - gone) * sizeof *ranges);
    __atomic_store_n(&count, count - gone, __ATOMIC_RELAXED);
    if (count == 0) lowest = UINTPTR_MAX, highest = 0;
}

static int joins(const struct fos_range *low, const struct fos_range *high) {
    return low->end == high->start && low->kind == high->kind && low->flags == high->flags && low->protection == high->protection &&
           low->kind != FOS_RANGE_LINUX && low->region == high->region && low->offset + (low->end - low->start) == high->offset;
}

static void join(uint32_t index) {
    if (index == 0 || index >= count || !joins(&ranges[index - 1], &ranges[index])) return;
    ranges[index - 1].end = ranges[index].end;
    close_gap(index, 1);
}

void fos_ranges_insert(const struct fos_range *range) {
    uint32_t index = fos_ranges_find(range->start);
    open_gap(index);
    ranges[index] = *range;
    note_bounds(range->start, range->end);
    join(index + 1);
    join(index);
}

void fos_ranges_split(uintptr_t address) {
    uint32_t index = fos_ranges_find(address);
    if (index == count || ranges[index].start >= address) return;
    open_gap(index);
    ranges[index].end = address;
    ranges[index + 1].offset += address - ranges[index + 1].start;
    ranges[index + 1].start = address;
}

void fos_ranges_remove(uintptr_t start, uintptr_t end) {
    if (!fos_ranges_meet(start, end)) return;
    fos_ranges_split(start);
    fos_ranges_split(end);
    uint32_t first = fos_ranges_find(start), last = first;
    for (; last < count && ranges[last].start < end; last++) fos_regions_drop(&ranges[last]);
    close_gap(first, last - first);
}

struct fos_range fos_ranges_take(uint32_t index) {
    struct fos_range range = ranges[index];
    close_gap(index, 1);
    return range;
}

void fos_ranges_change(uintptr_t start, uintptr_t end, int32_t protection, uint8_t set, uint8_t clear) {
    if (!fos_ranges_meet(start, end)) return;
    fos_ranges_split(start);
    fos_ranges_split(end);
    uint32_t index = fos_ranges_find(start);
    for (; index < count && ranges[index].start < end; index++) {
        if (protection >= 0) ranges[index].protection = protection;
        ranges[index].flags = (uint8_t)((ranges[index].flags | set) & ~clear);
    }
    // From behind, so that a join does not move what is still to be looked at.
    for (uint32_t i = index < count ? index : count - 1; i > 0 && ranges[i].end > start; i--) join(i);
    join(fos_ranges_find(start));
}
