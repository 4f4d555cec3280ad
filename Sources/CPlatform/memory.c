// Sealed memfds and anonymous mappings.
#define _GNU_SOURCE
#include <cplatform/memory.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

int fos_platform_memfd(const char *name, uint64_t bytes) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) { fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); }  // before Linux 6.3
    if (fd < 0) { return -errno; }
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int fos_platform_seal_size(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

int fos_platform_seal_read_only(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

int fos_platform_open_read_only(int fd) {
    char path[32];
    // Another user who was handed the result must not open the file again for writing.
    if (fchmod(fd, 0600) < 0) { return -errno; }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int copy = open(path, O_RDONLY | O_CLOEXEC);
    return copy < 0 ? -errno : copy;
}

void *fos_platform_map_shared(int fd, uint64_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *fos_platform_map_private(uint64_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void fos_platform_unmap(void *address, uint64_t bytes) { (void)munmap(address, bytes); }

int fos_platform_duplicate(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}
