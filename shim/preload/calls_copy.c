// Copies between files: copy_file_range and sendfile.
//
// Between two regular files of one mount a copy is a message to the target's owner, with both descriptions' offsets under
// lock, taken in the order of their addresses. Everything else is the kernel's.
#define _GNU_SOURCE
#include "calls.h"

int fos_other_file_system(const struct fos_file *file, int fd) {
    struct fos_file *other = fos_file_get(fd);
    if (other != NULL) {
        int differs = other->is_directory ? (int)FOS_UNSURE : other->mount != file->mount;
        fos_file_put(NULL, other);
        return differs;
    }
    struct stat seen;
    if (fos_raw(SYS_fstat, fd, &seen) != 0 || (seen.st_mode & S_IFMT) != S_IFREG) return FOS_UNSURE;
    // One on the mount, but the kernel's.
    return seen.st_dev == fos_file_mount(file)->device ? FOS_UNSURE : 1;
}

// An offset argument: the caller's variable, or the description's own.
static int64_t copy_offset(const struct fos_file *file, const int64_t *given) { return given == NULL ? file->offset : *given; }

// 1: the source is known to end before `from`, so that nothing is copied, which copy_file_range(2) finds before it reads anything.
static int is_past_end(const struct fos_use *use, const struct fos_file *in, int64_t from) {
    struct fos_attributes known;
    return use->context->number == SYS_copy_file_range && from > 0 && fos_cached_attributes(use->mount, in->inode, &known) && (uint64_t)from >= known.size;
}

// Copies between two files of one mount, both offsets kept under lock. Bytes, -errno, or FOS_PASS.
static long copy_between(struct fos_use *use, struct fos_file *in, struct fos_file *out, int64_t *given_in, int64_t *given_out, uint64_t length) {
    // Two descriptions are locked in the order of their addresses.
    struct fos_file *first = in < out ? in : out, *second = in < out ? out : in;
    fos_file_lock(use->context, first);
    if (second != first) fos_file_lock(use->context, second);
    int64_t from, to;
    long result;
    if ((given_in != NULL && fos_bad_pointer(given_in)) || (given_out != NULL && fos_bad_pointer(given_out))) {
        result = -EFAULT;
    } else if (in->state != FOS_FILE_MESSAGE || out->state != FOS_FILE_MESSAGE) {
        result = FOS_PASS;
    } else if ((from = copy_offset(in, given_in)) < 0 || (to = copy_offset(out, given_out)) < 0) {
        result = -EINVAL;
    } else if (length > INT64_MAX || from > INT64_MAX - (int64_t)length || to > INT64_MAX - (int64_t)length) {
        result = -EOVERFLOW;
    } else if (length == 0 || is_past_end(use, in, from)) {
        result = 0;
    } else {
        struct fos_message *request = fos_build(use->context, use->mount, FOS_OP_COPY_RANGE, out->inode);
        struct fos_copy_request copy = {
            .source = in->inode, .source_offset = (uint64_t)from, .offset = (uint64_t)to, .length = length < FOS_CALL_BYTES_MAX ? length : FOS_CALL_BYTES_MAX};
        fos_put_fixed(request, &copy, sizeof copy);
        out->size = UINT64_MAX;
        result = fos_send(use->context, use->mount);
        struct fos_copy_reply done;
        if (result == 0) {
            const struct fos_message *reply = fos_answer(use->context, use->mount);
            if (reply->length < sizeof done) result = -EIO;
            else memcpy(&done, fos_payload_const(reply), sizeof done);
            fos_take_told(use->mount, reply, sizeof done);
            fos_show_if_due(use);
        }
        if (result == 0) {
            result = (long)done.bytes;
            if (given_in == NULL) in->offset = from + result;
            else *given_in = from + result;
            if (given_out == NULL) out->offset = to + result;
            else *given_out = to + result;
        }
    }
    if (second != first) fos_file_unlock(use->context, second);
    fos_file_unlock(use->context, first);
    return result;
}

