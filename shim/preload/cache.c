// What the shim remembers: attributes, entries (present and absent), and pages of small reads, under the board's epochs.
//
// What a server said of an inode is true as long as the inode's word on the board is the one that came with the answer
// (fos/channel.h); of a directory's entry, as long as the word of the entry's shard is what it was before the question was
// sent (fos_entry_epoch). Of a sharded directory the inode's word keeps only type, mode and owner true. So a hit costs one look
// at the board, and no server ever has to be told what is kept here.
// Permissions are not cached: whoever uses an entry must be allowed to search the directory now, by its attributes.
// Memory is touched only where something is remembered: a program that lives for milliseconds pays more for a page that it
// touches first than for a message. So slots are used one after the other, the oldest again when all are, and are found
// through small tables of their numbers; and a page is kept when it is read for the second time.
// Invariants: a slot is written under its sequence word, and read twice; a writer that never comes back leaves a slot
// that nobody uses again. A slot says itself what it is about, so a number that leads to another one is only a miss.
// Nothing of an older connection is used: generations differ.
#define _GNU_SOURCE
#include "calls.h"
#include "sequence.h"
#include "words.h"

enum {
    SLOT_BITS = 13, SLOTS = 1 << SLOT_BITS,           // attributes, and entries
    PLACE_BITS = SLOT_BITS + 1, PLACES = 1 << PLACE_BITS,
    ENTRY_NAME_BYTES = 60,
    PAGE_BITS = 9, PAGE_SLOTS = 1 << PAGE_BITS,
    PAGE_PLACE_BITS = PAGE_BITS + 1, PAGE_PLACES = 1 << PAGE_PLACE_BITS,
    WAYS = 8,                                         // places that something can be in: with 2, one in 20 of 5,000 found none
};

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

static int enabled;
static struct attribute_slot attribute_slots[SLOTS] FOS_LARGE;
static struct entry_slot entry_slots[SLOTS] FOS_LARGE;
static struct page_slot page_slots[PAGE_SLOTS] FOS_LARGE;
static uint8_t pages[PAGE_SLOTS][FOS_PAGE_BYTES] FOS_LARGEST;
// Numbers of slots, from 1, by hash; and which of these pages have any, a bit each: the others are not read, or a page that is
// read before it is written would fault twice.
static struct {
    uint32_t attributes[PLACES], entries[PLACES], pages[PAGE_PLACES];
} places FOS_LARGE __attribute__((aligned(FOS_PAGE_BYTES)));
static uint64_t places_used;
static_assert(sizeof places <= 64 * FOS_PAGE_BYTES, "a bit for each page");
// The next slot to be used.
static uint32_t next_attribute, next_entry, next_page;
static uint16_t pages_seen[PAGE_PLACES] FOS_LARGE;  // marks of pages that were read once
static uint64_t listed_directory;   // the last one that was listed
enum { ATTRIBUTES_WANTED = 16 };
static uint32_t attributes_wanted;  // listings to come that had better bring them: names of the last ones were looked up

void fos_cache_start(int on) { enabled = on; }
void fos_cache_after_fork(void) {
    fos_ahead_after_fork();
    fos_changes_after_fork();
}
int fos_cache_enabled(void) { return enabled; }

static uint32_t epoch_now(const struct fos_mount *mount, uint64_t inode) { return fos_inode_epoch(mount->client.board, inode); }

static uint64_t entry_epoch(const struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length) {
    return fos_entry_epoch(mount->client.board, directory, name, length);
}

// ---- slots ----------------------------------------------------------------------------------------------------------

// `fresh`: the slot was never used. Then its memory is not read before it is written, which would be two faults.
static int begin_slot(uint32_t *sequence, int fresh) { return fresh ? fos_begin_write_at(sequence, 0) : fos_begin_write(sequence); }

