// What the preload shim counts, for a whole tree of processes: the figures of `fos run --stats`.
//
// Role: one file that `fos run` makes, every shimmed process maps shared and adds to, and `fos run` prints after the end.
// Rules: fields are only ever added to, atomically (fos_tally_add), so no process can lose another's counts. Times are
// taken only while a tally is asked for. Best effort: what cannot open the file (after chroot, say) is not counted.
#ifndef FOS_TALLY_H
#define FOS_TALLY_H

#include <assert.h>
#include <stdint.h>
#include <fos/atomic.h>

enum { FOS_SYSTEM_CALLS = 512 };  // numbers of system calls, with room

#define FOS_TALLY_MAGIC UINT64_C(0x796c6c6174736f66)  // "fostally"

// Why a call on a mount went through the kernel after all.
enum fos_bypass {
    FOS_BYPASS_NONE = 0,
    FOS_BYPASS_UNHANDLED,     // a call, or a form of it, that the shim leaves to the kernel
    FOS_BYPASS_KERNEL_FILE,   // the descriptor is the kernel's: inherited, or made so before
    FOS_BYPASS_FORK,          // made the kernel's: by fork
    FOS_BYPASS_EXEC,          // ... by exec
    FOS_BYPASS_MAP,           // ... by mmap
    FOS_BYPASS_PASSED,        // ... by passing it over a socket, or another use that needs a real descriptor
    FOS_BYPASS_LOCK,          // ... by a lock that the kernel keeps
    FOS_BYPASS_POLL,          // ... by poll, select, epoll
    FOS_BYPASS_KIND,          // not a regular file or directory: FIFO, socket, device
    FOS_BYPASS_LEAVES,        // the path leaves the mount on its way, or a mount lies on top
    FOS_BYPASS_DIRTY,         // the kernel may hold dirty pages of the file
    FOS_BYPASS_LIMIT,         // a table or a limit of the shim is full
    FOS_BYPASS_NO_CHANNEL,    // no connection, or no channel free
    FOS_BYPASS_IDENTITY,      // the process's identity is one the servers cannot know
    FOS_BYPASS_ASIDE,         // the process left for good: chroot, namespaces, seccomp, shared descriptor tables
};
enum { FOS_BYPASS_REASONS = 24 };  // with room

static inline const char *fos_bypass_text(unsigned reason) {
    switch (reason) {
    case FOS_BYPASS_UNHANDLED: return "a call that the shim leaves to the kernel";
    case FOS_BYPASS_KERNEL_FILE: return "the descriptor is the kernel's already";
    case FOS_BYPASS_FORK: return "fork";
    case FOS_BYPASS_EXEC: return "exec";
    case FOS_BYPASS_MAP: return "mmap";
    case FOS_BYPASS_PASSED: return "a use that needs a kernel descriptor";
    case FOS_BYPASS_LOCK: return "a lock that the kernel keeps";
    case FOS_BYPASS_POLL: return "poll, select or epoll";
    case FOS_BYPASS_KIND: return "a FIFO, socket or device";
    case FOS_BYPASS_LEAVES: return "the path leaves the mount";
    case FOS_BYPASS_DIRTY: return "the kernel may hold dirty pages";
    case FOS_BYPASS_LIMIT: return "a limit of the shim";
    case FOS_BYPASS_NO_CHANNEL: return "no connection or channel";
    case FOS_BYPASS_IDENTITY: return "the identity of the process";
    case FOS_BYPASS_ASIDE: return "the process changed its root, namespaces or system call filter";
    default: return "unknown";
    }
}

// Why private anonymous memory was left to Linux under `fos run --memory`.
enum fos_left {
    FOS_LEFT_NONE = 0,
    FOS_LEFT_SMALL,      // below the threshold
    FOS_LEFT_NO_ACCESS,  // a reservation: not to be written yet
    FOS_LEFT_SPARSE,     // MAP_NORESERVE, or so large that most of it will not be touched
    FOS_LEFT_STACK,      // MAP_STACK
    FOS_LEFT_GROWS,      // MAP_GROWSDOWN
    FOS_LEFT_OTHER,      // another flag that the shim does not serve: MAP_LOCKED, MAP_HUGETLB ...
    FOS_LEFT_REFUSED,    // the fleet had none to give
    FOS_LEFT_NO_FLEET,   // no mount to ask
    FOS_LEFT_ADVISED,    // served before; given up by MADV_DONTNEED
    FOS_LEFT_FORKING,    // a clone is under way
    FOS_LEFT_LIMITED,    // RLIMIT_AS or RLIMIT_DATA is set
    FOS_LEFT_KEPT,       // the process lets the kernel keep pages: io_uring, vmsplice, zero copy
    FOS_LEFT_FAULTS,     // userfaultfd
    FOS_LEFT_SANITIZER,  // a sanitizer keeps its own books of memory
    FOS_LEFT_ASIDE,      // the process changed its root, namespaces or system call filter
    FOS_LEFT_OFF,        // not asked for
};
enum { FOS_LEFT_REASONS = 24 };  // with room

