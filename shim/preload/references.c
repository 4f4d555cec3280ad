// References of files that were closed, kept for the next open of the same file.
//
// An open for reading asks its server three things: that the file is there, that it may be read, and to count a reference
// that keeps the inode. The first two are known here while the inode's attributes are (cache.c). So a reference that a close
// does not give back makes the next open one without a message.
// Only references for reading are kept, which keep nobody from anything, and only of directories and small files: if the file
// is removed meanwhile, its memory waits for the reference. It is given back when others need the place, when this process
// removes something, before an exec, and with the connection. One that others need the place of, and that of a small file that was
// written, cost no message of their own: the next request to the same server takes it along (`given` in fos/message.h).
// An inode has its places in one set, so that an open looks at few of them.
// Invariant: a place changes hands with one compare-and-swap of its state, so threads and signal handlers do not wait for
// each other; who finds a place taken does without.
#define _GNU_SOURCE
#include "calls.h"

enum { SET_BITS = 4, WAYS = 4, REFERENCES = WAYS << SET_BITS, LARGEST_BYTES = 65536 };
enum { FREE = 0, KEPT = 1, TAKEN = 2 };

static struct {
    uint32_t state;
    uint32_t owner;   // fos_connection_tag: of another connection, it is nobody's any more
    uint64_t inode;
} references[REFERENCES];
static uint32_t kept, next;  // how many places are not free; which of a set is used next if none is
static struct {
    uint32_t state;  // as of a place
    uint32_t owner;
    uint64_t inode;
    uint32_t open_flags;
    uint32_t reserved;
} given;  // what the next request takes along

// The first place of an inode's set.
static uint32_t set_of(uint64_t inode) { return (uint32_t)(inode * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SET_BITS)) * WAYS; }
static int is_about(uint32_t place, uint64_t inode, uint32_t owner) {
    return references[place].inode == inode && references[place].owner == owner;
}

// 1: the place is this call's until `leave`.
static int seize(uint32_t place) { return fos_own_compare_exchange_u32(&references[place].state, KEPT, TAKEN); }
static void leave(uint32_t place, uint32_t state) {
    if (state == FREE) fos_own_fetch_add_u32(&kept, UINT32_MAX);
    fos_store_release_u32(&references[place].state, state);
}

static void give_back_now(struct fos_context *context, uint32_t owner, uint64_t inode, uint32_t open_flags) {
    struct fos_mount *mount = &fos_mounts[(owner - 1) & 15];
    if (mount->state == FOS_MOUNT_CONNECTED && fos_connection_tag(mount) == owner) fos_give_back(context, mount, inode, open_flags);
}

// Gives what a seized place holds back, if its connection still stands, and frees it.
static void give_back(struct fos_context *context, uint32_t place) {
    uint32_t owner = references[place].owner;
    uint64_t inode = references[place].inode;
    leave(place, FREE);
    give_back_now(context, owner, inode, O_RDONLY);
}

// 1: the next request takes it along.
static int note_given(uint32_t owner, uint64_t inode, uint32_t open_flags) {
    if (!fos_own_compare_exchange_u32(&given.state, FREE, TAKEN)) return 0;
    given.owner = owner;
    given.inode = inode;
    given.open_flags = open_flags;
    fos_store_release_u32(&given.state, KEPT);
    return 1;
}

// As give_back, but without a message if there is room for it in the next one.
static void give_along(struct fos_context *context, uint32_t place) {
    if (note_given(references[place].owner, references[place].inode, O_RDONLY)) leave(place, FREE);
    else give_back(context, place);
}

int fos_reference_give(const struct fos_mount *mount, uint64_t inode, uint32_t open_flags, uint64_t size) {
    return fos_cache_enabled() && size <= LARGEST_BYTES && (open_flags & O_PATH) == 0 && note_given(fos_connection_tag(mount), inode, open_flags);
}

uint64_t fos_reference_given(const struct fos_mount *mount, uint64_t inode, uint32_t *open_flags) {
    if (__builtin_expect(fos_load_relaxed_u32(&given.state) != KEPT, 1)) return 0;
    if (!fos_own_compare_exchange_u32(&given.state, KEPT, TAKEN)) return 0;
    uint64_t taken = given.inode;
    *open_flags = given.open_flags;
    int is_its = given.owner == fos_connection_tag(mount);
    int fits = is_its && fos_owner(&mount->client, taken) == fos_owner(&mount->client, inode);
    // What is of an older connection went with it.
    int is_nobodys = mount->index == ((given.owner - 1) & 15) && !is_its;
    fos_store_release_u32(&given.state, fits || is_nobodys ? FREE : KEPT);
    return fits ? taken : 0;
}

int fos_reference_keep(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint32_t open_flags) {
    struct fos_attributes attributes;
    if ((open_flags & (O_ACCMODE | O_PATH)) != O_RDONLY || !fos_cached_attributes(mount, inode, &attributes)) return 0;
    if (attributes.links == 0 || ((attributes.mode & S_IFMT) != S_IFDIR && attributes.size > LARGEST_BYTES)) return 0;
    uint32_t place = set_of(inode), end = place + WAYS;
    while (place < end && fos_load_relaxed_u32(&references[place].state) != FREE) place++;
    if (place == end) {
        place = end - 1 - fos_own_fetch_add_u32(&next, 1) % WAYS;
        if (seize(place)) give_along(context, place);
    }
    if (!fos_own_compare_exchange_u32(&references[place].state, FREE, TAKEN)) return 0;
    fos_own_fetch_add_u32(&kept, 1);
    references[place].owner = fos_connection_tag(mount);
    references[place].inode = inode;
    leave(place, KEPT);
    return 1;
}

int fos_reference_take(const struct fos_mount *mount, uint64_t inode) {
    if (fos_load_relaxed_u32(&kept) == 0) return 0;
    uint32_t owner = fos_connection_tag(mount);
    for (uint32_t place = set_of(inode), end = place + WAYS; place < end; place++) {
        if (!is_about(place, inode, owner) || !seize(place)) continue;
        // It may have become another one before it was seized.
        int is_it = is_about(place, inode, owner);
        leave(place, is_it ? FREE : KEPT);
        if (is_it) return 1;
    }
    return 0;
}

// 1: the inode of a kept reference was not removed, as far as is known here.
static int still_has_a_name(struct fos_mount *mount, uint32_t place) {
    struct fos_attributes attributes;
    return references[place].owner == fos_connection_tag(mount) && fos_cached_attributes(mount, references[place].inode, &attributes) && attributes.links > 0;
}

void fos_references_settle(struct fos_context *context, int all) {
    if (all && fos_own_compare_exchange_u32(&given.state, KEPT, TAKEN)) {
        uint32_t owner = given.owner;
        uint64_t inode = given.inode;
        uint32_t open_flags = given.open_flags;
        fos_store_release_u32(&given.state, FREE);
        give_back_now(context, owner, inode, open_flags);
    }
    if (fos_load_relaxed_u32(&kept) == 0) return;
    for (uint32_t place = 0; place < REFERENCES; place++) {
        if (fos_load_relaxed_u32(&references[place].state) != KEPT) continue;
        struct fos_mount *mount = &fos_mounts[(references[place].owner - 1) & 15];
        int stands = !all && mount->state == FOS_MOUNT_CONNECTED && still_has_a_name(mount, place);
        if (!stands && seize(place)) give_back(context, place);
    }
}

void fos_references_after_fork(void) {
    kept = given.state = 0;
    for (uint32_t place = 0; place < REFERENCES; place++) references[place].state = FREE;
}
