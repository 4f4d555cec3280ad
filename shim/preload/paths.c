// Paths: from what a program says to a directory's inode and a name in it.
//
// The shim walks the part of a path that lies on the mount. Whatever leaves it, or follows rules that only the kernel
// knows in full, is handed back: ".." above the root, an absolute link elsewhere, `.fos`, links in sticky directories
// (protected_symlinks). The kernel then walks the program's own path from its beginning, so nothing can get mixed up.
// Invariant: FOS_PASS is returned only after a directory argument of ours has become the kernel's.
#define _GNU_SOURCE
#include "calls.h"
#include "words.h"

enum { BYTES_LIMIT = FOS_PATH_BYTES };

long fos_hand_over(struct fos_context *context, long directory, enum fos_bypass reason) {
    long result = fos_ours((int)directory) ? fos_materialise(context, directory) : 0;
    if (result < 0) return result;
    fos_bypass(reason, context->number);
    return FOS_PASS;
}

long fos_pass_looking(long directory, const char *path, int flags) {
    struct stat seen;
    if (fos_load_relaxed_u32(&fos_mounts_used) == 0) return FOS_PASS;
    fos_raw(SYS_newfstatat, directory, path == NULL ? "" : path, &seen, path == NULL ? AT_EMPTY_PATH : flags);
    return FOS_PASS;
}

// ---- descriptors by name --------------------------------------------------------------------------------------------

static const char *after(const char *path, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(path, prefix, length) == 0 ? path + length : NULL;
}

// The number at the end of /proc/self/fd/N, /proc/thread-self/fd/N, /proc/PID/fd/N, /dev/fd/N or /dev/std*; -1: it is none.
static long named_descriptor(const char *path) {
    const char *rest = after(path, "/dev/");
    if (rest != NULL) {
        if (strcmp(rest, "stdin") == 0) return 0;
        if (strcmp(rest, "stdout") == 0) return 1;
        if (strcmp(rest, "stderr") == 0) return 2;
        rest = after(rest, "fd/");
    } else if ((rest = after(path, "/proc/")) != NULL) {
        const char *self = after(rest, "self/");
        if (self == NULL) self = after(rest, "thread-self/");
        if (self == NULL && *rest >= '1' && *rest <= '9') {
            long process = 0;
            for (; *rest >= '0' && *rest <= '9' && process < 1 << 24; rest++) process = process * 10 + (*rest - '0');
            if (*rest == '/' && process == fos_raw(SYS_getpid)) self = rest + 1;
        }
        rest = self == NULL ? NULL : after(self, "fd/");
        if (rest == NULL && self != NULL) rest = after(self, "fdinfo/");
    }
    if (rest == NULL || *rest < '0' || *rest > '9') return -1;
    long number = 0;
    for (; *rest >= '0' && *rest <= '9' && number < FOS_DESCRIPTORS_MAX; rest++) number = number * 10 + (*rest - '0');
    return *rest == 0 || *rest == '/' ? number : -1;
}

// The description that a path names from beginning to end, not what it says of the descriptor (fdinfo); NULL: it is none of ours.
static struct fos_file *named_file(const char *path, int32_t *fd) {
    long number = path[1] == 'p' || path[1] == 'd' ? named_descriptor(path) : -1;
    if (number < 0 || !fos_ours(number)) return NULL;
    size_t length = strlen(path), back = length;
    while (back > 0 && path[back - 1] >= '0' && path[back - 1] <= '9') back--;
    if (back == length || back < 4 || memcmp(path + back - 4, "/fd/", 4) != 0) return NULL;
    *fd = (int32_t)number;
    return fos_file_get(number);
}

void fos_path_to_kernel(struct fos_context *context, const char *path) {
    if (fos_bad_pointer(path) || path[0] != '/' || (path[1] != 'p' && path[1] != 'd') || fos_table_highest() < 0) return;
    long fd = named_descriptor(path);
    if (fd >= 0 && fos_ours(fd)) fos_materialise(context, fd);
}

// ---- remembered paths -----------------------------------------------------------------------------------------------

uint32_t fos_absolute_path(long directory, const char *path, char *text, uint32_t room) {
    struct fos_file *base = NULL;
    const char *front = "";
    size_t front_length = 0;
    if (path[0] != '/') {
        if ((int)directory == AT_FDCWD) {
            front = fos_cwd_path();
            front_length = fos_length(front);
        } else if ((base = fos_file_get((int)directory)) != NULL) {
            front = base->path;
            front_length = base->path_length;
        }
    }
    size_t length = fos_length(path), all = 0;
    if ((path[0] == '/' || front_length > 0) && front_length + length + 2 <= room) {
        memcpy(text, front, front_length);
        all = front_length;
        if (front_length > 0 && length > 0) text[all++] = '/';
        memcpy(text + all, path, length);
        all += length;
        text[all] = 0;
    }
    if (base != NULL) fos_file_put(NULL, base);
    return (uint32_t)all;
}

// ---- the walk -------------------------------------------------------------------------------------------------------

