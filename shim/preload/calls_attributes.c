// Attributes: the stat family, access, mode, owner, times.
#define _GNU_SOURCE
#include <utime.h>
#include "calls.h"

enum { BLOCK_BYTES = 4096, ALL_BITS = 07777 };

static const char *path_argument(struct fos_call *call, int index) { return (const char *)call->arguments[index]; }

// ---- showing --------------------------------------------------------------------------------------------------------

// The wire has devices as the kernel encodes them in 32 bits; statx shows the parts.
static uint32_t device_major(uint32_t device) { return device >> 8 & 0xfff; }
static uint32_t device_minor(uint32_t device) { return (device & 0xff) | (device >> 12 & 0xfff00); }

static struct timespec time_of(const struct fos_time *time) {
    return (struct timespec){.tv_sec = time->seconds, .tv_nsec = time->nanoseconds};
}

void fos_fill_stat(const struct fos_mount *mount, const struct fos_attributes *attributes, struct stat *to) {
    memset(to, 0, sizeof *to);
    to->st_dev = mount->device;
    to->st_ino = attributes->inode;
    to->st_mode = attributes->mode;
    to->st_nlink = attributes->links;
    to->st_uid = attributes->uid;
    to->st_gid = attributes->gid;
    to->st_rdev = attributes->device;
    to->st_size = (off_t)attributes->size;
    to->st_blksize = BLOCK_BYTES;
    to->st_blocks = (blkcnt_t)attributes->blocks;
    to->st_atim = time_of(&attributes->accessed);
    to->st_mtim = time_of(&attributes->modified);
    to->st_ctim = time_of(&attributes->changed);
}

static struct statx_timestamp statx_time(const struct fos_time *time) {
    return (struct statx_timestamp){.tv_sec = time->seconds, .tv_nsec = time->nanoseconds};
}

static void fill_statx(const struct fos_mount *mount, const struct fos_attributes *attributes, struct statx *to) {
    memset(to, 0, sizeof *to);
    to->stx_mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
    to->stx_blksize = BLOCK_BYTES;
    to->stx_nlink = attributes->links;
    to->stx_uid = attributes->uid;
    to->stx_gid = attributes->gid;
    to->stx_mode = (uint16_t)attributes->mode;
    to->stx_ino = attributes->inode;
    to->stx_size = attributes->size;
    to->stx_blocks = attributes->blocks;
    to->stx_attributes_mask = STATX_ATTR_MOUNT_ROOT;
    if (attributes->inode == FOS_ROOT_INODE) to->stx_attributes = STATX_ATTR_MOUNT_ROOT;
    to->stx_atime = statx_time(&attributes->accessed);
    to->stx_btime = statx_time(&attributes->born);
    to->stx_ctime = statx_time(&attributes->changed);
    to->stx_mtime = statx_time(&attributes->modified);
    to->stx_rdev_major = device_major(attributes->device);
    to->stx_rdev_minor = device_minor(attributes->device);
    to->stx_dev_major = mount->device_major;
    to->stx_dev_minor = mount->device_minor;
    to->stx_mnt_id = mount->mount_id;
}

