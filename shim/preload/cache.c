// What the shim remembers: attributes, entries (present and absent), and pages of small reads, under the board's epochs.
//
// What a server said of an inode is true as long as the inode's word on the board is the one that came with the answer
// (fos/channel.h); of a directory's entry, as long as the word of the entry's shard is what it was before the question was
// sent (fos_entry_epoch). Of a sharded directory the inode's word keeps only type, mode and owner true. So a hit costs one look at the board, and no server ever has to be told what is kept here.
// Permissions are not cached: whoever uses an entry must be allowed to search the directory now, by its attributes.
// Invariants: a slot is written under its sequence word, and read twice; a writer that never comes back leaves a slot
// that nobody uses again. Nothing of an older connection is used: generations differ.
#define _GNU_SOURCE
#include "calls.h"

enum { ATTRIBUTE_SLOTS = 8192, ENTRY_SLOTS = 8192, ENTRY_NAME_BYTES = 60, PAGE_SLOTS = 512 };

struct attribute_slot {
    uint32_t sequence;  // odd while it is written
    uint32_t owner;     // mount and generation
    struct fos_attributes attributes;
};
struct entry_slot {
    uint32_t sequence;
    uint32_t owner;
    uint64_t directory;
    uint64_t child;     // 0: no such name
    uint64_t epoch;     // fos_entry_epoch of the name
    uint32_t length;
    char name[ENTRY_NAME_BYTES];
};
struct page_slot {
    uint32_t sequence;
    uint32_t owner;
    uint64_t inode;
    uint64_t index;
    uint32_t epoch;
    uint32_t bytes;     // fewer than a page at the end of the file
};

static const uint64_t NOT_KEPT = UINT64_MAX;  // no word's place is that large

static int enabled;
static struct attribute_slot attribute_slots[ATTRIBUTE_SLOTS];
static struct entry_slot entry_slots[ENTRY_SLOTS];
static struct page_slot page_slots[PAGE_SLOTS];
static uint8_t pages[PAGE_SLOTS][FOS_PAGE_BYTES];
static uint64_t listed_directory;   // the last one that was listed without attributes
static uint32_t attributes_wanted;  // listings to come that had better bring them

void fos_cache_start(int on) { enabled = on; }
int fos_cache_enabled(void) { return enabled; }

static uint32_t epoch_now(const struct fos_mount *mount, uint64_t inode) { return fos_inode_epoch(mount->client.board, inode); }

static uint64_t entry_epoch(const struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length) {
    return fos_entry_epoch(mount->client.board, directory, name, length);
}

// ---- slots ----------------------------------------------------------------------------------------------------------

static uint32_t begin_read(const uint32_t *sequence) { return fos_load_acquire_u32(sequence); }
static int end_read(const uint32_t *sequence, uint32_t before) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return (before & 1) == 0 && fos_load_relaxed_u32(sequence) == before;
}
static int begin_write(uint32_t *sequence) {
    uint32_t before = fos_load_relaxed_u32(sequence);
    if ((before & 1) != 0 || !fos_compare_exchange_u32(sequence, before, before + 1)) return 0;
    fos_fence();
    return 1;
}
static void end_write(uint32_t *sequence) { fos_store_release_u32(sequence, fos_load_relaxed_u32(sequence) + 1); }

// ---- attributes -----------------------------------------------------------------------------------------------------

static struct attribute_slot *attribute_slot(uint64_t inode) {
    return &attribute_slots[(inode * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - 13)];
}

// The attributes as they are kept: of a sharded directory only those that permissions need.
static int kept_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes) {
    if (!enabled) return 0;
    struct attribute_slot *slot = attribute_slot(inode);
    uint32_t sequence = begin_read(&slot->sequence);
    if (slot->owner != fos_connection_tag(mount) || slot->attributes.inode != inode) return 0;
    *attributes = slot->attributes;
    if (!end_read(&slot->sequence, sequence) || attributes->inode != inode) return 0;
    return epoch_now(mount, inode) == attributes->epoch;
}

