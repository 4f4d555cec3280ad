// Content that came with the opening of a file: a small file that is opened for reading is mostly read next, and then needs no second
// message.
//
// Protocol: OPEN says how much is welcome (fos/file.h), and the content lies in the channel's bulk area until the next request there.
// It is the file's while the epoch of the reply stands. Where a reading moves the access time, it is left in a record
// (delegations.c), which the next message takes along.
// Who opens files and does not read them (cp hands them to the server, find only lists) does not ask after some times, but now and then.
// Invariant: what was brought belongs to the context, and is used by the call that has the context.
#define _GNU_SOURCE
#include <time.h>
#include "calls.h"

enum { LARGEST_BYTES = 16384, UNREAD_MOST = 4, ASK_AGAIN_AFTER = 64 };

static uint32_t unread;   // brought one after the other, and not read
static uint32_t skipped;  // opens since then that did not ask

static int is_after(const struct fos_time *time, const struct fos_time *other) {
    return time->seconds != other->seconds ? time->seconds > other->seconds : time->nanoseconds > other->nanoseconds;
}

int fos_is_access_due(const struct fos_attributes *file) {
    if (!is_after(&file->accessed, &file->modified) || !is_after(&file->accessed, &file->changed)) return 1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return now.tv_sec - file->accessed.seconds >= 86400;
}

uint32_t fos_room_to_bring(const struct fos_attributes *attributes, int open_flags) {
    if (!fos_cache_enabled() || (attributes->mode & S_IFMT) != S_IFREG) return 0;
    if (attributes->size == 0 || attributes->size > LARGEST_BYTES) return 0;
    if ((open_flags & (O_ACCMODE | O_TRUNC | O_NOATIME | O_PATH | O_DIRECT)) != O_RDONLY) return 0;
    if (unread < UNREAD_MOST) return LARGEST_BYTES;
    if (++skipped < ASK_AGAIN_AFTER) return 0;
    skipped = 0;
    return LARGEST_BYTES;
}

void fos_take_brought(struct fos_context *context, const struct fos_mount *mount, const struct fos_message *reply,
                      const struct fos_attributes *attributes) {
    if (reply->bulk_length == 0 || reply->bulk_length > LARGEST_BYTES || reply->bulk_length != attributes->size) return;
    context->brought = attributes->inode;
    context->brought_epoch = attributes->epoch;
    context->brought_bytes = reply->bulk_length;
    context->brought_by = fos_connection_tag(mount);
    unread++;
}

int fos_read_brought(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const uint8_t **content, uint32_t *bytes) {
    if (context->brought != inode || context->brought_by != fos_connection_tag(mount)) return 0;
    struct fos_attributes now;
    if (!fos_epoch_stands(mount, inode, context->brought_epoch) || !fos_cached_attributes(mount, inode, &now)) return 0;
    if (now.size != context->brought_bytes) return 0;
    *bytes = context->brought_bytes;
    *content = fos_bulk_of(context, mount);
    unread = 0;
    if (!fos_is_access_due(&now)) return 1;
    // Somebody may have changed the file meanwhile, who was then answered before the reading was left.
    return fos_delegated_read(context, mount, inode) && fos_epoch_stands(mount, inode, context->brought_epoch);
}

void fos_drop_brought(struct fos_context *context) { context->brought_by = 0; }
