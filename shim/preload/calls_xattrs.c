// Extended attributes: get, set, list and remove, by path, by link and by descriptor.
#define _GNU_SOURCE
#include "calls.h"
#include "words.h"

enum { NAME_ROOM = FOS_NAME_BYTES_MAX + 1 };

// What an attribute call works on, and what with.
struct subject {
    struct fos_context *context;
    struct fos_mount *mount;
    uint64_t inode;
    struct fos_file *file;  // by descriptor
};

// By path (`follow` 0 or 1) or by descriptor (-1). 0, -errno or FOS_PASS; after 0, `done` must follow.
static long find(struct fos_call *call, int follow, struct subject *subject) {
    subject->file = NULL;
    if (follow < 0) {
        struct fos_use use;
        long result = fos_begin(call, call->arguments[0], &use);
        if (result == 0) *subject = (struct subject){use.context, use.mount, use.file->inode, use.file};
        return result;
    }
    struct fos_place place;
    subject->context = fos_enter(call->number);
    if (subject->context == NULL) return FOS_PASS;
    long result = fos_walk(subject->context, AT_FDCWD, (const char *)call->arguments[0], follow ? FOS_WALK_FOLLOW : 0, &place);
    subject->mount = place.mount;
    subject->inode = place.attributes.inode;
    if (result != 0) fos_leave(subject->context);
    return result;
}
// A change that the kernel makes.
static long pass_change(struct fos_call *call, int follow) {
    if (follow < 0) return fos_pass_looking(call->arguments[0], NULL, 0);
    return fos_pass_looking(AT_FDCWD, (const char *)call->arguments[0], follow ? 0 : AT_SYMLINK_NOFOLLOW);
}
static long done(struct subject *subject, long result) {
    if (subject->file != NULL) fos_file_put(subject->context, subject->file);
    fos_leave(subject->context);
    return result == -ESTALE ? -ENOENT : result;
}

// Begins a request with the attribute's name. NULL: the name is none; the kernel knows the error.
static struct fos_message *build(struct subject *subject, uint16_t operation, const char *name, uint32_t flags, uint32_t value_length) {
    size_t length = 0;
    if (name != NULL) {
        if (fos_bad_pointer(name)) return NULL;
        length = fos_length_within(name, NAME_ROOM);
        if (length == 0 || length >= NAME_ROOM) return NULL;
    }
    struct fos_message *request = fos_build(subject->context, subject->mount, operation, subject->inode);
    struct fos_xattr_request fixed = {.flags = flags, .name_length = (uint32_t)length, .value_length = value_length};
    memcpy(fos_payload(request), &fixed, sizeof fixed);
    memcpy((uint8_t *)fos_payload(request) + sizeof fixed, name, length);
    request->length = (uint32_t)(sizeof fixed + length);
    request->bulk_offset = 0;
    request->bulk_length = value_length;
    return request;
}

// Copies an answered value or list. Its size, or -errno.
static long take(struct subject *subject, void *to, size_t room) {
    int status = fos_send(subject->context, subject->mount);
    if (status < 0) return status;
    const struct fos_message *reply = fos_answer(subject->context, subject->mount);
    struct fos_xattr_reply size;
    if (reply->length < sizeof size) return -EIO;
    memcpy(&size, fos_payload_const(reply), sizeof size);
    if (room == 0) return (long)size.bytes;
    if (size.bytes > room || size.bytes > FOS_XATTR_BYTES_MAX) return -ERANGE;
    if (fos_bad_pointer(to)) return size.bytes == 0 ? 0 : -EFAULT;
    memcpy(to, fos_bulk_of(subject->context, subject->mount), size.bytes);
    return (long)size.bytes;
}

static uint32_t room_of(long room) { return (uint64_t)room < FOS_XATTR_BYTES_MAX ? (uint32_t)room : FOS_XATTR_BYTES_MAX; }

static long get(struct fos_call *call, int follow) {
    struct subject subject;
    const char *name = (const char *)call->arguments[1];
    long result = find(call, follow, &subject);
    if (result != 0) return result;
    if (name == NULL || build(&subject, FOS_OP_GETXATTR, name, 0, room_of(call->arguments[3])) == NULL) return done(&subject, name == NULL ? -EFAULT : -ERANGE);
    return done(&subject, take(&subject, (void *)call->arguments[2], (size_t)call->arguments[3]));
}
long fos_getxattr(struct fos_call *call) { return get(call, 1); }
long fos_lgetxattr(struct fos_call *call) { return get(call, 0); }
long fos_fgetxattr(struct fos_call *call) { return get(call, -1); }

static long list(struct fos_call *call, int follow) {
    struct subject subject;
    long result = find(call, follow, &subject);
    if (result != 0) return result;
    build(&subject, FOS_OP_LISTXATTR, NULL, 0, room_of(call->arguments[2]));
    return done(&subject, take(&subject, (void *)call->arguments[1], (size_t)call->arguments[2]));
}
long fos_listxattr(struct fos_call *call) { return list(call, 1); }
long fos_llistxattr(struct fos_call *call) { return list(call, 0); }
long fos_flistxattr(struct fos_call *call) { return list(call, -1); }

static long set(struct fos_call *call, int follow) {
    const char *name = (const char *)call->arguments[1];
    uint64_t length = (uint64_t)call->arguments[3];
    const void *value = (const void *)call->arguments[2];
    struct subject subject;
    if ((call->arguments[4] & ~3) != 0) return fos_via_kernel(call, follow < 0, FOS_BYPASS_UNHANDLED);
    long result = find(call, follow, &subject);
    if (result == FOS_PASS) return pass_change(call, follow);
    if (result != 0) return result;
    if (length > FOS_XATTR_BYTES_MAX) return done(&subject, -E2BIG);
    if (name == NULL || (length > 0 && fos_bad_pointer(value))) return done(&subject, -EFAULT);
    if (build(&subject, FOS_OP_SETXATTR, name, (uint32_t)call->arguments[4], (uint32_t)length) == NULL) return done(&subject, -ERANGE);
    memcpy(fos_bulk_of(subject.context, subject.mount), value, length);
    return done(&subject, fos_send(subject.context, subject.mount));
}
long fos_setxattr(struct fos_call *call) { return set(call, 1); }
long fos_lsetxattr(struct fos_call *call) { return set(call, 0); }
long fos_fsetxattr(struct fos_call *call) { return set(call, -1); }

static long take_off(struct fos_call *call, int follow) {
    const char *name = (const char *)call->arguments[1];
    struct subject subject;
    long result = find(call, follow, &subject);
    if (result == FOS_PASS) return pass_change(call, follow);
    if (result != 0) return result;
    if (name == NULL || build(&subject, FOS_OP_REMOVEXATTR, name, 0, 0) == NULL) return done(&subject, name == NULL ? -EFAULT : -ERANGE);
    return done(&subject, fos_send(subject.context, subject.mount));
}
long fos_removexattr(struct fos_call *call) { return take_off(call, 1); }
long fos_lremovexattr(struct fos_call *call) { return take_off(call, 0); }
long fos_fremovexattr(struct fos_call *call) { return take_off(call, -1); }