// What the walk knows of the directory it stands in.
struct position {
    uint64_t directory;
    uint32_t mode, uid;
    int known;  // mode and uid
};

static int only_looks(long number) {
    return number == SYS_stat || number == SYS_lstat || number == SYS_newfstatat || number == SYS_statx || number == SYS_access;
}

// Shells look at the directories that they stand in when they start, and often at nothing else on a mount. The kernel holds
// these directories and answers at once: no connection is made for them, at the start. 1: the path is left to the kernel.
static int needs_no_connection(struct fos_context *context, const char *path) {
    enum { FIRST_LOOKS = 16, IN_VAIN = 64 };
    static uint32_t looks, in_vain;  // those that this was true of, and those that the kernel was asked about to no purpose
    if (fos_load_relaxed_u32(&looks) >= FIRST_LOOKS || fos_load_relaxed_u32(&in_vain) >= IN_VAIN) return 0;
    if (!only_looks(context->number) || fos_mounts_in_use()) return 0;
    int stays = path[0] == '.' && path[1] == 0;
    if (!stays) {
        // A shell looks along the PATH for each command, mostly where no mount is served.
        if (path[0] != '/' || fos_is_system_path(path)) return 0;
        size_t length = strlen(path);
        stays = fos_raw(SYS_getcwd, context->text, sizeof context->text) > 0 && strncmp(context->text, path, length) == 0 &&
            (context->text[length] == '/' || context->text[length] == 0);
    }
    uint32_t *count = stays ? &looks : &in_vain;
    fos_store_relaxed_u32(count, fos_load_relaxed_u32(count) + 1);
    return stays;
}

// 1: the path names a description of ours, and the walk is at its end.
static int begin_at_descriptor(const char **path, struct fos_place *place, struct position *at) {
    struct fos_file *file = named_file(*path, &place->descriptor);
    if (file == NULL) return 0;
    place->mount = fos_by_message(file) ? fos_file_usable(file) : NULL;
    at->directory = file->inode;
    fos_file_put(NULL, file);
    if (place->mount == NULL) {
        place->descriptor = -1;
        return 0;
    }
    *path += strlen(*path);
    return 1;
}

// Where a walk begins. 0, -errno or FOS_PASS.
static long begin(struct fos_context *context, long directory, const char **path, uint32_t flags, struct fos_place *place, struct position *at) {
    const char *text = *path;
    if (fos_bad_pointer(text)) return fos_hand_over(context, directory, FOS_BYPASS_UNHANDLED);
    at->known = 0;
    if ((text[0] == '/' || (int)directory == AT_FDCWD) && needs_no_connection(context, text)) return FOS_PASS;
    if (text[0] == '/') {
        place->mount = fos_mount_of_path(text, path);
        at->directory = FOS_ROOT_INODE;
        if (place->mount != NULL) return 0;
        if ((flags & FOS_WALK_DESCRIPTOR) != 0 && begin_at_descriptor(path, place, at)) return 0;
        fos_path_to_kernel(context, text);
        return FOS_PASS;
    }
    if (text[0] == 0 && (flags & FOS_WALK_EMPTY) == 0) return -ENOENT;
    if ((int)directory == AT_FDCWD) {
        place->mount = fos_mount_of_relative(text, path, &at->directory);
        return place->mount == NULL ? FOS_PASS : 0;
    }
    struct fos_file *file = fos_file_get((int)directory);
    if (file == NULL) return FOS_PASS;
    long result = 0;
    place->mount = fos_file_reach(file);
    at->directory = file->inode;
    if (place->mount == NULL) result = file->state == FOS_FILE_MESSAGE ? -ENOTCONN : FOS_PASS;
    else if (!file->is_directory && text[0] != 0) result = -ENOTDIR;
    else if (!file->is_directory && !fos_by_message(file)) result = FOS_PASS;
    fos_file_put(context, file);
    return result;
}

long fos_link_target(struct fos_context *context, struct fos_mount *mount, uint64_t inode) {
    struct fos_message *request = fos_build(context, mount, FOS_OP_READLINK, inode);
    request->bulk_offset = 0;
    request->bulk_length = FOS_SYMLINK_BYTES_MAX;
    int status = fos_send(context, mount);
    if (status < 0) return status == -EINVAL ? -ESTALE : status;
    uint32_t length = fos_answer(context, mount)->bulk_length;
    return length > FOS_SYMLINK_BYTES_MAX ? -EIO : (long)length;
}

// Replaces the path by a link's target and what followed the link. 0, -errno or FOS_PASS.
static long expand(struct fos_context *context, struct fos_place *place, const char **path, struct position *at, int links) {
    if (links > FOS_SYMLINKS_MAX) return -ELOOP;
    struct fos_mount *mount = place->mount;
    long target = fos_link_target(context, mount, place->attributes.inode);
    if (target < 0) return target;
    size_t length = (size_t)target, rest = strlen(*path);
    if (length + rest + 2 > BYTES_LIMIT) return -ENAMETOOLONG;
    char *text = context->path[links & 1];
    memcpy(text, fos_bulk_of(context, mount), length);
    if (rest > 0) text[length++] = '/';
    memcpy(text + length, *path, rest + 1);
    text[length + rest] = 0;
    *path = text;
    if (text[0] != '/') return 0;
    struct fos_mount *where = fos_mount_of_path(text, path);
    if (where != mount) return FOS_PASS;
    at->directory = FOS_ROOT_INODE;
    at->known = 0;
    return 0;
}

