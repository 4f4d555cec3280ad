// Delegations: changes of a file that are left where its owner finds them (fos/delegation.h), instead of being sent.
//
// A file that this process has just made or written is often delegated to the channel that did it. What follows then, small writes,
// times, owner and mode, goes into a record in shared memory. The next message takes it along (FOS_GIVEN_RECORD); whoever asks for the
// file before that finds the record made.
// What the file is like afterwards is known here, as nobody else changes it, and is kept for stat and its kin.
// Invariants: a record changes by one compare-and-swap, behind which the call is made; so a call that never comes back (a signal
// handler jumps out of it) has changed the file or has not. What belongs to a context is used by the call that has the context; while
// a call changes it, `inode` is 0, so the leavings of one that never came back are not used.
#define _GNU_SOURCE
#include <time.h>
#include "calls.h"

enum { NS = 1000000000, AHEAD_NS = 20000000 };

static struct delegated {
    uint64_t inode;   // 0: none
    uint64_t before;  // what `inode` was before a request that may have it replaced
    uint32_t cell;    // that the last record is in, or was
    uint32_t order;   // of the last record
    uint64_t writes;  // 1: data may be left too
    struct fos_attributes attributes;  // as they are now, under the epoch of the delegation
} delegations[FOS_CONTEXTS_MAX] FOS_LARGE;

static struct fos_delegation *area_of(const struct fos_context *context, struct fos_mount *mount) {
    return fos_delegation_area(&mount->client, (int)context->index);
}
static int is_of(const struct fos_context *context, const struct fos_mount *mount) {
    return context->delegation == fos_connection_tag(mount);
}
static int is_pending(uint64_t state) { return fos_delegation_changes(state) != 0; }
static int is_empty(uint64_t state) { return !is_pending(state) && !fos_delegation_is_taken(state); }
static int stands(const struct fos_mount *mount, const struct fos_attributes *attributes) {
    const struct fos_board *board = mount->client.board;
    return fos_inode_epoch(board, attributes->inode) == attributes->epoch && fos_load_relaxed_u32(&board->down) == 0;
}

int fos_delegation_pending(const struct fos_context *context, struct fos_mount *mount) {
    if (__builtin_expect(!is_of(context, mount), 0)) return 0;
    return is_pending(fos_delegation_state(&area_of(context, mount)->cell[delegations[context->index].cell]));
}

// Has the owner of an inode take what is pending.
static void ask_owner(struct fos_context *context, struct fos_mount *mount, uint64_t inode) {
    fos_build(context, mount, FOS_OP_GETATTR, inode);
    fos_send(context, mount);
}

void fos_delegation_settle(struct fos_context *context, struct fos_mount *mount) {
    if (!fos_delegation_pending(context, mount)) return;
    const struct fos_delegation_cell *cell = &area_of(context, mount)->cell[delegations[context->index].cell];
    ask_owner(context, mount, cell->line[fos_delegation_line(fos_delegation_state(cell))].record.inode);
}

// A context has to do with one connection at a time: what is left on the channel of another one is taken first.
static void leave_other(struct fos_context *context) {
    struct fos_mount *other = &fos_mounts[(context->delegation - 1) & 15];
    if (other->state == FOS_MOUNT_CONNECTED) fos_delegation_settle(context, other);
}

void fos_delegation_may_go(struct fos_context *context) {
    if (context->delegation == 0) return;
    struct delegated *mine = &delegations[context->index];
    mine->before = mine->inode;
    mine->inode = 0;
}

void fos_take_delegation(struct fos_context *context, const struct fos_mount *mount, const struct fos_message *reply,
                         const struct fos_attributes *attributes, int writes) {
    struct delegated *mine = &delegations[context->index];
    if ((reply->flags & FOS_REPLY_DELEGATED) == 0 || !fos_cache_enabled()) {
        if (context->delegation != 0) mine->inode = mine->before;
        return;
    }
    mine->inode = 0;
    if (!is_of(context, mount)) {
        if (context->delegation != 0) leave_other(context);
        mine->cell = 0;
        context->delegation = fos_connection_tag(mount);
    }
    mine->attributes = *attributes;
    mine->writes = (uint64_t)writes;
    mine->inode = attributes->inode;
}

// ---- changes --------------------------------------------------------------------------------------------------------

static uint64_t in_ns(const struct fos_time *time) { return (uint64_t)time->seconds * NS + time->nanoseconds; }
// 1: the time has such a number, and is not in the future. The owner's clock is ahead of the coarse one, by ten milliseconds at most.
static int is_past(const struct fos_time *time, uint64_t now) {
    return time->seconds >= 0 && time->seconds < INT64_MAX / NS - 1 && in_ns(time) <= now + AHEAD_NS;
}
// What the owner makes of a time that was left: times of changes only go forward.
static void move_forward(struct fos_time *time, uint64_t when) {
    if (in_ns(time) < when) *time = (struct fos_time){.seconds = (int64_t)(when / NS), .nanoseconds = (uint32_t)(when % NS)};
}

