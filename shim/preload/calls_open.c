// Opening and closing.
//
// An open of a regular file or directory is one message after the walk: OPEN or CREATE, which checks access, truncates
// and counts the reference that keeps the inode; or none, if an earlier one has left its reference (references.c). The number is taken first where the open changes something, so a full
// table (EMFILE) changes nothing. Everything else that can be opened (FIFOs, devices, O_TMPFILE) is
// opened by the kernel, through the mount. O_DIRECT is kept for F_GETFL: messages go around the kernel's cache anyway.
// O_PATH is answered by message in the one form in which libc uses it itself, for a change of mode that follows no link
// (fchmodat(3)): tar does that for each directory, and each that the kernel knows from then on costs a notice whenever it changes.
#define _GNU_SOURCE
#include <linux/openat2.h>
#include "calls.h"

enum { LARGE_FILE = 0100000 };  // O_LARGEFILE, which the kernel adds and F_GETFL shows
static const int kernels_flags = O_PATH | (O_TMPFILE & ~O_DIRECTORY) | O_ASYNC;
static const int path_flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;

struct opening {
    struct fos_context *context;
    long directory;
    const char *path;
    int flags;
    uint32_t mode;
    int resized;  // FOS_REPLY_LOOK_AGAIN
    struct fos_place place;
};

// 1: the reference is one that an earlier open of the same file has left, and its attributes, which the walk has just found to be
// true, allow the open.
static int needs_no_message(struct opening *open) {
    if ((open->flags & (O_ACCMODE | O_TRUNC | O_NOATIME | O_PATH)) != O_RDONLY || fos_identity.group_count < 0) return 0;
    return fos_may(4, &open->place.attributes) && fos_reference_take(open->place.mount, open->place.attributes.inode);
}

// Opens the inode that the walk has found.
static long open_found(struct opening *open) {
    uint32_t type = open->place.attributes.mode & S_IFMT;
    int writes = (open->flags & O_ACCMODE) != O_RDONLY || (open->flags & O_TRUNC) != 0;
    if ((open->flags & O_DIRECTORY) != 0 && type != S_IFDIR) return -ENOTDIR;
    if (type == S_IFLNK && (open->flags & O_PATH) == 0) return -ELOOP;
    if (type == S_IFDIR && (writes || (open->flags & O_CREAT) != 0)) return -EISDIR;
    if (type != S_IFDIR && type != S_IFREG) return fos_hand_over(open->context, open->directory, FOS_BYPASS_KIND);
    struct fos_mount *mount = open->place.mount;
    if (needs_no_message(open)) return 0;
    struct fos_message *request = fos_build(open->context, mount, FOS_OP_OPEN, open->place.attributes.inode);
    struct fos_open_request wanted = {
        .open_flags = (uint32_t)(open->flags & ~(O_CREAT | O_EXCL)), .room = fos_room_to_bring(&open->place.attributes, open->flags)};
    fos_put_fixed(request, &wanted, sizeof wanted);
    request->bulk_length = wanted.room;
    fos_delegation_may_go(open->context);
    int status = fos_send(open->context, mount);
    if (status < 0) return status;
    open->resized = (fos_answer(open->context, mount)->flags & FOS_REPLY_LOOK_AGAIN) != 0;
    const struct fos_message *reply = fos_answer(open->context, mount);
    int result = fos_take_attributes(mount, reply, &open->place.attributes);
    if (result == 0) fos_take_delegation(open->context, mount, reply, &open->place.attributes, writes);
    if (result == 0 && wanted.room != 0) fos_take_brought(open->context, mount, reply, &open->place.attributes);
    return result;
}