static uint64_t mix(uint64_t key) { return key * UINT64_C(0x9e3779b97f4a7c15); }
// The places of a hash, which share a cache line, and its mark in them. A slot is looked at only if it has the mark: for most names
// that is one line of memory instead of one for each slot that happens to be in the same places.
struct ways {
    uint32_t *at;
    uint32_t mark;
};
static struct ways places_of(uint32_t *table, uint64_t hash, int bits) {
    return (struct ways){&table[hash >> (64 - bits) & ~(uint64_t)(WAYS - 1)], (uint32_t)(hash >> 24) & 0xffff};
}
static uint64_t page_of_place(const uint32_t *place) {
    return UINT64_C(1) << ((uintptr_t)place - (uintptr_t)&places) / FOS_PAGE_BYTES;
}
static int are_used(struct ways ways) { return (fos_load_relaxed_u64(&places_used) & page_of_place(ways.at)) != 0; }
static int ways_to_look_at(struct ways ways) { return are_used(ways) ? WAYS : 0; }
enum { NOTHING = -1, ANOTHER = -2 };
// The number of the slot that a place leads to, NOTHING, or ANOTHER: one of another mark.
static int slot_at(struct ways ways, int way) {
    uint32_t place = fos_load_relaxed_u32(&ways.at[way]);
    return place == 0 ? NOTHING : place >> 16 == ways.mark ? (int)(place & 0xffff) - 1 : ANOTHER;
}

// A slot for something new, whose places these are: it takes the first place that is free, or the one whose slot is oldest. So a
// place that is free ends a search: there is nothing behind it. `fresh`: see begin_slot.
static uint32_t take_slot(struct ways ways, uint32_t *next, uint32_t slots, int *fresh) {
    uint32_t count = fos_own_fetch_add_u32(next, 1), number = count % slots, oldest = 0;
    *fresh = count < slots;
    int chosen = 0;
    for (int way = 0, most = ways_to_look_at(ways); way < most; way++) {
        uint32_t place = fos_load_relaxed_u32(&ways.at[way]);
        uint32_t age = place == 0 ? slots : (number - ((place & 0xffff) - 1)) % slots;
        if (age > oldest) oldest = age, chosen = way;
        if (place == 0) break;
    }
    fos_store_relaxed_u32(&ways.at[chosen], ways.mark << 16 | (number + 1));
    if (!are_used(ways)) __atomic_fetch_or(&places_used, page_of_place(ways.at), __ATOMIC_RELAXED);
    return number;
}

// ---- attributes -----------------------------------------------------------------------------------------------------

// The slot about an inode; NULL: there is none.
FOS_WITH_EACH_CALL struct attribute_slot *attributes_about(uint32_t owner, uint64_t inode, struct ways ways) {
    for (int way = 0, most = ways_to_look_at(ways); way < most; way++) {
        int number = slot_at(ways, way);
        if (number == NOTHING) break;
        if (number == ANOTHER) continue;
        struct attribute_slot *slot = &attribute_slots[number];
        if (slot->attributes.inode == inode && slot->owner == owner) return slot;
    }
    return NULL;
}

// The attributes as they are kept: of a sharded directory only those that permissions need.
static int kept_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes) {
    if (!enabled) return 0;
    uint32_t owner = fos_connection_tag(mount);
    struct attribute_slot *slot = attributes_about(owner, inode, places_of(places.attributes, mix(inode), PLACE_BITS));
    if (slot == NULL) return 0;
    uint32_t sequence = fos_begin_read(&slot->sequence), found = slot->owner;
    *attributes = slot->attributes;
    if (!fos_end_read(&slot->sequence, sequence) || found != owner || attributes->inode != inode) return 0;
    return epoch_now(mount, inode) == attributes->epoch;
}

int fos_cached_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes) {
    return kept_attributes(mount, inode, attributes) && (attributes->flags & FOS_ATTRIBUTES_SHARDED) == 0;
}

void fos_keep_attributes(const struct fos_mount *mount, const struct fos_attributes *attributes) {
    if (!enabled || (attributes->flags & FOS_ATTRIBUTES_VOLATILE) != 0) return;
    uint32_t owner = fos_connection_tag(mount);
    struct ways ways = places_of(places.attributes, mix(attributes->inode), PLACE_BITS);
    struct attribute_slot *slot = attributes_about(owner, attributes->inode, ways);
    int fresh = 0;
    if (slot == NULL) slot = &attribute_slots[take_slot(ways, &next_attribute, SLOTS, &fresh)];
    if (!begin_slot(&slot->sequence, fresh)) return;
    slot->owner = owner;
    slot->attributes = *attributes;
    fos_end_write(&slot->sequence);
}

