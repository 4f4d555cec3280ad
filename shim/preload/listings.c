// The last listing that came whole, kept for who lists the directory again: rm looks into each directory before it goes into
// it, and programs that watch directories list the same ones over and over.
//
// It is true while the directory's epoch stands (fos/channel.h). Only one is kept, of bounded size, in memory that listings use
// over and over: to keep one costs little more than to pass it on.
// Invariant: it is written under its sequence word, and what was read of it counts only if the word is the same afterwards. A
// writer that never comes back leaves it to nobody.
#define _GNU_SOURCE
#include "calls.h"
#include "sequence.h"

enum { MOST_BYTES = 65536 };

static struct {
    uint32_t sequence;  // odd while it is written
    uint32_t owner;     // fos_connection_tag
    uint64_t directory;
    uint32_t epoch, bytes;
} kept;
static uint8_t kept_records[MOST_BYTES] FOS_LARGE;

void fos_keep_listing(const struct fos_mount *mount, uint64_t directory, uint32_t epoch, const uint8_t *records, size_t bytes) {
    if (!fos_cache_enabled() || bytes > MOST_BYTES) return;
    if (!fos_begin_write(&kept.sequence)) return;
    kept.owner = fos_connection_tag(mount);
    kept.directory = directory;
    kept.epoch = epoch;
    kept.bytes = (uint32_t)bytes;
    memcpy(kept_records, records, bytes);
    fos_end_write(&kept.sequence);
}

int fos_kept_listing(const struct fos_mount *mount, uint64_t directory, uint64_t cookie, struct fos_listing *listing) {
    listing->sequence = fos_begin_read(&kept.sequence);
    if ((listing->sequence & 1) != 0 || kept.directory != directory || kept.owner != fos_connection_tag(mount)) return 0;
    listing->epoch = kept.epoch;
    listing->bytes = kept.bytes;
    listing->records = kept_records;
    if (listing->bytes > MOST_BYTES || !fos_epoch_stands(mount, directory, listing->epoch)) return 0;
    for (uint64_t passed = 0; passed != cookie;) {
        struct fos_directory_entry record;
        if (listing->bytes == 0 || fos_listed(listing->records, listing->bytes, &record) == NULL) return 0;
        passed = record.next;
        listing->records += record.record_length;
        listing->bytes -= record.record_length;
    }
    return fos_listing_stands(listing);
}

int fos_listing_stands(const struct fos_listing *listing) { return fos_end_read(&kept.sequence, listing->sequence); }