int fos_cached_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes) {
    return kept_attributes(mount, inode, attributes) && (attributes->flags & FOS_ATTRIBUTES_SHARDED) == 0;
}

void fos_keep_attributes(const struct fos_mount *mount, const struct fos_attributes *attributes) {
    if (!enabled || (attributes->flags & FOS_ATTRIBUTES_VOLATILE) != 0) return;
    struct attribute_slot *slot = attribute_slot(attributes->inode);
    if (!begin_write(&slot->sequence)) return;
    slot->owner = fos_connection_tag(mount);
    slot->attributes = *attributes;
    end_write(&slot->sequence);
}

int fos_take_attributes(const struct fos_mount *mount, const struct fos_message *reply, struct fos_attributes *attributes) {
    if (reply->length < sizeof *attributes) return -EIO;
    memcpy(attributes, fos_payload_const(reply), sizeof *attributes);
    fos_keep_attributes(mount, attributes);
    return 0;
}

static void count(int hit) { fos_tally_add(hit ? &fos_tally->cache_hits : &fos_tally->cache_misses, 1); }

long fos_get_attributes(struct fos_context *context, struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes) {
    int hit = fos_cached_attributes(mount, inode, attributes);
    count(hit);
    if (hit) return 0;
    fos_build(context, mount, FOS_OP_GETATTR, inode);
    int status = fos_send(context, mount);
    return status < 0 ? status : fos_take_attributes(mount, fos_answer(context, mount), attributes);
}

int fos_may(uint32_t wanted, const struct fos_attributes *attributes) {
    if (fos_identity.uid == 0) {
        // Root needs one execute bit to execute a file; directories and data are open to it.
        return (wanted & 1) == 0 || (attributes->mode & S_IFMT) == S_IFDIR || (attributes->mode & 0111) != 0;
    }
    uint32_t granted = attributes->mode;
    if (attributes->uid == fos_identity.uid) {
        granted >>= 6;
    } else {
        int member = attributes->gid == fos_identity.gid;
        for (int32_t i = 0; i < fos_identity.group_count && !member; i++) member = fos_identity.groups[i] == attributes->gid;
        if (member) granted >>= 3;
    }
    return (granted & wanted) == wanted;
}

// ---- entries --------------------------------------------------------------------------------------------------------

static struct entry_slot *entry_slot(uint64_t directory, const char *name, uint32_t length) {
    uint64_t hash = directory * UINT64_C(0x9e3779b97f4a7c15) + length;
    uint32_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        __builtin_memcpy(&word, name + at, 8);
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    for (; at < length; at++) hash = (hash ^ (uint8_t)name[at]) * UINT64_C(0x100000001b3);
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return &entry_slots[hash >> (64 - 13)];
}

// "." and "..", which are not kept: they change with no change of the directory's own.
static int is_dots(const char *name, uint32_t length) { return name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')); }

// Whether this process may look anything up in a directory, as far as is known here.
static int may_search(struct fos_mount *mount, uint64_t directory) {
    struct fos_attributes attributes;
    if (fos_identity.uid == 0) return 1;
    return fos_identity.group_count >= 0 && kept_attributes(mount, directory, &attributes) && fos_may(1, &attributes);
}

// 1: known, `child` is its inode or 0.
static int cached_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, uint64_t *child) {
    if (!enabled || length > ENTRY_NAME_BYTES) return 0;
    struct entry_slot *slot = entry_slot(directory, name, length);
    uint32_t sequence = begin_read(&slot->sequence);
    if (slot->owner != fos_connection_tag(mount) || slot->directory != directory || slot->length != length || memcmp(slot->name, name, length) != 0) return 0;
    uint64_t epoch = slot->epoch;
    *child = slot->child;
    return end_read(&slot->sequence, sequence) && entry_epoch(mount, directory, name, length) == epoch && may_search(mount, directory);
}

