// What the shim costs a program's start: the time of vfork, exec, exit and wait of /bin/true, with and without it.
//
// usage: start LIBRARY EMPTY [ROUNDS]      (FOS_CACHE or HOME as for the shim; `fos shim-path` makes the tables)
//
// The kinds take turns, so that what the machine does meanwhile hits all; the median counts, and
// where the machine is busy the time that a tenth of the runs stays below. "empty" is a preloaded library that does nothing: the part that is the dynamic linker's.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 3 };
extern char **environ;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t run(char *const *environment) {
    char *const arguments[] = {"true", NULL};
    pid_t pid;
    int status;
    uint64_t start = now();
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environment) != 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "/bin/true failed\n");
        exit(1);
    }
    return now() - start;
}

static int compare(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return a < b ? -1 : a > b;
}

// This environment with LD_PRELOAD set to `library`, or without it.
static char **with(const char *library) {
    size_t count = 0, kept = 0;
    while (environ[count] != NULL) count++;
    char **result = calloc(count + 2, sizeof *result);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0) result[kept++] = environ[i];
    }
    if (library != NULL && asprintf(&result[kept], "LD_PRELOAD=%s", library) < 0) exit(1);
    return result;
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: start LIBRARY EMPTY [ROUNDS]\n");
        return 2;
    }
    size_t rounds = count > 3 ? strtoul(arguments[3], NULL, 10) : 2000;
    if (rounds < 4) rounds = 4;
    static const char *const names[KINDS] = {"alone", "empty", "shim"};
    char **environment[KINDS] = {with(NULL), with(arguments[2]), with(arguments[1])};
    uint64_t *times[KINDS];
    for (int kind = 0; kind < KINDS; kind++) times[kind] = calloc(rounds, sizeof **times);
    for (size_t round = 0; round < rounds; round++) {
        for (int kind = 0; kind < KINDS; kind++) times[kind][round] = run(environment[kind]);
    }
    double median[KINDS], low[KINDS];
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(times[kind], rounds, sizeof **times, compare);
        median[kind] = (double)times[kind][rounds / 2] / 1000;
        low[kind] = (double)times[kind][rounds / 10] / 1000;
        printf("%-6s  median %7.1f us  tenth %7.1f us\n", names[kind], median[kind], low[kind]);
    }
    printf("the shim adds %.1f us (of the tenth: %.1f us), of which the preloading itself %.1f us (%.1f us)\n", median[2] - median[0],
           low[2] - low[0], median[1] - median[0], low[1] - low[0]);
    return 0;
}