int fos_take_attributes(const struct fos_mount *mount, const struct fos_message *reply, struct fos_attributes *attributes) {
    if (reply->length < sizeof *attributes) return -EIO;
    memcpy(attributes, fos_payload_const(reply), sizeof *attributes);
    fos_keep_attributes(mount, attributes);
    return 0;
}

// What a reply has after `before` bytes. 0: nothing.
static int told(const struct fos_message *reply, uint32_t before, struct fos_attributes *attributes) {
    if (reply->length < before + sizeof *attributes) return 0;
    memcpy(attributes, (const uint8_t *)fos_payload_const(reply) + before, sizeof *attributes);
    return 1;
}

void fos_take_told(const struct fos_mount *mount, const struct fos_message *reply, uint32_t before) {
    struct fos_attributes attributes;
    if (told(reply, before, &attributes)) fos_keep_attributes(mount, &attributes);
}

static void count(int hit) { fos_count(hit ? &fos_tally->cache_hits : &fos_tally->cache_misses, 1); }

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

static uint64_t hash_with(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ hash >> 32;
}
FOS_WITH_EACH_CALL struct ways entry_places_of(uint64_t directory, const char *name, uint32_t length) {
    uint64_t hash = mix(directory) + length;
    for (uint32_t at = 0; at + 8 < length; at += 8) hash = hash_with(hash, fos_word_at(name + at));
    return places_of(places.entries, mix(hash_with(hash, fos_last_bytes(name, length))), PLACE_BITS);
}

static int is_about(const struct entry_slot *slot, uint32_t owner, uint64_t directory, const char *name, uint32_t length) {
    return slot->owner == owner && slot->directory == directory && slot->length == length && fos_is_same_text(slot->name, name, length);
}
// The slot about a name; NULL: there is none.
FOS_WITH_EACH_CALL struct entry_slot *entry_about(uint32_t owner, uint64_t directory, const char *name, uint32_t length,
                                                  struct ways ways) {
    for (int way = 0, most = ways_to_look_at(ways); way < most; way++) {
        int number = slot_at(ways, way);
        if (number == NOTHING) break;
        if (number == ANOTHER) continue;
        if (is_about(&entry_slots[number], owner, directory, name, length)) return &entry_slots[number];
    }
    return NULL;
}

// "." and "..", which are not kept: they change with no change of the directory's own.
static int is_dots(const char *name, uint32_t length) { return name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')); }

// Whether this process may look anything up in a directory, as far as is known here.
static int may_search(struct fos_mount *mount, uint64_t directory) {
    if (fos_identity.uid == 0) return 1;
    if (fos_identity.group_count < 0) return 0;
    uint32_t owner = fos_connection_tag(mount);
    const struct attribute_slot *slot = attributes_about(owner, directory, places_of(places.attributes, mix(directory), PLACE_BITS));
    if (slot == NULL) return 0;
    // Of all of them only what is needed, with every name.
    uint32_t sequence = fos_begin_read(&slot->sequence), found = slot->owner, epoch = slot->attributes.epoch;
    uint64_t inode = slot->attributes.inode;
    struct fos_attributes needed;
    needed.mode = slot->attributes.mode;
    needed.uid = slot->attributes.uid;
    needed.gid = slot->attributes.gid;
    if (!fos_end_read(&slot->sequence, sequence) || found != owner || inode != directory) return 0;
    return epoch_now(mount, directory) == epoch && fos_may(1, &needed);
}

// The epoch of a name in a directory that is not sharded.
static uint64_t whole_epoch(uint64_t directory, uint32_t epoch) { return (uint64_t)fos_inode_epoch_index(directory) << 32 | epoch; }
static int is_of_whole(uint64_t directory, uint64_t epoch) { return epoch >> 32 == fos_inode_epoch_index(directory); }

// 1: from the one epoch of a name to the other, its directory has changed by this process's doing alone, and other names in it.
__attribute__((noinline)) static int is_own_change(uint32_t owner, uint64_t directory, uint64_t known, uint64_t now) {
    return is_of_whole(directory, known) && is_of_whole(directory, now) && fos_changes_cover(owner, directory, (uint32_t)known, (uint32_t)now);
}

// 1: known, `child` is its inode or 0.
FOS_WITH_EACH_CALL int find_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, uint64_t *child) {
    if (!enabled || length > ENTRY_NAME_BYTES) return 0;
    uint32_t owner = fos_connection_tag(mount);
    struct entry_slot *slot = entry_about(owner, directory, name, length, entry_places_of(directory, name, length));
    if (slot == NULL) return 0;
    uint32_t sequence = fos_begin_read(&slot->sequence);
    if (!is_about(slot, owner, directory, name, length)) return 0;
    uint64_t epoch = slot->epoch;
    *child = slot->child;
    if (!fos_end_read(&slot->sequence, sequence)) return 0;
    uint64_t now = entry_epoch(mount, directory, name, length);
    return (now == epoch || is_own_change(owner, directory, epoch, now)) && may_search(mount, directory);
}

