// Data: read, write and their kin, lseek, truncation, allocation, syncing. Copies between files are in calls_copy.c.
//
// Data goes through the channel's bulk area, a transfer at a time. The offset of a description is used and moved under
// its lock; calls that name their own offset need none. An appending write happens at the end of the file, as the
// server sees it, and the answer says where that was.
#define _GNU_SOURCE
#include "calls.h"

enum { IOVECS_MAX = 1024 };

// ---- a call on a descriptor -----------------------------------------------------------------------------------------

// From here on the description is the kernel's: FOS_PASS, or -errno.
static long leave_to_kernel(long fd) {
    long made = fos_materialise(NULL, fd);
    return made < 0 ? made : FOS_PASS;
}

static long begin(struct fos_call *call, long fd, struct fos_use *use, int by_name) {
    use->file = fos_file_get((int)fd);
    if (use->file == NULL) return FOS_PASS;
    if (__builtin_expect((fos_names_only(use->file) && !by_name) || use->file->slow >= FOS_SLOW_MOST, 0)) {
        fos_file_put(NULL, use->file);
        return leave_to_kernel(fd);
    }
    use->mount = fos_file_reach(use->file);
    use->context = NULL;
    use->fd = fd;
    if (use->mount == NULL || (use->context = fos_enter(call->number)) == NULL) {
        // What is the kernel's is still answered by it when no message can be.
        long result = fos_file_state(use->file) != FOS_FILE_MESSAGE ? FOS_PASS : use->mount == NULL ? -ENOTCONN : -ENOMEM;
        fos_file_put(NULL, use->file);
        return result;
    }
    return 0;
}
long fos_begin(struct fos_call *call, long fd, struct fos_use *use) { return begin(call, fd, use, 0); }
long fos_begin_by_name(struct fos_call *call, long fd, struct fos_use *use) { return begin(call, fd, use, 1); }

long fos_end(struct fos_use *use, long result) {
    fos_file_put(use->context, use->file);
    fos_leave(use->context);
    return result;
}

// What is not ours may have been handed on by the program before.
static inline long passed(struct fos_call *call, long result) {
    return result == FOS_PASS && __builtin_expect(fos_handed_count != 0, 0) ? fos_handed_call(call, (int)call->arguments[0]) : result;
}

// ---- pieces of memory -----------------------------------------------------------------------------------------------

struct pieces {
    const struct iovec *vector;
    long count;
    size_t within;   // of the first piece, already done
    uint64_t total;
    int is_vector;   // the call named them as a vector: with no bytes at all, the kernel looks no further
};

// Checks the pieces as the kernel would. 0 or -errno.
static long measure(struct pieces *pieces) {
    uint64_t total = 0;
    if (pieces->count < 0 || pieces->count > IOVECS_MAX) return -EINVAL;
    if (pieces->count > 0 && fos_bad_pointer(pieces->vector)) return -EFAULT;
    for (long i = 0; i < pieces->count; i++) {
        const struct iovec *piece = &pieces->vector[i];
        if ((int64_t)piece->iov_len < 0) return -EINVAL;
        if (piece->iov_len > 0 && fos_bad_pointer(piece->iov_base)) return -EFAULT;
        total += piece->iov_len;
        if (total > FOS_CALL_BYTES_MAX) total = FOS_CALL_BYTES_MAX;
    }
    pieces->within = 0;
    pieces->total = total;
    return 0;
}

// Copies the next `bytes` between the pieces and one stretch of memory.
static void copy_pieces(struct pieces *pieces, uint8_t *memory, size_t bytes, int into_pieces) {
    while (bytes > 0) {
        size_t left = pieces->vector->iov_len - pieces->within;
        size_t now = left < bytes ? left : bytes;
        uint8_t *piece = (uint8_t *)pieces->vector->iov_base + pieces->within;
        if (into_pieces) memcpy(piece, memory, now);
        else memcpy(memory, piece, now);
        memory += now;
        bytes -= now;
        pieces->within += now;
        if (pieces->within == pieces->vector->iov_len) {
            pieces->vector++;
            pieces->within = 0;
        }
    }
}

// ---- transfers ------------------------------------------------------------------------------------------------------

