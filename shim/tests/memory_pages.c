// Zero means zero: maps memory, checks that every byte of it is zero, spoils every page, and lets go of it, in all ways there are.
//
//   memory_pages MIB ROUNDS SEED     at most so much at once; ends with 1 and a line at the first byte that is not zero
// Run by several processes at once, some of which are killed, against one fleet: what one leaves, another gets.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };
static uint64_t state;
static uint64_t below(uint64_t limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % limit;
}

static void check_zero(const uint8_t *at, size_t bytes, const char *what) {
    const uint64_t *words = (const uint64_t *)at;
    for (size_t i = 0; i < bytes / 8; i++) {
        if (words[i] == 0) continue;
        fprintf(stderr, "memory_pages: %s: %016lx at byte %zu of %zu\n", what, words[i], i * 8, bytes);
        exit(1);
    }
}
static void spoil(uint8_t *at, size_t bytes) { memset(at, 0xa5, bytes); }
static void check_spoilt(const uint8_t *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        if (at[i] == 0xa5) continue;
        fprintf(stderr, "memory_pages: what was written has changed at byte %zu of %zu\n", i, bytes);
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    size_t most = strtoul(arguments[1], NULL, 10) << 20;
    long rounds = atol(arguments[2]);
    state = strtoull(arguments[3], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (long round = 0; round < rounds; round++) {
        size_t bytes = (1 + below(most / PAGE)) * PAGE;
        uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return 3;
        check_zero(at, bytes, "new memory");
        spoil(at, bytes);
        switch (below(5)) {
        case 0: {  // a part goes early
            size_t part = below(bytes / PAGE) * PAGE;
            munmap(at, part);
            check_spoilt(at + part, bytes - part);
            munmap(at + part, bytes - part);
            break;
        }
        case 1:  // given up and taken again
            madvise(at, bytes, MADV_DONTNEED);
            check_zero(at, bytes, "memory that was given up");
            munmap(at, bytes);
            break;
        case 2: {  // grows
            uint8_t *more = mremap(at, bytes, bytes + (8 << 20), MREMAP_MAYMOVE);
            if (more == MAP_FAILED) return 3;
            check_spoilt(more, bytes);
            check_zero(more + bytes, 8 << 20, "memory that was added");
            munmap(more, bytes + (8 << 20));
            break;
        }
        case 3: {  // a child holds it longer than its parent
            pid_t pid = fork();
            if (pid == 0) {
                check_spoilt(at, bytes);
                memset(at, 0x11, bytes / 2);
                check_spoilt(at + (bytes / 2 + PAGE) / PAGE * PAGE, bytes / 2 / PAGE * PAGE > 2 * PAGE ? bytes / 2 / PAGE * PAGE - 2 * PAGE : 0);
                _exit(0);
            }
            if (round % 2 == 0) check_spoilt(at, bytes);
            munmap(at, bytes);
            int status;
            if (waitpid(pid, &status, 0) == pid && status != 0) return 1;
            break;
        }
        default: munmap(at, bytes);
        }
    }
    return 0;
}
