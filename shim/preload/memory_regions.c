// The fleet's regions that served ranges are mapped from: their descriptors, and what goes back.
//
// A region is known by its token while anything of it is mapped, or its descriptor is kept. Descriptors are the program's
// numbers, so only a few are kept, hidden; another one is asked of the fleet again (REGION), mostly by fork, which needs
// all. A kept number is believed only while it leads to the inode that it did: a program may have closed it behind the
// shim's back, and then it is a stranger's file.
// Frames of SHARED ranges go back one by one when they are unmapped, huge ones when their last page is. A retired region is
// never given back by message: the kernel tells the fleet when nobody has it mapped any more.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "memory.h"

enum { REGIONS = 2048, PENDING = 64, FRAMES = FOS_MEMORY_REGION_BYTES_MAX / FOS_HUGE };

static struct region {
    uint64_t token;     // 0: free
    uint64_t mapped;    // bytes of ranges
    uint64_t inode, device;
    uint64_t used;      // tick
    int32_t fd;         // -1: none, or kept
    int8_t place;       // where it is kept, -1: not
    uint8_t huge, retired;
    uint16_t pages[FRAMES];  // of huge frames: how many 4 KiB pages of each are mapped
} regions[REGIONS] FOS_LARGE;
static uint32_t regions_used;  // slots from here on were never used
static uint64_t ticks;
static uint32_t no_huge_frames;

static struct fos_memory_extent pending[PENDING] FOS_LARGE;
static uint32_t pending_count;
static uint32_t open_descriptors;  // that are in slots and not kept

// ---- slots and descriptors -------------------------------------------------------------------------------------------

static void forget_descriptor(struct region *region) {
    if (region->place >= 0) {
        fos_fleet_keep(region->place, -1);
    } else if (region->fd >= 0) {
        fos_raw(SYS_close, region->fd);
        open_descriptors--;
    }
    region->fd = -1;
    region->place = -1;
}

static int is_free(const struct region *region) { return region->token == 0; }
// Of no use: nothing of it is mapped, and its descriptor is the only thing that is known.
static int is_idle(const struct region *region) { return region->mapped == 0 && (region->retired || region->place < 0); }

static struct region *find(uint64_t token, int huge) {
    struct region *room = NULL;
    for (uint32_t i = 0; i < regions_used; i++) {
        if (regions[i].token == token) return &regions[i];
        if (room == NULL && (is_free(&regions[i]) || (is_idle(&regions[i]) && regions[i].fd < 0))) room = &regions[i];
    }
    if (room == NULL) {
        if (regions_used == REGIONS) return NULL;
        room = &regions[regions_used++];
    }
    *room = (struct region){.token = token, .fd = -1, .place = -1, .huge = (uint8_t)huge, .used = ++ticks};
    return room;
}

static void take_descriptor(struct region *region, int fd) {
    struct stat status;
    if (region->fd >= 0 || region->place >= 0 || fos_raw(SYS_fstat, fd, &status) != 0) {
        fos_raw(SYS_close, fd);
        return;
    }
    region->fd = fd;
    open_descriptors++;
    region->inode = status.st_ino;
    region->device = status.st_dev;
}

static int still_leads_there(const struct region *region, int fd) {
    struct stat status;
    return fd >= 0 && fos_raw(SYS_fstat, fd, &status) == 0 && status.st_ino == region->inode && status.st_dev == region->device;
}

int fos_region_descriptor(uint32_t index) {
    struct region *region = &regions[index];
    region->used = ++ticks;
    int fd = region->place >= 0 ? fos_fleet_kept(region->place) : region->fd;
    if (still_leads_there(region, fd)) return fd;
    // A number that is somebody else's by now must not be closed.
    if (region->place >= 0) fos_fleet_forget(region->place);
    else if (region->fd >= 0) open_descriptors--;
    region->fd = -1;
    region->place = -1;
    if (region->retired) return -ENOENT;
    fd = fos_fleet_region(region->token);
    if (fd < 0) return fd;
    take_descriptor(region, fd);
    return region->fd >= 0 ? region->fd : -EBADF;
}

