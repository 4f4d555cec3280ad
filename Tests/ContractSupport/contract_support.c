// See contract_support.h.
#define _GNU_SOURCE
#include "contract_support.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define RESULT(call)                            \
    do {                                        \
        long result_ = (long)(call);            \
        return result_ < 0 ? -(long)errno : result_; \
    } while (0)

// ---- around the shim ------------------------------------------------------------------------------------------------

static int around;
void contract_go_around(int on) { around = on; }

// A system call by an instruction of this file's own, which nobody redirects: the kernel gets it whatever is preloaded.
static long direct(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ __volatile__("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
#else
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -(long)errno : result;
#endif
}
#define DIRECT_ARGUMENTS(n, a, b, c, d, e, f, ...) direct(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define DIRECT(...) DIRECT_ARGUMENTS(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
// The call by libc, or the system call that follows it by the kernel.
#define EITHER(call, ...)                                    \
    do {                                                     \
        if (around) return DIRECT(__VA_ARGS__);              \
        RESULT(call);                                        \
    } while (0)

int contract_become(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count) {
    // The raw calls change this thread only; glibc's wrappers would change all. To become another user one must be
    // root first, as setgroups wants CAP_SETGID, which a change of fsuid keeps.
    if (syscall(SYS_setgroups, count, groups) != 0) return -errno;
    syscall(SYS_setfsgid, gid);
    syscall(SYS_setfsuid, uid);
    // setfsuid reports only the previous value: ask again to see whether it took.
    return syscall(SYS_setfsuid, (uid_t)-1) == (long)uid ? 0 : -EPERM;
}

static void fill(const struct stat *from, struct contract_status *to) {
    to->inode = from->st_ino;
    to->size = (uint64_t)from->st_size;
    to->blocks = (uint64_t)from->st_blocks;
    to->device = from->st_rdev;
    to->mode = from->st_mode;
    to->links = (uint32_t)from->st_nlink;
    to->uid = from->st_uid;
    to->gid = from->st_gid;
    to->accessed = (int64_t)from->st_atim.tv_sec * 1000000000 + from->st_atim.tv_nsec;
    to->modified = (int64_t)from->st_mtim.tv_sec * 1000000000 + from->st_mtim.tv_nsec;
    to->changed = (int64_t)from->st_ctim.tv_sec * 1000000000 + from->st_ctim.tv_nsec;
}

long contract_open(const char *path, int flags, uint32_t mode) { EITHER(open(path, flags | O_CLOEXEC, mode), SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode); }
long contract_close(int fd) { RESULT(close(fd)); }
long contract_pread(int fd, void *to, size_t count, uint64_t offset) { RESULT(pread(fd, to, count, (off_t)offset)); }
long contract_pwrite(int fd, const void *from, size_t count, uint64_t offset) { RESULT(pwrite(fd, from, count, (off_t)offset)); }
long contract_read(int fd, void *to, size_t count) { RESULT(read(fd, to, count)); }
long contract_write(int fd, const void *from, size_t count) { RESULT(write(fd, from, count)); }
long contract_lseek(int fd, int64_t offset, int whence) { RESULT(lseek(fd, offset, whence)); }
long contract_ftruncate(int fd, int64_t size) { RESULT(ftruncate(fd, size)); }
long contract_truncate(const char *path, int64_t size) { EITHER(truncate(path, size), SYS_truncate, path, size); }
long contract_fsync(int fd) { RESULT(fsync(fd)); }
long contract_fstat(int fd, struct contract_status *status) {
    struct stat found;
    if (fstat(fd, &found) != 0) return -errno;
    fill(&found, status);
    return 0;
}
long contract_stat(const char *path, int follow, struct contract_status *status) {
    struct stat found;
    int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
    long result = around ? DIRECT(SYS_newfstatat, AT_FDCWD, path, &found, flags) : fstatat(AT_FDCWD, path, &found, flags) != 0 ? -(long)errno : 0;
    if (result != 0) return result;
    fill(&found, status);
    return 0;
}
long contract_mkdir(const char *path, uint32_t mode) { EITHER(mkdir(path, mode), SYS_mkdirat, AT_FDCWD, path, mode); }
long contract_rmdir(const char *path) { EITHER(rmdir(path), SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }
long contract_unlink(const char *path) { EITHER(unlink(path), SYS_unlinkat, AT_FDCWD, path, 0); }
long contract_rename(const char *from, const char *to, unsigned flags) {
    EITHER(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags), SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}
long contract_link(const char *from, const char *to) { EITHER(linkat(AT_FDCWD, from, AT_FDCWD, to, 0), SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0); }
long contract_link_handle(int fd, const char *to) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    RESULT(linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW));
}
long contract_symlink(const char *target, const char *path) { EITHER(symlink(target, path), SYS_symlinkat, target, AT_FDCWD, path); }
long contract_readlink(const char *path, char *to, size_t room) { EITHER(readlink(path, to, room), SYS_readlinkat, AT_FDCWD, path, to, room); }
long contract_chmod(const char *path, uint32_t mode) { EITHER(chmod(path, mode), SYS_fchmodat, AT_FDCWD, path, mode); }
long contract_fchmod(int fd, uint32_t mode) { RESULT(fchmod(fd, mode)); }
long contract_chown(const char *path, int follow, uint32_t uid, uint32_t gid) {
    EITHER(fchownat(AT_FDCWD, path, uid, gid, follow ? 0 : AT_SYMLINK_NOFOLLOW), SYS_fchownat, AT_FDCWD, path, uid, gid, follow ? 0 : AT_SYMLINK_NOFOLLOW);
}
static struct timespec time_of(int64_t value) {
    struct timespec time = {0, 0};
    if (value == INT64_MIN) {
        time.tv_nsec = UTIME_NOW;
    } else if (value == INT64_MIN + 1) {
        time.tv_nsec = UTIME_OMIT;
    } else {
        time.tv_sec = value / 1000000000;
        time.tv_nsec = value % 1000000000;
        if (time.tv_nsec < 0) {
            time.tv_nsec += 1000000000;
            time.tv_sec -= 1;
        }
    }
    return time;
}
long contract_utimes(const char *path, int follow, int64_t accessed, int64_t modified) {
    struct timespec times[2] = {time_of(accessed), time_of(modified)};
    EITHER(utimensat(AT_FDCWD, path, times, follow ? 0 : AT_SYMLINK_NOFOLLOW), SYS_utimensat, AT_FDCWD, path, times, follow ? 0 : AT_SYMLINK_NOFOLLOW);
}
long contract_mknod(const char *path, uint32_t mode, uint64_t device) { EITHER(mknod(path, mode, device), SYS_mknodat, AT_FDCWD, path, mode, device); }
uint64_t contract_makedev(unsigned major, unsigned minor) { return makedev(major, minor); }
long contract_access(const char *path, int mode) { EITHER(syscall(SYS_faccessat2, AT_FDCWD, path, mode, AT_EACCESS), SYS_faccessat2, AT_FDCWD, path, mode, AT_EACCESS); }
long contract_setxattr(const char *path, int follow, const char *name, const void *value, size_t size, int flags) {
    if (follow) EITHER(setxattr(path, name, value, size, flags), SYS_setxattr, path, name, value, size, flags);
    EITHER(lsetxattr(path, name, value, size, flags), SYS_lsetxattr, path, name, value, size, flags);
}
long contract_getxattr(const char *path, int follow, const char *name, void *value, size_t room) {
    if (follow) EITHER(getxattr(path, name, value, room), SYS_getxattr, path, name, value, room);
    EITHER(lgetxattr(path, name, value, room), SYS_lgetxattr, path, name, value, room);
}
long contract_listxattr(const char *path, int follow, char *list, size_t room) {
    if (follow) EITHER(listxattr(path, list, room), SYS_listxattr, path, list, room);
    EITHER(llistxattr(path, list, room), SYS_llistxattr, path, list, room);
}
long contract_removexattr(const char *path, int follow, const char *name) {
    if (follow) EITHER(removexattr(path, name), SYS_removexattr, path, name);
    EITHER(lremovexattr(path, name), SYS_lremovexattr, path, name);
}
long contract_fallocate(int fd, int mode, int64_t offset, int64_t length) { RESULT(fallocate(fd, mode, offset, length)); }
long contract_copy_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t length) {
    RESULT(copy_file_range(from, &from_offset, to, &to_offset, length, 0));
}
long contract_lock(int fd, int kind, int64_t start, int64_t length) {
    struct flock lock = {.l_type = (short)kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    RESULT(fcntl(fd, F_OFD_SETLK, &lock));
}
long contract_getlock(int fd, int kind, int64_t start, int64_t length, int *found_kind, int64_t *found_start, int64_t *found_length) {
    struct flock lock = {.l_type = (short)kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return -errno;
    if (lock.l_type == F_UNLCK) return 0;
    *found_kind = lock.l_type;
    *found_start = lock.l_start;
    *found_length = lock.l_len;
    return 1;
}
long contract_flock(int fd, int operation) { RESULT(flock(fd, operation)); }
long contract_statfs(const char *path, uint64_t *blocks, uint64_t *available, uint32_t *block_bytes, uint32_t *name_max, uint64_t *files, uint64_t *files_free) {
    struct statvfs found;
    if (statvfs(path, &found) != 0) return -errno;
    *blocks = found.f_blocks;
    *available = found.f_bavail;
    *block_bytes = (uint32_t)found.f_frsize;
    *name_max = (uint32_t)found.f_namemax;
    *files = found.f_files;
    *files_free = found.f_ffree;
    return 0;
}
long contract_getdents(int fd, void *to, size_t room) { RESULT(syscall(SYS_getdents64, fd, to, room)); }
int contract_spawn(const char *program, char *const *arguments, int input, int output) {
    // Threads of a test runner block signals, and a program would inherit that: a shell then never hears of its children.
    extern char **environ;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none, all;
    pid_t process = -1;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    int status = posix_spawn(&process, program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return status == 0 ? process : -status;
}
int contract_wait(int process) {
    int status = 0;
    while (waitpid(process, &status, 0) < 0) {
        if (errno != EINTR) return -errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place) {
    (void)status, (void)type, (void)place;
    return remove(path) == 0 ? 0 : -errno;
}
int contract_remove_tree(const char *path) { return nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }
const char *contract_error_name(int code) { return strerrorname_np(code); }
uint32_t contract_umask(uint32_t mask) { return umask(mask); }
