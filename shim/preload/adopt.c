// Adoption: descriptors that an earlier program of this process has left, and whose open file description no other process has.
//
// A file that a program opened by message is nobody else's: with a fork, and whenever it is passed on, it becomes the kernel's
// for good. So what a program has by message when it executes another one (a shell's `command > file`), that one may have by
// message too. Before the exec the kernel's description is put behind the numbers, with offset and flags, so whatever is
// executed finds what execve(2) promises; the server's reference stays with the connection, in which the numbers are written
// down (keep.c). In the new program they are the kernel's until they are used: what is only read stays so until the kernel's
// calls on it have cost as much as going over to messages does, since many a program reads a line or two. Then the description
// is adopted: offset and data are the shim's, and the kernel's description stays behind the numbers as behind those of a file
// with locks. Where it turns out that the kernel uses the file too (it has had its pages before, somebody reads it through the
// mount), so that it has to look at each change of size, the description is the kernel's again. If it may be shared before that (a fork, passing it on) or is closed, it stays the kernel's.
// Descriptors of others (a shell without the shim, a parent) are not adopted: nothing tells that nobody shares their offset.
// Invariants: while a call of the kernel's uses the offset, it is counted, and the description is not adopted; so the offset that
// is taken over is the last one. Who changes the list holds `changing`, with signals put off: a handler that met a description
// half adopted could neither wait for it nor go on without it. It is for some microseconds, once a description.
#define _GNU_SOURCE
#include "mounts.h"
#include "signals.h"

// What going over costs a reader: the connection is taken up, and the first pages come again.
enum { ADOPTION_NS = 150000 };

// glibc's: 1 while the process has one thread.
extern char __libc_single_threaded __attribute__((weak));

uint32_t fos_handed_count;  // numbers in the list
static struct fos_handed handed[FOS_HANDED_MAX];
static struct {
    uint64_t inode;      // 0: free
    uint64_t spent_ns;   // by calls of the kernel's
    uint32_t access;     // O_RDONLY, O_WRONLY or O_RDWR
    uint32_t numbers;    // of the list; 0: its reference waits to be given back
    uint32_t in_flight;  // calls of the kernel's now
} descriptions[FOS_HANDED_MAX];
static uint32_t owner;   // fos_connection_tag of what holds the references; 0: it is not taken up yet
static uint32_t changing;

// ---- one at a time --------------------------------------------------------------------------------------------------

static uint64_t claim(void) {
    uint64_t signals = fos_put_signals_off();
    while (!fos_compare_exchange_u32(&changing, 0, 1)) fos_sleep(20000);
    return signals;
}
static void unclaim(uint64_t signals) {
    fos_store_release_u32(&changing, 0);
    fos_let_signals_in(signals);
}

// ---- the list -------------------------------------------------------------------------------------------------------

// The place of a number; FOS_HANDED_MAX: it is not in the list.
static uint32_t place_of(long fd) {
    uint32_t count = fos_load_acquire_u32(&fos_handed_count);
    for (uint32_t place = 0; place < count; place++) {
        if (handed[place].fd == fd) return place;
    }
    return FOS_HANDED_MAX;
}

// Takes a place out. What becomes of the server's reference when the last one of a description goes, the caller sees to.
static uint32_t take_out(uint32_t place) {
    uint32_t description = handed[place].description, last = fos_handed_count - 1;
    handed[place] = handed[last];
    fos_store_release_u32(&fos_handed_count, last);
    descriptions[description].numbers--;
    return description;
}

// Gives a reference back that no number needs any more, as soon as there is a connection to do it by.
static void give_back(uint32_t description) {
    if (owner == 0) return;
    struct fos_mount *mount = &fos_mounts[(owner - 1) & 15];
    struct fos_context *context = mount->state == FOS_MOUNT_CONNECTED && fos_connection_tag(mount) == owner ? fos_enter(SYS_close) : NULL;
    if (context != NULL) {
        fos_give_back(context, mount, descriptions[description].inode, descriptions[description].access);
        fos_leave(context);
    }
    descriptions[description].inode = 0;
}

static void forget_place(uint32_t place) {
    uint32_t description = take_out(place);
    if (descriptions[description].numbers == 0) give_back(description);
}

// The whole description of a place stays the kernel's.
static void forget_description(uint32_t place) {
    uint32_t description = handed[place].description;
    for (place = fos_handed_count; place-- > 0;) {
        if (handed[place].description == description) forget_place(place);
    }
}