static inline const char *fos_left_text(unsigned reason) {
    switch (reason) {
    case FOS_LEFT_SMALL: return "smaller than the threshold";
    case FOS_LEFT_NO_ACCESS: return "a reservation that cannot be written yet";
    case FOS_LEFT_SPARSE: return "a reservation that stays sparse";
    case FOS_LEFT_STACK: return "a stack";
    case FOS_LEFT_GROWS: return "grows downwards";
    case FOS_LEFT_OTHER: return "flags that fos does not serve";
    case FOS_LEFT_REFUSED: return "the memory fleet had none to give";
    case FOS_LEFT_NO_FLEET: return "no mount to ask";
    case FOS_LEFT_ADVISED: return "given up by MADV_DONTNEED";
    case FOS_LEFT_FORKING: return "a clone was under way";
    case FOS_LEFT_LIMITED: return "a limit on address space or data";
    case FOS_LEFT_KEPT: return "io_uring, vmsplice or zero copy";
    case FOS_LEFT_FAULTS: return "userfaultfd";
    case FOS_LEFT_SANITIZER: return "a sanitizer";
    case FOS_LEFT_ASIDE: return "the process changed its root, namespaces or system call filter";
    default: return "unknown";
    }
}

struct fos_tally {
    uint64_t magic;
    uint64_t bytes;                        // sizeof(struct fos_tally) of its maker; another size is not touched
    uint64_t processes;                    // programs that started with the shim (each exec counts)
    uint64_t aside;                        // of them, that could not be redirected
    uint64_t handled[FOS_SYSTEM_CALLS];    // calls answered by the shim, by number
    uint64_t bypassed[FOS_SYSTEM_CALLS];   // calls on a mount that the kernel answered, by number
    uint64_t reason[FOS_BYPASS_REASONS];   // the same, by enum fos_bypass
    uint64_t connections;                  // handshakes
    uint64_t messages;                     // requests sent
    uint64_t bytes_read, bytes_written;    // by calls answered by the shim
    uint64_t materialised;                 // descriptors that became the kernel's
    uint64_t cache_hits, cache_misses;     // attributes, entries and pages under epochs
    uint64_t mapped_reads, mapped_writes;  // data calls that were a copy from or to shared pages
    uint64_t time_handled;                 // ns in calls answered by the shim
    uint64_t time_messages;                // of them, ns between posting a request and its reply
    uint64_t memory_served, memory_served_bytes;  // requests for private anonymous memory, and what of them the fleet gave
    uint64_t memory_linux[FOS_LEFT_REASONS];      // requests left to Linux, by enum fos_left
    uint64_t memory_linux_bytes;                  // of those that were not small, and what the fleet did not give of others
    uint64_t memory_given_back;                   // bytes, by message; the rest goes back with the process
    uint64_t memory_frozen, memory_frozen_bytes;  // forks that found served memory, and what of it became copy-on-write
    uint64_t memory_copied;                       // bytes that had to become Linux's own memory
    uint64_t memory_time_freezing;                // ns that forks took longer
    uint64_t adopted;                             // descriptions that a program left to the next, and that went on by message there
};

static inline void fos_tally_add(uint64_t *counter, uint64_t amount) { __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED); }

// Makes zeroed memory a tally.
static inline void fos_tally_begin(struct fos_tally *tally) {
    tally->bytes = sizeof *tally;
    __atomic_store_n(&tally->magic, FOS_TALLY_MAGIC, __ATOMIC_RELEASE);
}

// For readers that cannot index a member: the figure of one system call, or of one reason.
static inline uint64_t fos_tally_handled(const struct fos_tally *tally, unsigned number) {
    return number < FOS_SYSTEM_CALLS ? fos_load_relaxed_u64(&tally->handled[number]) : 0;
}
static inline uint64_t fos_tally_bypassed(const struct fos_tally *tally, unsigned number) {
    return number < FOS_SYSTEM_CALLS ? fos_load_relaxed_u64(&tally->bypassed[number]) : 0;
}
static inline uint64_t fos_tally_reason(const struct fos_tally *tally, unsigned reason) {
    return reason < FOS_BYPASS_REASONS ? fos_load_relaxed_u64(&tally->reason[reason]) : 0;
}
static inline uint64_t fos_tally_left(const struct fos_tally *tally, unsigned reason) {
    return reason < FOS_LEFT_REASONS ? fos_load_relaxed_u64(&tally->memory_linux[reason]) : 0;
}

#endif
