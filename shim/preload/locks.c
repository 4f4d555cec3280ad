// Locks: fcntl's record locks, of processes and of descriptions, and flock.
//
// The kernel keeps them, so that all users of the mount meet, whichever way their data goes. A file that is locked gets a
// description of the kernel's behind its numbers (materialise.c): the program's own call then locks that one, duplicates
// share it, closing gives the locks back as closing does, and if it becomes the kernel's altogether, at a fork or an exec,
// the locks are on it already. Reads and writes stay messages.
// Record locks of a process are dropped when it closes any descriptor of the file (fcntl(2)), also one of another
// description. So that the kernel sees each such close, every description of a locked file is backed: those that are there
// before the first lock is taken, those that come later from their opening on. Nothing here may close a descriptor of the
// kernel's of a locked file, which is why a number cannot be given one afterwards.
// Invariant: a file with record locks is in the set. One in it without costs its opens a call of the kernel's.
#define _GNU_SOURCE
#include "calls.h"

// The inodes on which this process has record locks, hashed, with linear probing. Too many for it: all count as locked.
enum { LOCKED_INODES = 1024, LOCKED_MOST = 768 };
static const uint64_t removed = UINT64_MAX;
static uint64_t locked[LOCKED_INODES] FOS_LARGE;
static uint32_t locked_count;  // that are in it, and those that found no place

static uint32_t place_of(uint64_t inode) { return (uint32_t)((inode * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - 10)); }

int fos_is_locked(uint64_t inode) {
    if (__builtin_expect(__atomic_load_n(&locked_count, __ATOMIC_ACQUIRE) == 0, 1)) return 0;
    if (__atomic_load_n(&locked_count, __ATOMIC_RELAXED) > LOCKED_MOST) return 1;
    for (uint32_t at = place_of(inode), step = 0; step < LOCKED_INODES; at = (at + 1) % LOCKED_INODES, step++) {
        uint64_t here = __atomic_load_n(&locked[at], __ATOMIC_ACQUIRE);
        if (here == inode) return 1;
        if (here == 0) return 0;
    }
    return 0;
}

static void note(uint64_t inode) {
    if (inode == 0 || fos_is_locked(inode)) return;
    if (__atomic_fetch_add(&locked_count, 1, __ATOMIC_ACQ_REL) >= LOCKED_MOST) return;
    for (uint32_t at = place_of(inode), step = 0; step < LOCKED_INODES; at = (at + 1) % LOCKED_INODES, step++) {
        uint64_t here = __atomic_load_n(&locked[at], __ATOMIC_ACQUIRE);
        if ((here == 0 || here == removed) && __atomic_compare_exchange_n(&locked[at], &here, inode, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return;
    }
}

static void forget(uint64_t inode) {
    for (uint32_t at = place_of(inode), step = 0; step < LOCKED_INODES; at = (at + 1) % LOCKED_INODES, step++) {
        uint64_t here = inode;
        if (__atomic_compare_exchange_n(&locked[at], &here, removed, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) __atomic_sub_fetch(&locked_count, 1, __ATOMIC_ACQ_REL);
        else if (here == 0) return;
    }
}

// The inode behind a number of the kernel's on one of the mounts; 0: it is elsewhere.
static uint64_t inode_behind(int fd) {
    struct stat seen;
    return fos_raw(SYS_fstat, fd, &seen) == 0 && fos_is_of_mount(&seen) ? seen.st_ino : 0;
}

// The call, with the kernel's own description behind the number. Locks of the process are noted before, for descriptors that
// others open meanwhile, and after, in case that another one's close took the note away.
static long lock(struct fos_call *call, int of_process) {
    const long *a = call->arguments;
    int fd = (int)a[0];
    struct fos_file *file = fos_file_get(fd);
    uint64_t inode = file != NULL ? file->inode : of_process && fos_mounts_used != 0 ? inode_behind(fd) : 0;
    int is_directory = file != NULL && file->is_directory, is_ours = file != NULL, only_names = is_ours && fos_names_only(file);
    // Not held during the call, which may wait, and from which a signal handler may jump.
    if (is_ours) fos_file_put(NULL, file);
    if (is_directory || only_names) return fos_via_kernel(call, 1, FOS_BYPASS_LOCK);
    if (!is_ours && inode == 0) return FOS_PASS;
    int is_first = of_process && !fos_is_locked(inode);
    if (is_first) note(inode);
    long result = is_first ? fos_back_all(inode) : fos_back(NULL, fd);
    if (result < 0) return result;
    if (is_ours) fos_bypass(FOS_BYPASS_LOCK, call->number);
    if (!of_process) return FOS_PASS;
    result = fos_raw(call->number, fd, a[1], a[2]);
    note(inode);
    return result;
}

long fos_record_lock(struct fos_call *call) {
    int command = (int)call->arguments[1];
    return lock(call, command == F_SETLK || command == F_SETLKW);
}
long fos_flock(struct fos_call *call) { return lock(call, 0); }

void fos_before_close(int fd) {
    if (__builtin_expect(__atomic_load_n(&locked_count, __ATOMIC_ACQUIRE) == 0, 1)) return;
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return;
    // Closing a name drops no locks.
    uint64_t inode = file->is_directory || fos_names_only(file) ? 0 : file->inode;
    fos_file_put(NULL, file);
    if (inode == 0 || !fos_is_locked(inode)) return;
    // Opened while another thread took the lock, or there are too many to know them all.
    fos_back(NULL, fd);
    forget(inode);
}
