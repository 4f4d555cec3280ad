// Attacks on the shared memory itself: resizing, unsealing, writing to what is read-only. None may succeed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "client.h"

static void must_not_resize(int fd, off_t length, const char *what) {
    off_t size = lseek(fd, 0, SEEK_END);
    if (length != size && ftruncate(fd, length) == 0) violation("%s could be resized to %lld", what, (long long)length);
    fallocate(fd, 0, length, 4096);  // inside the size it may allocate
    if (lseek(fd, 0, SEEK_END) != size) violation("%s changed its size", what);
}

static void must_not_map_writable(int fd, size_t bytes, const char *what) {
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address != MAP_FAILED) violation("%s could be mapped writable", what);
    address = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return;
    if (mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0) violation("%s could be made writable", what);
    munmap(address, bytes);
    static const char byte = 1;
    if (pwrite(fd, &byte, 1, 64) == 1) violation("%s could be written", what);
}

void attack_memory(struct random *random, struct fos_client *client) {
    must_not_resize(client->segment_fd, (off_t)below(random, client->segment_bytes), "the segment");
    must_not_resize(client->segment_fd, (off_t)client->segment_bytes + 4096, "the segment");
    must_not_resize(client->board_fd, 0, "the board");
    must_not_resize(client->board_fd, (off_t)client->board_bytes + 4096, "the board");
    if (fcntl(client->segment_fd, F_ADD_SEALS, F_SEAL_WRITE) == 0) violation("the segment could be sealed by a client");
    must_not_map_writable(client->board_fd, client->board_bytes, "the board");
    if (mprotect((void *)client->board, client->board_bytes, PROT_READ | PROT_WRITE) == 0) violation("the board's mapping could be made writable");
    // A second opening of the same memory has a file status of its own; the seals must hold there too.
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", client->board_fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        must_not_map_writable(again, client->board_bytes, "the board, opened again,");
        must_not_resize(again, 0, "the board, opened again,");
        close(again);
    }
    // Holes in its own segment are the client's to punch: the other side reads zeros.
    if (chance(random, 30)) {
        off_t at = (off_t)below(random, client->segment_bytes) & ~(off_t)4095;
        fallocate(client->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096 * (off_t)(1 + below(random, 64)));
    }
}