static struct fos_message *build_transfer(struct fos_use *use, uint16_t operation, uint64_t offset, uint32_t bytes, uint32_t flags) {
    struct fos_message *request = fos_build(use->context, use->mount, operation, use->file->inode);
    struct fos_io_request io = {.offset = offset, .flags = flags, .open_flags = use->file->flags};
    fos_put_fixed(request, &io, sizeof io);
    request->bulk_offset = 0;
    request->bulk_length = bytes;
    return request;
}

// As much of a small read as pages that are kept can answer. `ended`: at the end of the file.
static uint64_t read_kept(struct fos_use *use, struct pieces *pieces, uint64_t offset, int *ended) {
    uint64_t done = 0;
    *ended = 0;
    while (done < pieces->total) {
        uint64_t at = offset + done;
        uint32_t within = at % FOS_PAGE_BYTES;
        size_t wanted = FOS_PAGE_BYTES - within, left = pieces->vector->iov_len - pieces->within;
        if (wanted > pieces->total - done) wanted = pieces->total - done;
        if (wanted > left) wanted = left;
        if (wanted == 0) {
            pieces->vector++;
            pieces->within = 0;
            continue;
        }
        long got = fos_cached_page(use->mount, use->file->inode, at / FOS_PAGE_BYTES, within, (uint8_t *)pieces->vector->iov_base + pieces->within, wanted);
        if (got < 0) break;
        done += (uint64_t)got;
        pieces->within += (uint64_t)got;
        if ((size_t)got < wanted) {
            *ended = 1;
            break;
        }
    }
    if (done > 0) fos_count(&fos_tally->cache_hits, 1);
    return done;
}

// 1: others append to the file by the kernel's description, which then stands where the kernel believes the end to be.
static int is_appended(const struct fos_use *use) {
    return use->file->state == FOS_FILE_SHARED && (fos_raw(SYS_fcntl, use->fd, F_GETFL) & O_APPEND) != 0;
}

// After a reply to a change of what the kernel may decide by.
void fos_show_if_due(struct fos_use *use) {
    if (__builtin_expect((fos_answer(use->context, use->mount)->flags & FOS_REPLY_LOOK_AGAIN) != 0, 0) || is_appended(use)) {
        fos_show_size(use->context, use->mount, use->file, use->fd);
        // The kernel has mapped it, perhaps: each change of size would make it look.
        if (use->file->state == FOS_FILE_SHARED || use->file->is_adopted) use->file->slow = FOS_SLOW_MOST;
    }
}

static uint64_t size_in(const struct fos_message *reply) {
    struct fos_io_reply io;
    if (reply->length < sizeof io) return 0;
    memcpy(&io, fos_payload_const(reply), sizeof io);
    return io.size;
}

// Reads whole pages around a small range, keeps them, and copies the range. Bytes or -errno.
static long read_and_keep(struct fos_use *use, struct pieces *pieces, uint64_t offset, uint64_t bytes) {
    uint64_t first = offset / FOS_PAGE_BYTES * FOS_PAGE_BYTES;
    uint64_t room = (offset + bytes - first + FOS_PAGE_BYTES - 1) / FOS_PAGE_BYTES * FOS_PAGE_BYTES;
    build_transfer(use, FOS_OP_READ, first, (uint32_t)room, 0);
    int status = fos_send(use->context, use->mount);
    if (status < 0) return status;
    const struct fos_message *reply = fos_answer(use->context, use->mount);
    uint32_t got = reply->bulk_length, epoch = reply->epoch;
    if (got > room) return -EIO;
    fos_take_told(use->mount, reply, sizeof(struct fos_io_reply));
    uint8_t *bulk = fos_bulk_of(use->context, use->mount);
    // The answer is the server's word; what a page holds beyond the end is not kept.
    if ((reply->flags & FOS_REPLY_VOLATILE) == 0) {
        for (uint64_t at = 0; at < room; at += FOS_PAGE_BYTES) {
            uint32_t here = at >= got ? 0 : got - at < FOS_PAGE_BYTES ? (uint32_t)(got - at) : FOS_PAGE_BYTES;
            fos_keep_page(use->mount, use->file->inode, (first + at) / FOS_PAGE_BYTES, epoch, bulk + at, here);
        }
    }
    uint64_t skip = offset - first, left = got > skip ? got - skip : 0;
    if (left > bytes) left = bytes;
    uint64_t size = size_in(reply);
    copy_pieces(pieces, bulk + skip, left, 1);
    fos_used_by_message(use->context, use->mount, use->file, size, left, 0);
    return (long)left;
}

