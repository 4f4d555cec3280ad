// Listings and the current directory.
//
// A listing is made of the service's records, asked for from the description's cookie on; the cookie of the first
// record that did not fit is where the next call goes on. The current directory is always the kernel's own: the shim
// only remembers which inode it is (mounts.c).
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

static long list(struct fos_use *use, uint8_t *to, size_t room, int old) {
    struct fos_file *file = use->file;
    // A record of the service's is longer than the kernel's by its attributes; more than fits is not asked for.
    uint64_t wanted = (uint64_t)room * 6 + 512;
    // A directory that was removed has nothing in it, not even dots.
    struct fos_attributes attributes;
    long alive = file->offset != 0 ? 0 : fos_get_attributes(use->context, use->mount, file->inode, &attributes);
    if (alive == 0 && file->offset == 0 && attributes.links == 0) alive = -ENOENT;
    if (alive != 0) return alive;
    uint64_t epoch;
    int plus = fos_listing_begins(use->mount, file->inode, &epoch);
    struct fos_message *request = fos_build(use->context, use->mount, FOS_OP_READDIR, file->inode);
    struct fos_readdir_request from = {.cookie = (uint64_t)file->offset, .flags = plus ? FOS_READDIR_PLUS : 0};
    fos_put_fixed(request, &from, sizeof from);
    request->bulk_offset = 0;
    request->bulk_length = wanted < LISTING_BYTES ? (uint32_t)wanted : LISTING_BYTES;
    int status = fos_send(use->context, use->mount);
    if (status < 0) return status;
    const uint8_t *records = fos_bulk_of(use->context, use->mount);
    size_t bytes = fos_answer(use->context, use->mount)->bulk_length, at = 0, used = 0;
    while (bytes - at >= sizeof(struct fos_directory_entry)) {
        struct fos_directory_entry record;
        memcpy(&record, records + at, sizeof record);
        if (record.record_length > bytes - at || record.record_length < sizeof record + record.name_length || record.name_length > FOS_NAME_BYTES_MAX) return -EIO;
        size_t took = put(to + used, room - used, &record, (const char *)records + at + sizeof record, old);
        if (took == 0) {
            if (used == 0) return -EINVAL;
            break;
        }
        if (plus && record.has_attributes) fos_keep_listed(use->mount, file->inode, epoch, &record, (const char *)records + at + sizeof record);
        used += took;
        at += record.record_length;
        file->offset = (int64_t)record.next;
    }
    return (long)used;
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

long fos_fchdir(struct fos_call *call) {
    int fd = (int)call->arguments[0];
    if (fos_ours(fd)) {
        long made = fos_materialise(NULL, fd);
        if (made < 0) return made;
        fos_bypass(FOS_BYPASS_PASSED, call->number);
    }
    long result = fos_raw(SYS_fchdir, fd);
    fos_cwd_known = 0;
    return result;
}
