// Listings and the current directory.
//
// A listing is made of the service's records, asked for from the description's cookie on; the cookie of the first
// record that did not fit is where the next call goes on. The last listing that came whole is kept (listings.c). The current
// directory is always the kernel's own: the shim only remembers which inode it is (mounts.c).
#define _GNU_SOURCE
#include "calls.h"

struct entry64 { uint64_t inode; int64_t next; uint16_t length; uint8_t type; char name[]; };        // linux_dirent64
struct entry { unsigned long inode; unsigned long next; unsigned short length; char name[]; };       // linux_dirent

enum { ENTRY64_FIXED = 19, ENTRY_FIXED = 18, LISTING_BYTES = 262144 };

// Writes one record in the kernel's layout. The bytes it took, 0: no room.
static size_t put(uint8_t *to, size_t room, const struct fos_directory_entry *from, const char *name, int old) {
    // The old layout has the type in its last byte.
    size_t fixed = old ? ENTRY_FIXED + 1 : ENTRY64_FIXED;
    size_t length = (fixed + from->name_length + 1 + 7) & ~(size_t)7;
    if (length > room) return 0;
    if (old) {
        struct entry *entry = (struct entry *)to;
        entry->inode = from->inode;
        entry->next = from->next;
        entry->length = (unsigned short)length;
        memcpy(entry->name, name, from->name_length);
        memset(entry->name + from->name_length, 0, length - ENTRY_FIXED - from->name_length);
        to[length - 1] = from->type;
    } else {
        struct entry64 *entry = (struct entry64 *)to;
        entry->inode = from->inode;
        entry->next = (int64_t)from->next;
        entry->length = (uint16_t)length;
        entry->type = from->type;
        memcpy(entry->name, name, from->name_length);
        memset(entry->name + from->name_length, 0, length - ENTRY64_FIXED - from->name_length);
    }
    return length;
}

// Shows what fits of a listing, from the description's cookie on. Bytes, or -errno. `is_whole`: nothing follows its last record.
static long show(struct fos_use *use, uint8_t *to, size_t room, int old, const struct fos_listing *listing, int is_whole) {
    struct fos_file *file = use->file;
    size_t at = 0, used = 0;
    while (at < listing->bytes) {
        struct fos_directory_entry record;
        const char *name = fos_listed(listing->records + at, listing->bytes - at, &record);
        if (name == NULL) return -EIO;
        size_t took = put(to + used, room - used, &record, name, old);
        if (took == 0) {
            if (used == 0) return -EINVAL;
            break;
        }
        if (record.has_attributes == 1) fos_keep_listed(use->mount, file->inode, listing->epoch, &record, name);
        used += took;
        at += record.record_length;
        file->offset = (int64_t)record.next;
    }
    if (at == listing->bytes && is_whole) {
        file->ended_at = file->offset;
        file->ended_epoch = listing->epoch;
    }
    return (long)used;
}

static long list(struct fos_use *use, uint8_t *to, size_t room, int old) {
    struct fos_file *file = use->file;
    if (file->offset == file->ended_at && fos_epoch_stands(use->mount, file->inode, file->ended_epoch)) return 0;
    // A directory that was removed has nothing in it, not even dots.
    struct fos_attributes attributes;
    long alive = file->offset != 0 ? 0 : fos_get_attributes(use->context, use->mount, file->inode, &attributes);
    if (alive == 0 && file->offset == 0 && attributes.links == 0) alive = -ENOENT;
    if (alive != 0) return alive;
    int plus = fos_listing_begins(file->inode);
    struct fos_listing listing;
    int64_t offset = file->offset;
    if (!plus && fos_kept_listing(use->mount, file->inode, (uint64_t)offset, &listing)) {
        long used = show(use, to, room, old, &listing, 1);
        if (fos_listing_stands(&listing)) {
            fos_count(&fos_tally->cache_hits, 1);
            return used;
        }
        file->offset = offset;
    }
    // A record of the service's is longer than the kernel's, by its attributes or by a third at most; more than fits is not asked for.
    uint64_t wanted = plus ? (uint64_t)room * 6 + 512 : (uint64_t)room + room / 3 + 512;
    struct fos_message *request = fos_build(use->context, use->mount, FOS_OP_READDIR, file->inode);
    struct fos_readdir_request from = {.cookie = (uint64_t)offset, .flags = FOS_READDIR_SHORT | (plus ? FOS_READDIR_PLUS : 0)};
    fos_put_fixed(request, &from, sizeof from);
    request->bulk_offset = 0;
    request->bulk_length = wanted < LISTING_BYTES ? (uint32_t)wanted : LISTING_BYTES;
    int status = fos_send(use->context, use->mount);
    if (status < 0) return status;
    const struct fos_message *reply = fos_answer(use->context, use->mount);
    int ends = (reply->flags & FOS_REPLY_END) != 0;
    fos_take_told(use->mount, reply, 0);
    listing = (struct fos_listing){.records = fos_bulk_of(use->context, use->mount), .bytes = reply->bulk_length, .epoch = reply->epoch};
    if (offset == 0 && ends && !plus) fos_keep_listing(use->mount, file->inode, listing.epoch, listing.records, listing.bytes);
    return show(use, to, room, old, &listing, ends);
}

static long list_directory(struct fos_call *call, int old) {
    uint8_t *to = (uint8_t *)call->arguments[1];
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    if (!use.file->is_directory) return fos_end(&use, -ENOTDIR);
    if (fos_bad_pointer(to)) return fos_end(&use, -EFAULT);
    fos_file_lock(use.context, use.file);
    result = use.file->state != FOS_FILE_MESSAGE ? FOS_PASS : list(&use, to, (uint32_t)call->arguments[2], old);
    fos_file_unlock(use.context, use.file);
    return fos_end(&use, result == -ESTALE ? -ENOENT : result);
}
long fos_getdents64(struct fos_call *call) { return list_directory(call, 0); }
long fos_getdents(struct fos_call *call) { return list_directory(call, 1); }

// ---- the current directory ------------------------------------------------------------------------------------------

long fos_chdir(struct fos_call *call) {
    fos_path_to_kernel(NULL, (const char *)call->arguments[0]);
    long result = fos_raw(SYS_chdir, call->arguments[0]);
    fos_cwd_known = 0;
    return result;
}

// 1: a directory of ours that this process stands in already, and may enter. find goes back to where it was in this way.
static int is_here(int fd) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 0;
    struct fos_mount *mount = fos_file_usable(file);
    struct fos_attributes attributes;
    int is = mount != NULL && file->is_directory && fos_cwd_is(mount, file->inode) &&
        (fos_identity.uid == 0 || (fos_identity.group_count >= 0 && fos_cached_attributes(mount, file->inode, &attributes) && fos_may(1, &attributes)));
    fos_file_put(NULL, file);
    return is;
}

long fos_fchdir(struct fos_call *call) {
    int fd = (int)call->arguments[0];
    if (is_here(fd)) return 0;
    if (fos_ours(fd)) {
        long made = fos_materialise(NULL, fd);
        if (made < 0) return made;
        fos_bypass(FOS_BYPASS_PASSED, call->number);
    }
    long result = fos_raw(SYS_fchdir, fd);
    fos_cwd_known = 0;
    return result;
}
