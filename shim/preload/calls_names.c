// Names: mkdir, mknod, unlink, rmdir, rename, link, symlink, readlink.
//
// Each is one message to the directory's owner, with the last component of the path as its name. Paths that end in
// something else than a name (dots, the root), or in a slash where only the kernel's own rules say what that means, are
// the kernel's.
#define _GNU_SOURCE
#include "calls.h"
#include "words.h"

enum { RENAME_FLAGS = 1 | 2 };  // NOREPLACE, EXCHANGE

static const char *path_argument(struct fos_call *call, int index) { return (const char *)call->arguments[index]; }

// Walks to the directory of a last name. 0, -errno or FOS_PASS.
static long find_name(struct fos_context *context, long directory, const char *path, int slash_allowed, struct fos_place *place) {
    long result = fos_walk(context, directory, path, FOS_WALK_PARENT, place);
    if (result == 0 && (place->name_length == 0 || (place->slash && !slash_allowed))) return fos_hand_over(context, directory, FOS_BYPASS_UNHANDLED);
    return result;
}

// An operation whose payload is a fixed part and the name.
static long send_name(struct fos_context *context, const struct fos_place *place, uint16_t operation, const void *fixed, uint32_t fixed_length) {
    struct fos_message *request = fos_build(context, place->mount, operation, place->parent);
    fos_put_named(request, fixed, fixed_length, place->name, place->name_length);
    int status = fos_send(context, place->mount);
    if (status == 0) fos_take_change(place->mount, fos_answer(context, place->mount), operation, place);
    // The directory went after the walk.
    return status == -ESTALE ? -ENOENT : status;
}

// ---- making ---------------------------------------------------------------------------------------------------------

static long make(struct fos_call *call, long directory, const char *path, uint16_t operation, uint32_t mode, uint32_t device) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find_name(context, directory, path, operation == FOS_OP_MKDIR, &place);
    // Programs make sure of a directory by making it each time; that a name is there comes before all other reasons to refuse.
    if (result == 0 && operation == FOS_OP_MKDIR && fos_is_entry(place.mount, place.parent, place.name, place.name_length)) result = -EEXIST;
    if (result == 0) {
        struct fos_make_request make = {.mode = mode, .umask = fos_umask, .device = device, .name_length = place.name_length};
        result = send_name(context, &place, operation, &make, sizeof make);
    }
    fos_leave(context);
    return result;
}
long fos_mkdir(struct fos_call *call) { return make(call, AT_FDCWD, path_argument(call, 0), FOS_OP_MKDIR, (uint32_t)call->arguments[1] & 07777, 0); }
long fos_mkdirat(struct fos_call *call) {
    return make(call, (int)call->arguments[0], path_argument(call, 1), FOS_OP_MKDIR, (uint32_t)call->arguments[2] & 07777, 0);
}
long fos_mknod(struct fos_call *call) {
    return make(call, AT_FDCWD, path_argument(call, 0), FOS_OP_MKNOD, (uint32_t)call->arguments[1] & (S_IFMT | 07777), (uint32_t)call->arguments[2]);
}
long fos_mknodat(struct fos_call *call) {
    return make(call, (int)call->arguments[0], path_argument(call, 1), FOS_OP_MKNOD, (uint32_t)call->arguments[2] & (S_IFMT | 07777), (uint32_t)call->arguments[3]);
}