enum { KEPT_BYTES = 16384 };  // larger reads are not worth a copy more

// A read of one piece in the file's region. -1: by message.
static long read_mapped(struct fos_use *use, struct pieces *pieces, uint64_t offset) {
    if (use->file->region == 0 || pieces->count != 1) return -1;
    return fos_mapped_read(use->mount, use->file, offset, pieces->vector->iov_base, pieces->total);
}

// 1: the file is known to end before `offset`, and a read there would not move its access time (as the server's own rule has it:
// relatime). Who reads a file to its end learns of it by such a read.
static int is_known_end(struct fos_use *use, uint64_t offset) {
    struct fos_attributes known;
    if (!fos_cached_attributes(use->mount, use->file->inode, &known) || offset < known.size) return 0;
    if (fos_is_access_due(&known)) return 0;
    fos_count(&fos_tally->cache_hits, 1);
    return 1;
}

// A read of what came with the open. -1: there is nothing of the kind.
static long read_brought(struct fos_use *use, struct pieces *pieces, uint64_t offset) {
    const uint8_t *content;
    uint32_t bytes;
    if (use->file->state != FOS_FILE_MESSAGE || !fos_read_brought(use->context, use->mount, use->file->inode, &content, &bytes)) return -1;
    uint64_t left = offset < bytes ? bytes - offset : 0;
    if (left > pieces->total) left = pieces->total;
    copy_pieces(pieces, (uint8_t *)content + offset, left, 1);
    fos_count(&fos_tally->cache_hits, 1);
    fos_count(&fos_tally->bytes_read, left);
    return (long)left;
}

static long read_at(struct fos_use *use, struct pieces *pieces, uint64_t offset) {
    uint64_t done = 0;
    long mapped = read_mapped(use, pieces, offset);
    if (mapped >= 0) return mapped;
    if (__builtin_expect(use->context->brought_by != 0, 0)) {
        long brought = read_brought(use, pieces, offset);
        if (brought >= 0) return brought;
    }
    if (offset > 0 && is_known_end(use, offset)) return 0;
    if (pieces->total <= KEPT_BYTES && fos_cache_enabled()) {
        int ended;
        done = read_kept(use, pieces, offset, &ended);
        if (!ended && done < pieces->total) {
            long more = read_and_keep(use, pieces, offset + done, pieces->total - done);
            if (more < 0 && done == 0) return more;
            if (more > 0) done += (uint64_t)more;
        }
        fos_count(&fos_tally->bytes_read, done);
        return (long)done;
    }
    while (done < pieces->total) {
        uint64_t left = pieces->total - done;
        uint32_t now = left < FOS_TRANSFER_BYTES_MAX ? (uint32_t)left : FOS_TRANSFER_BYTES_MAX;
        build_transfer(use, FOS_OP_READ, offset + done, now, 0);
        int status = fos_send(use->context, use->mount);
        if (status < 0) return done > 0 ? (long)done : status;
        uint32_t got = fos_answer(use->context, use->mount)->bulk_length;
        if (got > now) return -EIO;
        uint64_t size = size_in(fos_answer(use->context, use->mount));
        fos_take_told(use->mount, fos_answer(use->context, use->mount), sizeof(struct fos_io_reply));
        copy_pieces(pieces, fos_bulk_of(use->context, use->mount), got, 1);
        done += got;
        fos_used_by_message(use->context, use->mount, use->file, size, got, 0);
        if (got < now) break;
    }
    fos_count(&fos_tally->bytes_read, done);
    return (long)done;
}

