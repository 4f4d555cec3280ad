// Descriptors as such: dup, fcntl, ioctl, waiting for them, passing them on, mapping them; and what a process does to itself
// that changes how its calls are to be judged.
//
// A duplicate of a number of ours is a duplicate of the O_PATH descriptor behind it, made by the kernel, and the table
// follows. Whatever only a real descriptor can do makes it one first.
#define _GNU_SOURCE
#include <asm/ioctls.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include "calls.h"

// ---- duplicates -----------------------------------------------------------------------------------------------------

// A duplicate of `fd`, at `least` or above. The kernel chooses the number.
static long duplicate(struct fos_call *call, int fd, int command, long least) {
    struct fos_use use;
    if (__builtin_expect(fos_handed_count != 0, 0)) fos_handed_take(fd);
    long result = fos_begin(call, fd, &use);
    if (result != 0) return result;
    uint32_t backing = use.file->backing;
    long made = fos_raw(SYS_fcntl, fd, command, least);
    if (made >= FOS_DESCRIPTORS_MAX) {
        // Beyond the table: as a duplicate of the kernel's.
        fos_raw(SYS_close, made);
        fos_end(&use, 0);
        return fos_via_kernel(call, 1, FOS_BYPASS_LIMIT);
    }
    if (made >= 0) {
        fos_table_set(use.context, (int)made, use.file);
        fos_follow_backing(use.context, use.file, backing, fd, made, command == F_DUPFD_CLOEXEC ? O_CLOEXEC : 0);
    }
    return fos_end(&use, made);
}

long fos_dup(struct fos_call *call) { return duplicate(call, (int)call->arguments[0], F_DUPFD, 0); }

static long replace(struct fos_call *call, long flags, int same_is_error) {
    int from = (int)call->arguments[0], to = (int)call->arguments[1];
    if (fos_hidden_descriptor(from)) return -EBADF;
    if (from != to && fos_hidden_descriptor(to)) {
        long moved = fos_move_hidden_descriptor(to);
        if (moved < 0) return moved;
    }
    if (__builtin_expect(fos_handed_count != 0, 0) && from != to && fos_raw(SYS_fcntl, from, F_GETFD) >= 0) {
        fos_handed_take(from);
        fos_handed_forget(to);
    }
    if (!fos_ours(from) && !fos_ours(to)) return FOS_PASS;
    if (from == to && !same_is_error) return to;
    if (fos_ours(from) && to >= FOS_DESCRIPTORS_MAX) return fos_via_kernel(call, 1, FOS_BYPASS_LIMIT);
    if (from != to) fos_before_close(to);
    struct fos_context *context = fos_enter(call->number);
    struct fos_file *file = fos_file_get(from);
    uint32_t backing = file == NULL ? FOS_BACKING_DONE : file->backing;
    long made = fos_raw(SYS_dup3, from, to, flags);
    if (made >= 0 && made != from) {
        fos_table_set(context, (int)made, file);
        if (file != NULL) fos_follow_backing(context, file, backing, from, made, flags);
    }
    if (file != NULL) fos_file_put(context, file);
    if (context != NULL) fos_leave(context);
    return made;
}
long fos_dup2(struct fos_call *call) { return replace(call, 0, 0); }
long fos_dup3(struct fos_call *call) { return replace(call, (int)call->arguments[2], 1); }

// ---- fcntl ----------------------------------------------------------------------------------------------------------

long fos_fcntl(struct fos_call *call) {
    int fd = (int)call->arguments[0], command = (int)call->arguments[1];
    switch (command) {
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW: return fos_record_lock(call);
    default: break;
    }
    int duplicates = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    if (!fos_ours(fd) && (!duplicates || fos_handed_count == 0 || !fos_handed_take(fd))) return FOS_PASS;
    struct fos_file *file;
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: return duplicate(call, fd, command, call->arguments[2]);
    case F_GETFD:
    case F_SETFD: return fos_raw(SYS_fcntl, fd, command, call->arguments[2]);
    case F_GETFL:
        if ((file = fos_file_get(fd)) == NULL) return FOS_PASS;
        // What is the kernel's may still be known here, but its flags are changed there.
        long flags = fos_file_state(file) != FOS_FILE_MESSAGE ? FOS_PASS : (long)file->flags;
        fos_file_put(NULL, file);
        return flags;
    case F_SETFL:
        if (fos_is_kernels(fd) || fos_is_name(fd) || (call->arguments[2] & (O_DIRECT | O_ASYNC | O_NOATIME)) != 0) return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
        if ((file = fos_file_get(fd)) == NULL) return FOS_PASS;
        uint32_t settable = O_APPEND | O_NONBLOCK;
        __atomic_store_n(&file->flags, (file->flags & ~(settable | O_NOATIME)) | ((uint32_t)call->arguments[2] & settable), __ATOMIC_RELAXED);
        fos_file_put(NULL, file);
        return 0;
    default: return fos_via_kernel(call, 1, FOS_BYPASS_PASSED);
    }
}

