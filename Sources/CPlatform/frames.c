// Page frames: aligned memfds and anonymous memory, populated and given back in parts.
#define _GNU_SOURCE
#include <cplatform/frames.h>
#include <cplatform/memory.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGE_BYTES = 4096 };

// The descriptor that memfd_create(2) gives is no open of the inode, and is not counted when a lease is asked for; one
// opened by its name in /proc is.
static int open_again(int fd) {
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int other = open(name, O_RDWR | O_CLOEXEC);
    return other < 0 ? -errno : other;
}

static int lent_memfd(uint64_t bytes) {
    int first = fos_platform_memfd("fos-memory", bytes);
    if (first < 0) { return first; }
    int fd = -EACCES;
    if (fos_platform_seal_size(first) == 0 && fchmod(first, 0600) == 0) { fd = open_again(first); }
    close(first);
    // An open by somebody else while the lease is held would be told with SIGIO, which ends a process; SIGURG does not.
    if (fd >= 0) { (void)fcntl(fd, F_SETSIG, SIGURG); }
    return fd;
}

void *fos_platform_frames(uint64_t bytes, int huge, int lent, int *fd) {
    *fd = lent ? lent_memfd(bytes) : -1;
    if (lent && *fd < 0) { return NULL; }
    // Twice the size, then the ends are cut off: Linux aligns to a huge page at most.
    uint8_t *room = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) { goto failed; }
    uint8_t *base = (uint8_t *)(((uintptr_t)room + bytes - 1) & ~(uintptr_t)(bytes - 1));
    if (base > room) { munmap(room, (size_t)(base - room)); }
    munmap(base + bytes, (size_t)(room + bytes - base));
    int flags = MAP_FIXED | (lent ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (mmap(base, bytes, PROT_READ | PROT_WRITE, flags, *fd, 0) == MAP_FAILED) {
        munmap(base, bytes);
        goto failed;
    }
    if (huge) { (void)madvise(base, bytes, MADV_HUGEPAGE); }
    return base;
failed:
    if (*fd >= 0) { close(*fd); }
    *fd = -1;
    return NULL;
}

int fos_platform_frames_open(int fd) { return open_again(fd); }

int fos_platform_frames_alone(int fd) {
    if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) { return 0; }
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    return 1;
}

void fos_platform_frames_populate(void *address, uint64_t bytes) {
    if (madvise(address, bytes, MADV_POPULATE_WRITE) == 0) { return; }
    volatile uint8_t *page = address;
    for (uint64_t offset = 0; offset < bytes; offset += PAGE_BYTES) { page[offset] = page[offset]; }
}

void fos_platform_frames_discard(void *address, uint64_t bytes, int lent) {
    (void)madvise(address, bytes, lent ? MADV_REMOVE : MADV_DONTNEED);
}

static int chosen(const char *path, const char *one, const char *other, const char *third) {
    char text[128] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) { return 0; }
    ssize_t count = read(fd, text, sizeof text - 1);
    close(fd);
    return count > 0 && (strstr(text, one) != NULL || strstr(text, other) != NULL || strstr(text, third) != NULL);
}

int fos_platform_frames_huge(void) {
    return chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "[advise]", "[always]", "[within_size]");
}
