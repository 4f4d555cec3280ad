// The shim's own descriptors, which the program must not meet: of each connection its socket, segment and board, the same of one
// that the program before has left and nobody has taken up yet, a few regions of memory, and the neutral one, of which the
// numbers of open files are duplicates.
//
// They stand where nobody looks for a free number, are closed on exec, survive the program's closing of everything, and move
// out of the way of a dup2 to their number.
#define _GNU_SOURCE
#include <sys/resource.h>
#include "mounts.h"

enum {
    MEMORY = FOS_OF_CONNECTION * FOS_MOUNTS_MAX, MEMORY_PLACES = 4, NEUTRAL = MEMORY + MEMORY_PLACES,
    KEPT = NEUTRAL + 1, HIDDEN_MAX = KEPT + FOS_OF_CONNECTION,
};
static int hidden[HIDDEN_MAX] = {[0 ... HIDDEN_MAX - 1] = -1};
static int lowest = INT_MAX;  // none of them was ever below: programs close lower numbers all the time

static void note(int place, int fd) {
    hidden[place] = fd;
    if (fd >= 0 && fd < lowest) lowest = fd;
}

int fos_hidden_descriptor(int fd) {
    if (fd < lowest) return 0;
    for (int i = 0; i < HIDDEN_MAX; i++) {
        if (hidden[i] == fd) return 1;
    }
    return 0;
}

int fos_highest_hidden_descriptor(void) {
    int highest = -1;
    for (int i = 0; i < HIDDEN_MAX; i++) {
        if (hidden[i] > highest) highest = hidden[i];
    }
    return highest;
}

// Where a connection has each of its descriptors.
int *fos_client_descriptor(struct fos_mount *mount, int which) {
    return which == 0 ? &mount->client.socket : which == 1 ? &mount->client.segment_fd : &mount->client.board_fd;
}

// Where nobody looks for a free number: just below the limit, or below 1,024, which keeps the kernel's table small.
static long high_number(void) {
    struct rlimit limit;
    if (fos_raw(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &limit) != 0) return 0;
    long most = limit.rlim_cur < 1024 ? (long)limit.rlim_cur : 1024, room = most / 4;
    return most - (room < 2 * HIDDEN_MAX ? room : 2 * HIDDEN_MAX);
}

static int hide(int place, int fd, long least) {
    long moved = fos_raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, least);
    if (moved >= 0) {
        fos_raw(SYS_close, fd);
        fd = (int)moved;
    }
    note(place, fd);
    return fd;
}

void fos_hide_connection(struct fos_mount *mount) {
    long least = high_number();
    for (int which = 0; which < FOS_OF_CONNECTION; which++) {
        int *fd = fos_client_descriptor(mount, which);
        *fd = hide((int)mount->index * FOS_OF_CONNECTION + which, *fd, least);
    }
}
void fos_note_hidden(struct fos_mount *mount) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) {
        note((int)mount->index * FOS_OF_CONNECTION + which, *fos_client_descriptor(mount, which));
    }
}
int fos_connection_is_open(const struct fos_mount *mount) { return hidden[mount->index * FOS_OF_CONNECTION] >= 0; }
void fos_close_connection(struct fos_mount *mount) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) {
        int *fd = &hidden[(int)mount->index * FOS_OF_CONNECTION + which];
        if (*fd >= 0) fos_raw(SYS_close, *fd);
        *fd = *fos_client_descriptor(mount, which) = -1;
    }
}

void fos_hide_kept(const int *descriptors) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) note(KEPT + which, descriptors[which]);
}
void fos_unhide_kept(int *descriptors) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) {
        descriptors[which] = hidden[KEPT + which];
        hidden[KEPT + which] = -1;
    }
}

int fos_hide_for_memory(int place, int fd) {
    int *here = &hidden[MEMORY + place];
    if (*here >= 0) fos_raw(SYS_close, *here);
    *here = -1;
    return fd < 0 ? -1 : hide(MEMORY + place, fd, high_number());
}
int fos_hidden_for_memory(int place) { return hidden[MEMORY + place]; }
void fos_forget_for_memory(int place) { hidden[MEMORY + place] = -1; }

long fos_move_hidden_descriptor(int fd) {
    for (int i = 0; i < HIDDEN_MAX; i++) {
        if (hidden[i] != fd) continue;
        long moved = fos_raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd + 1);
        if (moved < 0) moved = fos_raw(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
        if (moved < 0) return moved;
        note(i, (int)moved);
        if (i < MEMORY) *fos_client_descriptor(&fos_mounts[i / FOS_OF_CONNECTION], i % FOS_OF_CONNECTION) = (int)moved;
        return 0;  // the program's own dup2 closes the old number
    }
    return 0;
}

int fos_neutral_descriptor(void) {
    int fd = hidden[NEUTRAL];
    if (__builtin_expect(fd >= 0, 1)) return fd;
    if (!fos_mounts_claim()) return -1;
    fd = hidden[NEUTRAL];
    if (fd < 0) {
        long opened = fos_raw(SYS_openat, AT_FDCWD, "/dev/null", O_PATH | O_CLOEXEC);
        if (opened < 0) opened = fos_raw(SYS_openat, AT_FDCWD, "/proc/self/exe", O_PATH | O_CLOEXEC);
        if (opened >= 0) fd = hide(NEUTRAL, (int)opened, high_number());
    }
    fos_mounts_unclaim();
    return fd;
}