// Whether an open with O_CREAT of an existing file may be refused by protected_regular or protected_fifos (proc(5)).
static int is_protected(struct opening *open) {
    struct fos_place *place = &open->place;
    struct fos_attributes attributes;
    if (!place->parent_known) {
        if (fos_get_attributes(open->context, place->mount, place->parent, &attributes) != 0) return 1;
        place->parent_mode = attributes.mode;
        place->parent_uid = attributes.uid;
        place->parent_known = 1;
    }
    if ((place->parent_mode & S_ISVTX) == 0 || (place->parent_mode & (S_IWGRP | S_IWOTH)) == 0) return 0;
    if (fos_lookup_entry(open->context, place->mount, place->parent, place->name, place->name_length, &attributes) != 0) return 0;
    return attributes.uid != fos_identity.uid && attributes.uid != place->parent_uid;
}

static long create(struct opening *open) {
    struct fos_place *place = &open->place;
    struct fos_mount *mount = place->mount;
    if (place->name_length == 0 || place->slash || is_protected(open)) return fos_hand_over(open->context, open->directory, FOS_BYPASS_UNHANDLED);
    // A file that its own maker could not open again by its mode could not become the kernel's later.
    uint32_t kept = open->mode & ~fos_umask;
    uint32_t needed = (open->flags & O_ACCMODE) == O_RDONLY ? 0400 : (open->flags & O_ACCMODE) == O_WRONLY ? 0200 : 0600;
    if (fos_identity.uid != 0 && (kept & needed) != needed) return fos_hand_over(open->context, open->directory, FOS_BYPASS_UNHANDLED);

    struct fos_message *request = fos_build(open->context, mount, FOS_OP_CREATE, place->parent);
    struct fos_make_request make = {
        .mode = open->mode & 07777, .umask = fos_umask, .open_flags = (uint32_t)open->flags, .name_length = place->name_length, .take_reference = 1};
    fos_put_named(request, &make, sizeof make, place->name, place->name_length);
    fos_delegation_may_go(open->context);
    int status = fos_send(open->context, mount);
    if (status < 0) return status;
    open->resized = (fos_answer(open->context, mount)->flags & FOS_REPLY_LOOK_AGAIN) != 0;
    int result = fos_take_attributes(mount, fos_answer(open->context, mount), &place->attributes);
    if (result != 0) return result;
    fos_take_delegation(open->context, mount, fos_answer(open->context, mount), &place->attributes, 1);
    fos_take_change(mount, fos_answer(open->context, mount), FOS_OP_CREATE, place);
    if ((place->attributes.mode & S_IFMT) == S_IFREG) return 0;
    fos_give_back(open->context, mount, place->attributes.inode, (uint32_t)open->flags);
    return fos_hand_over(open->context, open->directory, FOS_BYPASS_KIND);
}

// Finds or makes the file, and takes a reference. 0, -errno or FOS_PASS.
static long find_or_create(struct opening *open) {
    uint32_t follow = (open->flags & O_NOFOLLOW) != 0 ? 0 : FOS_WALK_FOLLOW;
    if ((open->flags & O_CREAT) == 0) {
        long result = fos_walk(open->context, open->directory, open->path, follow, &open->place);
        return result == 0 ? open_found(open) : result;
    }
    long result = fos_walk(open->context, open->directory, open->path, FOS_WALK_PARENT, &open->place);
    if (result != 0) return result;
    result = create(open);
    if (result != -ELOOP || follow == 0 || (open->flags & O_EXCL) != 0) return result;
    // The name is a symbolic link: the file is, or is made, where it leads.
    for (int attempt = 0; attempt < 8; attempt++) {
        result = fos_walk(open->context, open->directory, open->path, FOS_WALK_FOLLOW | FOS_WALK_CREATE, &open->place);
        if (result != 0) return result;
        result = open->place.found ? open_found(open) : create(open);
        if (result != -ELOOP && !(result == -ENOENT && open->place.found)) return result;
    }
    return result;
}