static void keep_entry(const struct fos_mount *mount, uint64_t directory, uint64_t epoch, const char *name, uint32_t length, uint64_t child) {
    if (!enabled || length > ENTRY_NAME_BYTES) return;
    struct entry_slot *slot = entry_slot(directory, name, length);
    if (!begin_write(&slot->sequence)) return;
    slot->owner = fos_connection_tag(mount);
    slot->directory = directory;
    slot->child = child;
    slot->epoch = epoch;
    slot->length = length;
    memcpy(slot->name, name, length);
    end_write(&slot->sequence);
}

long fos_lookup_entry(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, struct fos_attributes *attributes) {
    uint64_t child;
    if (cached_entry(mount, directory, name, length, &child)) {
        int hit = child == 0 || kept_attributes(mount, child, attributes);
        // Whoever wants more of a sharded directory than the walk does, asks for it.
        if (hit && child != 0 && (attributes->flags & FOS_ATTRIBUTES_SHARDED) != 0) attributes->flags |= FOS_ATTRIBUTES_INEXACT;
        count(hit);
        if (hit) return child == 0 ? -ENOENT : 0;
    } else {
        count(0);
        if (directory == listed_directory) attributes_wanted = 16;
    }
    int dots = is_dots(name, length);
    uint64_t epoch = entry_epoch(mount, directory, name, length);
    struct fos_message *request = fos_build(context, mount, FOS_OP_LOOKUP, directory);
    memcpy(fos_payload(request), name, length);
    request->length = length;
    int status = fos_send(context, mount);
    if (status == -ENOENT && !dots) keep_entry(mount, directory, epoch, name, length, 0);
    if (status == 0) status = fos_take_attributes(mount, fos_answer(context, mount), attributes);
    if (status == 0 && !dots) keep_entry(mount, directory, epoch, name, length, attributes->inode);
    return status;
}

// ---- listings -------------------------------------------------------------------------------------------------------

int fos_listing_begins(const struct fos_mount *mount, uint64_t directory, uint64_t *epoch) {
    // That of the whole directory. Its shards have words of their own, so the entries of a sharded one are not kept.
    *epoch = entry_epoch(mount, directory, "", 0);
    if (fos_shard_bits(&mount->client.board->sharded, directory) != 0) *epoch = NOT_KEPT;
    if (!enabled) return 0;
    listed_directory = directory;
    if (attributes_wanted == 0) return 0;
    attributes_wanted--;
    return 1;
}

void fos_keep_listed(const struct fos_mount *mount, uint64_t directory, uint64_t epoch, const struct fos_directory_entry *record, const char *name) {
    if (is_dots(name, record->name_length)) return;
    fos_keep_attributes(mount, &record->attributes);
    if (epoch != NOT_KEPT) keep_entry(mount, directory, epoch, name, record->name_length, record->attributes.inode);
}

// ---- pages ----------------------------------------------------------------------------------------------------------

static uint32_t page_slot(uint64_t inode, uint64_t index) {
    return (uint32_t)(((inode + index * 31) * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - 9));
}

long fos_cached_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t within, uint8_t *to, size_t most) {
    if (!enabled) return -1;
    uint32_t number = page_slot(inode, index);
    struct page_slot *slot = &page_slots[number];
    uint32_t sequence = begin_read(&slot->sequence);
    if (slot->owner != fos_connection_tag(mount) || slot->inode != inode || slot->index != index) return -1;
    uint32_t epoch = slot->epoch, bytes = slot->bytes;
    if (bytes > FOS_PAGE_BYTES || epoch_now(mount, inode) != epoch) return -1;
    size_t left = within < bytes ? bytes - within : 0;
    if (most > left) most = left;
    memcpy(to, pages[number] + within, most);
    return end_read(&slot->sequence, sequence) ? (long)most : -1;
}

void fos_keep_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t epoch, const uint8_t *from, uint32_t bytes) {
    uint32_t number = page_slot(inode, index);
    struct page_slot *slot = &page_slots[number];
    if (!enabled || !begin_write(&slot->sequence)) return;
    slot->owner = fos_connection_tag(mount);
    slot->inode = inode;
    slot->index = index;
    slot->epoch = epoch;
    slot->bytes = bytes;
    memcpy(pages[number], from, bytes);
    end_write(&slot->sequence);
}