int fos_known_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, uint64_t *child) {
    return find_entry(mount, directory, name, length, child);
}

int fos_is_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length) {
    uint64_t child;
    return fos_known_entry(mount, directory, name, length, &child) && child != 0;
}

// Between fos_changes_begin and its end. 0: what is kept of the name may be another thing.
static int write_entry(uint32_t owner, uint64_t directory, uint64_t epoch, const char *name, uint32_t length, uint64_t child) {
    if (length > ENTRY_NAME_BYTES) return 1;
    struct ways ways = entry_places_of(directory, name, length);
    struct entry_slot *slot = entry_about(owner, directory, name, length, ways);
    int fresh = 0;
    if (slot == NULL) slot = &entry_slots[take_slot(ways, &next_entry, SLOTS, &fresh)];
    if (!begin_slot(&slot->sequence, fresh)) return 0;
    slot->owner = owner;
    slot->directory = directory;
    slot->child = child;
    slot->epoch = epoch;
    slot->length = length;
    memcpy(slot->name, name, length);
    fos_end_write(&slot->sequence);
    return 1;
}

static void keep_entry(const struct fos_mount *mount, uint64_t directory, uint64_t epoch, const char *name, uint32_t length,
                       uint64_t child) {
    if (!enabled || !fos_changes_begin()) return;
    uint32_t owner = fos_connection_tag(mount);
    int is_passed = is_of_whole(directory, epoch) && fos_changes_passed(owner, directory, (uint32_t)epoch);
    if (!is_passed) write_entry(owner, directory, epoch, name, length, child);
    fos_changes_end();
}

// The same with the epoch of a directory, which speaks for its entries as long as it is not sharded.
static void keep_entry_of_whole(const struct fos_mount *mount, uint64_t directory, uint32_t epoch, const char *name, uint32_t length,
                                uint64_t child) {
    if (fos_is_sharded(mount, directory)) return;
    keep_entry(mount, directory, whole_epoch(directory, epoch), name, length, child);
}

// What a change of this process's has made of a name in a directory; and of a second one, unless it is NULL.
struct made_entry {
    const struct fos_place *place;
    uint64_t child;  // 0: it is gone
};
static void keep_change(const struct fos_mount *mount, const struct fos_message *reply, uint64_t directory, uint32_t epoch,
                        struct made_entry made, struct made_entry gone) {
    if (!enabled || fos_is_sharded(mount, directory) || !fos_changes_begin()) return;
    uint32_t owner = fos_connection_tag(mount);
    if (!fos_changes_passed(owner, directory, epoch)) {
        uint64_t now = whole_epoch(directory, epoch);
        // So it was when the owner read this epoch of the directory, after the change.
        int written = write_entry(owner, directory, now, made.place->name, made.place->name_length, made.child);
        if (gone.place != NULL) written &= write_entry(owner, directory, now, gone.place->name, gone.place->name_length, gone.child);
        int follows = (reply->flags & FOS_REPLY_CHANGED_FROM) != 0 && reply->inode == directory;
        if (written && follows) fos_changes_add(owner, directory, reply->pid, epoch);
    }
    fos_changes_end();
}