// Makes the description of what was opened.
static struct fos_file *describe(struct opening *open) {
    struct fos_file *file = fos_file_new();
    if (file == NULL) return NULL;
    file->mount = open->place.mount->index;
    file->generation = open->place.mount->generation;
    file->inode = open->place.attributes.inode;
    file->is_directory = (open->place.attributes.mode & S_IFMT) == S_IFDIR;
    file->size = open->place.attributes.size;
    file->flags = (uint32_t)open->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
    if ((open->flags & O_PATH) == 0) file->flags |= LARGE_FILE;
    file->path_length = fos_absolute_path(open->directory, open->path, file->path, sizeof file->path);
    return file;
}

// A file with record locks gets a descriptor of the kernel's as its number at once (locks.c).
static long back_number(struct opening *open, struct fos_file *file, long number, int close_on_exec) {
    if (number >= 0) fos_raw(SYS_close, number);
    number = fos_reopen(open->context, open->place.mount, file);
    if (number >= FOS_DESCRIPTORS_MAX) {
        fos_raw(SYS_close, number);
        return FOS_PASS;
    }
    if (number >= 0 && !close_on_exec) fos_raw(SYS_fcntl, number, F_SETFD, 0);
    file->backing = FOS_BACKING_DONE;
    return number;
}

static long open_numbered(struct opening *open) {
    // What changes something must not do so and then fail for want of a number.
    int first = (open->flags & (O_CREAT | O_TRUNC)) != 0;
    int keep = (open->flags & O_CLOEXEC) != 0;
    long number = -1;
    struct fos_mount *mine = NULL;
    if (first) {
        // A path that is a stranger's takes no number from us.
        const char *rest;
        uint64_t inode;
        if (fos_bad_pointer(open->path)) return FOS_PASS;
        if (open->path[0] == '/') mine = fos_mount_of_path(open->path, &rest);
        else if ((int)open->directory == AT_FDCWD) mine = fos_mount_of_relative(open->path, &rest, &inode);
        if (mine != NULL || (open->path[0] != '/' && fos_ours((int)open->directory))) {
            number = fos_number_take(keep);
            if (number < 0) return number == FOS_PASS ? fos_hand_over(open->context, open->directory, FOS_BYPASS_LIMIT) : number;
        }
    }
    long result = find_or_create(open);
    // What the walk found was removed, or replaced by a rename, before it could be opened: the walk comes again.
    for (int attempt = 0; result == -ESTALE && attempt < FOS_WALKS_MAX; attempt++) result = find_or_create(open);
    if (result == -ESTALE) result = -ENOENT;
    if (result == 0) {
        struct fos_file *file = describe(open);
        if (file != NULL && !file->is_directory && !fos_names_only(file) && fos_is_locked(file->inode)) number = back_number(open, file, number, keep);
        else if (file != NULL && number < 0) number = fos_number_take(keep);
        if (file != NULL && number >= 0) {
            if (open->resized) fos_show_size(open->context, open->place.mount, file, number);
            fos_number_publish((int)number, file);
            return number;
        }
        if (file != NULL) fos_file_delete(file);
        fos_give_back(open->context, open->place.mount, open->place.attributes.inode, (uint32_t)open->flags);
        // The kernel opens it: what an exclusive creation has made, it must not find in its way.
        if ((file == NULL || number == FOS_PASS) && (open->flags & O_EXCL) == 0) result = fos_hand_over(open->context, open->directory, FOS_BYPASS_LIMIT);
        else result = file == NULL ? -ENFILE : number;
    }
    if (number >= 0) fos_raw(SYS_close, number);
    return result;
}