// The second file of a copy, if it is a regular one of the same mount.
static struct fos_file *partner(const struct fos_file *file, long fd) {
    struct fos_file *other = fos_file_get((int)fd);
    if (other == NULL) return NULL;
    if (other->mount == file->mount && other->generation == file->generation && !other->is_directory && !file->is_directory) return other;
    fos_file_put(NULL, other);
    return NULL;
}

// The kernel copies: how much, it decides by the sizes that it knows.
static long copy_by_kernel(struct fos_call *call) {
    long result = fos_via_kernel(call, 5, FOS_BYPASS_PASSED);
    if (result != FOS_PASS) return result;
    fos_pass_looking((int)call->arguments[0], NULL, 0);
    return fos_pass_looking((int)call->arguments[2], NULL, 0);
}

// What was handed on is adopted, as the kernel would move its offset.
static void take_both(long source, long target) {
    if (__builtin_expect(fos_handed_count == 0, 1)) return;
    fos_handed_take(source);
    fos_handed_take(target);
}

long fos_copy_file_range(struct fos_call *call) {
    long source = (int)call->arguments[0], target = (int)call->arguments[2];
    take_both(source, target);
    if (fos_file_size_limited || (uint32_t)call->arguments[5] != 0) return copy_by_kernel(call);
    struct fos_use use;
    int by_target = fos_ours(target);
    long result = fos_begin(call, by_target ? target : source, &use);
    if (result == FOS_PASS) return copy_by_kernel(call);
    if (result != 0) return result;
    struct fos_file *other = partner(use.file, by_target ? source : target);
    if (other == NULL || !by_target) {
        // Between two file systems the kernel copies nothing.
        int differs = !use.file->is_directory && fos_other_file_system(use.file, (int)(by_target ? source : target)) == 1;
        int allowed = by_target ? fos_writable(use.file) && (use.file->flags & O_APPEND) == 0 : fos_readable(use.file);
        if (other != NULL) fos_file_put(use.context, other);
        fos_end(&use, 0);
        return differs && allowed ? -EXDEV : copy_by_kernel(call);
    }
    if (!fos_readable(other) || !fos_writable(use.file) || (use.file->flags & O_APPEND) != 0) result = -EBADF;
    else result = copy_between(&use, other, use.file, (int64_t *)call->arguments[1], (int64_t *)call->arguments[3], (uint64_t)call->arguments[4]);
    fos_file_put(use.context, other);
    fos_end(&use, 0);
    return result == FOS_PASS ? copy_by_kernel(call) : result;
}

// Between two files of a mount sendfile is a copy too; to a socket or a pipe the kernel sends.
long fos_sendfile(struct fos_call *call) {
    long target = (int)call->arguments[0], source = (int)call->arguments[1];
    take_both(source, target);
    if (fos_file_size_limited || !fos_ours(source) || !fos_ours(target)) return fos_via_kernel(call, 3, FOS_BYPASS_PASSED);
    struct fos_use use;
    long result = fos_begin(call, target, &use);
    if (result != 0) return result;
    struct fos_file *in = partner(use.file, source);
    // Onto itself, sendfile reads what it has just written.
    if (in == NULL || in->inode == use.file->inode || !fos_readable(in) || !fos_writable(use.file) || (use.file->flags & O_APPEND) != 0) {
        if (in != NULL) fos_file_put(use.context, in);
        fos_end(&use, 0);
        return fos_via_kernel(call, 3, FOS_BYPASS_PASSED);
    }
    result = copy_between(&use, in, use.file, (int64_t *)call->arguments[2], NULL, (uint64_t)call->arguments[3]);
    fos_file_put(use.context, in);
    fos_end(&use, 0);
    return result == FOS_PASS ? fos_via_kernel(call, 3, FOS_BYPASS_PASSED) : result;
}
