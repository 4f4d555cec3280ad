// Materialising: a description of ours becomes the kernel's, with its offset, under all its numbers.
//
// The file is opened again through the mount: by the path it was opened with, if that still leads to the same inode, else
// a file by its number under `.fos/open`, which the daemon resolves for clients that hold a reference to it, and a
// directory by the names that lead to it now. The new descriptor takes over every number of the description with one dup3
// each, so there is no moment without one.
// A directory stays known: the kernel's descriptor serves whoever needs one, and what is named relative to it still goes
// by message. Its reference at the server stays too, until its last number is closed.
// Invariants: the description is locked meanwhile, so no offset is lost; a call that waited for the lock finds the
// description to be the kernel's and passes. A failure leaves everything as it was.
#define _GNU_SOURCE
#include "calls.h"

// Whether a descriptor of the kernel's is the file that `file` describes.
static int is_same(const struct fos_mount *mount, const struct fos_file *file, long fd) {
    struct stat seen;
    return fos_raw(SYS_fstat, fd, &seen) == 0 && seen.st_ino == file->inode && seen.st_dev == mount->device;
}

static char *append(char *to, const char *text) {
    while (*text != 0) *to++ = *text++;
    *to = 0;
    return to;
}

static void number_path(struct fos_context *context, const struct fos_mount *mount, uint64_t inode) {
    char digits[24], *digit = digits + sizeof digits - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + inode % 10);
        inode /= 10;
    } while (inode != 0);
    append(append(append(context->text, mount->path), "/.fos/open/"), digit);
}

// ---- directories whose path is not known ----------------------------------------------------------------------------

// The parent of a directory: its inode, 0: there is none.
static uint64_t parent_of(struct fos_context *context, struct fos_mount *mount, uint64_t inode) {
    struct fos_attributes attributes;
    return fos_lookup_entry(context, mount, inode, "..", 2, &attributes) == 0 ? attributes.inode : 0;
}

// The name of `child` in a directory, written before `end`. Where it begins, NULL: it has none, or there is no room.
static char *name_in(struct fos_context *context, struct fos_mount *mount, uint64_t directory, uint64_t child, const char *start, char *end) {
    for (uint64_t cookie = 2;;) {  // behind "." and ".."
        struct fos_message *request = fos_build(context, mount, FOS_OP_READDIR, directory);
        struct fos_readdir_request from = {.cookie = cookie, .flags = 0};
        memcpy(fos_payload(request), &from, sizeof from);
        request->length = sizeof from;
        request->bulk_offset = 0;
        request->bulk_length = 65536;
        if (fos_send(context, mount) < 0) return NULL;
        const uint8_t *records = fos_bulk_of(context, mount);
        size_t bytes = fos_answer(context, mount)->bulk_length, at = 0;
        if (bytes == 0) return NULL;
        while (bytes - at >= sizeof(struct fos_directory_entry)) {
            struct fos_directory_entry record;
            memcpy(&record, records + at, sizeof record);
            if (record.record_length > bytes - at || record.record_length < sizeof record + record.name_length) return NULL;
            if (record.inode == child && end - start > record.name_length) {
                return memcpy(end - record.name_length, records + at + sizeof record, record.name_length);
            }
            cookie = record.next;
            at += record.record_length;
        }
        if (at == 0) return NULL;
    }
}

// Opens a directory by the names that lead to it now, found from below; a path longer than the kernel takes is opened in
// parts. Or -errno.
static long climb(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file, int flags) {
    char *room = context->path[0], *at = room + sizeof context->path - 1;
    *at = 0;
    for (uint64_t inode = file->inode; inode != FOS_ROOT_INODE;) {
        uint64_t parent = parent_of(context, mount, inode);
        char *name = parent == 0 ? NULL : name_in(context, mount, parent, inode, room + 1, at);
        if (name == NULL) return -ENOENT;
        at = name - 1;
        *at = '/';
        inode = parent;
    }
    if (*at == '/') at++;
    long fd = fos_raw(SYS_openat, AT_FDCWD, mount->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0) {
        char *end = at + fos_text_length(at, FOS_PATH_BYTES - 1), *next = end;
        int last = *end == 0;
        if (!last) {
            while (*end != '/') end--;
            *end = 0;
            next = end + 1;
        }
        long below = fos_raw(SYS_openat, fd, *at == 0 ? "." : at, last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC);
        fos_raw(SYS_close, fd);
        fd = below;
        if (last) break;
        at = next;
    }
    return fd;
}