// ---- ioctl ----------------------------------------------------------------------------------------------------------

long fos_ioctl(struct fos_call *call) {
    int fd = (int)call->arguments[0];
    unsigned request = (unsigned)call->arguments[1];
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return FOS_PASS;
    int is_directory = (int)file->is_directory;
    int64_t offset = file->offset;
    long result;
    if (fos_file_state(file) == FOS_FILE_SHARED) {
        fos_file_put(NULL, file);
        return FOS_PASS;
    }
    if (fos_names_only(file) && request != FIOCLEX && request != FIONCLEX) {
        fos_file_put(NULL, file);
        return fos_via_kernel(call, 1, FOS_BYPASS_PASSED);
    }
    switch (request) {
    case FIOCLEX: result = fos_raw(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC); break;
    case FIONCLEX: result = fos_raw(SYS_fcntl, fd, F_SETFD, 0); break;
    case FIONREAD: {
        struct fos_use use;
        struct fos_attributes attributes;
        result = is_directory ? -ENOTTY : fos_begin(call, fd, &use);
        if (result == 0) {
            result = fos_get_attributes(use.context, use.mount, use.file->inode, &attributes);
            if (result == 0 && fos_bad_pointer((void *)call->arguments[2])) result = -EFAULT;
            if (result == 0) *(int *)call->arguments[2] = (int)((int64_t)attributes.size - offset);
            fos_end(&use, 0);
        }
        break;
    }
    case FICLONE:
        // The mount has no extents to share, least of all with another file system.
        result = is_directory ? FOS_UNSURE : fos_other_file_system(file, (int)call->arguments[2]);
        if (result == 0) result = -EOPNOTSUPP;
        else result = result > 0 ? -EXDEV : FOS_PASS;
        break;
    default:
        // What a terminal would answer ('T' requests): this is none.
        result = request >> 8 == 'T' ? -ENOTTY : FOS_PASS;
    }
    fos_file_put(NULL, file);
    return result == FOS_PASS ? fos_via_kernel(call, request == FICLONE ? 5 : 1, FOS_BYPASS_PASSED) : result;
}

// ---- waiting --------------------------------------------------------------------------------------------------------

// Files are always ready, which the kernel says itself once they are its own.
static void give_to_kernel(struct fos_call *call, int fd, enum fos_bypass reason) {
    if (reason == FOS_BYPASS_PASSED && __builtin_expect(fos_handed_count != 0, 0)) fos_handed_forget(fd);
    if (!fos_ours(fd)) return;
    if (fos_materialise(NULL, fd) == 0) fos_bypass(reason, call->number);
}

long fos_poll_files(struct fos_call *call) {
    if (fos_table_highest() < 0 || fos_bad_pointer((void *)call->arguments[0])) return FOS_PASS;
    const struct pollfd *polled = (const struct pollfd *)call->arguments[0];
    for (uint64_t i = 0; i < (uint64_t)call->arguments[1] && i < FOS_DESCRIPTORS_MAX; i++) give_to_kernel(call, polled[i].fd, FOS_BYPASS_POLL);
    return FOS_PASS;
}

long fos_select_files(struct fos_call *call) {
    int highest = fos_table_highest();
    for (int fd = 0; fd <= highest && fd < (int)call->arguments[0]; fd++) {
        if (!fos_ours(fd)) continue;
        for (int set = 1; set <= 3; set++) {
            const uint8_t *bits = (const uint8_t *)call->arguments[set];
            if (!fos_bad_pointer(bits) && (bits[fd / 8] >> (fd % 8) & 1) != 0) give_to_kernel(call, fd, FOS_BYPASS_POLL);
        }
    }
    return FOS_PASS;
}