// The region whose descriptor is kept in a place; NULL: none.
static struct region *keeper(int place) {
    for (uint32_t i = 0; i < regions_used; i++) {
        if (regions[i].token != 0 && regions[i].place == place) return &regions[i];
    }
    return NULL;
}

// Keeps a descriptor in the place of the one that was used longest ago, or closes it.
static void keep_or_close(struct region *region) {
    int place = -1;
    uint64_t oldest = region->used;
    struct region *before = NULL;
    for (int i = 0; i < FOS_KEPT_DESCRIPTORS && oldest > 0; i++) {
        struct region *at = keeper(i);
        if (at != NULL && at->used >= oldest) continue;
        before = at;
        place = i;
        oldest = at == NULL ? 0 : at->used;
    }
    if (place < 0 || region->retired) return forget_descriptor(region);
    if (before != NULL) forget_descriptor(before);
    int fd = region->fd;
    region->fd = -1;
    open_descriptors--;
    if (fos_fleet_keep(place, fd) >= 0) region->place = (int8_t)place;
}

int fos_region_is_huge(uint32_t region) { return regions[region].huge; }

// ---- taking ----------------------------------------------------------------------------------------------------------

// One request, and its extents as the caller's. How many, or -errno.
static int ask(uint64_t bytes, uint32_t frame_bytes, struct fos_extent *to, int room) {
    struct fos_memory_extent got[FOS_MEMORY_EXTENTS_MAX];
    struct fos_descriptors descriptors = {.count = 0};
    if (room < FOS_MEMORY_EXTENTS_MAX) return 0;  // what a reply may hold must fit
    int count = fos_fleet_allocate(bytes, frame_bytes, got, &descriptors);
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    int taken = 0;
    for (int i = 0; i < count; i++) {
        struct region *region = find(got[i].token, frame_bytes == FOS_HUGE);
        if (region == NULL || got[i].bytes == 0 || got[i].bytes % frame_bytes != 0 || got[i].offset % frame_bytes != 0 ||
            got[i].offset > FOS_MEMORY_REGION_BYTES_MAX || got[i].bytes > FOS_MEMORY_REGION_BYTES_MAX - got[i].offset) {
            continue;  // lost to this process; its end gives it back
        }
        to[taken++] = (struct fos_extent){.offset = got[i].offset, .bytes = got[i].bytes, .region = (uint16_t)(region - regions)};
        // Until the extent is mapped nothing else says that the slot is in use.
        region->mapped += got[i].bytes;
    }
    for (int i = 0; i < descriptors.count; i++) {
        struct region *region = NULL;
        for (uint32_t j = 0; j < regions_used; j++) {
            if (regions[j].token == descriptors.token[i]) region = &regions[j];
        }
        if (region != NULL) take_descriptor(region, descriptors.fd[i]);
        else fos_raw(SYS_close, descriptors.fd[i]);
    }
    lock.more_follows = taken > 0;
    fos_memory_unlock(&lock);
    return count < 0 ? count : taken;
}

int fos_regions_take(uint64_t bytes, struct fos_extent extents[FOS_EXTENTS_ROOM], uint32_t *why) {
    int count = 0;
    *why = FOS_LEFT_REFUSED;
    for (int huge = 1; huge >= 0; huge--) {
        uint64_t frame = huge ? FOS_HUGE : FOS_PAGE;
        if (huge && no_huge_frames) continue;
        while (bytes >= frame && count < FOS_EXTENTS_ROOM) {
            int got = ask(bytes / frame * frame, (uint32_t)frame, extents + count, FOS_EXTENTS_ROOM - count);
            if (got == -EOPNOTSUPP && huge) no_huge_frames = 1;
            if (got == -ENOTCONN || got == -EHOSTUNREACH) *why = FOS_LEFT_NO_FLEET;
            if (got <= 0) break;
            for (int i = count; i < count + got; i++) bytes = extents[i].bytes < bytes ? bytes - extents[i].bytes : 0;
            count += got;
        }
    }
    return count;
}

