// Looking ahead: who asks for one name of a directory after the other (git status, ls -l) is soon better served by a listing with
// attributes.
//
// Role: decides when a listing is fetched, and keeps what it brings (cache.c). The first comes after a few names that were found by
// message, each further one, twice as long, after as many as make it worth while; or, if what was brought is being used, at once,
// until the name that is wanted has come. So several threads that go through a directory from different names on find them all with
// a few listings.
// Several directories are gone through at once (git add reads the files of one, and looks into many others for its objects): a
// newcomer takes the place of the one in which fewest names were found, or that nobody has looked into for long.
// Protocol: a directory's place is changed by one thread at a time (`busy`); the others wait for its listings for a while.
#define _GNU_SOURCE
#include <fcntl.h>
#include "alone.h"
#include "calls.h"

// Names found before the first listing, room of a listing, entries that cost as much as a look-up, how long a thread waits for
// another one's listings, and how often in vain; look-ups of other directories after which one counts as left.
enum { AFTER = 6, LEAST_BYTES = 16384, MOST_BYTES = 262144, ENTRIES_A_LOOKUP = 32 };
enum { PATIENCE_NS = 5000000, IN_VAIN_MOST = 3, LEFT_AFTER = 1024 };
enum { PLACES = 4 };

// Which directories have a place: apart from these, as every look-up compares them.
static uint64_t directories[PLACES];
static struct ahead {
    uint32_t busy;        // 1 while a thread is at it
    uint32_t owner;       // fos_connection_tag
    uint32_t epoch;       // of the directory: with another one its entries are not known any more
    uint32_t asked;       // `asked` of all, when it was last looked into by message
    uint64_t cookie;      // where the next listing begins
    uint32_t found, due;  // names found by message; when the next listing comes
    uint32_t kept, used;  // entries that listings brought, and names that were looked up since the last one without a message
    uint32_t bytes;       // its room; 0: there is nothing more to fetch
    uint32_t listings;    // those that came, and ends of being busy; a futex
    uint32_t waiting;     // threads that sleep on it
    uint32_t in_vain;     // waits in a row that ended with nothing: whoever is busy may never come back (a handler that jumped away)
} places[PLACES];
static uint32_t asked;  // look-ups by message

void fos_ahead_after_fork(void) {
    for (int i = 0; i < PLACES; i++) places[i].busy = places[i].waiting = 0;
}

static int place_of(uint64_t directory) {
    for (int i = 0; i < PLACES; i++) {
        if (fos_load_relaxed_u64(&directories[i]) == directory) return i;
    }
    return -1;
}

void fos_ahead_note(uint64_t directory, int by_message) {
    int place = place_of(directory);
    if (place < 0) return;
    uint32_t *count = by_message ? &places[place].found : &places[place].used;
    fos_store_relaxed_u32(count, fos_load_relaxed_u32(count) + 1);
}

// The place that a newcomer takes.
static int place_to_take(void) {
    int chosen = 0;
    for (int i = 0; i < PLACES; i++) {
        if (asked - places[i].asked > LEFT_AFTER) return i;
        if (places[i].found < places[chosen].found || (places[i].found == places[chosen].found && asked - places[i].asked > asked - places[chosen].asked)) chosen = i;
    }
    return chosen;
}

// Fetches the next part of the listing. How many entries are kept.
static uint32_t fetch(struct fos_context *context, struct fos_mount *mount, uint64_t directory, struct ahead *ahead) {
    struct fos_message *request = fos_build(context, mount, FOS_OP_READDIR, directory);
    struct fos_readdir_request from = {.cookie = ahead->cookie, .flags = FOS_READDIR_PLUS | FOS_READDIR_AHEAD | FOS_READDIR_SHORT};
    fos_put_fixed(request, &from, sizeof from);
    request->bulk_offset = 0;
    request->bulk_length = ahead->bytes;
    if (fos_send(context, mount) < 0) return 0;
    const struct fos_message *reply = fos_answer(context, mount);
    const uint8_t *records = fos_bulk_of(context, mount);
    size_t bytes = reply->bulk_length, at = 0;
    uint32_t kept = 0, epoch = reply->epoch;
    while (at < bytes) {
        struct fos_directory_entry record;
        const char *name = fos_listed(records + at, bytes - at, &record);
        if (name == NULL) return 0;
        if (record.has_attributes == 1 && (record.attributes.flags & FOS_ATTRIBUTES_VOLATILE) == 0) {
            fos_keep_listed(mount, directory, epoch, &record, name);
            kept++;
        }
        ahead->cookie = record.next;
        at += record.record_length;
    }
    return (reply->flags & FOS_REPLY_END) != 0 ? 0 : kept;
}