void fos_take_change(const struct fos_mount *mount, const struct fos_message *reply, uint16_t operation, const struct fos_place *place) {
    struct fos_attributes made, directory;
    int removes = operation == FOS_OP_UNLINK || operation == FOS_OP_RMDIR;
    if (!removes) {
        if (!told(reply, 0, &made)) return;
        // Who opens what it creates has taken them already.
        if (operation != FOS_OP_CREATE) fos_keep_attributes(mount, &made);
    }
    if (!told(reply, removes ? 0 : sizeof made, &directory) || directory.inode != place->parent) return;
    fos_keep_attributes(mount, &directory);
    keep_change(mount, reply, place->parent, directory.epoch, (struct made_entry){place, removes ? 0 : made.inode}, (struct made_entry){NULL, 0});
}

void fos_take_rename(const struct fos_mount *mount, const struct fos_message *reply, const struct fos_place *source, const struct fos_place *target) {
    struct fos_attributes moved, to, from;
    if (!told(reply, 0, &moved) || !told(reply, offsetof(struct fos_renamed, to), &to) || to.inode != target->parent) return;
    fos_keep_attributes(mount, &moved);
    fos_keep_attributes(mount, &to);
    struct made_entry made = {target, moved.inode}, gone = {source, 0}, none = {NULL, 0};
    if (source->parent == target->parent) return keep_change(mount, reply, target->parent, to.epoch, made, gone);
    keep_change(mount, reply, target->parent, to.epoch, made, none);
    if (!told(reply, offsetof(struct fos_renamed, from), &from) || from.inode != source->parent) return;
    fos_keep_attributes(mount, &from);
    keep_change(mount, reply, source->parent, from.epoch, gone, none);
}

// ---- look-ups -------------------------------------------------------------------------------------------------------

// Asks for an entry that is not known, or whose attributes are not.
__attribute__((noinline)) static long ask_for_entry(struct fos_context *context, struct fos_mount *mount, uint64_t directory,
                                                    const char *name, uint32_t length, struct fos_attributes *attributes) {
    uint64_t child;
    int dots = is_dots(name, length);
    if (!dots && enabled && fos_look_ahead(context, mount, directory, name, length) && fos_known_entry(mount, directory, name, length, &child) &&
        child != 0 && fos_cached_attributes(mount, child, attributes)) return 0;
    uint64_t epoch = entry_epoch(mount, directory, name, length);
    struct fos_message *request = fos_build(context, mount, FOS_OP_LOOKUP, directory);
    memcpy(fos_payload(request), name, length);
    request->length = length;
    int status = fos_send(context, mount);
    if (status == -ENOENT && !dots) keep_entry(mount, directory, epoch, name, length, 0);
    if (status == 0) status = fos_take_attributes(mount, fos_answer(context, mount), attributes);
    if (status == 0 && !dots) {
        keep_entry(mount, directory, epoch, name, length, attributes->inode);
        fos_ahead_note(directory, 1);
    }
    return status;
}

long fos_lookup_entry(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length,
                      struct fos_attributes *attributes) {
    uint64_t child;
    int is_known = find_entry(mount, directory, name, length, &child);
    int hit = is_known && (child == 0 || kept_attributes(mount, child, attributes));
    count(hit);
    if (is_known) fos_ahead_note(directory, 0);
    if (directory == listed_directory && (!is_known || attributes_wanted != 0)) attributes_wanted = ATTRIBUTES_WANTED;
    if (!hit) return ask_for_entry(context, mount, directory, name, length, attributes);
    if (child == 0) return -ENOENT;
    // Whoever wants more of a sharded directory than the walk does, asks for it.
    if ((attributes->flags & FOS_ATTRIBUTES_SHARDED) != 0) attributes->flags |= FOS_ATTRIBUTES_INEXACT;
    return 0;
}

// ---- listings -------------------------------------------------------------------------------------------------------

const char *fos_listed(const uint8_t *at, size_t bytes, struct fos_directory_entry *record) {
    const size_t least = offsetof(struct fos_directory_entry, attributes);
    if (bytes < least) return NULL;
    memcpy(record, at, least);
    size_t fixed = record->has_attributes == 2 ? least : sizeof *record;
    if (record->record_length > bytes || record->record_length < fixed + record->name_length) return NULL;
    if (record->name_length > FOS_NAME_BYTES_MAX) return NULL;
    if (record->has_attributes == 1) memcpy(&record->attributes, at + least, sizeof record->attributes);
    return (const char *)at + fixed;
}

