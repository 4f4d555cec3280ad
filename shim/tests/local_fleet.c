// A memory fleet in the process itself, for tests of the shim's memory: in place of the messages to a mount.
//
// It is as hard on the shim as a fleet may be. Extents are short and scattered, now and then refused, and with FOS_STRICT=1
// of both frame sizes (what large ones are made of is small, but the rules are the large ones'). A frame that comes back is filled with a
// pattern at once, and is zeroed only when it is granted again: so what the program still has mapped of it, it sees spoilt.
// A frame that is freed twice, or was never granted, ends the program. A child of fork begins with nothing.
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>
#include "../preload/memory.h"

enum { REGIONS = 64, REGION_BYTES = 4194304, FRAMES = REGION_BYTES / FOS_PAGE, POISON = 0xa5 };

static struct region {
    uint64_t token;
    uint32_t frame_bytes;
    int fd;
    uint8_t *view;
    uint8_t granted[FRAMES];
} regions[REGIONS];
static uint32_t generation, refusals;
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);
static long process;
static uint32_t busy;
static int kept[FOS_KEPT_DESCRIPTORS] = {[0 ... FOS_KEPT_DESCRIPTORS - 1] = -1};

static uint64_t below(uint64_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static void fail(const char *what) {
    fos_say("local fleet: ", what, NULL);
    fos_raw(SYS_exit_group, 99);
}

// The pages are the fleet's, in another process; a fork of this one must not copy them.
static struct region *make(uint32_t frame_bytes) {
    for (uint32_t i = 0; i < REGIONS; i++) {
        struct region *region = &regions[i];
        if (region->token != 0) continue;
        long fd = fos_raw(SYS_memfd_create, "fos-memory", MFD_CLOEXEC);
        if (fd < 0) return NULL;
        long high = fos_raw(SYS_fcntl, fd, 1030 /* F_DUPFD_CLOEXEC */, 700);
        fos_raw(SYS_close, fd);
        if (high < 0 || fos_raw(SYS_ftruncate, high, REGION_BYTES) != 0) return NULL;
        long view = fos_raw(SYS_mmap, 0, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, high, 0);
        if (fos_failed(view)) return NULL;
        *region = (struct region){.token = fos_memory_token(1, ++generation, i), .frame_bytes = frame_bytes, .fd = (int)high, .view = (uint8_t *)view};
        return region;
    }
    return NULL;
}

static void forget_all(void) {
    for (uint32_t i = 0; i < REGIONS; i++) {
        if (regions[i].token == 0) continue;
        fos_raw(SYS_munmap, regions[i].view, REGION_BYTES);
        fos_raw(SYS_close, regions[i].fd);
        regions[i].token = 0;
    }
}

static uint64_t mask;

static void enter(void) {
    uint64_t all = ~UINT64_C(0), before;
    fos_raw(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE) != 0) __builtin_ia32_pause();
    mask = before;
    long here = fos_raw(SYS_getpid);
    if (here == process) return;
    forget_all();
    process = here;
}
static void leave(void) {
    uint64_t before = mask;
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    fos_raw(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof before);
}

static struct region *find(uint64_t token) {
    for (uint32_t i = 0; i < REGIONS; i++) {
        if (regions[i].token == token) return &regions[i];
    }
    return NULL;
}

// A run of at most `wanted` free frames from a random place on.
static uint64_t grant(struct region *region, uint64_t wanted, struct fos_memory_extent *extent) {
    uint64_t step = region->frame_bytes / FOS_PAGE, start = below(FRAMES / step) * step;
    for (uint64_t i = 0; i < FRAMES; i += step) {
        uint64_t first = (start + i) % FRAMES, end = first;
        while (end < FRAMES && end - first < wanted && !region->granted[end]) end++;
        end = first + (end - first) / step * step;
        if (end == first) continue;
        memset(region->granted + first, 1, end - first);
        memset(region->view + first * FOS_PAGE, 0, (end - first) * FOS_PAGE);
        *extent = (struct fos_memory_extent){region->token, first * FOS_PAGE, (end - first) * FOS_PAGE};
        return end - first;
    }
    return 0;
}

int fos_fleet_allocate(uint64_t bytes, uint32_t frame_bytes, struct fos_memory_extent extents[FOS_MEMORY_EXTENTS_MAX], struct fos_descriptors *descriptors) {
    static const uint64_t lengths[] = {1, 3, 16, 200, 512, 1024};
    if (frame_bytes == FOS_HUGE && !fos_options.strict) return -EOPNOTSUPP;
    enter();
    uint64_t left = bytes / FOS_PAGE;
    int count = 0;
    descriptors->count = 0;
    if (++refusals % 23 == 0) left = 0;
    while (left > 0 && count < 8) {
        uint64_t most = lengths[below(sizeof lengths / sizeof *lengths)];
        if (frame_bytes == FOS_HUGE) most = FOS_HUGE / FOS_PAGE;
        struct region *region = &regions[below(REGIONS)];
        if (region->token == 0 || region->frame_bytes != frame_bytes) {
            region = below(3) == 0 ? make(frame_bytes) : NULL;
            if (region != NULL && descriptors->count < FOS_MEMORY_EXTENTS_MAX) {
                descriptors->token[descriptors->count] = region->token;
                descriptors->fd[descriptors->count++] = (int)fos_raw(SYS_fcntl, region->fd, 1030, 3);
            }
        }
        uint64_t got = region == NULL ? 0 : grant(region, most < left ? most : left, &extents[count]);
        if (got == 0 && below(200) == 0) break;
        if (got > 0) count++;
        left -= got;
    }
    leave();
    return count > 0 ? count : -ENOMEM;
}

int fos_fleet_region(uint64_t token) {
    enter();
    struct region *region = find(token);
    int fd = region == NULL ? -ENOENT : (int)fos_raw(SYS_fcntl, region->fd, 1030, 3);
    leave();
    return fd;
}

void fos_fleet_free(const struct fos_memory_extent *extents, uint32_t count) {
    enter();
    for (uint32_t i = 0; i < count; i++) {
        struct region *region = find(extents[i].token);
        if (region == NULL) continue;
        if (extents[i].bytes == 0 || extents[i].offset % region->frame_bytes != 0 || extents[i].bytes % region->frame_bytes != 0) fail("no frames are freed");
        for (uint64_t frame = extents[i].offset / FOS_PAGE; frame < (extents[i].offset + extents[i].bytes) / FOS_PAGE; frame++) {
            if (!region->granted[frame]) fail("a frame is freed that was not granted");
            region->granted[frame] = 0;
        }
        memset(region->view + extents[i].offset, POISON, extents[i].bytes);
    }
    leave();
}

int fos_fleet_retire(void) {
    enter();
    forget_all();
    leave();
    return 0;
}

int fos_fleet_keep(int place, int fd) {
    if (kept[place] >= 0) fos_raw(SYS_close, kept[place]);
    return kept[place] = fd;
}
int fos_fleet_kept(int place) { return kept[place]; }
void fos_fleet_forget(int place) { kept[place] = -1; }