// The attributes of what a path leads to; of a sharded directory exact ones, unless the caller is content with what was
// known last (statx(2) AT_STATX_DONT_SYNC). 0, -errno or FOS_PASS.
static long find(struct fos_context *context, long directory, const char *path, int flags, struct fos_place *place) {
    uint32_t walk = (flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : FOS_WALK_FOLLOW | FOS_WALK_DESCRIPTOR;
    if ((flags & AT_EMPTY_PATH) != 0) {
        walk |= FOS_WALK_EMPTY;
        if (path == NULL) path = "";
    }
    long result = fos_walk(context, directory, path, walk, place);
    if (result != 0 || (place->attributes.flags & FOS_ATTRIBUTES_INEXACT) == 0 || (flags & AT_STATX_DONT_SYNC) != 0) return result;
    result = fos_get_attributes(context, place->mount, place->attributes.inode, &place->attributes);
    return result == -ESTALE ? -ENOENT : result;
}

static long show(struct fos_call *call, long directory, const char *path, int flags, struct stat *to) {
    if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find(context, directory, path, flags, &place);
    if (result == 0) {
        if (fos_bad_pointer(to)) result = -EFAULT;
        else fos_fill_stat(place.mount, &place.attributes, to);
    }
    fos_leave(context);
    return result;
}

long fos_stat(struct fos_call *call) { return show(call, AT_FDCWD, path_argument(call, 0), 0, (struct stat *)call->arguments[1]); }
long fos_lstat(struct fos_call *call) { return show(call, AT_FDCWD, path_argument(call, 0), AT_SYMLINK_NOFOLLOW, (struct stat *)call->arguments[1]); }
long fos_newfstatat(struct fos_call *call) {
    long directory = (int)call->arguments[0];
    const char *path = path_argument(call, 1);
    // What glibc makes of fstat: of a stranger's descriptor, nothing to do here.
    if ((call->arguments[3] & AT_EMPTY_PATH) != 0 && directory >= 0 && !fos_ours(directory) && (path == NULL || (!fos_bad_pointer(path) && path[0] == 0))) return FOS_PASS;
    return show(call, directory, path, (int)call->arguments[3], (struct stat *)call->arguments[2]);
}

long fos_fstat(struct fos_call *call) {
    struct fos_use use;
    struct fos_attributes attributes;
    long result = fos_begin_by_name(call, call->arguments[0], &use);
    if (result != 0) return result;
    result = fos_get_attributes(use.context, use.mount, use.file->inode, &attributes);
    if (result == 0) {
        if (fos_bad_pointer((void *)call->arguments[1])) result = -EFAULT;
        else fos_fill_stat(use.mount, &attributes, (struct stat *)call->arguments[1]);
    }
    return fos_end(&use, result);
}

long fos_statx(struct fos_call *call) {
    enum { KNOWN = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE };
    int flags = (int)call->arguments[2];
    struct statx *to = (struct statx *)call->arguments[4];
    if ((flags & ~KNOWN) != 0 || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE || (call->arguments[3] & ~(STATX_ALL | STATX_MNT_ID)) != 0) {
        return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    }
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find(context, (int)call->arguments[0], path_argument(call, 1), flags, &place);
    if (result == 0) {
        if (fos_bad_pointer(to)) result = -EFAULT;
        else fill_statx(place.mount, &place.attributes, to);
    }
    fos_leave(context);
    return result;
}

// ---- access ---------------------------------------------------------------------------------------------------------

// access(2) asks for the real user, the servers know the effective one.
static int real_is_effective(void) {
    uint32_t user[3], group[3];
    fos_raw(SYS_getresuid, &user[0], &user[1], &user[2]);
    fos_raw(SYS_getresgid, &group[0], &group[1], &group[2]);
    return user[0] == user[1] && group[0] == group[1];
}

static long may(struct fos_call *call, long directory, const char *path, uint32_t wanted, int flags) {
    if ((wanted & ~7u) != 0 || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find(context, directory, path, flags, &place);
    if (result == 0 && (flags & AT_EACCESS) == 0 && !real_is_effective()) {
        result = fos_hand_over(context, directory, FOS_BYPASS_IDENTITY);
    } else if (result == 0 && wanted != 0) {
        if (fos_identity.group_count >= 0) {
            result = fos_may(wanted, &place.attributes) ? 0 : -EACCES;
        } else {
            struct fos_message *request = fos_build(context, place.mount, FOS_OP_ACCESS, place.attributes.inode);
            request->flags = (uint16_t)wanted;
            result = fos_send(context, place.mount);
        }
    }
    fos_leave(context);
    return result;
}

long fos_access(struct fos_call *call) { return may(call, AT_FDCWD, path_argument(call, 0), (uint32_t)call->arguments[1], 0); }
long fos_faccessat(struct fos_call *call) { return may(call, (int)call->arguments[0], path_argument(call, 1), (uint32_t)call->arguments[2], 0); }
long fos_faccessat2(struct fos_call *call) {
    return may(call, (int)call->arguments[0], path_argument(call, 1), (uint32_t)call->arguments[2], (int)call->arguments[3]);
}

// ---- changing -------------------------------------------------------------------------------------------------------

long fos_set_attributes(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const struct fos_setattr_request *set) {
    struct fos_message *request = fos_build(context, mount, FOS_OP_SETATTR, inode);
    fos_put_fixed(request, set, sizeof *set);
    fos_delegation_may_go(context);
    int status = fos_send(context, mount);
    struct fos_attributes attributes;
    if (status == 0) status = fos_take_attributes(mount, fos_answer(context, mount), &attributes);
    if (status == 0) fos_take_delegation(context, mount, fos_answer(context, mount), &attributes, 1);
    return status;
}

// 1: the change needs no message.
static int leave_change(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const struct fos_setattr_request *set) {
    return context->delegation != 0 && fos_delegated_set(context, mount, inode, set);
}

// A file whose mode its opener could not open it with any more becomes the kernel's while it still can.
static void keep_reachable(struct fos_context *context, const struct fos_mount *mount, uint64_t inode) {
    if (fos_identity.uid == 0) return;
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *file = fos_file_get(fd);
        if (file == NULL) continue;
        // A name needs no permission to be opened by again.
        int same = file->inode == inode && file->mount == mount->index && !fos_names_only(file);
        fos_file_put(context, file);
        if (same) fos_materialise(context, fd);
    }
}

static int changes_access(const struct fos_setattr_request *set) {
    return (set->valid & (FOS_SET_MODE | FOS_SET_UID | FOS_SET_GID)) != 0;
}

// Has the kernel look at what a path has led to.
static void show_changed(struct fos_context *context, const struct fos_place *place, long directory, const char *path) {
    struct fos_file *named = place->descriptor < 0 ? NULL : fos_file_get(place->descriptor);
    if (named != NULL) {
        if (named->inode == place->attributes.inode) fos_show_size(context, place->mount, named, place->descriptor);
        fos_file_put(context, named);
    } else if (fos_absolute_path(directory, path == NULL ? "" : path, context->text, sizeof context->text) > 0) {
        fos_show(context, place->mount, place->attributes.inode, AT_FDCWD, context->text);
    }
}

static long change_path(struct fos_call *call, long directory, const char *path, int flags, struct fos_setattr_request *set) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = -ESTALE;
    for (int attempt = 0; result == -ESTALE && attempt < FOS_WALKS_MAX; attempt++) {
        result = find(context, directory, path, flags, &place);
        if (result != 0) break;
        int link = (place.attributes.mode & S_IFMT) == S_IFLNK;
        // The mode of a link: the kernel has its own answer.
        if (link && (set->valid & FOS_SET_MODE) != 0) {
            result = fos_hand_over(context, directory, FOS_BYPASS_UNHANDLED);
        } else {
            if (changes_access(set)) keep_reachable(context, place.mount, place.attributes.inode);
            if (leave_change(context, place.mount, place.attributes.inode, set)) break;
            result = fos_set_attributes(context, place.mount, place.attributes.inode, set);
            if (result == 0 && (fos_answer(context, place.mount)->flags & FOS_REPLY_LOOK_AGAIN) != 0) show_changed(context, &place, directory, path);
        }
    }
    fos_leave(context);
    if (result == FOS_PASS) return fos_pass_looking(directory, path, flags);
    return result == -ESTALE ? -ENOENT : result;
}

