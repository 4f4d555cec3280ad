// mprotect, madvise, mlock and their kind on what is served.
//
// Most of it the kernel does on shared memory as it would on private; the registry follows where a fork has to do it again.
// What it would do differently (MADV_DONTNEED gives the old contents again, MADV_REMOVE works, MADV_FREE does not) is done
// here. What needs Linux's own anonymous memory, gets it first.
// A call on several mappings is made piece by piece, in order, and ends where the kernel would end.
#define _GNU_SOURCE
#include "memory.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
enum { MADV_GUARD_INSTALL_RAW = 102, MADV_GUARD_REMOVE_RAW = 103, PROT_SEM_RAW = 8 };
#ifndef MADV_COLD
#define MADV_COLD 20
#endif

// What to do with one piece: `range` is served and covers it, or NULL. 0 or -errno.
typedef long piece_handler(uintptr_t start, uintptr_t end, const struct fos_range *range, long argument);

// Calls `handle` for each piece of [start, end) in order. A hole (-ENOMEM) does not end it where `past_holes` is set.
static long each_piece(uintptr_t start, uintptr_t end, piece_handler *handle, long argument, int past_holes) {
    long result = 0;
    if (fos_ranges_reserve(fos_ranges_count() + 8) != 0) return -ENOMEM;
    fos_ranges_split(start);
    fos_ranges_split(end);
    while (start < end) {
        uint32_t index = fos_ranges_find(start);
        const struct fos_range *next = index < fos_ranges_count() ? fos_range_at(index) : NULL;
        struct fos_range piece;
        uintptr_t until = end;
        const struct fos_range *covering = NULL;
        if (next != NULL && next->start <= start) {
            piece = *next;
            covering = &piece;
            until = piece.end < end ? piece.end : end;
        } else if (next != NULL && next->start < end) {
            until = next->start;
        }
        long done = handle(start, until, covering, argument);
        if (done != 0) result = done;
        if (done != 0 && !(past_holes && done == -ENOMEM)) break;
        start = until;
    }
    return result;
}

// The call's range, if it may meet what is served: the lock is taken then. 0: the call is not ours.
static int begin(struct fos_memory_lock *lock, uintptr_t start, uintptr_t bytes) {
    uintptr_t end = start + fos_pages(bytes);
    if (start % FOS_PAGE != 0 || bytes == 0 || end <= start || fos_ranges_miss(start, end)) return 0;
    fos_memory_lock(lock);
    if (fos_ranges_meet(start, end)) return 1;
    fos_memory_unlock(lock);
    return 0;
}

// ---- protection ------------------------------------------------------------------------------------------------------

static long protect(uintptr_t start, uintptr_t end, const struct fos_range *range, long protection) {
    long result = fos_raw(SYS_mprotect, start, end - start, protection);
    if (result == 0 && range != NULL) fos_ranges_change(start, end, (int32_t)protection, 0, 0);
    return result;
}

long fos_memory_mprotect(struct fos_call *call) {
    const long *a = call->arguments;
    struct fos_memory_lock lock;
    // Others are refused by the kernel, or are for stacks.
    if ((a[2] & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM_RAW)) != 0 || !begin(&lock, (uintptr_t)a[0], (uintptr_t)a[1])) return FOS_PASS;
    long result = each_piece((uintptr_t)a[0], (uintptr_t)a[0] + fos_pages((uintptr_t)a[1]), protect, a[2], 0);
    fos_memory_unlock(&lock);
    return result;
}

// ---- advice ----------------------------------------------------------------------------------------------------------

