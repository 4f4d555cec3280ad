// libfuse3's low-level API (Debian 12: 3.14), and the kernel's own protocol header for what 3.14 does not name.
//
// struct fuse_file_info has bit-fields, which Swift does not import, so its bits are read and set through the static
// inline functions below. They hold no state, so it does not matter that each object file gets its own copy.
#ifndef FOS_CFUSE_SHIM_H
#define FOS_CFUSE_SHIM_H
#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#endif
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <linux/stat.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// STATX (protocol 7.39, Linux 6.6): linux/fuse.h of Debian 12 ends at 7.38. Field for field as later headers have it.
enum { FOS_FUSE_STATX = 52, FOS_STATX_BASIC_STATS = 0x7ff, FOS_STATX_BTIME = 0x800 };
struct fos_fuse_sx_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};
struct fos_fuse_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    struct fos_fuse_sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};
_Static_assert(sizeof(struct fos_fuse_statx_out) == 288, "struct fuse_statx_out");

static inline void fos_fuse_set_keep_cache(struct fuse_file_info *info) { info->keep_cache = 1; }
static inline int fos_fuse_is_writepage(const struct fuse_file_info *info) { return info->writepage; }
static inline int fos_fuse_is_flock_release(const struct fuse_file_info *info) { return info->flock_release; }

// Affinity, thread ids and tgkill by system call: a module that Swift imports beside others must not define
// _GNU_SOURCE, which changes the layout of types that they share.
enum { FOS_FUSE_CPUS = 1024 };

// Confines a thread (0: the calling one) to `cpus`. 0 or an errno.
static inline int fos_fuse_confine(int thread, const int *cpus, int count) {
    unsigned long set[FOS_FUSE_CPUS / (8 * sizeof(unsigned long))] = {0};
    const int bits = 8 * sizeof(unsigned long);
    for (int i = 0; i < count; i++)
        if (cpus[i] >= 0 && cpus[i] < FOS_FUSE_CPUS) set[cpus[i] / bits] |= 1ul << (cpus[i] % bits);
    return syscall(SYS_sched_setaffinity, thread, sizeof set, set) >= 0 ? 0 : errno;
}

// Whether a thread (0: the calling one) leaves whoever runs on its CPU alone when it wakes (SCHED_BATCH, sched(7)): it
// then runs when the other sleeps. A thread of another policy than these two keeps it.
static inline void fos_fuse_wait_for_sleepers(int thread, int waits) {
    enum { OTHER = 0, BATCH = 3 };
    const int none = 0, now = (int)syscall(SYS_sched_getscheduler, thread), wanted = waits ? BATCH : OTHER;
    if ((now == OTHER || now == BATCH) && now != wanted) syscall(SYS_sched_setscheduler, thread, wanted, &none);
}

// The CPUs that the calling thread may use, in order; how many were stored.
static inline int fos_fuse_allowed_cpus(int *cpus, int room) {
    unsigned long set[FOS_FUSE_CPUS / (8 * sizeof(unsigned long))] = {0};
    const int bits = 8 * sizeof(unsigned long);
    int count = 0;
    if (syscall(SYS_sched_getaffinity, 0, sizeof set, set) < 0) return 0;
    for (int i = 0; i < FOS_FUSE_CPUS && count < room; i++)
        if (set[i / bits] >> (i % bits) & 1) cpus[count++] = i;
    return count;
}

// The CPU on which a thread of any process runs, or has last run; -1 if that cannot be known (it has ended, or is hidden).
// Field 39 of proc(5) stat; the second, the name, may hold anything and ends at the last parenthesis.
static inline int fos_fuse_cpu_of_thread(uint32_t thread) {
    char text[1024];
    snprintf(text, sizeof text, "/proc/%u/stat", thread);
    int file = open(text, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    ssize_t count = read(file, text, sizeof text - 1);
    close(file);
    if (count <= 0) return -1;
    text[count] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 39; field++) {
        at = strchr(at, ' ');
        if (at != NULL) at++;
    }
    return at != NULL && *at >= '0' && *at <= '9' ? atoi(at) : -1;
}

// Names that fcntl.h and stdio.h keep for _GNU_SOURCE.
enum { FOS_O_DIRECT = __O_DIRECT, FOS_SEEK_DATA = 3 };

// Names the calling thread, at most 15 bytes, for ps and top.
static inline void fos_fuse_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
static inline int fos_fuse_thread_id(void) { return (int)syscall(SYS_gettid); }
// Sends a signal to one thread of this process; harmless when it has ended.
static inline void fos_fuse_signal_thread(int thread, int signal) { syscall(SYS_tgkill, getpid(), thread, signal); }
// Ignored by default and never queued, so that sending it again and again costs nothing.
enum { FOS_FUSE_WAKE_SIGNAL = SIGURG };

static inline void fos_fuse_ignore(int signal) { (void)signal; }
// Lets `signal` interrupt a blocking read of the calling thread: a handler that does nothing, without SA_RESTART, and
// a mask that lets it through (a thread made by a dispatch queue inherits one that blocks everything).
static inline void fos_fuse_make_interrupting(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    struct sigaction action = {.sa_handler = fos_fuse_ignore};
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

// umount2(2): 0 or an errno. Lazy detaches the mount now and ends it when its last user goes.
static inline int fos_fuse_umount(const char *path, int lazy) {
    return umount2(path, lazy ? MNT_DETACH : 0) == 0 ? 0 : errno;
}

// A number for the file system that a path leads to, as st_dev tells file systems apart; 0 if it cannot be told. Nothing but
// that number is asked for, so no FUSE server is asked, and one may ask about its own mount.
static inline uint64_t fos_fuse_file_system(const char *path) {
    enum { NO_AUTOMOUNT = 0x800, STATX_DONT_SYNC = 0x4000 };  // fcntl.h keeps them for _GNU_SOURCE
    struct statx status;
    if (syscall(SYS_statx, AT_FDCWD, path, NO_AUTOMOUNT | STATX_DONT_SYNC, 0u, &status) != 0) return 0;
    return (uint64_t)status.stx_dev_major << 32 | status.stx_dev_minor;
}

#endif