static long make_symlink(struct fos_call *call, const char *target, long directory, const char *path) {
    if (fos_bad_pointer(target)) return fos_via_kernel(call, 2, FOS_BYPASS_UNHANDLED);
    size_t length = fos_length_within(target, FOS_PATH_BYTES);
    if (length == 0) return -ENOENT;
    if (length >= FOS_PATH_BYTES) return -ENAMETOOLONG;
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find_name(context, directory, path, 0, &place);
    if (result == 0) {
        struct fos_symlink_request link = {.name_length = place.name_length, .target_length = (uint32_t)length};
        struct fos_message *request = fos_build(context, place.mount, FOS_OP_SYMLINK, place.parent);
        fos_put_named(request, &link, sizeof link, place.name, place.name_length);
        memcpy(fos_bulk_of(context, place.mount), target, length);
        request->bulk_offset = 0;
        request->bulk_length = (uint32_t)length;
        result = fos_send(context, place.mount);
        if (result == 0) fos_take_change(place.mount, fos_answer(context, place.mount), FOS_OP_SYMLINK, &place);
        if (result == -ESTALE) result = -ENOENT;
    }
    fos_leave(context);
    return result;
}
long fos_symlink(struct fos_call *call) { return make_symlink(call, path_argument(call, 0), AT_FDCWD, path_argument(call, 1)); }
long fos_symlinkat(struct fos_call *call) { return make_symlink(call, path_argument(call, 0), (int)call->arguments[1], path_argument(call, 2)); }

static long read_link(struct fos_call *call, long directory, const char *path, char *to, long room) {
    if (room <= 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = -ESTALE;
    for (int attempt = 0; result == -ESTALE && attempt < FOS_WALKS_MAX; attempt++) {
        result = fos_walk(context, directory, path, 0, &place);
        if (result == 0 && (place.attributes.mode & S_IFMT) != S_IFLNK) result = -EINVAL;
        if (result != 0) break;
        result = fos_link_target(context, place.mount, place.attributes.inode);
        if (result >= 0) {
            if (result > room) result = room;
            if (fos_bad_pointer(to)) result = -EFAULT;
            else memcpy(to, fos_bulk_of(context, place.mount), (size_t)result);
        }
    }
    fos_leave(context);
    return result == -ESTALE ? -ENOENT : result;
}
long fos_readlink(struct fos_call *call) {
    return read_link(call, AT_FDCWD, path_argument(call, 0), (char *)call->arguments[1], (int)call->arguments[2]);
}
long fos_readlinkat(struct fos_call *call) {
    // An empty path asks about the descriptor itself, which is a link only if O_PATH made it: never one of ours.
    return read_link(call, (int)call->arguments[0], path_argument(call, 1), (char *)call->arguments[2], (int)call->arguments[3]);
}

// ---- removing -------------------------------------------------------------------------------------------------------

static long take_away(struct fos_call *call, long directory, const char *path, uint16_t operation) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place place;
    long result = find_name(context, directory, path, operation == FOS_OP_RMDIR, &place);
    if (result == 0) result = send_name(context, &place, operation, "", 0);
    if (result == 0) fos_references_settle(context, 0);
    fos_leave(context);
    return result;
}
long fos_unlink(struct fos_call *call) { return take_away(call, AT_FDCWD, path_argument(call, 0), FOS_OP_UNLINK); }
long fos_rmdir(struct fos_call *call) { return take_away(call, AT_FDCWD, path_argument(call, 0), FOS_OP_RMDIR); }
long fos_unlinkat(struct fos_call *call) {
    if ((call->arguments[2] & ~AT_REMOVEDIR) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    return take_away(call, (int)call->arguments[0], path_argument(call, 1), call->arguments[2] != 0 ? FOS_OP_RMDIR : FOS_OP_UNLINK);
}

// ---- two names ------------------------------------------------------------------------------------------------------

// Leaves both paths to the kernel. It looks at them first: a directory that was moved by message it may still hold at its old
// place, and could not move from there while it is at work on names (ESTALE).
static long hand_over_both(struct fos_context *context, long first, const char *first_path, long second, const char *second_path) {
    long result = FOS_PASS, made;
    if (fos_ours((int)first) && (made = fos_hand_over(context, first, FOS_BYPASS_UNHANDLED)) != FOS_PASS) result = made;
    if (fos_ours((int)second) && (made = fos_hand_over(context, second, FOS_BYPASS_UNHANDLED)) != FOS_PASS) result = made;
    fos_path_to_kernel(context, first_path);
    fos_path_to_kernel(context, second_path);
    if (result != FOS_PASS) return result;
    fos_pass_looking(first, first_path, AT_SYMLINK_NOFOLLOW);
    return fos_pass_looking(second, second_path, AT_SYMLINK_NOFOLLOW);
}

static long rename_name(struct fos_call *call, long from, const char *old, long to, const char *new, uint32_t flags) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place source, target;
    long result = FOS_PASS;
    if ((flags & ~(uint32_t)RENAME_FLAGS) == 0 && flags != RENAME_FLAGS) result = fos_walk(context, from, old, FOS_WALK_PARENT, &source);
    if (result == 0) result = fos_walk(context, to, new, FOS_WALK_PARENT, &target);
    // Slashes at the end ask for a directory, dots are refused in ways of the kernel's, and two file systems differ.
    int odd = result == 0 && (source.name_length == 0 || target.name_length == 0 || source.slash || target.slash || source.mount != target.mount);
    if (result == FOS_PASS || odd) {
        result = hand_over_both(context, from, old, to, new);
    } else if (result == 0) {
        struct fos_rename_request rename = {.new_parent = target.parent, .flags = flags, .old_length = source.name_length, .new_length = target.name_length};
        struct fos_message *request = fos_build(context, source.mount, FOS_OP_RENAME, source.parent);
        uint8_t *payload = fos_payload(request);
        memcpy(payload, &rename, sizeof rename);
        memcpy(payload + sizeof rename, source.name, source.name_length);
        memcpy(payload + sizeof rename + source.name_length, target.name, target.name_length);
        request->length = (uint32_t)sizeof rename + source.name_length + target.name_length;
        result = fos_send(context, source.mount);
        if (result == -ESTALE) result = -ENOENT;
        if (result == 0) {
            fos_take_rename(source.mount, fos_answer(context, source.mount), &source, &target);
            fos_references_settle(context, 0);
        }
        // Which of several errors comes first is the kernel's order, when one name lies above the other.
        if (result == -EISDIR || result == -ENOTDIR || result == -ENOTEMPTY || result == -EINVAL) result = hand_over_both(context, from, old, to, new);
    }
    fos_leave(context);
    return result;
}
long fos_rename(struct fos_call *call) { return rename_name(call, AT_FDCWD, path_argument(call, 0), AT_FDCWD, path_argument(call, 1), 0); }
long fos_renameat(struct fos_call *call) {
    return rename_name(call, (int)call->arguments[0], path_argument(call, 1), (int)call->arguments[2], path_argument(call, 3), 0);
}
long fos_renameat2(struct fos_call *call) {
    return rename_name(call, (int)call->arguments[0], path_argument(call, 1), (int)call->arguments[2], path_argument(call, 3), (uint32_t)call->arguments[4]);
}