// Zeros again, and no frames: Linux's own memory in its place.
static long renew(uintptr_t start, uintptr_t end, const struct fos_range *range) {
    long at = fos_raw(SYS_mmap, start, end - start, range->protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (fos_failed(at)) return -ENOMEM;
    struct fos_range now = *range;
    fos_ranges_remove(start, end);
    now.start = start;
    now.end = end;
    now.kind = FOS_RANGE_LINUX;
    fos_ranges_insert(&now);
    fos_advise_again(start, end - start, now.flags);
    fos_memory_count(FOS_LEFT_ADVISED, end - start);
    return 0;
}

// The kernel refuses this advice, which changes nothing else, for locked memory.
static int is_locked(uintptr_t start, uintptr_t end) { return fos_raw(SYS_madvise, start, end - start, MADV_COLD) == -EINVAL; }

static long advise(uintptr_t start, uintptr_t end, const struct fos_range *range, long advice) {
    int served = range != NULL && range->kind != FOS_RANGE_LINUX;
    if (served) {
        switch (advice) {
        case MADV_DONTNEED: return is_locked(start, end) ? -EINVAL : renew(start, end, range);
        case MADV_DONTNEED_LOCKED: return renew(start, end, range);
        case MADV_FREE: return is_locked(start, end) ? -EINVAL : 0;  // "may be freed" is true of what is kept
        case MADV_REMOVE: return -EINVAL;
        case MADV_WIPEONFORK:
        case MADV_KEEPONFORK:
        case MADV_GUARD_INSTALL_RAW:
        case MADV_GUARD_REMOVE_RAW: {
            long result = fos_evacuate(start, end);
            if (result != 0) return result;
            break;
        }
        default: break;
        }
    }
    long result = fos_raw(SYS_madvise, start, end - start, advice);
    if (range == NULL || result != 0) return result;
    switch (advice) {
    case MADV_DONTFORK: fos_ranges_change(start, end, -1, FOS_RANGE_NO_FORK, 0); break;
    case MADV_DOFORK: fos_ranges_change(start, end, -1, 0, FOS_RANGE_NO_FORK); break;
    case MADV_DONTDUMP: fos_ranges_change(start, end, -1, FOS_RANGE_NO_DUMP, 0); break;
    case MADV_DODUMP: fos_ranges_change(start, end, -1, 0, FOS_RANGE_NO_DUMP); break;
    default: break;
    }
    return result;
}

// Advice that the kernel can take for all of a range at once.
static int is_kernels(long advice) {
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_GUARD_INSTALL_RAW:
    case MADV_GUARD_REMOVE_RAW: return 0;
    default: return 1;
    }
}

long fos_memory_madvise(struct fos_call *call) {
    const long *a = call->arguments;
    struct fos_memory_lock lock;
    if (is_kernels(a[2])) return FOS_PASS;
    if (!begin(&lock, (uintptr_t)a[0], (uintptr_t)a[1])) return FOS_PASS;
    long result = each_piece((uintptr_t)a[0], (uintptr_t)a[0] + fos_pages((uintptr_t)a[1]), advise, a[2], 1);
    fos_memory_unlock(&lock);
    return result;
}

// Kernels before 6.13 refuse all advice that would change contents here, and programs live with that.
long fos_memory_process_madvise(struct fos_call *call) {
    switch (call->arguments[3]) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_WIPEONFORK:
    case MADV_DONTFORK:
    case MADV_GUARD_INSTALL_RAW: return fos_ranges_count() > 0 ? -EINVAL : FOS_PASS;
    default: return FOS_PASS;
    }
}

// ---- locking in memory -----------------------------------------------------------------------------------------------

long fos_memory_mlock(struct fos_call *call) {
    const long *a = call->arguments;
    uintptr_t start = (uintptr_t)a[0] & ~(uintptr_t)(FOS_PAGE - 1), bytes = fos_pages((uintptr_t)a[1] + ((uintptr_t)a[0] - start));
    struct fos_memory_lock lock;
    if (!begin(&lock, start, bytes)) return FOS_PASS;
    long result = fos_ranges_reserve(2) != 0 ? -ENOMEM : fos_raw(call->number, a[0], a[1], a[2]);
    if (result == 0) {
        int locks = call->number != SYS_munlock;
        fos_ranges_change(start, start + bytes, -1, locks ? FOS_RANGE_LOCKED : 0, locks ? 0 : FOS_RANGE_LOCKED);
    }
    fos_memory_unlock(&lock);
    return result;
}

long fos_memory_mlockall(struct fos_call *call) {
    struct fos_memory_lock lock;
    fos_memory_lock(&lock);
    long result = fos_raw(call->number, call->arguments[0]);
    if (result == 0) {
        int locks = call->number == SYS_mlockall;
        fos_memory_lock_future = locks && (call->arguments[0] & MCL_FUTURE) != 0;
        if (!locks) fos_ranges_change(0, UINTPTR_MAX, -1, 0, FOS_RANGE_LOCKED);
        else if ((call->arguments[0] & MCL_CURRENT) != 0) fos_ranges_change(0, UINTPTR_MAX, -1, FOS_RANGE_LOCKED, 0);
    }
    fos_memory_unlock(&lock);
    return result;
}

// ---- what only Linux's own memory can bear -----------------------------------------------------------------------------

long fos_memory_to_linux(struct fos_call *call) {
    struct fos_memory_lock lock;
    uintptr_t start = (uintptr_t)call->arguments[0] & ~(uintptr_t)(FOS_PAGE - 1), bytes = (uintptr_t)call->arguments[1];
    if (!begin(&lock, start, bytes)) return FOS_PASS;
    long result = fos_evacuate(start, start + fos_pages(bytes));
    fos_memory_unlock(&lock);
    return result == 0 ? FOS_PASS : result;
}