// A small write to a file that is delegated to this channel. 0: it must be sent.
static int write_delegated(struct fos_use *use, const struct pieces *pieces, uint64_t offset, int append, uint64_t *end) {
    struct fos_left_change change;
    if (use->file->state != FOS_FILE_MESSAGE) return 0;
    uint8_t *room = fos_delegated_room(use->context, use->mount, use->file->inode, offset, append, pieces->total, &change);
    if (room == NULL) return 0;
    struct pieces all = *pieces;
    copy_pieces(&all, room, all.total, 0);
    if (!fos_delegated_write(use->context, use->mount, &change, all.total)) return 0;
    *end = change.end;
    use->file->size = change.attributes.size;
    fos_count(&fos_tally->mapped_writes, 1);
    fos_count(&fos_tally->bytes_written, all.total);
    return 1;
}

// Keeps what the answer to a write says of the file, and that more of its changes may be left.
static void take_written(struct fos_use *use, const struct fos_message *reply) {
    struct fos_attributes written;
    if (reply->length < sizeof(struct fos_io_reply) + sizeof written) return;
    memcpy(&written, (const uint8_t *)fos_payload_const(reply) + sizeof(struct fos_io_reply), sizeof written);
    fos_keep_attributes(use->mount, &written);
    if (written.inode == use->file->inode) fos_take_delegation(use->context, use->mount, reply, &written, 1);
}

// `end`: where the last byte went, for the offset.
static long write_at(struct fos_use *use, struct pieces *pieces, uint64_t offset, int append, uint64_t *end) {
    uint64_t done = 0;
    if (use->file->region != 0 && !append && pieces->count == 1 &&
        fos_mapped_write(use->mount, use->file, offset, pieces->vector->iov_base, pieces->total) >= 0) {
        *end = offset + pieces->total;
        return (long)pieces->total;
    }
    if (use->context->delegation != 0 && write_delegated(use, pieces, offset, append, end)) return (long)pieces->total;
    while (done < pieces->total) {
        uint64_t left = pieces->total - done;
        uint32_t now = left < FOS_TRANSFER_BYTES_MAX ? (uint32_t)left : FOS_TRANSFER_BYTES_MAX;
        struct pieces here = *pieces;
        // Who has written a small file goes on with its name, and needs to know what it is; or goes on writing.
        uint32_t tells = use->file->backing == FOS_BACKING_NONE ? FOS_IO_ATTRIBUTES : 0;
        build_transfer(use, FOS_OP_WRITE, offset + done, now, append ? FOS_IO_APPEND | tells : tells);
        copy_pieces(&here, fos_bulk_of(use->context, use->mount), now, 0);
        if (tells != 0) fos_delegation_may_go(use->context);
        int status = fos_send(use->context, use->mount);
        if (status < 0) return done > 0 ? (long)done : status;
        const struct fos_message *reply = fos_answer(use->context, use->mount);
        uint32_t got = reply->bulk_length;
        struct fos_io_reply where;
        if (got > now || reply->length < sizeof where) return -EIO;
        memcpy(&where, fos_payload_const(reply), sizeof where);
        take_written(use, reply);
        fos_show_if_due(use);
        *end = where.offset + got;
        use->file->size = where.size;
        done += got;
        if (!append) fos_used_by_message(use->context, use->mount, use->file, where.size, got, 1);
        if (got < now) break;
        *pieces = here;
    }
    fos_count(&fos_tally->bytes_written, done);
    return (long)done;
}

// 1: the call may be a message. Of a description that is shared since a fork, calls that name their offset are.
static int may_send(const struct fos_file *file, int positioned) {
    return __builtin_expect(file->state == FOS_FILE_MESSAGE, 1) || (file->state == FOS_FILE_SHARED && positioned);
}
// Begins to move data. A use of an offset that is shared since a fork makes the description the kernel's first, which has to look
// at the file's size before it appends or maps; and once it reads and writes pages, messages would wait for it.
static long begin_moving(struct fos_call *call, struct fos_use *use, int positioned) {
    long fd = call->arguments[0], result = fos_begin(call, fd, use);
    if (result != 0 || positioned || __builtin_expect(use->file->state != FOS_FILE_SHARED, 1)) return result;
    fos_end(use, 0);
    return leave_to_kernel(fd);
}
// Whether small messages wait for the kernel is watched where others may use its description: when this one begins (ns), else 0.
static uint64_t watched_since(const struct fos_file *file, uint64_t bytes) {
    return __builtin_expect(file->state == FOS_FILE_SHARED, 0) && bytes <= KEPT_BYTES ? fos_clock() : 0;
}
static void note_wait(struct fos_file *file, uint64_t start) {
    if (start == 0) return;
    if (fos_clock() - start > FOS_SLOW_NS) file->slow += FOS_SLOW_SHARE;
    else if (file->slow > 0 && file->slow < FOS_SLOW_MOST) file->slow--;
}