void fos_handed_forget(long fd) {
    if (place_of(fd) == FOS_HANDED_MAX) return;
    uint64_t signals = claim();
    uint32_t place = place_of(fd);
    if (place != FOS_HANDED_MAX) forget_place(place);
    unclaim(signals);
}

void fos_handed_forget_all(void) {
    if (fos_load_relaxed_u32(&fos_handed_count) == 0) return;
    uint64_t signals = claim();
    while (fos_handed_count > 0) forget_place(fos_handed_count - 1);
    unclaim(signals);
}

void fos_handed_after_fork(void) {
    fos_handed_count = owner = changing = 0;
    memset(descriptions, 0, sizeof descriptions);
}

// ---- adopting -------------------------------------------------------------------------------------------------------

// 1: the kernel still has this file behind the number.
static int is_behind(const struct fos_mount *mount, uint64_t inode, int fd) {
    struct statx seen;
    return fos_raw(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &seen) == 0 && seen.stx_ino == inode &&
        seen.stx_dev_major == mount->device_major && seen.stx_dev_minor == mount->device_minor;
}

// The description of ours that takes the place of the kernel's; NULL: it stays the kernel's.
static struct fos_file *describe(uint32_t description) {
    if (fos_kept_here) fos_resume_kept();
    struct fos_mount *mount = &fos_mounts[(owner - 1) & 15];
    if (owner == 0 || mount->state != FOS_MOUNT_CONNECTED || fos_connection_tag(mount) != owner || fos_file_size_limited) return NULL;
    long flags = 0, offset = 0;
    for (uint32_t place = 0; place < fos_handed_count; place++) {
        if (handed[place].description != description) continue;
        if (!is_behind(mount, descriptions[description].inode, handed[place].fd)) return NULL;
        flags = fos_raw(SYS_fcntl, handed[place].fd, F_GETFL);
        offset = fos_raw(SYS_lseek, handed[place].fd, 0, SEEK_CUR);
    }
    if (flags < 0 || offset < 0 || (flags & (O_ASYNC | O_NOATIME)) != 0) return NULL;
    struct fos_file *file = fos_file_new();
    if (file == NULL) return NULL;
    file->mount = mount->index;
    file->generation = mount->generation;
    file->inode = descriptions[description].inode;
    file->is_directory = 0;
    file->flags = (uint32_t)flags;
    file->offset = offset;
    file->backing = FOS_BACKING_DONE;
    file->is_adopted = 1;
    return file;
}

// Claimed: the description of a place becomes ours, under all its numbers. 0: it stays the kernel's, perhaps only for now.
static int adopt(uint32_t place) {
    uint32_t description = handed[place].description;
    if (__atomic_load_n(&descriptions[description].in_flight, __ATOMIC_SEQ_CST) != 0) return 0;
    struct fos_file *file = describe(description);
    if (file == NULL) {
        // Taking the connection up may have found that it is not ours, and emptied the list.
        if (place < fos_handed_count && handed[place].description == description) forget_description(place);
        return 0;
    }
    file->references = descriptions[description].numbers;
    for (place = fos_handed_count; place-- > 0;) {
        if (handed[place].description != description) continue;
        fos_number_publish(handed[place].fd, file);
        take_out(place);
    }
    descriptions[description].inode = 0;
    fos_tally_add(&fos_tally->adopted, 1);
    return 1;
}

int fos_handed_take(long fd) {
    if (place_of(fd) == FOS_HANDED_MAX) return 0;
    uint64_t signals = claim();
    uint32_t place = place_of(fd);
    if (place != FOS_HANDED_MAX && !adopt(place) && (place = place_of(fd)) != FOS_HANDED_MAX) forget_description(place);
    unclaim(signals);
    return fos_ours(fd);
}

// 1: it is counted from now on as in flight. 0: it is the kernel's alone, or ours.
static int begin_call(long fd, uint32_t *description) {
    uint64_t signals = claim();
    uint32_t place = place_of(fd);
    int writes = 0;
    if (place != FOS_HANDED_MAX) {
        *description = handed[place].description;
        writes = descriptions[*description].access != O_RDONLY;
        if ((writes || descriptions[*description].spent_ns > ADOPTION_NS) && adopt(place)) place = FOS_HANDED_MAX;
        else place = place_of(fd);
        if (place != FOS_HANDED_MAX) __atomic_add_fetch(&descriptions[*description].in_flight, 1, __ATOMIC_SEQ_CST);
    }
    unclaim(signals);
    return place != FOS_HANDED_MAX;
}