// ---- giving back -----------------------------------------------------------------------------------------------------

static void send_pending(void) {
    while (pending_count > 0) {
        struct fos_memory_extent batch[FOS_MEMORY_EXTENTS_MAX];
        uint32_t in_batch = 0, left = 0, member = fos_memory_token_member(pending[0].token);
        for (uint32_t i = 0; i < pending_count; i++) {
            if (in_batch < FOS_MEMORY_EXTENTS_MAX && fos_memory_token_member(pending[i].token) == member) batch[in_batch++] = pending[i];
            else pending[left++] = pending[i];
        }
        pending_count = left;
        fos_fleet_free(batch, in_batch);
    }
}

static void note(const struct region *region, uint64_t offset, uint64_t bytes) {
    fos_tally_add(&fos_tally->memory_given_back, bytes);
    struct fos_memory_extent *last = pending_count > 0 ? &pending[pending_count - 1] : NULL;
    if (last != NULL && last->token == region->token && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return;
    }
    if (pending_count == PENDING) send_pending();
    pending[pending_count++] = (struct fos_memory_extent){region->token, offset, bytes};
}

static void count_pages(struct region *region, uint64_t offset, uint64_t bytes, int change) {
    for (uint64_t at = offset; at < offset + bytes;) {
        uint64_t end = (at / FOS_HUGE + 1) * FOS_HUGE;
        if (end > offset + bytes) end = offset + bytes;
        uint16_t *pages = &region->pages[at / FOS_HUGE];
        *pages = (uint16_t)(*pages + change * (int)((end - at) / FOS_PAGE));
        if (change < 0 && *pages == 0 && !region->retired) note(region, at / FOS_HUGE * FOS_HUGE, FOS_HUGE);
        at = end;
    }
}

void fos_regions_use(const struct fos_range *range) {
    if (range->kind == FOS_RANGE_LINUX) return;
    struct region *region = &regions[range->region];
    if (region->huge) count_pages(region, range->offset, range->end - range->start, 1);
}

void fos_regions_drop(const struct fos_range *range) {
    if (range->kind == FOS_RANGE_LINUX) return;
    struct region *region = &regions[range->region];
    uint64_t bytes = range->end - range->start;
    region->mapped -= bytes;
    if (region->huge) count_pages(region, range->offset, bytes, -1);
    else if (!region->retired) note(region, range->offset, bytes);
}

void fos_regions_put_back(const struct fos_extent *extents, int count) {
    for (int i = 0; i < count; i++) {
        struct region *region = &regions[extents[i].region];
        region->mapped -= extents[i].bytes;
        if (!region->retired) note(region, extents[i].offset, extents[i].bytes);
    }
}

void fos_regions_settle(void) {
    for (uint32_t i = 0; i < regions_used && open_descriptors > 0; i++) {
        if (regions[i].fd >= 0) keep_or_close(&regions[i]);
    }
    if (pending_count > 0) send_pending();
}

// ---- forks -----------------------------------------------------------------------------------------------------------

// Nothing of any region goes back one by one from now on.
static void retire_all(void) {
    for (uint32_t i = 0; i < regions_used; i++) {
        if (regions[i].token == 0) continue;
        regions[i].retired = 1;
        forget_descriptor(&regions[i]);
    }
}

int fos_regions_retire(void) {
    int any = 0;
    for (uint32_t i = 0; i < regions_used; i++) any |= regions[i].token != 0 && !regions[i].retired;
    if (!any) return 0;
    send_pending();
    int result = fos_fleet_retire();
    retire_all();
    return result;
}

void fos_regions_after_fork(void) {
    pending_count = 0;
    retire_all();
}
