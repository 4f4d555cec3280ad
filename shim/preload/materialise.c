// Materialising: a description of ours becomes the kernel's, with its offset, under all its numbers. Sharing: the same for a fork,
// after which this process goes on with messages where no offset is needed. Backing: the kernel's
// stands behind the numbers, for its locks, while data and offset stay here.
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
#include "words.h"

// Whether `path` (empty: `fd` itself) leads to an inode, of which the kernel then knows what the servers know: it decides by
// what it knows (how far a mapping reaches, who may change the mode), and it may not have looked since a change by message,
// or know what an answer of before that change said. The context's channel is used.
static int is_same(struct fos_context *context, struct fos_mount *mount, uint64_t inode, long fd, const char *path) {
    int flags = *path == 0 ? AT_EMPTY_PATH : 0;
    for (int attempt = 0; attempt < 100; attempt++) {
        struct statx known;
        struct fos_attributes true_now;
        int asks = attempt == 0 ? AT_STATX_DONT_SYNC : AT_STATX_FORCE_SYNC;
        if (fos_raw(SYS_statx, fd, path, flags | asks, STATX_BASIC_STATS, &known) != 0) return 0;
        if (known.stx_ino != inode || known.stx_dev_major != mount->device_major || known.stx_dev_minor != mount->device_minor) return 0;
        if (asks == AT_STATX_FORCE_SYNC && fos_raw(SYS_statx, fd, path, flags | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &known) != 0) return 0;
        if (fos_get_attributes(context, mount, inode, &true_now) != 0) return 1;
        int is_regular = (true_now.mode & S_IFMT) == S_IFREG;
        if (known.stx_mode == true_now.mode && known.stx_uid == true_now.uid && known.stx_gid == true_now.gid && (!is_regular || known.stx_size == true_now.size)) return 1;
    }
    return 1;
}

