// The helper process of the hostile-client tests: a client that misbehaves by a seed, or one that works steadily.
//
// Usage: fos-hostile hostile|steady|idle|frames|hold UID NAME SEED MILLISECONDS [RUN-AS-UID]
// Ends by its own clock, so that none outlives a test that was killed.
// Exit status: 0 nothing wrong, 1 the instance did what it must not (said on stderr), 2 usage, 3 the instance is gone.
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client.h"

void (*at_violation)(void);
uint64_t run_seed;
uid_t instance_uid;
const char *instance_name;

uint64_t clock_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int is_entitled(void) { return getuid() == 0 || getuid() == instance_uid; }

void violation(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "fos-hostile seed %llu: %s\n", (unsigned long long)run_seed, text);
    if (at_violation != NULL) at_violation();
    fflush(stderr);
    _exit(EXIT_VIOLATION);
}

uint64_t odd_number(struct random *random) {
    switch (below(random, 6)) {
    case 0: return below(random, 16);
    case 1: return (UINT64_C(1) << below(random, 64)) + below(random, 5) - 2;
    case 2: return UINT64_MAX - below(random, 4);
    case 3: return below(random, 4096);
    case 4: return below(random, FOS_BULK_BYTES + 4096);
    default: return draw(random);
    }
}

void fill(struct random *random, void *bytes, size_t length) {
    uint8_t *at = bytes;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t value = draw(random);
        memcpy(at, &value, 8);
    }
    for (; length > 0; length--) *at++ = (uint8_t)draw(random);
}

int main(int argc, char **argv) {
    static const char *const kinds[] = {"hostile", "steady", "idle", "frames", "hold"};
    unsigned kind = 0;
    while (argc > 1 && kind < 5 && strcmp(argv[1], kinds[kind]) != 0) kind++;
    if (argc < 6 || kind == 5) {
        fprintf(stderr, "usage: fos-hostile hostile|steady|idle|frames|hold UID NAME SEED MILLISECONDS [RUN-AS-UID]\n");
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    instance_uid = (uid_t)strtoul(argv[2], NULL, 10);
    instance_name = argv[3];
    run_seed = strtoull(argv[4], NULL, 10);
    uint64_t deadline = clock_ns() + strtoull(argv[5], NULL, 10) * 1000000u;
    if (argc > 6) {
        uid_t uid = (uid_t)strtoul(argv[6], NULL, 10);
        if (setgid(uid) != 0 || setuid(uid) != 0) {
            perror("setuid");
            return EXIT_USAGE;
        }
    }
    struct random random = {.state = run_seed * UINT64_C(0x9e3779b97f4a7c15) | 1};
    for (int i = 0; i < 8; i++) draw(&random);
    switch (kind) {
    case 0: return run_hostile(&random, deadline);
    case 1: return run_steady(&random, deadline);
    case 2: return run_idle(deadline);
    case 3: return run_frames(&random, deadline);
    default: return run_hold(&random, deadline);
    }
}
