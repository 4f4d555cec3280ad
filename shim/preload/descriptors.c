// Descriptors: numbers of the program, and the open file descriptions of ours that they lead to.
//
// A number of ours is, for the kernel, a duplicate of one O_PATH descriptor: it takes the lowest free number, counts
// against RLIMIT_NOFILE, keeps its close-on-exec flag, and answers EBADF to whoever reads it behind the shim's back.
// What that one descriptor refers to is no directory, so nothing is ever looked up below it, and not on the mount, so
// that an idle program does not keep it busy.
// Invariants: a description's references are its numbers and the calls that use it now; whoever gives the last one back
// releases the inode at its server. Descriptions are never unmapped, so a reader that lost a race reads a stranger's
// words, and notices because the number leads elsewhere.
#define _GNU_SOURCE
#include "calls.h"

uint32_t fos_table[FOS_DESCRIPTORS_MAX] FOS_LARGE;
static struct fos_file files[FOS_FILES_MAX] FOS_LARGEST;
static uint32_t never_used = 0;   // descriptions from here on are fresh
static uint64_t free_files = 0;   // index + 1 of the first free one, and a count against ABA in the upper half
static int highest = -1;

int fos_table_highest(void) { return __atomic_load_n(&highest, __ATOMIC_RELAXED); }

// ---- descriptions ---------------------------------------------------------------------------------------------------