// A record begins in an empty cell. 0: it is not empty.
static int begin_record(struct fos_delegation *area, struct delegated *mine, uint32_t cell, uint64_t inode, struct fos_left_change *change) {
    change->cell = cell;
    change->before = fos_delegation_state(&area->cell[cell]);
    change->record = (struct fos_delegation_record){.inode = inode, .when = change->record.when, .order = ++mine->order};
    change->changes = change->bytes = 0;
    return is_empty(change->before);
}

// Finds the record that a change of the file goes into, and the file as it is now. 0: the change must be sent.
static int begin(struct fos_context *context, struct fos_mount *mount, uint64_t inode, struct fos_left_change *change) {
    if (!is_of(context, mount)) return 0;
    struct delegated *mine = &delegations[context->index];
    if (mine->inode != inode) return 0;
    if (!stands(mount, &mine->attributes)) {
        mine->inode = 0;
        return 0;
    }
    struct fos_delegation *area = area_of(context, mount);
    change->cell = mine->cell;
    change->before = fos_delegation_state(&area->cell[change->cell]);
    if (is_pending(change->before)) {
        change->record = area->cell[change->cell].line[fos_delegation_line(change->before)].record;
        if (change->record.inode != inode) {
            // Of a file of another server, which the messages since have not gone to.
            ask_owner(context, mount, change->record.inode);
            return 0;
        }
        change->changes = fos_delegation_changes(change->before);
        change->bytes = fos_delegation_bytes(change->before);
    } else if (!begin_record(area, mine, mine->cell ^ 1, inode, change)) {
        return 0;
    }
    change->attributes = mine->attributes;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    change->record.when = (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
    return 1;
}
// The same for a change that moves the time of changes.
static int begin_change(struct fos_context *context, struct fos_mount *mount, uint64_t inode, struct fos_left_change *change) {
    if (!begin(context, mount, inode, change) || !is_past(&change->attributes.changed, change->record.when)) return 0;
    move_forward(&change->attributes.changed, change->record.when);
    return 1;
}

// A record that was left under an epoch which has moved. 1: the owner has it, which it says by having answered; 0: it will not come
// for it, and the record, in which then nothing is older than this call, is given up.
static int was_taken(struct fos_context *context, struct fos_mount *mount, struct fos_delegation_cell *cell, uint64_t inode, uint64_t state) {
    ask_owner(context, mount, inode);
    return !fos_delegation_swap(cell, state, fos_delegation_next(state, 0, 0, 0));
}

// Makes the change. 0: it must be sent.
static int finish(struct fos_context *context, struct fos_mount *mount, const struct fos_left_change *change) {
    struct delegated *mine = &delegations[context->index];
    struct fos_delegation_cell *cell = &area_of(context, mount)->cell[change->cell];
    uint64_t inode = change->record.inode;
    mine->inode = 0;
    mine->cell = change->cell;
    uint32_t line = is_pending(change->before) ? fos_delegation_line(change->before) ^ 1 : 0;
    cell->line[line].record = change->record;
    uint64_t after = fos_delegation_next(change->before, change->changes, line, change->bytes);
    if (!fos_delegation_swap(cell, change->before, after)) return 0;
    fos_fence_after_update();
    if (!stands(mount, &mine->attributes)) return was_taken(context, mount, cell, inode, after);
    mine->attributes = change->attributes;
    fos_keep_attributes(mount, &change->attributes);
    mine->inode = inode;
    return 1;
}

// ---- writes ---------------------------------------------------------------------------------------------------------

// The record is full: the owner is sent for it, and the next one begins. 0: the one before it is not done with.
static int begin_next(struct fos_context *context, struct fos_mount *mount, struct fos_left_change *change) {
    uint64_t inode = change->record.inode;
    // Waits until the last one that was sent for is taken.
    fos_build(context, mount, FOS_OP_GETATTR, inode);
    fos_send_and_forget(context, mount);
    return begin_record(area_of(context, mount), &delegations[context->index], change->cell ^ 1, inode, change);
}

static uint64_t pages_of(uint64_t bytes) { return (bytes + FOS_PAGE_BYTES - 1) / FOS_PAGE_BYTES; }

uint8_t *fos_delegated_room(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint64_t offset, int append,
                            uint64_t bytes, struct fos_left_change *change) {
    if (bytes > FOS_DELEGATED_BYTES_MAX || !begin_change(context, mount, inode, change) || !delegations[context->index].writes) return NULL;
    struct fos_attributes *file = &change->attributes;
    if (append) offset = file->size;
    // With no hole in the file, and none made, it is known how many blocks it has.
    if (offset > file->size || file->blocks != pages_of(file->size) * (FOS_PAGE_BYTES / 512)) return NULL;
    // What was set after the last write would be forgotten here, and the owner has something older.
    if ((change->changes & FOS_DELEGATED_MODIFIED) != 0 || !is_past(&file->modified, change->record.when)) return NULL;
    if ((change->changes & FOS_DELEGATED_DATA) == 0) change->record.offset = offset;
    if (offset < change->record.offset || offset > change->record.offset + change->bytes) return NULL;
    if (offset - change->record.offset + bytes > FOS_DELEGATED_BYTES_MAX) {
        if (!begin_next(context, mount, change)) return NULL;
        change->record.offset = offset;
    }
    uint64_t at = offset - change->record.offset;
    change->changes |= FOS_DELEGATED_DATA;
    change->end = offset + bytes;
    if (at + bytes > change->bytes) change->bytes = (uint32_t)(at + bytes);
    if (change->end > file->size) file->size = change->end;
    file->blocks = pages_of(file->size) * (FOS_PAGE_BYTES / 512);
    move_forward(&file->modified, change->record.when);
    return area_of(context, mount)->cell[change->cell].data + at;
}

int fos_delegated_write(struct fos_context *context, struct fos_mount *mount, struct fos_left_change *change, uint64_t bytes) {
    if (!finish(context, mount, change)) return 0;
    // What was read of it before is read under the same epoch still.
    fos_forget_pages(mount, change->record.inode, change->end - bytes, bytes);
    if (context->brought == change->record.inode) fos_drop_brought(context);
    return 1;
}

// ---- attributes -----------------------------------------------------------------------------------------------------

// 1: the number of a time that is to be set.
static int number_of(const struct fos_time *time, int64_t *number) {
    if (time->seconds < 0 || time->seconds >= INT64_MAX / NS - 1) return 0;
    *number = (int64_t)in_ns(time);
    return 1;
}

int fos_delegated_set(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const struct fos_setattr_request *set) {
    const uint32_t mine = FOS_SET_MODE | FOS_SET_ACCESSED | FOS_SET_MODIFIED, roots = mine | FOS_SET_UID | FOS_SET_GID;
    struct fos_left_change change;
    if ((set->valid & ~roots) != 0 || !begin_change(context, mount, inode, &change)) return 0;
    struct fos_attributes *file = &change.attributes;
    // What the owner would refuse, or change, it is asked.
    if (fos_identity.uid != 0 && ((set->valid & ~mine) != 0 || file->uid != fos_identity.uid)) return 0;
    if ((set->valid & FOS_SET_MODE) != 0) {
        if ((set->mode & 07000) != 0) return 0;
        change.changes |= FOS_DELEGATED_MODE;
        change.record.mode = set->mode & 0777;
        file->mode = (file->mode & S_IFMT) | change.record.mode;
    }
    if ((set->valid & FOS_SET_UID) != 0) change.changes |= FOS_DELEGATED_UID, change.record.uid = file->uid = set->uid;
    if ((set->valid & FOS_SET_GID) != 0) change.changes |= FOS_DELEGATED_GID, change.record.gid = file->gid = set->gid;
    if ((set->valid & FOS_SET_ACCESSED) != 0) {
        if (!number_of(&set->accessed, &change.record.accessed)) return 0;
        change.changes = (change.changes & ~(uint32_t)FOS_DELEGATED_READ) | FOS_DELEGATED_ACCESSED;
        file->accessed = set->accessed;
    }
    if ((set->valid & FOS_SET_MODIFIED) != 0) {
        if (!number_of(&set->modified, &change.record.modified)) return 0;
        change.changes |= FOS_DELEGATED_MODIFIED;
        file->modified = set->modified;
    }
    return finish(context, mount, &change);
}

// ---- reading --------------------------------------------------------------------------------------------------------

int fos_delegated_read(struct fos_context *context, struct fos_mount *mount, uint64_t inode) {
    struct fos_left_change change;
    if (!begin(context, mount, inode, &change) || (change.changes & FOS_DELEGATED_ACCESSED) != 0) return 0;
    // The finer clock, or the file would be as old as its last change, and the next reading due again.
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t when = (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
    if (!is_past(&change.attributes.accessed, when)) return 0;
    change.changes |= FOS_DELEGATED_READ;
    change.record.accessed = (int64_t)when;
    move_forward(&change.attributes.accessed, when);
    return finish(context, mount, &change);
}