// Linux lets nobody wait by epoll for a file that is always ready (epoll_ctl(2), EPERM), and programs tell files from other things by
// that. The mount would let them: FUSE files can have an answer of their own.
long fos_epoll_control(struct fos_call *call) {
    enum { REMOVE = 2 };  // EPOLL_CTL_DEL, the operation without an event
    int set = (int)call->arguments[0], fd = (int)call->arguments[2], is_file = 0;
    struct stat seen;
    struct fos_file *file = fos_file_get(fd);
    if (file != NULL) {
        is_file = !fos_names_only(file);
        fos_file_put(NULL, file);
    } else if (fos_mounts_used != 0 && fos_raw(SYS_fstat, fd, &seen) == 0 && S_ISREG(seen.st_mode)) {
        is_file = fos_is_of_mount(&seen) && (fos_raw(SYS_fcntl, fd, F_GETFL) & O_PATH) == 0;
    }
    if (!is_file) return fos_via_kernel(call, 5, FOS_BYPASS_POLL);
    if ((int)call->arguments[1] != REMOVE && fos_bad_pointer((void *)call->arguments[3])) return -EFAULT;
    return fos_raw(SYS_fcntl, set, F_GETFD) < 0 ? -EBADF : -EPERM;
}

// ---- passing on -----------------------------------------------------------------------------------------------------

static void give_message(struct fos_call *call, const struct msghdr *message) {
    if (fos_bad_pointer(message) || fos_bad_pointer(message->msg_control) || message->msg_controllen < sizeof(struct cmsghdr)) return;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR((struct msghdr *)message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(0)) continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            give_to_kernel(call, fd, FOS_BYPASS_PASSED);
        }
    }
}
long fos_sendmsg(struct fos_call *call) {
    if (fos_table_highest() >= 0 || fos_handed_count > 0) give_message(call, (const struct msghdr *)call->arguments[1]);
    return FOS_PASS;
}
long fos_sendmmsg(struct fos_call *call) {
    const struct mmsghdr *messages = (const struct mmsghdr *)call->arguments[1];
    if ((fos_table_highest() < 0 && fos_handed_count == 0) || fos_bad_pointer(messages)) return FOS_PASS;
    for (uint64_t i = 0; i < (uint32_t)call->arguments[2] && i < 1024; i++) give_message(call, &messages[i].msg_hdr);
    return FOS_PASS;
}

// A socket's name may lead through a descriptor of ours (/proc/self/fd/N/name).
static void give_named(struct fos_call *call, const struct sockaddr_un *name, long bytes) {
    char path[sizeof name->sun_path + 1];
    size_t before = offsetof(struct sockaddr_un, sun_path), length = (size_t)bytes - before;
    if (fos_table_highest() < 0 || fos_bad_pointer(name) || bytes <= (long)before || (size_t)bytes > sizeof *name) return;
    if (name->sun_family != AF_UNIX || name->sun_path[0] != '/') return;
    memcpy(path, name->sun_path, length);
    path[length] = 0;
    struct fos_context *context = fos_enter(call->number);
    fos_path_to_kernel(context, path);
    if (context != NULL) fos_leave(context);
}
long fos_socket_name(struct fos_call *call) {
    give_named(call, (const struct sockaddr_un *)call->arguments[1], (int)call->arguments[2]);
    return FOS_PASS;
}
long fos_sendto(struct fos_call *call) {
    if (call->arguments[4] != 0) give_named(call, (const struct sockaddr_un *)call->arguments[4], (int)call->arguments[5]);
    return FOS_PASS;
}

// landlock_add_rule(2): the descriptor is in the rule.
long fos_landlock_rule(struct fos_call *call) {
    enum { PATH_BENEATH = 1, DESCRIPTOR_AT = 8 };
    const uint8_t *rule = (const uint8_t *)call->arguments[2];
    int fd;
    if (fos_table_highest() < 0 || call->arguments[1] != PATH_BENEATH || fos_bad_pointer(rule)) return FOS_PASS;
    memcpy(&fd, rule + DESCRIPTOR_AT, sizeof fd);
    give_to_kernel(call, fd, FOS_BYPASS_PASSED);
    return FOS_PASS;
}

// The buffers of io_uring name descriptors that no call shows.
long fos_all_to_kernel(struct fos_call *call) {
    (void)call;
    fos_calls_give_up();
    return FOS_PASS;
}

// ---- mapping --------------------------------------------------------------------------------------------------------