struct fos_file *fos_file_new(void) {
    struct fos_file *file = NULL;
    uint64_t head = __atomic_load_n(&free_files, __ATOMIC_ACQUIRE);
    while ((uint32_t)head != 0) {
        struct fos_file *first = &files[(uint32_t)head - 1];
        uint64_t next = (head >> 32 << 32) + (UINT64_C(1) << 32) + __atomic_load_n(&first->next_free, __ATOMIC_RELAXED);
        if (fos_own_compare_exchange_u64(&free_files, head, next)) {
            file = first;
            break;
        }
        head = __atomic_load_n(&free_files, __ATOMIC_ACQUIRE);
    }
    if (file == NULL) {
        uint32_t index = __atomic_load_n(&never_used, __ATOMIC_RELAXED);
        do {
            if (index >= FOS_FILES_MAX) return NULL;
        } while (!__atomic_compare_exchange_n(&never_used, &index, index + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
        file = &files[index];
    }
    file->lock = 0;
    file->state = FOS_FILE_MESSAGE;
    file->offset = 0;
    file->ended_at = -1;
    file->path_length = 0;
    file->region = file->message_reads = file->message_writes = 0;
    file->message_bytes = 0;
    file->backing = FOS_BACKING_NONE;
    file->goes_on = file->left_behind = file->slow = file->is_adopted = 0;
    file->size = UINT64_MAX;
    __atomic_store_n(&file->references, 1, __ATOMIC_RELEASE);
    return file;
}

void fos_file_delete(struct fos_file *file) {
    __atomic_store_n(&file->references, 0, __ATOMIC_RELEASE);
    uint32_t index = (uint32_t)(file - files) + 1;
    uint64_t head, next;
    do {
        head = __atomic_load_n(&free_files, __ATOMIC_ACQUIRE);
        __atomic_store_n(&file->next_free, (uint32_t)head, __ATOMIC_RELAXED);
        next = (head >> 32 << 32) + (UINT64_C(1) << 32) + index;
    } while (!fos_own_compare_exchange_u64(&free_files, head, next));
}

struct fos_file *fos_file_get(long fd) {
    if ((uint32_t)fd >= FOS_DESCRIPTORS_MAX) return NULL;
    for (;;) {
        uint32_t entry = __atomic_load_n(&fos_table[(uint32_t)fd], __ATOMIC_ACQUIRE);
        if (entry == 0) return NULL;
        struct fos_file *file = &files[entry - 1];
        uint32_t count = __atomic_load_n(&file->references, __ATOMIC_RELAXED);
        if (count == 0 || !fos_own_compare_exchange_u32(&file->references, count, count + 1)) continue;
        if (__builtin_expect(__atomic_load_n(&fos_table[(uint32_t)fd], __ATOMIC_ACQUIRE) == entry, 1)) return file;
        fos_file_put(NULL, file);
    }
}

// A directory that was removed while it was open has no name to open it through the mount by: in a child of fork it is taken over
// by its number, as long as the parent has it open. The server sees to it that the number is no other directory's by then.
static struct fos_mount *take_over(struct fos_file *file) {
    const char *rest;
    struct fos_mount *mount = fos_mount_of_path(fos_file_mount(file)->path, &rest);
    if (mount != fos_file_mount(file) || mount->generation != file->generation + 1) return NULL;
    struct fos_context *context = fos_enter(SYS_openat);
    if (context == NULL) return NULL;
    struct fos_open_request wanted = {.open_flags = O_RDONLY | O_DIRECTORY};
    fos_put_fixed(fos_build(context, mount, FOS_OP_OPEN, file->inode), &wanted, sizeof wanted);
    int status = fos_send(context, mount);
    uint32_t before = mount->generation - 1;
    // Another thread may have come first: its reference is the description's.
    if (status == 0 && !fos_compare_exchange_u32(&file->generation, before, mount->generation)) fos_give_back(context, mount, file->inode, O_RDONLY);
    fos_leave(context);
    return status == 0 ? mount : NULL;
}

struct fos_mount *fos_file_reach(struct fos_file *file) {
    struct fos_mount *mount = fos_file_usable(file);
    return mount == NULL && file->left_behind ? take_over(file) : mount;
}

// Gives the reference of a description back.
static void release(struct fos_context *context, struct fos_file *file) {
    struct fos_mount *mount = fos_file_usable(file);
    if (mount == NULL || (file->state == FOS_FILE_KERNEL && !file->is_directory)) return;
    struct fos_context *own = context == NULL ? fos_enter(SYS_close) : context;
    if (own == NULL) return;
    if (!fos_reference_keep(own, mount, file->inode, file->flags) && !fos_reference_give(mount, file->inode, file->flags, file->size)) {
        fos_give_back(own, mount, file->inode, file->flags);
    }
    if (context == NULL) fos_leave(own);
}

__attribute__((noinline)) static void put_last(struct fos_context *context, struct fos_file *file) {
    fos_unmap(file);
    release(context, file);
    fos_file_delete(file);
}

void fos_file_put(struct fos_context *context, struct fos_file *file) {
    if (fos_own_fetch_add_u32(&file->references, UINT32_MAX) == 1) put_last(context, file);
}

// ---- the table ------------------------------------------------------------------------------------------------------

static void note_highest(int fd) {
    int seen = __atomic_load_n(&highest, __ATOMIC_RELAXED);
    while (fd > seen && !__atomic_compare_exchange_n(&highest, &seen, fd, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

long fos_number_take(int close_on_exec) {
    int neutral = fos_neutral_descriptor();
    if (neutral < 0) return FOS_PASS;
    long fd = fos_raw(SYS_fcntl, neutral, close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    if (fd < 0) return fd == -EINVAL ? -EMFILE : fd;
    if (fd >= FOS_DESCRIPTORS_MAX) {
        fos_raw(SYS_close, fd);
        return FOS_PASS;
    }
    return fd;
}

void fos_number_publish(int fd, struct fos_file *file) {
    note_highest(fd);
    __atomic_store_n(&fos_table[fd], (uint32_t)(file - files) + 1, __ATOMIC_RELEASE);
}

void fos_table_set(struct fos_context *context, int fd, struct fos_file *file) {
    uint32_t entry = 0;
    if (file != NULL) {
        fos_own_fetch_add_u32(&file->references, 1);
        entry = (uint32_t)(file - files) + 1;
        note_highest(fd);
    }
    uint32_t before = fos_own_exchange_u32(&fos_table[fd], entry);
    if (before != 0) fos_file_put(context, &files[before - 1]);
}

void fos_table_clear(struct fos_context *context, int fd) {
    if ((uint32_t)fd < FOS_DESCRIPTORS_MAX) fos_table_set(context, fd, NULL);
}

int fos_is_name(int fd) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 0;
    int is_name = fos_names_only(file);
    fos_file_put(NULL, file);
    return is_name;
}

int fos_is_kernels(int fd) {
    struct fos_file *file = fos_file_get(fd);
    if (file == NULL) return 1;
    int is_kernels = fos_file_state(file) != FOS_FILE_MESSAGE;
    fos_file_put(NULL, file);
    return is_kernels;
}

// In the child only the numbers refer to descriptions: calls of other threads are not there. What is the kernel's was known
// through the parent's connection.
void fos_files_after_fork(void) {
    for (int fd = 0; fd <= highest; fd++) {
        if (fos_table[fd] == 0) continue;
        struct fos_file *file = &files[fos_table[fd] - 1];
        if (file->state != FOS_FILE_MESSAGE) fos_table[fd] = 0;
        else file->left_behind = file->is_directory && (file->left_behind || fos_file_usable(file) != NULL);
    }
    for (uint32_t index = 0; index < never_used; index++) {
        files[index].references = 0;
        files[index].lock = 0;
    }
    for (int fd = 0; fd <= highest; fd++) {
        if (fos_table[fd] != 0) files[fos_table[fd] - 1].references++;
    }
    free_files = 0;
    for (uint32_t index = 0; index < never_used; index++) {
        if (files[index].references == 0) fos_file_delete(&files[index]);
    }
}

// ---- the offset's lock ----------------------------------------------------------------------------------------------

// Held while a call uses and moves the offset. A handler that interrupted its holder goes on without it, and a holder
// that never comes back is not waited for for ever: the lock keeps offsets in order, nothing else depends on it. One whose context
// is free again, or whose thread has ended, does not come back.
void fos_file_lock(struct fos_context *context, struct fos_file *file) {
    for (uint32_t attempt = 0;; attempt++) {
        if (fos_own_compare_exchange_u32(&file->lock, 0, context->index + 1)) return;
        uint32_t holder = fos_load_relaxed_u32(&file->lock);
        if (holder == 0) continue;
        if (fos_context_is_mine(holder - 1) || attempt > 200000) return;
        if (attempt < 100) {
            fos_spin_pause();
        } else {
            int is_left = fos_context_is_left(holder - 1);
            fos_sleep(50000);
            if (is_left && fos_own_compare_exchange_u32(&file->lock, holder, context->index + 1)) return;
        }
    }
}

void fos_file_unlock(struct fos_context *context, struct fos_file *file) {
    fos_own_compare_exchange_u32(&file->lock, context->index + 1, 0);
}