static long open_file(struct fos_call *call, long directory, const char *path, int flags, uint32_t mode) {
    struct opening open;  // but for the place, which the walk fills: half a kilobyte
    open.directory = directory;
    open.path = path;
    open.flags = flags;
    open.mode = mode;
    open.resized = 0;
    // Combinations that make no sense, or that the kernel refuses in its own ways.
    int odd = ((flags & kernels_flags) != 0 && flags != path_flags) || (flags & O_ACCMODE) == O_ACCMODE || (flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY);
    open.context = fos_enter(call->number);
    if (open.context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    long result;
    if (!odd) {
        result = open_numbered(&open);
    } else {
        fos_path_to_kernel(open.context, path);
        result = fos_ours((int)directory) ? fos_hand_over(open.context, directory, FOS_BYPASS_UNHANDLED) : FOS_PASS;
    }
    fos_leave(open.context);
    return result;
}

long fos_open(struct fos_call *call) {
    return open_file(call, AT_FDCWD, (const char *)call->arguments[0], (int)call->arguments[1], (uint32_t)call->arguments[2]);
}
long fos_openat(struct fos_call *call) {
    return open_file(call, (int)call->arguments[0], (const char *)call->arguments[1], (int)call->arguments[2], (uint32_t)call->arguments[3]);
}
long fos_creat(struct fos_call *call) {
    return open_file(call, AT_FDCWD, (const char *)call->arguments[0], O_CREAT | O_WRONLY | O_TRUNC, (uint32_t)call->arguments[1]);
}
long fos_openat2(struct fos_call *call) {
    const struct open_how *how = (const struct open_how *)call->arguments[2];
    const uint64_t known = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC | O_SYNC | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | LARGE_FILE;
    int plain = !fos_bad_pointer(how) && call->arguments[3] == sizeof *how && how->resolve == 0 && (how->flags & ~known) == 0 && how->mode <= 07777
        && (how->mode == 0 || (how->flags & O_CREAT) != 0);
    if (!plain) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return open_file(call, (int)call->arguments[0], (const char *)call->arguments[1], (int)how->flags, (uint32_t)how->mode);
}

// ---- closing --------------------------------------------------------------------------------------------------------

long fos_close(struct fos_call *call) {
    int fd = (int)call->arguments[0];
    if (!fos_ours(fd)) {
        if (fos_hidden_descriptor(fd)) return -EBADF;
        if (__builtin_expect(fos_handed_count != 0, 0)) fos_handed_forget(fd);
        return FOS_PASS;
    }
    fos_before_close(fd);
    struct fos_context *context = fos_enter(call->number);
    fos_table_clear(context, fd);
    long result = fos_raw(SYS_close, fd);
    if (context != NULL) fos_leave(context);
    return result;
}

// Closes [first, last] but for the shim's own descriptors.
static long close_around(uint32_t first, uint32_t last, long flags) {
    for (;;) {
        uint32_t kept = UINT32_MAX;
        int highest_kept = fos_highest_hidden_descriptor();
        for (uint32_t fd = first; (int64_t)fd <= highest_kept && fd <= last; fd++) {
            if (fos_hidden_descriptor((int)fd)) {
                kept = fd;
                break;
            }
        }
        if (kept == UINT32_MAX) return fos_raw(SYS_close_range, first, last, flags);
        if (kept > first) {
            long result = fos_raw(SYS_close_range, first, kept - 1, flags);
            if (result < 0) return result;
            flags &= ~2L;  // CLOSE_RANGE_UNSHARE: done
        }
        if (kept == last) return 0;
        first = kept + 1;
    }
}

long fos_close_range(struct fos_call *call) {
    uint32_t first = (uint32_t)call->arguments[0], last = (uint32_t)call->arguments[1];
    long flags = (uint32_t)call->arguments[2];
    // Marking close-on-exec is the kernel's alone; the shim's own are marked anyway.
    if (first > last || (flags & ~2L) != 0) return FOS_PASS;
    for (int64_t fd = first; fos_handed_count > 0 && fd < FOS_DESCRIPTORS_MAX && fd <= last; fd++) fos_handed_forget(fd);
    if (fos_table_highest() < 0 && fos_highest_hidden_descriptor() < 0) return FOS_PASS;
    struct fos_context *context = fos_enter(call->number);
    int highest = fos_table_highest();
    for (int64_t fd = first; fd <= highest && fd <= last; fd++) {
        if (!fos_ours(fd)) continue;
        fos_before_close((int)fd);
        fos_table_clear(context, (int)fd);
    }
    if (context != NULL) fos_leave(context);
    return close_around(first, last, flags);
}