enum { OWN_OFFSET = -1 };  // instead of an offset: the description's

static long read_pieces(struct fos_call *call, struct pieces *pieces, int64_t offset, int positioned) {
    struct fos_use use;
    long result = begin_moving(call, &use, positioned);
    if (result != 0) return passed(call, result);
    struct fos_file *file = use.file;
    if (!fos_readable(file)) return fos_end(&use, -EBADF);
    if (positioned && offset < 0) return fos_end(&use, -EINVAL);
    result = measure(pieces);
    if (result != 0) return fos_end(&use, result);
    if (pieces->is_vector && pieces->total == 0) return fos_end(&use, 0);
    if (file->is_directory) return fos_end(&use, -EISDIR);
    if (!positioned) {
        fos_file_lock(use.context, file);
        offset = file->offset;
    }
    uint64_t start = watched_since(file, pieces->total);
    if (!may_send(file, positioned)) result = FOS_PASS;
    else if (pieces->total == 0) result = 0;
    else if (offset > INT64_MAX - (int64_t)pieces->total) result = -EINVAL;
    else result = read_at(&use, pieces, (uint64_t)offset);
    note_wait(file, start);
    if (!positioned) {
        if (result > 0) file->offset = offset + result;
        fos_file_unlock(use.context, file);
    }
    return fos_end(&use, result);
}

static long write_pieces(struct fos_call *call, struct pieces *pieces, int64_t offset, int positioned) {
    if (fos_file_size_limited) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct fos_use use;
    long result = begin_moving(call, &use, positioned);
    if (result != 0) return passed(call, result);
    struct fos_file *file = use.file;
    if (!fos_writable(file)) return fos_end(&use, -EBADF);
    if (positioned && offset < 0) return fos_end(&use, -EINVAL);
    result = measure(pieces);
    if (result != 0) return fos_end(&use, result);
    // Linux appends also when pwrite names an offset.
    uint64_t end = 0, start = watched_since(file, pieces->total);
    // The flags of a shared description are changed by all who share it.
    int append = ((file->state == FOS_FILE_SHARED ? fos_raw(SYS_fcntl, use.fd, F_GETFL) : (long)file->flags) & O_APPEND) != 0;
    if (!positioned) {
        fos_file_lock(use.context, file);
        offset = file->offset;
    }
    if (!may_send(file, positioned)) result = FOS_PASS;
    else if (pieces->total == 0) result = 0;
    else if (!append && offset > INT64_MAX - (int64_t)pieces->total) result = offset == INT64_MAX ? -EFBIG : -EINVAL;
    else result = write_at(&use, pieces, (uint64_t)offset, append, &end);
    note_wait(file, start);
    if (!positioned) {
        if (result > 0) file->offset = (int64_t)end;
        fos_file_unlock(use.context, file);
    }
    return fos_end(&use, result);
}