// The walk ends at a name in the directory where it stands.
static void stop_at(struct fos_place *place, const struct position *at, const char *name, uint32_t length, int slash) {
    place->parent = at->directory;
    place->parent_known = (uint32_t)at->known;
    place->parent_mode = at->mode;
    place->parent_uid = at->uid;
    place->name_length = length;
    memcpy(place->name, name, length);
    place->name[length] = 0;
    place->slash = (uint32_t)slash;
}

static int is_type(const struct fos_attributes *attributes, uint32_t type) { return (attributes->mode & S_IFMT) == type; }

long fos_walk(struct fos_context *context, long directory, const char *path, uint32_t flags, struct fos_place *place) {
    struct position at;
    const char *rest = path;
    place->parent = place->name_length = place->found = place->slash = place->parent_known = 0;
    place->descriptor = -1;
    long result = begin(context, directory, &rest, flags, place, &at);
    if (result != 0) return result;
    if (fos_length_within(path, BYTES_LIMIT) == BYTES_LIMIT) return -ENAMETOOLONG;
    struct fos_mount *mount = place->mount;
    int links = 0;
    for (;;) {
        while (*rest == '/') rest++;
        if (*rest == 0) break;
        const char *name = rest;
        size_t length = fos_length_until(name, '/');
        if (length > FOS_NAME_BYTES_MAX) return -ENAMETOOLONG;
        rest = name + length;
        const char *next = rest;
        while (*next == '/') next++;
        int last = *next == 0;
        if (name[0] == '.' && length == 1) {
            // A file has no "." in it.
            if (at.known && (at.mode & S_IFMT) != S_IFDIR) return -ENOTDIR;
            continue;
        }
        int up = name[0] == '.' && name[1] == '.' && length == 2;
        if (at.directory == FOS_ROOT_INODE && (up || (length == 4 && memcmp(name, ".fos", 4) == 0))) return fos_hand_over(context, directory, FOS_BYPASS_LEAVES);
        if (last && !up && (flags & FOS_WALK_PARENT) != 0) {
            stop_at(place, &at, name, (uint32_t)length, *rest != 0);
            return 0;
        }
        // Whether it is there or not (open(2), path_resolution(7)).
        if (last && !up && *rest != 0 && (flags & FOS_WALK_CREATE) != 0) return -EISDIR;
        long found = fos_lookup_entry(context, mount, at.directory, name, (uint32_t)length, &place->attributes);
        if (last) fos_expect_request(&mount->client, (int)context->index);
        if (found == -ENOENT && last && (flags & FOS_WALK_CREATE) != 0) {
            stop_at(place, &at, name, (uint32_t)length, *rest != 0);
            return 0;
        }
        // The directory went while the walk stood in it: so does its name.
        if (found == -ESTALE) found = -ENOENT;
        if (found < 0) return found;
        if (is_type(&place->attributes, S_IFLNK) && (!last || (flags & FOS_WALK_FOLLOW) != 0 || *rest != 0)) {
            // protected_symlinks(5): the kernel knows whether the rule is on.
            if (!at.known) {
                struct fos_attributes here;
                if (fos_get_attributes(context, mount, at.directory, &here) == 0) at = (struct position){at.directory, here.mode, here.uid, 1};
            }
            if (!at.known || ((at.mode & (S_ISVTX | S_IWOTH)) == (S_ISVTX | S_IWOTH) && place->attributes.uid != fos_identity.uid && place->attributes.uid != at.uid)) {
                return fos_hand_over(context, directory, FOS_BYPASS_LEAVES);
            }
            result = expand(context, place, &rest, &at, ++links);
            // The link was removed or replaced after it was found: its name is looked up again.
            if (result == -ESTALE) {
                rest = name;
                continue;
            }
            if (result == FOS_PASS) return fos_hand_over(context, directory, FOS_BYPASS_LEAVES);
            if (result != 0) return result;
            continue;
        }
        if (last) {
            stop_at(place, &at, name, up ? 0 : (uint32_t)length, *rest != 0);
            if (up) place->parent = 0;
            place->found = 1;
            if (place->slash && !is_type(&place->attributes, S_IFDIR)) return -ENOTDIR;
            return 0;
        }
        if (!is_type(&place->attributes, S_IFDIR)) return -ENOTDIR;
        at = (struct position){place->attributes.inode, place->attributes.mode, place->attributes.uid, 1};
    }
    // The start itself, or what dots led back to.
    if ((flags & FOS_WALK_PARENT) != 0) {
        place->attributes.inode = at.directory;
        return 0;
    }
    result = fos_get_attributes(context, mount, at.directory, &place->attributes);
    place->found = result == 0;
    return result == -ESTALE ? -ENOENT : result;
}