long fos_mmap(struct fos_call *call) {
    if ((call->arguments[3] & 0x20) != 0) return FOS_PASS;  // MAP_ANONYMOUS: the descriptor is not looked at
    // A mapping reaches as far as the kernel knows the file to.
    if (!fos_ours((int)call->arguments[4])) return fos_pass_looking((int)call->arguments[4], NULL, 0);
    int was_kernels = fos_is_kernels((int)call->arguments[4]);
    long result = fos_via_kernel(call, 1 << 4, FOS_BYPASS_MAP);
    return result == FOS_PASS && was_kernels ? fos_pass_looking((int)call->arguments[4], NULL, 0) : result;
}

// ---- the process ----------------------------------------------------------------------------------------------------

long fos_set_umask(struct fos_call *call) {
    long before = fos_raw(SYS_umask, call->arguments[0]);
    fos_umask = (uint32_t)call->arguments[0] & 0777;
    return before;
}

void fos_read_size_limit(void) {
    struct rlimit size;
    if (fos_raw(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, &size) == 0) fos_file_size_limited = size.rlim_cur != RLIM_INFINITY;
}
long fos_setrlimit(struct fos_call *call) {
    long result = fos_raw(SYS_setrlimit, call->arguments[0], call->arguments[1]);
    fos_read_size_limit();
    return result;
}
long fos_prlimit(struct fos_call *call) {
    if (call->arguments[2] == 0) return FOS_PASS;
    long result = fos_raw(SYS_prlimit64, call->arguments[0], call->arguments[1], call->arguments[2], call->arguments[3]);
    fos_read_size_limit();
    return result;
}

// Servers know a client by who it was when it connected.
long fos_change_identity(struct fos_call *call) {
    struct fos_context *context = fos_enter(call->number);
    if (context != NULL) {
        fos_identity_changes(context);
        fos_leave(context);
    }
    return FOS_PASS;
}

// Afterwards the mount table may be another one.
long fos_mounts_change(struct fos_call *call) {
    fos_mounts_doubtful = 1;
    // Descriptors: open_tree's and mount_setattr's directory, both of move_mount's.
    int by_path = call->number == SYS_mount || call->number == SYS_umount2;
    for (int i = 0; by_path && i < 2; i++) fos_path_to_kernel(NULL, (const char *)call->arguments[i]);
    return fos_via_kernel(call, by_path ? 0 : call->number == SYS_move_mount ? 5 : 1, FOS_BYPASS_UNHANDLED);
}

// A child may have mounted something while it was waited for.
long fos_wait_for_child(struct fos_call *call) {
    (void)call;
    fos_mounts_doubtful = 1;
    return FOS_PASS;
}

// With a path for the kernel alone.
long fos_path_of_first(struct fos_call *call) {
    fos_path_to_kernel(NULL, (const char *)call->arguments[0]);
    return FOS_PASS;
}
long fos_path_of_second(struct fos_call *call) {
    fos_path_to_kernel(NULL, (const char *)call->arguments[1]);
    return fos_via_kernel(call, 1, FOS_BYPASS_UNHANDLED);
}

// Programs that walk trees ask this of each one, to know the kind of file system. It is what the mount answers to the kernel.
long fos_fstatfs(struct fos_call *call) {
    struct fos_use use;
    struct statfs *to = (struct statfs *)call->arguments[1];
    long result = fos_begin(call, call->arguments[0], &use);
    if (result != 0) return result;
    if (fos_bad_pointer(to)) return fos_end(&use, -EFAULT);
    long says = fos_mount_says(use.mount);
    if (says < 0) return fos_end(&use, fos_raw(SYS_statfs, use.mount->path, to));
    fos_build(use.context, use.mount, FOS_OP_STATFS, use.file->inode);
    struct fos_statfs_reply reply;
    int status = fos_send(use.context, use.mount);
    const struct fos_message *message = fos_answer(use.context, use.mount);
    if (status == 0 && message->length < sizeof reply) status = -EIO;
    if (status < 0) return fos_end(&use, status);
    memcpy(&reply, fos_payload_const(message), sizeof reply);
    *to = (struct statfs){
        .f_type = FUSE_SUPER_MAGIC, .f_bsize = reply.block_bytes, .f_frsize = reply.block_bytes, .f_blocks = reply.blocks,
        .f_bfree = reply.blocks_free, .f_bavail = reply.blocks_available, .f_files = reply.files, .f_ffree = reply.files_free,
        .f_namelen = reply.name_max, .f_flags = says};
    return fos_end(&use, 0);
}