long fos_read(struct fos_call *call) {
    struct iovec all = {(void *)call->arguments[1], (size_t)call->arguments[2]};
    return read_pieces(call, &(struct pieces){.vector = &all, .count = 1}, 0, 0);
}
long fos_write(struct fos_call *call) {
    struct iovec all = {(void *)call->arguments[1], (size_t)call->arguments[2]};
    return write_pieces(call, &(struct pieces){.vector = &all, .count = 1}, 0, 0);
}
long fos_pread(struct fos_call *call) {
    struct iovec all = {(void *)call->arguments[1], (size_t)call->arguments[2]};
    return read_pieces(call, &(struct pieces){.vector = &all, .count = 1}, call->arguments[3], 1);
}
long fos_pwrite(struct fos_call *call) {
    struct iovec all = {(void *)call->arguments[1], (size_t)call->arguments[2]};
    return write_pieces(call, &(struct pieces){.vector = &all, .count = 1}, call->arguments[3], 1);
}
static struct pieces pieces_of(struct fos_call *call) {
    return (struct pieces){.vector = (const struct iovec *)call->arguments[1], .count = call->arguments[2], .is_vector = 1};
}
long fos_readv(struct fos_call *call) {
    struct pieces pieces = pieces_of(call);
    return read_pieces(call, &pieces, 0, 0);
}
long fos_writev(struct fos_call *call) {
    struct pieces pieces = pieces_of(call);
    return write_pieces(call, &pieces, 0, 0);
}
long fos_preadv(struct fos_call *call) {
    struct pieces pieces = pieces_of(call);
    return read_pieces(call, &pieces, call->arguments[3], 1);
}
long fos_pwritev(struct fos_call *call) {
    struct pieces pieces = pieces_of(call);
    return write_pieces(call, &pieces, call->arguments[3], 1);
}
// Flags that only hurry or sync have nothing to do here: data is where it stays. Others (RWF_APPEND, RWF_NOWAIT, ...) are
// the kernel's.
enum { HARMLESS_FLAGS = 1 | 2 | 4 };  // RWF_HIPRI, RWF_DSYNC, RWF_SYNC
long fos_preadv2(struct fos_call *call) {
    if (call->arguments[5] & ~HARMLESS_FLAGS) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct pieces pieces = pieces_of(call);
    return read_pieces(call, &pieces, call->arguments[3], call->arguments[3] != OWN_OFFSET);
}
long fos_pwritev2(struct fos_call *call) {
    if (call->arguments[5] & ~HARMLESS_FLAGS) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct pieces pieces = pieces_of(call);
    return write_pieces(call, &pieces, call->arguments[3], call->arguments[3] != OWN_OFFSET);
}

// ---- offsets --------------------------------------------------------------------------------------------------------

static long seek_data(struct fos_use *use, int64_t offset, uint32_t whence) {
    struct fos_message *request = fos_build(use->context, use->mount, FOS_OP_LSEEK, use->file->inode);
    struct fos_lseek_request wanted = {.offset = (uint64_t)offset, .whence = whence};
    fos_put_fixed(request, &wanted, sizeof wanted);
    int status = fos_send(use->context, use->mount);
    if (status < 0) return status;
    const struct fos_message *reply = fos_answer(use->context, use->mount);
    struct fos_lseek_reply found;
    if (reply->length < sizeof found) return -EIO;
    memcpy(&found, fos_payload_const(reply), sizeof found);
    return (long)found.offset;
}

long fos_lseek(struct fos_call *call) {
    int64_t offset = call->arguments[1];
    uint32_t whence = (uint32_t)call->arguments[2];
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return passed(call, result);
    struct fos_file *file = use.file;
    // The end of a directory is whatever the kernel says it is.
    if (file->is_directory && whence > SEEK_CUR) {
        fos_end(&use, 0);
        return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    }
    fos_file_lock(use.context, file);
    int64_t base = 0;
    struct fos_attributes attributes;
    if (file->state != FOS_FILE_MESSAGE) {
        result = FOS_PASS;
    } else if (whence == SEEK_DATA || whence == SEEK_HOLE) {
        result = offset < 0 ? -ENXIO : seek_data(&use, offset, whence);
    } else if (whence > SEEK_HOLE) {
        result = -EINVAL;
    } else {
        if (whence == SEEK_CUR) base = file->offset;
        if (whence == SEEK_END) result = fos_get_attributes(use.context, use.mount, file->inode, &attributes);
        if (whence == SEEK_END && result == 0) base = (int64_t)attributes.size;
        if (result == 0 && (__builtin_add_overflow(base, offset, &base) || base < 0)) result = -EINVAL;
        if (result == 0) result = base;
    }
    if (result >= 0) file->offset = result;
    fos_file_unlock(use.context, file);
    return fos_end(&use, result);
}

// ---- size and space -------------------------------------------------------------------------------------------------

// Unlike truncate(2), it marks the file modified even when the size stays.
long fos_ftruncate(struct fos_call *call) {
    if (fos_file_size_limited) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    struct fos_setattr_request set = {.valid = FOS_SET_SIZE | FOS_SET_MODIFIED_NOW, .size = (uint64_t)call->arguments[1]};
    use.file->size = UINT64_MAX;
    if (call->arguments[1] < 0 || use.file->is_directory || !fos_writable(use.file)) result = -EINVAL;
    else result = fos_set_attributes(use.context, use.mount, use.file->inode, &set);
    if (result == 0) fos_show_if_due(&use);
    return fos_end(&use, result);
}

