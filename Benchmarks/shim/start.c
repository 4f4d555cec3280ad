// What the shim costs a program's start: the time of vfork, exec, exit and wait of /bin/true, with and without it. And what
// a connection costs it, from making it to its end: the same of `test -e` of a file that is no mount's, and of one that is.
//
// usage: start LIBRARY EMPTY [ROUNDS [FILE]]   (FOS_CACHE or HOME as for the shim; `fos shim-path` makes the tables)
//
// FILE is on a fos mount; without it there is no connection.
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

enum { ALONE, EMPTY, SHIM, LOOKS, CONNECTS, KINDS };
extern char **environ;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t run(char *const *environment, const char *file) {
    char *const nothing[] = {"true", NULL}, *const look[] = {"test", "-e", (char *)file, NULL};
    const char *program = file == NULL ? "/bin/true" : "/usr/bin/test";
    pid_t pid;
    int status;
    uint64_t start = now();
    if (posix_spawn(&pid, program, NULL, NULL, file == NULL ? nothing : look, environment) != 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "%s failed\n", program);
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
        fprintf(stderr, "usage: start LIBRARY EMPTY [ROUNDS [FILE]]\n");
        return 2;
    }
    size_t rounds = count > 3 ? strtoul(arguments[3], NULL, 10) : 2000;
    if (rounds < 4) rounds = 4;
    const char *file = count > 4 ? arguments[4] : NULL;
    int kinds = file == NULL ? LOOKS : KINDS;
    static const char *const names[KINDS] = {"alone", "empty", "shim", "looks", "connects"};
    char **without = with(NULL), **shim = with(arguments[1]);
    char **environment[KINDS] = {without, with(arguments[2]), shim, shim, shim};
    const char *files[KINDS] = {NULL, NULL, NULL, "/etc/passwd", file};
    uint64_t *times[KINDS];
    for (int kind = 0; kind < kinds; kind++) times[kind] = calloc(rounds, sizeof **times);
    for (size_t round = 0; round < rounds; round++) {
        for (int kind = 0; kind < kinds; kind++) times[kind][round] = run(environment[kind], files[kind]);
    }
    double median[KINDS], low[KINDS];
    for (int kind = 0; kind < kinds; kind++) {
        qsort(times[kind], rounds, sizeof **times, compare);
        median[kind] = (double)times[kind][rounds / 2] / 1000;
        low[kind] = (double)times[kind][rounds / 10] / 1000;
        printf("%-8s  median %7.1f us  tenth %7.1f us\n", names[kind], median[kind], low[kind]);
    }
    printf("the shim adds %.1f us (of the tenth: %.1f us), of which the preloading itself %.1f us (%.1f us)\n", median[SHIM] - median[ALONE],
           low[SHIM] - low[ALONE], median[EMPTY] - median[ALONE], low[EMPTY] - low[ALONE]);
    if (file != NULL) printf("a connection adds %.1f us (%.1f us)\n", median[CONNECTS] - median[LOOKS], low[CONNECTS] - low[LOOKS]);
    return 0;
}
