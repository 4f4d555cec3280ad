// What the shim costs a program's start: the time of vfork, exec, exit and wait of /bin/true, with and without it. And what
// a connection costs it, from making it to its end: the same of `test -e` of a file that is no mount's, and of one that is.
//
// usage: start EMPTY ROUNDS LIBRARY [FILE [LIBRARY FILE]...]   (FOS_CACHE or HOME as for the shim; `fos shim-path` makes the tables)
//
// FILE is on a fos mount; without it there is no connection. Further pairs are other builds of the library, each with a file on
// a mount of its own daemon, compared in the same run.
// The kinds take turns in blocks, so that what the machine does meanwhile hits all. What a program leaves behind at its end (a
// connection, to the acceptor) is paid for by the program after it: within a block that is one of the same kind, the first of a
// block is not counted, and the blocks come in another order each time (seeded). The median counts, and
// where the machine is busy the time that a tenth of the runs stays below; the page faults are exact. "empty" is a preloaded
// library that does nothing: the part that is the dynamic linker's.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ALONE, EMPTY, SHIM, LOOKS, CONNECTS, KINDS_OF_ONE = CONNECTS - SHIM + 1, LIBRARIES_MAX = 8, KINDS_MAX = SHIM + LIBRARIES_MAX * KINDS_OF_ONE };
enum { BLOCK = 8 };  // runs of a kind one after the other
extern char **environ;

// A program that is run in one environment: /bin/true, or `test -e` of a file.
struct kind {
    const char *name;
    char **environment;
    const char *file;
    uint64_t *times, *faults;
    double median, tenth;
};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t run(const struct kind *kind, uint64_t *faults) {
    char *const nothing[] = {"true", NULL}, *const look[] = {"test", "-e", (char *)kind->file, NULL};
    const char *program = kind->file == NULL ? "/bin/true" : "/usr/bin/test";
    struct rusage used;
    pid_t pid;
    int status;
    uint64_t start = now();
    if (posix_spawn(&pid, program, NULL, NULL, kind->file == NULL ? nothing : look, kind->environment) != 0 ||
        wait4(pid, &status, 0, &used) != pid || status != 0) {
        fprintf(stderr, "%s failed\n", program);
        exit(1);
    }
    uint64_t took = now() - start;
    *faults = (uint64_t)used.ru_minflt;
    return took;
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

static void shuffle(int *order, int count) {
    static uint64_t random = 1;
    for (int left = count; left > 1; left--) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        int other = (int)((random >> 33) % (uint64_t)left), last = order[left - 1];
        order[left - 1] = order[other];
        order[other] = last;
    }
}

static void summarise(struct kind *kind, size_t rounds) {
    qsort(kind->times, rounds, sizeof *kind->times, compare);
    qsort(kind->faults, rounds, sizeof *kind->faults, compare);
    kind->median = (double)kind->times[rounds / 2] / 1000;
    kind->tenth = (double)kind->times[rounds / 10] / 1000;
    printf("%-8s  median %7.1f us  tenth %7.1f us  %4llu page faults\n", kind->name, kind->median, kind->tenth,
           (unsigned long long)kind->faults[rounds / 2]);
}

int main(int count, char **arguments) {
    if (count < 4 || count > 4 + 2 * LIBRARIES_MAX - 1) {
        fprintf(stderr, "usage: start EMPTY ROUNDS LIBRARY [FILE [LIBRARY FILE]...]\n");
        return 2;
    }
    size_t rounds = strtoul(arguments[2], NULL, 10);
    rounds = rounds < BLOCK ? BLOCK : rounds - rounds % BLOCK;
    struct kind kinds[KINDS_MAX] = {[ALONE] = {.name = "alone", .environment = with(NULL)}, [EMPTY] = {.name = "empty", .environment = with(arguments[1])}};
    int kind_count = SHIM, order[KINDS_MAX];
    for (int library = 3; library < count; library += 2) {
        char **shim = with(arguments[library]);
        kinds[kind_count++] = (struct kind){.name = "shim", .environment = shim};
        if (library + 1 == count) break;
        kinds[kind_count++] = (struct kind){.name = "looks", .environment = shim, .file = "/etc/passwd"};
        kinds[kind_count++] = (struct kind){.name = "connects", .environment = shim, .file = arguments[library + 1]};
    }
    for (int kind = 0; kind < kind_count; kind++) {
        order[kind] = kind;
        kinds[kind].times = calloc(rounds, sizeof *kinds[kind].times);
        kinds[kind].faults = calloc(rounds, sizeof *kinds[kind].faults);
    }
    for (size_t round = 0; round < rounds; round += BLOCK) {
        shuffle(order, kind_count);
        for (int turn = 0; turn < kind_count; turn++) {
            struct kind *kind = &kinds[order[turn]];
            run(kind, &kind->faults[round]);
            for (size_t i = round; i < round + BLOCK; i++) kind->times[i] = run(kind, &kind->faults[i]);
        }
    }
    for (int kind = 0; kind < SHIM; kind++) summarise(&kinds[kind], rounds);
    const struct kind *alone = &kinds[ALONE], *empty = &kinds[EMPTY];
    for (int first = SHIM, library = 3; first < kind_count; first += KINDS_OF_ONE, library += 2) {
        struct kind *shim = &kinds[first];
        printf("%s\n", arguments[library]);
        for (int kind = first; kind < kind_count && kind < first + KINDS_OF_ONE; kind++) summarise(&kinds[kind], rounds);
        printf("the shim adds %.1f us (of the tenth: %.1f us), of which the preloading itself %.1f us (%.1f us)\n", shim->median - alone->median,
               shim->tenth - alone->tenth, empty->median - alone->median, empty->tenth - alone->tenth);
        if (first + 1 == kind_count) break;
        const struct kind *looks = shim + LOOKS - SHIM, *connects = shim + CONNECTS - SHIM;
        printf("a connection adds %.1f us (%.1f us)\n", connects->median - looks->median, connects->tenth - looks->tenth);
    }
    return 0;
}