// A listing has come, or is not fetched any more: those that wait for one look again.
static void note_listing(struct ahead *ahead) {
    __atomic_fetch_add(&ahead->listings, 1, __ATOMIC_SEQ_CST);
    for (uint32_t sleepers = __atomic_load_n(&ahead->waiting, __ATOMIC_SEQ_CST); sleepers > 0; sleepers--) fos_futex_wake(&ahead->listings);
}

// Fetches as much as pays. 1: something.
static int fetch_what_pays(struct fos_context *context, struct fos_mount *mount, uint64_t directory, struct ahead *ahead, const char *name, uint32_t length) {
    enum { USED_PART = 4 };
    int fetched = 0, is_used = ahead->kept > 0 && fos_load_relaxed_u32(&ahead->used) >= ahead->kept / USED_PART;
    uint64_t child;
    while (ahead->bytes > 0 && (is_used || (ahead->found >= ahead->due && !fetched))) {
        uint32_t kept = fetch(context, mount, directory, ahead);
        ahead->kept = kept;
        ahead->due = ahead->found + kept / ENTRIES_A_LOOKUP;
        ahead->bytes = kept == 0 ? 0 : ahead->bytes < MOST_BYTES ? ahead->bytes * 2 : MOST_BYTES;
        fos_store_relaxed_u32(&ahead->used, 0);
        fetched = 1;
        if (fos_known_entry(mount, directory, name, length, &child)) break;
        note_listing(ahead);
    }
    return fetched;
}

// Takes the turn to look ahead, or waits for what another thread fetches: it is what this one wants too, and many that ask at
// once are slower than one that is waited for. 1: it has the turn, 0: the name may be known now, or it is not worth more waiting.
static int take_turn(struct fos_mount *mount, uint64_t directory, int place, const char *name, uint32_t length) {
    struct ahead *ahead = &places[place];
    uint64_t child, until = 0;
    for (;;) {
        uint32_t listings = fos_load_acquire_u32(&ahead->listings);
        if (fos_own_compare_exchange_u32(&ahead->busy, 0, 1)) return 1;
        if (fos_load_relaxed_u64(&directories[place]) != directory || fos_load_relaxed_u32(&ahead->in_vain) >= IN_VAIN_MOST) return 0;
        if (fos_known_entry(mount, directory, name, length, &child)) return 0;
        uint64_t now = fos_clock();
        if (until == 0) until = now + PATIENCE_NS;
        if (now >= until) {
            __atomic_fetch_add(&ahead->in_vain, 1, __ATOMIC_RELAXED);
            return 0;
        }
        __atomic_fetch_add(&ahead->waiting, 1, __ATOMIC_SEQ_CST);
        fos_futex_wait(&ahead->listings, listings, until - now);
        __atomic_fetch_sub(&ahead->waiting, 1, __ATOMIC_SEQ_CST);
    }
}

int fos_look_ahead(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length) {
    if (fos_is_sharded(mount, directory)) return 0;
    int place = place_of(directory);
    if (place < 0) place = place_to_take();
    if (!take_turn(mount, directory, place, name, length)) return 1;
    struct ahead *ahead = &places[place];
    uint32_t owner = fos_connection_tag(mount), epoch = fos_inode_epoch(mount->client.board, directory);
    if (directories[place] != directory || ahead->owner != owner || ahead->epoch != epoch) {
        fos_store_relaxed_u64(&directories[place], directory);
        ahead->owner = owner;
        ahead->epoch = epoch;
        ahead->cookie = 2;  // behind "." and ".."
        ahead->found = 0;
        ahead->due = AFTER;
        ahead->kept = 0;
        ahead->bytes = LEAST_BYTES;
    }
    ahead->asked = ++asked;
    int fetched = fetch_what_pays(context, mount, directory, ahead, name, length);
    fos_store_relaxed_u32(&ahead->in_vain, 0);
    fos_store_release_u32(&ahead->busy, 0);
    note_listing(ahead);
    return fetched;
}
