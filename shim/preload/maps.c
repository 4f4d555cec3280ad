// Files that are read and overwritten in memory shared with their owner, without a message (fos/map.h).
//
// Role: a file on which a description has spent as much by messages as a region of it would have cost is asked for as one
// (MAP), so at worst twice the work is done. A region costs its owner a copy of the file; and, before and after, a memfd that
// is made, handed over by another thread, mapped and taken apart again, about as much time as REGION_COSTS bytes of copying. Reads
// then copy from the region, and writes within the file into it, while its grant stands; else they are messages, as before.
// Invariants: a region belongs to one inode of one connection; it is unmapped only while no call uses it; one MAP at a
// time a process, because its descriptor comes over the connection's socket.
#define _GNU_SOURCE
#include <time.h>
#include "calls.h"

enum {
    REGIONS = 32, LEAST_USES = 8, LEAST_WRITES = 16, REFUSED = INT32_MAX,
    // In bytes copied in the same time: 0.25 ms, and the 1 us of a message.
    REGION_COSTS = 1048576, MESSAGE_COSTS = 4096,
};

static const uint32_t SEIZED = UINT32_MAX;
struct region {
    uint32_t users;     // calls that use it now; SEIZED: being made or unmapped
    uint32_t owner;     // mount and generation
    uint64_t inode;     // 0: free
    uint32_t used;      // tick of the last use
    struct fos_mapping mapping;
};
static struct region regions[REGIONS] FOS_LARGE;
static uint32_t ticks;
static uint32_t asking;

int fos_packets_claim(void) { return fos_own_compare_exchange_u32(&asking, 0, 1); }
void fos_packets_release(void) { fos_store_release_u32(&asking, 0); }

static int hold(struct region *region) {
    for (;;) {
        uint32_t users = fos_load_relaxed_u32(&region->users);
        if (users == SEIZED) return 0;
        if (fos_own_compare_exchange_u32(&region->users, users, users + 1)) return 1;
    }
}
static void let_go(struct region *region) { fos_own_fetch_add_u32(&region->users, UINT32_MAX); }
// 1: nobody uses it, and nobody will until it is handed back.
static int seize(struct region *region) { return fos_own_compare_exchange_u32(&region->users, 0, SEIZED); }
static void hand_back(struct region *region) { __atomic_store_n(&region->users, 0, __ATOMIC_RELEASE); }

static void drop(struct region *region) {
    if (!seize(region)) return;
    fos_map_release(&region->mapping);
    region->inode = 0;
    hand_back(region);
}

static struct timespec now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME_COARSE, &time);
    return time;
}

// The region of a description, held. NULL: there is none.
static struct region *region_of(const struct fos_mount *mount, struct fos_file *file) {
    uint32_t place = file->region;
    if (place == 0) return NULL;
    struct region *region = &regions[place - 1];
    if (!hold(region)) return NULL;
    if (region->inode == file->inode && region->owner == fos_connection_tag(mount)) {
        region->used = fos_own_fetch_add_u32(&ticks, 1);
        return region;
    }
    file->region = 0;
    let_go(region);
    return NULL;
}

// The end of a use.
static long finish(struct region *region, struct fos_file *file, long result) {
    let_go(region);
    // The region is of no use any more: the file outgrew it, or was emptied.
    if (result == -ESTALE) {
        file->region = 0;
        drop(region);
    }
    if (result >= 0) fos_count(&fos_tally->mapped_reads, 1);
    return result < 0 ? -1 : result;
}

long fos_mapped_read(struct fos_mount *mount, struct fos_file *file, uint64_t offset, void *to, uint64_t bytes) {
    struct region *region = region_of(mount, file);
    return region == NULL ? -1 : finish(region, file, fos_map_read(&region->mapping, offset, to, bytes, now().tv_sec));
}