void fos_show(struct fos_context *context, struct fos_mount *mount, uint64_t inode, long fd, const char *path) {
    is_same(context, mount, inode, fd, path);
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
        struct fos_readdir_request from = {.cookie = cookie, .flags = FOS_READDIR_SHORT};
        memcpy(fos_payload(request), &from, sizeof from);
        request->length = sizeof from;
        request->bulk_offset = 0;
        request->bulk_length = 65536;
        if (fos_send(context, mount) < 0) return NULL;
        const uint8_t *records = fos_bulk_of(context, mount);
        size_t bytes = fos_answer(context, mount)->bulk_length, at = 0;
        if (bytes == 0) return NULL;
        while (at < bytes) {
            struct fos_directory_entry record;
            const char *name = fos_listed(records + at, bytes - at, &record);
            if (name == NULL) return NULL;
            if (record.inode == child && end - start > record.name_length) return memcpy(end - record.name_length, name, record.name_length);
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
        char *end = at + fos_length_within(at, FOS_PATH_BYTES - 1), *next = end;
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

long fos_reopen(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file) {
    int flags = (int)file->flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW);
    flags |= O_CLOEXEC | O_NOCTTY | (file->is_directory ? O_DIRECTORY : 0);
    if (file->path_length > 0) {
        long fd = fos_raw(SYS_openat, AT_FDCWD, file->path, flags);
        if (fd >= 0) {
            if (is_same(context, mount, file->inode, fd, "")) return fd;
            fos_raw(SYS_close, fd);
        }
    }
    if (mount->path_length + 40 > FOS_PATH_BYTES) return -ENAMETOOLONG;
    number_path(context, mount, file->inode);
    // A directory has one place in the tree. The daemon opens one by its number if it has none any more, and files.
    long fd = file->is_directory && fos_file_usable(file) != NULL ? climb(context, mount, file, flags) : -ENOENT;
    if (fd == -ENOENT) fd = fos_raw(SYS_openat, AT_FDCWD, context->text, flags);
    if (fd < 0 || is_same(context, mount, file->inode, fd, "")) return fd;
    fos_raw(SYS_close, fd);
    return -ESTALE;
}

// Under the description's lock: a descriptor of the kernel's takes every number over. 0 or -errno.
static long back(struct fos_context *context, struct fos_mount *mount, struct fos_file *file) {
    if (file->backing == FOS_BACKING_DONE) return 0;
    long fd = fos_reopen(context, mount, file);
    if (fd < 0) return fd;
    // From here on whoever makes a number more looks again once it is in the table.
    __atomic_store_n(&file->backing, FOS_BACKING_BEGINS, __ATOMIC_SEQ_CST);
    int highest = fos_table_highest();
    for (int number = 0; number <= highest; number++) {
        struct fos_file *here = fos_file_get(number);
        if (here == file) {
            long kept = fos_raw(SYS_fcntl, number, F_GETFD);
            fos_raw(SYS_dup3, fd, number, kept > 0 && (kept & FD_CLOEXEC) ? O_CLOEXEC : 0);
        }
        if (here != NULL) fos_file_put(context, here);
    }
    fos_raw(SYS_close, fd);
    __atomic_store_n(&file->backing, FOS_BACKING_DONE, __ATOMIC_SEQ_CST);
    return 0;
}

void fos_follow_backing(struct fos_context *context, struct fos_file *file, uint32_t before, long fd, long made, long flags) {
    if (before == FOS_BACKING_DONE || __atomic_load_n(&file->backing, __ATOMIC_SEQ_CST) == FOS_BACKING_NONE) return;
    if (context != NULL) {
        fos_file_lock(context, file);
        fos_file_unlock(context, file);
    }
    fos_raw(SYS_dup3, fd, made, flags);
}

void fos_show_size(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file, long fd) {
    if (file->backing == FOS_BACKING_DONE && is_same(context, mount, file->inode, fd, "")) return;
    if (file->path_length > 0 && is_same(context, mount, file->inode, AT_FDCWD, file->path)) return;
    number_path(context, mount, file->inode);
    is_same(context, mount, file->inode, AT_FDCWD, context->text);
}

// The kernel's description behind a number becomes what ours is. `was_backed`: it was opened some time ago.
static void bring_along(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file, int number, int was_backed) {
    if (file->offset != 0 || was_backed) fos_raw(SYS_lseek, number, file->offset, SEEK_SET);
    if (!was_backed) return;
    fos_raw(SYS_fcntl, number, F_SETFL, (long)file->flags);
    // What the kernel knows is from when the descriptor was opened.
    is_same(context, mount, file->inode, number, "");
}

static int asks(int number) {
    struct statx known;
    return fos_raw(SYS_statx, number, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &known) == 0;
}

// A file that stayed known after a fork is the kernel's altogether from here on.
static void let_go(struct fos_context *context, struct fos_mount *mount, struct fos_file *file) {
    __atomic_store_n(&file->state, FOS_FILE_KERNEL, __ATOMIC_RELEASE);
    // In a forked child there is no connection to compare by: the kernel asks by itself.
    int is_served = fos_file_usable(file) != NULL, has_looked = 0;
    for (int number = 0; number <= fos_table_highest(); number++) {
        struct fos_file *here = fos_file_get(number);
        // What the kernel knows of the size is from before the messages: it would append there, and map no more.
        if (here == file && !has_looked) has_looked = is_served ? is_same(context, mount, file->inode, number, "") : asks(number);
        if (here == file) fos_table_clear(context, number);
        if (here != NULL) fos_file_put(context, here);
    }
    if (is_served) fos_give_back(context, mount, file->inode, file->flags);
}

// `keeps`: a file stays known, and its reference with it.
static long hand_over(struct fos_context *context, struct fos_file *file, int keeps) {
    struct fos_mount *mount = fos_file_mount(file);
    if (file->state == FOS_FILE_SHARED && !keeps) let_go(context, mount, file);
    if (file->state != FOS_FILE_MESSAGE) return 0;
    keeps = file->is_directory || (keeps && !fos_names_only(file) && fos_file_usable(file) != NULL);
    int was_backed = file->backing == FOS_BACKING_DONE;
    long result = back(context, mount, file);
    if (result < 0) return result;
    int highest = fos_table_highest();
    uint32_t numbers = 0;
    for (int number = 0; number <= highest; number++) {
        struct fos_file *here = fos_file_get(number);
        if (here == file && numbers++ == 0) {
            bring_along(context, mount, file, number, was_backed);
            // Only now: until its numbers were the kernel's, calls on them were answered here.
            __atomic_store_n(&file->state, keeps && !file->is_directory ? FOS_FILE_SHARED : FOS_FILE_KERNEL, __ATOMIC_RELEASE);
        }
        if (here == file && !keeps) fos_table_clear(context, number);
        if (here != NULL) fos_file_put(context, here);
    }
    // The kernel's own reference keeps the inode from here on.
    if (numbers > 0 && !keeps && fos_file_usable(file) != NULL) fos_give_back(context, mount, file->inode, file->flags);
    fos_tally_add(&fos_tally->materialised, 1);
    return 0;
}

static long materialise(struct fos_context *context, struct fos_file *file, int fd) {
    (void)fd;
    return hand_over(context, file, 0);
}
static long share(struct fos_context *context, struct fos_file *file, int fd) {
    (void)fd;
    return hand_over(context, file, 1);
}

typedef long file_action(struct fos_context *context, struct fos_file *file, int fd);

// Does it to the description behind a number, under its lock.
static long with_description(struct fos_context *context, long fd, file_action *action) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 0;
    struct fos_context *own = context == NULL ? fos_enter(SYS_dup3) : context;
    long result = -ENFILE;
    if (own != NULL) {
        fos_file_lock(own, file);
        result = action(own, file, (int)fd);
        fos_file_unlock(own, file);
    }
    fos_file_put(own, file);
    if (context == NULL && own != NULL) fos_leave(own);
    return result;
}