static long link_name(struct fos_call *call, long from, const char *old, long to, const char *new, int flags) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return fos_via_kernel(call, 0, FOS_BYPASS_LIMIT);
    struct fos_place source, target;
    long result = FOS_PASS;
    if ((flags & ~AT_SYMLINK_FOLLOW) == 0) result = fos_walk(context, from, old, flags != 0 ? FOS_WALK_FOLLOW : 0, &source);
    if (result == 0) result = fos_walk(context, to, new, FOS_WALK_PARENT, &target);
    // protected_hardlinks (proc(5)) is about links to other people's files.
    int odd = result == 0 && (target.name_length == 0 || target.slash || source.mount != target.mount
        || (fos_identity.uid != 0 && source.attributes.uid != fos_identity.uid));
    if (result == FOS_PASS || odd) {
        result = hand_over_both(context, from, old, to, new);
    } else if (result == 0) {
        struct fos_link_request link = {.target = source.attributes.inode, .name_length = target.name_length};
        result = send_name(context, &target, FOS_OP_LINK, &link, sizeof link);
    }
    fos_leave(context);
    return result;
}
long fos_link(struct fos_call *call) { return link_name(call, AT_FDCWD, path_argument(call, 0), AT_FDCWD, path_argument(call, 1), 0); }
long fos_linkat(struct fos_call *call) {
    return link_name(call, (int)call->arguments[0], path_argument(call, 1), (int)call->arguments[2], path_argument(call, 3), (int)call->arguments[4]);
}