long fos_handed_call(struct fos_call *call, long fd) {
    if (place_of(fd) == FOS_HANDED_MAX) return FOS_PASS;
    uint32_t description = 0;
    if (!begin_call(fd, &description)) return fos_ours(fd) ? fos_calls_handle(call) : FOS_PASS;
    const long *a = call->arguments;
    uint64_t start = fos_clock();
    long result = fos_raw(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    descriptions[description].spent_ns += fos_clock() - start;
    __atomic_sub_fetch(&descriptions[description].in_flight, 1, __ATOMIC_SEQ_CST);
    return result;
}

// ---- from the program before ----------------------------------------------------------------------------------------

void fos_handed_receive(const struct fos_handed *list, uint32_t count) {
    for (uint32_t i = 0; i < count && i < FOS_HANDED_MAX; i++) {
        if (list[i].fd < 0 || list[i].fd >= FOS_DESCRIPTORS_MAX || list[i].description >= FOS_HANDED_MAX || list[i].inode == 0) continue;
        handed[fos_handed_count++] = list[i];
        descriptions[list[i].description].inode = list[i].inode;
        descriptions[list[i].description].access = list[i].access;
        descriptions[list[i].description].numbers++;
    }
}

void fos_handed_belong(const struct fos_mount *mount) {
    if (mount == NULL) {
        fos_store_release_u32(&fos_handed_count, 0);
        return;
    }
    owner = fos_connection_tag(mount);
    for (uint32_t i = 0; i < FOS_HANDED_MAX; i++) {
        if (descriptions[i].inode != 0 && descriptions[i].numbers == 0) give_back(i);
    }
}

// ---- for the next program -------------------------------------------------------------------------------------------

static int is_inherited(int fd) {
    long flags = fos_raw(SYS_fcntl, fd, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

// How many numbers of a description the next program will have.
static uint32_t inherited_numbers(const struct fos_file *file) {
    uint32_t count = 0;
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *here = fos_file_get(fd);
        if (here == NULL) continue;
        count += here == file && is_inherited(fd);
        fos_file_put(NULL, here);
    }
    return count;
}

static int may_go_on(const struct fos_file *file) {
    return file->state == FOS_FILE_MESSAGE && !file->is_directory && !fos_names_only(file) && fos_file_usable(file) != NULL && !file->goes_on;
}

uint32_t fos_hand_on(struct fos_context *context) {
    // Another thread could still use the offset when the kernel's has been set.
    if (&__libc_single_threaded == NULL || !__libc_single_threaded || fos_file_size_limited) return 0;
    if (fos_kept_here && fos_handed_count > 0) fos_resume_kept();
    uint32_t taken = 0, next = 0;  // numbers of descriptions: in use, by bits; the one to try next
    for (uint32_t place = fos_handed_count; place-- > 0;) {
        if (!is_inherited(handed[place].fd)) fos_handed_forget(handed[place].fd);
        else taken |= 1u << handed[place].description;
    }
    uint32_t used = fos_handed_count;
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *file = fos_file_get(fd);
        if (file == NULL) continue;
        uint32_t numbers = may_go_on(file) && is_inherited(fd) ? inherited_numbers(file) : 0;
        if (numbers > 0 && used + numbers <= FOS_HANDED_MAX && fos_back_whole(context, fd) == 0) {
            while ((taken >> next & 1) != 0) next++;
            file->goes_on = ++next;
            used += numbers;
        }
        fos_file_put(context, file);
    }
    return used;
}

uint32_t fos_handed_list(struct fos_handed *list) {
    uint32_t count = 0;
    for (; count < fos_handed_count; count++) list[count] = handed[count];
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *file = fos_file_get(fd);
        if (file == NULL) continue;
        if (file->goes_on != 0 && is_inherited(fd)) {
            list[count++] = (struct fos_handed){.inode = file->inode, .fd = fd, .description = (uint16_t)(file->goes_on - 1), .access = file->flags & O_ACCMODE};
        }
        fos_file_put(NULL, file);
    }
    return count;
}

void fos_hand_on_ends(void) {
    for (int fd = 0; fd <= fos_table_highest(); fd++) {
        struct fos_file *file = fos_file_get(fd);
        if (file == NULL) continue;
        file->goes_on = 0;
        fos_file_put(NULL, file);
    }
}