// A descriptor of the kernel's for the same file. Or -errno.
static long reopen(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file) {
    int flags = (int)file->flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW);
    flags |= O_CLOEXEC | O_NOCTTY | (file->is_directory ? O_DIRECTORY : 0);
    if (file->path_length > 0) {
        long fd = fos_raw(SYS_openat, AT_FDCWD, file->path, flags);
        if (fd >= 0) {
            if (is_same(mount, file, fd)) return fd;
            fos_raw(SYS_close, fd);
        }
    }
    if (mount->path_length + 40 > FOS_PATH_BYTES) return -ENAMETOOLONG;
    number_path(context, mount, file->inode);
    // The daemon opens files by their number only: a directory has one place in the tree.
    long fd = file->is_directory && fos_file_usable(file) != NULL ? climb(context, mount, file, flags)
                                                                   : fos_raw(SYS_openat, AT_FDCWD, context->text, flags);
    if (fd < 0 || is_same(mount, file, fd)) return fd;
    fos_raw(SYS_close, fd);
    return -ESTALE;
}

static long materialise(struct fos_context *context, struct fos_file *file) {
    struct fos_mount *mount = fos_file_mount(file);
    if (file->state != FOS_FILE_MESSAGE) return 0;
    // Waits for what was posted and not waited for: the kernel must not come before it.
    long fd = reopen(context, mount, file);
    if (fd < 0) return fd;
    if (file->offset != 0) fos_raw(SYS_lseek, fd, file->offset, SEEK_SET);
    int highest = fos_table_highest();
    __atomic_store_n(&file->state, FOS_FILE_KERNEL, __ATOMIC_RELEASE);
    uint32_t numbers = 0;
    for (int number = 0; number <= highest; number++) {
        struct fos_file *here = fos_file_get(number);
        if (here == file) {
            long kept = fos_raw(SYS_fcntl, number, F_GETFD);
            fos_raw(SYS_dup3, fd, number, kept > 0 && (kept & FD_CLOEXEC) ? O_CLOEXEC : 0);
            if (!file->is_directory) fos_table_clear(context, number);
            numbers++;
        }
        if (here != NULL) fos_file_put(context, here);
    }
    fos_raw(SYS_close, fd);
    // The kernel's own reference keeps the inode from here on.
    if (numbers > 0 && !file->is_directory && fos_file_usable(file) != NULL) fos_give_back(context, mount, file->inode);
    fos_tally_add(&fos_tally->materialised, 1);
    return 0;
}

long fos_materialise(struct fos_context *context, long fd) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 0;
    struct fos_context *own = context == NULL ? fos_enter(SYS_dup3) : context;
    long result = -ENFILE;
    if (own != NULL) {
        fos_file_lock(own, file);
        result = materialise(own, file);
        fos_file_unlock(own, file);
        fos_file_put(own, file);
        if (context == NULL) fos_leave(own);
    }
    return result;
}

int fos_materialise_all(struct fos_context *context, int inherited_only) {
    int highest = fos_table_highest(), made = 0;
    for (int fd = 0; fd <= highest; fd++) {
        if (!fos_ours(fd)) continue;
        if (inherited_only && (fos_raw(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC) != 0) continue;
        if (fos_is_kernels(fd)) continue;
        made += fos_materialise(context, fd) == 0;
    }
    return made;
}

long fos_via_kernel(struct fos_call *call, uint32_t fd_mask, enum fos_bypass reason) {
    int some = 0;
    long result = 0;
    for (int i = 0; i < 6; i++) {
        if ((fd_mask >> i & 1) == 0 || !fos_ours((int)call->arguments[i])) continue;
        some = 1;
        long made = fos_materialise(NULL, (int)call->arguments[i]);
        if (made < 0) result = made;
    }
    if (some) fos_bypass(reason, call->number);
    return result < 0 ? result : FOS_PASS;
}