static long change_file(struct fos_call *call, long fd, struct fos_setattr_request *set) {
    struct fos_use use;
    long result = fos_begin(call, fd, &use);
    if (result == FOS_PASS) return fos_pass_looking(fd, NULL, 0);
    if (result != 0) return result;
    if (changes_access(set)) keep_reachable(use.context, use.mount, use.file->inode);
    if (leave_change(use.context, use.mount, use.file->inode, set)) return fos_end(&use, 0);
    result = fos_set_attributes(use.context, use.mount, use.file->inode, set);
    if (result == 0) fos_show_if_due(&use);
    return fos_end(&use, result);
}

static struct fos_setattr_request mode_of(long mode) { return (struct fos_setattr_request){.valid = FOS_SET_MODE, .mode = (uint32_t)mode & ALL_BITS}; }

long fos_chmod(struct fos_call *call) {
    struct fos_setattr_request set = mode_of(call->arguments[1]);
    return change_path(call, AT_FDCWD, path_argument(call, 0), 0, &set);
}
long fos_fchmod(struct fos_call *call) {
    struct fos_setattr_request set = mode_of(call->arguments[1]);
    return change_file(call, call->arguments[0], &set);
}
long fos_fchmodat(struct fos_call *call) {
    struct fos_setattr_request set = mode_of(call->arguments[2]);
    return change_path(call, (int)call->arguments[0], path_argument(call, 1), 0, &set);
}
long fos_fchmodat2(struct fos_call *call) {
    struct fos_setattr_request set = mode_of(call->arguments[2]);
    if ((call->arguments[3] & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return change_path(call, (int)call->arguments[0], path_argument(call, 1), (int)call->arguments[3], &set);
}

// 0: neither is given, which still has effects that are the kernel's to know.
static int owner_of(long uid, long gid, struct fos_setattr_request *set) {
    *set = (struct fos_setattr_request){.uid = (uint32_t)uid, .gid = (uint32_t)gid};
    if ((uint32_t)uid != UINT32_MAX) set->valid |= FOS_SET_UID;
    if ((uint32_t)gid != UINT32_MAX) set->valid |= FOS_SET_GID;
    return set->valid != 0;
}

long fos_chown(struct fos_call *call) {
    struct fos_setattr_request set;
    if (!owner_of(call->arguments[1], call->arguments[2], &set)) return fos_via_kernel(call, 0, FOS_BYPASS_UNHANDLED);
    return change_path(call, AT_FDCWD, path_argument(call, 0), 0, &set);
}
long fos_lchown(struct fos_call *call) {
    struct fos_setattr_request set;
    if (!owner_of(call->arguments[1], call->arguments[2], &set)) return fos_via_kernel(call, 0, FOS_BYPASS_UNHANDLED);
    return change_path(call, AT_FDCWD, path_argument(call, 0), AT_SYMLINK_NOFOLLOW, &set);
}
long fos_fchown(struct fos_call *call) {
    struct fos_setattr_request set;
    if (!owner_of(call->arguments[1], call->arguments[2], &set)) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return change_file(call, call->arguments[0], &set);
}
long fos_fchownat(struct fos_call *call) {
    struct fos_setattr_request set;
    int flags = (int)call->arguments[4];
    if (!owner_of(call->arguments[2], call->arguments[3], &set) || (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return change_path(call, (int)call->arguments[0], path_argument(call, 1), flags, &set);
}

// ---- times ----------------------------------------------------------------------------------------------------------

// Both times of a call: given, now, or left. 0 or -EINVAL.
static long times_of(const struct timespec given[2], struct fos_setattr_request *set) {
    *set = (struct fos_setattr_request){.valid = 0};
    if (given == NULL) {
        set->valid = FOS_SET_ACCESSED_NOW | FOS_SET_MODIFIED_NOW;
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        if (given[i].tv_nsec == UTIME_OMIT) continue;
        if (given[i].tv_nsec == UTIME_NOW) {
            set->valid |= i == 0 ? FOS_SET_ACCESSED_NOW : FOS_SET_MODIFIED_NOW;
            continue;
        }
        if (given[i].tv_nsec < 0 || given[i].tv_nsec > 999999999) return -EINVAL;
        *(i == 0 ? &set->accessed : &set->modified) = (struct fos_time){.seconds = given[i].tv_sec, .nanoseconds = (uint32_t)given[i].tv_nsec};
        set->valid |= i == 0 ? FOS_SET_ACCESSED : FOS_SET_MODIFIED;
    }
    return 0;
}

static long set_times(struct fos_call *call, long directory, const char *path, const struct timespec *given, int flags) {
    struct fos_setattr_request set;
    if (times_of(given, &set) != 0) return -EINVAL;
    // Nothing to do: not even the path is looked at.
    if (set.valid == 0) return 0;
    if (path == NULL && (int)directory != AT_FDCWD) return flags != 0 ? -EINVAL : change_file(call, directory, &set);
    return change_path(call, directory, path, flags, &set);
}

long fos_utimensat(struct fos_call *call) {
    const struct timespec *given = (const struct timespec *)call->arguments[2];
    int flags = (int)call->arguments[3];
    if ((given != NULL && fos_bad_pointer(given)) || (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return set_times(call, (int)call->arguments[0], path_argument(call, 1), given, flags);
}

// The older calls count in microseconds or seconds.
static long set_times_micro(struct fos_call *call, long directory, const char *path, const struct timeval *given) {
    if (given == NULL) return set_times(call, directory, path, NULL, 0);
    if (fos_bad_pointer(given)) return FOS_PASS;
    struct timespec times[2];
    for (int i = 0; i < 2; i++) {
        if (given[i].tv_usec < 0 || given[i].tv_usec > 999999) return -EINVAL;
        times[i] = (struct timespec){.tv_sec = given[i].tv_sec, .tv_nsec = given[i].tv_usec * 1000};
    }
    return set_times(call, directory, path, times, 0);
}
long fos_utimes(struct fos_call *call) { return set_times_micro(call, AT_FDCWD, path_argument(call, 0), (const struct timeval *)call->arguments[1]); }
long fos_futimesat(struct fos_call *call) {
    return set_times_micro(call, (int)call->arguments[0], path_argument(call, 1), (const struct timeval *)call->arguments[2]);
}
long fos_utime(struct fos_call *call) {
    const struct utimbuf *given = (const struct utimbuf *)call->arguments[1];
    if (given == NULL) return set_times(call, AT_FDCWD, path_argument(call, 0), NULL, 0);
    if (fos_bad_pointer(given)) return FOS_PASS;
    struct timespec times[2] = {{.tv_sec = given->actime}, {.tv_sec = given->modtime}};
    return set_times(call, AT_FDCWD, path_argument(call, 0), times, 0);
}