long fos_mapped_write(struct fos_mount *mount, struct fos_file *file, uint64_t offset, const void *from, uint64_t bytes) {
    struct region *region = region_of(mount, file);
    if (region == NULL) return -1;
    struct timespec time = now();
    return finish(region, file, fos_map_write(&region->mapping, offset, from, bytes, (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec));
}

// A place for one region more: a free one, or the one that was used longest ago.
static struct region *take_place(void) {
    struct region *oldest = NULL;
    for (int i = 0; i < REGIONS; i++) {
        struct region *region = &regions[i];
        if (__atomic_load_n(&region->users, __ATOMIC_RELAXED) != 0) continue;
        if (oldest == NULL || region->inode == 0 || (oldest->inode != 0 && (int32_t)(region->used - oldest->used) < 0)) oldest = region;
        if (oldest->inode == 0) break;
    }
    if (oldest == NULL || !seize(oldest)) return NULL;
    fos_map_release(&oldest->mapping);
    oldest->inode = 0;
    return oldest;
}

// `mapping` NULL: it is there, and is to be written to again.
static int ask(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file, int writes, struct fos_mapping *mapping) {
    struct fos_message *request = fos_build(context, mount, FOS_OP_MAP, file->inode);
    struct fos_map_request wanted = {.access = writes ? 6 : 4, .flags = mapping == NULL ? FOS_MAP_RENEW : 0};
    fos_put_fixed(request, &wanted, sizeof wanted);
    int status = fos_send(context, mount);
    if (status < 0 || mapping == NULL) return status;
    const struct fos_message *message = fos_answer(context, mount);
    struct fos_map_reply reply;
    if (message->length < sizeof reply) return -EIO;
    memcpy(&reply, fos_payload_const(message), sizeof reply);
    return fos_map_receive(&mount->client, &reply, mapping);
}

// The place of an inode's region, or 0.
static uint32_t find(const struct fos_mount *mount, uint64_t inode) {
    for (uint32_t i = 0; i < REGIONS; i++) {
        if (regions[i].inode == inode && regions[i].owner == fos_connection_tag(mount)) return i + 1;
    }
    return 0;
}

static void map(struct fos_context *context, struct fos_mount *mount, struct fos_file *file, int writes) {
    uint32_t place = find(mount, file->inode);
    struct region *region = place == 0 ? NULL : &regions[place - 1];
    if (region != NULL && (!writes || region->mapping.writable)) {
        file->region = place;
        // Writing has ended meanwhile, or the file has outgrown the region.
        int status = writes ? ask(context, mount, file, 1, NULL) : 0;
        if (status == -ESTALE) {
            file->region = 0;
            drop(region);
        } else if (status < 0) {
            file->message_writes = REFUSED;
        }
        return;
    }
    // A handler that interrupts this, and another thread, use messages meanwhile.
    if (!fos_packets_claim()) return;
    if (region != NULL && !seize(region)) region = NULL;
    else if (region == NULL) region = take_place();
    if (region != NULL) {
        struct fos_mapping mapping;
        fos_map_release(&region->mapping);
        region->inode = 0;
        int status = ask(context, mount, file, writes, &mapping);
        if (status == 0) {
            region->mapping = mapping;
            region->owner = fos_connection_tag(mount);
            region->inode = file->inode;
            file->region = (uint32_t)(region - regions) + 1;
        } else if (writes) {
            file->message_writes = REFUSED;
        } else {
            file->message_bytes = REFUSED;
        }
        hand_back(region);
    }
    fos_packets_release();
}

void fos_used_by_message(struct fos_context *context, struct fos_mount *mount, struct fos_file *file, uint64_t size, uint64_t bytes, int is_write) {
    if (!fos_cache_enabled() || size == 0 || file->message_bytes == REFUSED) return;
    if (is_write) {
        if ((file->flags & O_ACCMODE) != O_RDWR || file->message_writes == REFUSED) return;
        file->message_writes++;
    }
    file->message_bytes += bytes < INT32_MAX / 4 ? bytes : INT32_MAX / 4;
    file->message_reads++;
    int writes = file->message_writes > 0 && file->message_writes != REFUSED;
    // What is there already is cheap to use again.
    int is_near = file->region != 0 && writes && file->message_writes >= LEAST_WRITES;
    uint64_t spent = file->message_bytes + (uint64_t)file->message_reads * MESSAGE_COSTS;
    if (!is_near && (spent <= size + REGION_COSTS || file->message_reads < LEAST_USES)) return;
    file->message_bytes = 0;
    file->message_reads = 0;
    if (writes) file->message_writes = 0;
    map(context, mount, file, writes);
}

// A region outlives no description for long: it would keep the pages of a file that is gone.
void fos_unmap(struct fos_file *file) {
    if (file->region == 0) return;
    struct region *region = &regions[file->region - 1];
    file->region = 0;
    if (region->inode == file->inode) drop(region);
}

void fos_maps_after_fork(void) {
    asking = 0;
    for (int i = 0; i < REGIONS; i++) {
        fos_map_release(&regions[i].mapping);
        regions[i].inode = 0;
        regions[i].users = 0;
    }
}