int fos_listing_begins(uint64_t directory) {
    if (!enabled) return 0;
    listed_directory = directory;
    if (attributes_wanted == 0) return 0;
    attributes_wanted--;
    return 1;
}

int fos_epoch_stands(const struct fos_mount *mount, uint64_t inode, uint32_t epoch) {
    return enabled && epoch_now(mount, inode) == epoch && !fos_is_sharded(mount, inode);
}

void fos_keep_listed(const struct fos_mount *mount, uint64_t directory, uint32_t epoch, const struct fos_directory_entry *record,
                     const char *name) {
    if (is_dots(name, record->name_length)) return;
    fos_keep_attributes(mount, &record->attributes);
    keep_entry_of_whole(mount, directory, epoch, name, record->name_length, record->attributes.inode);
}

// ---- pages ----------------------------------------------------------------------------------------------------------

static uint64_t page_hash(uint64_t inode, uint64_t index) { return mix(inode + index * 31); }
// The slot about a page; -1: there is none.
static int page_about(uint32_t owner, uint64_t inode, uint64_t index, struct ways ways) {
    for (int way = 0, most = ways_to_look_at(ways); way < most; way++) {
        int number = slot_at(ways, way);
        if (number == NOTHING) break;
        if (number == ANOTHER) continue;
        const struct page_slot *slot = &page_slots[number];
        if (slot->inode == inode && slot->index == index && slot->owner == owner) return number;
    }
    return -1;
}

long fos_cached_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t within, uint8_t *to, size_t most) {
    if (!enabled) return -1;
    uint32_t owner = fos_connection_tag(mount);
    int number = page_about(owner, inode, index, places_of(places.pages, page_hash(inode, index), PAGE_PLACE_BITS));
    if (number < 0) return -1;
    struct page_slot *slot = &page_slots[number];
    uint32_t sequence = fos_begin_read(&slot->sequence);
    if (slot->owner != owner || slot->inode != inode || slot->index != index) return -1;
    uint32_t epoch = slot->epoch, bytes = slot->bytes;
    if (bytes > FOS_PAGE_BYTES || epoch_now(mount, inode) != epoch) return -1;
    size_t left = within < bytes ? bytes - within : 0;
    if (most > left) most = left;
    memcpy(to, pages[number] + within, most);
    return fos_end_read(&slot->sequence, sequence) ? (long)most : -1;
}

// Whether a page was read before, as far as its mark has not been overwritten.
static int was_seen(uint64_t hash) {
    uint16_t *place = &pages_seen[hash >> (64 - PAGE_PLACE_BITS)], mark = (uint16_t)(hash | 1);
    if (__atomic_load_n(place, __ATOMIC_RELAXED) == mark) return 1;
    __atomic_store_n(place, mark, __ATOMIC_RELAXED);
    return 0;
}

void fos_forget_pages(struct fos_mount *mount, uint64_t inode, uint64_t offset, uint64_t bytes) {
    uint32_t owner = fos_connection_tag(mount);
    for (uint64_t index = offset / FOS_PAGE_BYTES; bytes > 0 && index <= (offset + bytes - 1) / FOS_PAGE_BYTES; index++) {
        int number = page_about(owner, inode, index, places_of(places.pages, page_hash(inode, index), PAGE_PLACE_BITS));
        if (number < 0 || !fos_begin_write(&page_slots[number].sequence)) continue;
        page_slots[number].owner = 0;
        fos_end_write(&page_slots[number].sequence);
    }
}

void fos_keep_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t epoch, const uint8_t *from, uint32_t bytes) {
    uint64_t hash = page_hash(inode, index);
    if (!enabled || !was_seen(hash)) return;
    uint32_t owner = fos_connection_tag(mount);
    struct ways ways = places_of(places.pages, hash, PAGE_PLACE_BITS);
    int number = page_about(owner, inode, index, ways);
    int fresh = 0;
    if (number < 0) number = (int)take_slot(ways, &next_page, PAGE_SLOTS, &fresh);
    struct page_slot *slot = &page_slots[number];
    if (!begin_slot(&slot->sequence, fresh)) return;
    slot->owner = owner;
    slot->inode = inode;
    slot->index = index;
    slot->epoch = epoch;
    slot->bytes = bytes;
    memcpy(pages[number], from, bytes);
    fos_end_write(&slot->sequence);
}