long fos_materialise(struct fos_context *context, long fd) { return with_description(context, fd, materialise); }

static long back_message(struct fos_context *context, struct fos_file *file, int fd) {
    (void)fd;
    return file->state != FOS_FILE_MESSAGE ? 0 : back(context, fos_file_mount(file), file);
}
long fos_back(struct fos_context *context, long fd) { return with_description(context, fd, back_message); }

static long back_whole(struct fos_context *context, struct fos_file *file, int fd) {
    struct fos_mount *mount = fos_file_mount(file);
    int was_backed = file->backing == FOS_BACKING_DONE;
    long result = file->state != FOS_FILE_MESSAGE ? -EBADF : back(context, mount, file);
    if (result == 0) bring_along(context, mount, file, fd, was_backed);
    return result;
}
long fos_back_whole(struct fos_context *context, long fd) { return with_description(context, fd, back_whole); }

long fos_back_all(uint64_t inode) {
    int highest = fos_table_highest();
    long result = 0;
    for (int number = 0; number <= highest && result == 0; number++) {
        struct fos_file *here = fos_file_get(number);
        if (here == NULL) continue;
        int backs = here->inode == inode && !here->is_directory && here->backing != FOS_BACKING_DONE;
        fos_file_put(NULL, here);
        if (backs) result = fos_back(NULL, number);
    }
    return result;
}

// 1: the next program goes on with what is behind the number, or does not get it.
static int stays_out(int fd) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 1;
    int is_left = file->goes_on != 0, is_shared = fos_file_state(file) == FOS_FILE_SHARED;
    fos_file_put(NULL, file);
    return is_left || (!is_shared && (fos_raw(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC) != 0);
}

int fos_materialise_all(struct fos_context *context, int inherited_only) {
    int highest = fos_table_highest(), made = 0;
    for (int fd = 0; fd <= highest; fd++) {
        if (!fos_ours(fd)) continue;
        if (inherited_only && stays_out(fd)) continue;
        int was_kernels = fos_is_kernels(fd);
        long result = inherited_only ? fos_materialise(context, fd) : with_description(context, fd, share);
        made += !was_kernels && result == 0;
    }
    return made;
}

long fos_via_kernel(struct fos_call *call, uint32_t fd_mask, enum fos_bypass reason) {
    int some = 0;
    long result = 0;
    for (int i = 0; i < 6; i++) {
        if ((fd_mask >> i & 1) != 0 && __builtin_expect(fos_handed_count != 0, 0)) fos_handed_forget((int)call->arguments[i]);
        if ((fd_mask >> i & 1) == 0 || !fos_ours((int)call->arguments[i])) continue;
        some = 1;
        long made = fos_materialise(NULL, (int)call->arguments[i]);
        if (made < 0) result = made;
    }
    if (some) fos_bypass(reason, call->number);
    return result < 0 ? result : FOS_PASS;
}