long fos_truncate(struct fos_call *call) {
    struct fos_context *context = fos_enter(call->number);
    if (context == NULL) return FOS_PASS;
    struct fos_place place;
    long result = call->arguments[1] < 0 || fos_file_size_limited ? FOS_PASS : -ESTALE;
    for (int attempt = 0; result == -ESTALE && attempt < FOS_WALKS_MAX; attempt++) {
        result = fos_walk(context, AT_FDCWD, (const char *)call->arguments[0], FOS_WALK_FOLLOW, &place);
        if (result != 0) break;
        struct fos_setattr_request set = {.valid = FOS_SET_SIZE | FOS_SET_MODIFIED_NOW, .size = (uint64_t)call->arguments[1]};
        uint32_t type = place.attributes.mode & S_IFMT;
        result = type == S_IFDIR ? -EISDIR : type != S_IFREG ? -EINVAL : fos_set_attributes(context, place.mount, place.attributes.inode, &set);
        if (result == 0 && (fos_answer(context, place.mount)->flags & FOS_REPLY_LOOK_AGAIN) != 0) {
            fos_show(context, place.mount, place.attributes.inode, AT_FDCWD, (const char *)call->arguments[0]);
        }
    }
    fos_leave(context);
    return result == -ESTALE ? -ENOENT : result;
}

long fos_fallocate(struct fos_call *call) {
    if (fos_file_size_limited) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    int64_t offset = call->arguments[2], length = call->arguments[3];
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    if (offset < 0 || length <= 0) return fos_end(&use, -EINVAL);
    if (!fos_writable(use.file)) return fos_end(&use, -EBADF);
    if (offset > INT64_MAX - length) return fos_end(&use, -EFBIG);
    // What the mount supports; the kernel knows the errors of the rest.
    if ((call->arguments[1] & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        fos_end(&use, 0);
        return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
    }
    struct fos_message *request = fos_build(use.context, use.mount, FOS_OP_FALLOCATE, use.file->inode);
    struct fos_fallocate_request wanted = {.offset = (uint64_t)offset, .length = (uint64_t)length, .mode = (uint32_t)call->arguments[1]};
    fos_put_fixed(request, &wanted, sizeof wanted);
    use.file->size = UINT64_MAX;
    result = fos_send(use.context, use.mount);
    if (result == 0) fos_show_if_due(&use);
    return fos_end(&use, result);
}

// ---- syncing --------------------------------------------------------------------------------------------------------

static long sync_file(struct fos_call *call, int data_only) {
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    uint32_t tag = fos_connection_tag(use.mount);
    // What was written is with its server. Whether that still lives is what a program wants to know.
    if (use.mount->syncs_nothing == tag) return fos_end(&use, fos_check_alive(use.mount));
    struct fos_message *request = fos_build(use.context, use.mount, FOS_OP_FSYNC, use.file->inode);
    request->flags = (uint16_t)data_only;
    result = fos_send(use.context, use.mount);
    if (result == 0 && (fos_answer(use.context, use.mount)->flags & FOS_REPLY_NOTHING_TO_SYNC) != 0) use.mount->syncs_nothing = tag;
    return fos_end(&use, result);
}
long fos_fsync(struct fos_call *call) { return sync_file(call, 0); }
long fos_fdatasync(struct fos_call *call) { return sync_file(call, 1); }

// Hints about pages of the kernel's: there are none.
long fos_hint(struct fos_call *call) {
    struct fos_use use;
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    if (use.file->is_directory) result = call->number == SYS_readahead ? -EINVAL : 0;
    else if (call->number == SYS_readahead && !fos_readable(use.file)) result = -EBADF;
    else if (call->number == SYS_fadvise64 && ((uint32_t)call->arguments[3] > 5 || call->arguments[2] < 0)) result = -EINVAL;
    else if (call->number == SYS_sync_file_range && ((call->arguments[3] & ~7) != 0 || call->arguments[1] < 0 || call->arguments[2] < 0)) result = -EINVAL;
    return fos_end(&use, result);
}
