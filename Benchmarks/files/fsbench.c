// fsbench: times single file operations on several file systems side by side.
//
// usage: fsbench [-r ROUNDS] [-m MILLISECONDS] [-o OPERATION] [-t] NAME=DIRECTORY...
//
//   -r  rounds (default 9); each round runs each operation once on each file system, in an order that rotates
//   -m  how long one operation is repeated on one file system in one round (default 20)
//   -o  only operations whose name contains this text (=TEXT: whose name it is); may be given several times
//   -t  tab separated, without ratios, times in ns
//
// Method: a round repeats an operation n times and takes the mean (n is found once, so that it lasts -m); what is
// printed is the median over the rounds. File systems alternate within a round, so that what else the machine does hits
// all alike. Times are of the operation alone where that can be (dropping a page is not counted as reading it).
//
// The first NAME is the one that matters. Ratios: for a NAME called "tmpfs", first/tmpfs (below 1.2 is close to
// memory speed); for each other, other/first (above 1 means that the first is faster).
//
// Plain C on libc alone.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SYSTEMS_MAX = 8,
    ROUNDS_MAX = 101,
    ENTRIES = 1000,            // of the directory that is listed
    SMALL = 4096,
    LARGE = 1 << 20,
    FILE_BYTES = 16 << 20,     // of the file that is read and written
    PAGES = FILE_BYTES / SMALL,
};

struct system {
    const char *name;
    char *directory;
    int top;       // descriptor of the directory
    int buffered;  // of the data file
    int direct;    // of the data file with O_DIRECT, or -1
    uint32_t random;
};

static char *buffer;  // LARGE bytes, aligned for O_DIRECT

static void fail(const char *what) {
    fprintf(stderr, "fsbench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int result, const char *what) {
    if (result < 0) fail(what);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t next_random(struct system *s) {
    s->random = s->random * 1664525u + 1013904223u;
    return s->random >> 8;
}

// ---- operations: each does its work n times and returns the ns that it took, or 0 where it is not supported ---------

typedef uint64_t operation(struct system *s, long n);

// Times n runs of one statement.
#define TIMED(statement)                            \
    do {                                            \
        uint64_t start_ = now();                    \
        for (long i = 0; i < n; i++) { statement; } \
        return now() - start_;                      \
    } while (0)

static uint64_t op_stat(struct system *s, long n) {
    struct stat st;
    TIMED(check(fstatat(s->top, "list/entry-500", &st, 0), "stat"));
}

static uint64_t op_fstat(struct system *s, long n) {
    struct stat st;
    TIMED(check(fstat(s->buffered, &st), "fstat"));
}

static uint64_t op_missing(struct system *s, long n) {
    struct stat st;
    TIMED(if (fstatat(s->top, "list/none", &st, 0) == 0) fail("stat of a missing name"));
}

static uint64_t op_open(struct system *s, long n) {
    TIMED(int fd = openat(s->top, "list/entry-501", O_RDONLY); check(fd, "open"); close(fd));
}

static uint64_t op_open_read(struct system *s, long n) {
    TIMED(int fd = openat(s->top, "small", O_RDONLY); check(fd, "open");
          if (read(fd, buffer, SMALL) != SMALL) fail("read"); close(fd));
}

static uint64_t op_create(struct system *s, long n) {
    TIMED(int fd = openat(s->top, "new", O_CREAT | O_EXCL | O_WRONLY, 0644); check(fd, "create"); close(fd);
          check(unlinkat(s->top, "new", 0), "unlink"));
}

static uint64_t op_create_write(struct system *s, long n) {
    TIMED(int fd = openat(s->top, "new", O_CREAT | O_EXCL | O_WRONLY, 0644); check(fd, "create");
          if (write(fd, buffer, SMALL) != SMALL) fail("write"); close(fd); check(unlinkat(s->top, "new", 0), "unlink"));
}

// What a program does that keeps a note in a file for a moment.
static uint64_t op_stdio(struct system *s, long n) {
    char path[4096], line[64];
    snprintf(path, sizeof path, "%s/note", s->directory);
    TIMED(FILE *f = fopen(path, "w"); if (f == NULL || fputs("a line of text\n", f) < 0 || fclose(f) != 0) fail("stdio write");
          f = fopen(path, "r"); if (f == NULL || fgets(line, sizeof line, f) == NULL) fail("stdio read"); fclose(f);
          check(unlink(path), "unlink"));
}

// Sixteen pages at most, so that the file stays small and its pages are made anew each time.
static uint64_t op_append(struct system *s, long n) {
    int fd = openat(s->top, "log", O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0644);
    check(fd, "create");
    uint64_t total = 0;
    for (long i = 0; i < n; i += 16) {
        check(ftruncate(fd, 0), "truncate");
        uint64_t start = now();
        for (long k = i; k < n && k < i + 16; k++)
            if (write(fd, buffer, SMALL) != SMALL) fail("append");
        total += now() - start;
    }
    close(fd);
    check(unlinkat(s->top, "log", 0), "unlink");
    return total;
}

static uint64_t op_rename(struct system *s, long n) {
    TIMED(check(renameat(s->top, i & 1 ? "b" : "a", s->top, i & 1 ? "a" : "b"), "rename");
          if (i == n - 1 && !(i & 1)) check(renameat(s->top, "b", s->top, "a"), "rename"));
}

static uint64_t op_mkdir(struct system *s, long n) {
    TIMED(check(mkdirat(s->top, "newdir", 0755), "mkdir"); check(unlinkat(s->top, "newdir", AT_REMOVEDIR), "rmdir"));
}

static uint64_t op_link(struct system *s, long n) {
    TIMED(check(linkat(s->top, "a", s->top, "linked", 0), "link"); check(unlinkat(s->top, "linked", 0), "unlink"));
}

static uint64_t op_symlink(struct system *s, long n) {
    char target[16];
    TIMED(check(symlinkat("a", s->top, "sym"), "symlink"); check((int)readlinkat(s->top, "sym", target, sizeof target), "readlink");
          check(unlinkat(s->top, "sym", 0), "unlink"));
}

static uint64_t op_chmod(struct system *s, long n) {
    TIMED(check(fchmodat(s->top, "a", i & 1 ? 0644 : 0600, 0), "chmod"));
}

static uint64_t op_readdir(struct system *s, long n) {
    TIMED(int fd = openat(s->top, "list", O_RDONLY | O_DIRECTORY); check(fd, "open"); DIR *d = fdopendir(fd); int entries = 0;
          if (d == NULL) fail("fdopendir"); while (readdir(d) != NULL) entries++; closedir(d);
          if (entries != ENTRIES + 2) fail("readdir"));
}

static uint64_t op_list(struct system *s, long n) {
    struct stat st;
    TIMED(int fd = openat(s->top, "list", O_RDONLY | O_DIRECTORY); check(fd, "open"); DIR *d = fdopendir(fd); struct dirent *e;
          if (d == NULL) fail("fdopendir");
          while ((e = readdir(d)) != NULL) check(fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW), "stat"); closedir(d));
}

static off_t random_page(struct system *s) { return (off_t)(next_random(s) % PAGES) * SMALL; }

static uint64_t op_read_cached(struct system *s, long n) {
    TIMED(if (pread(s->buffered, buffer, SMALL, random_page(s)) != SMALL) fail("read"));
}

static uint64_t op_write(struct system *s, long n) {
    TIMED(if (pwrite(s->buffered, buffer, SMALL, random_page(s)) != SMALL) fail("write"));
}

// A page is dropped before it is read, and the dropping is not timed; two clock readings (50 ns) are.
static uint64_t op_read_dropped(struct system *s, long n) {
    uint64_t total = 0;
    check(posix_fadvise(s->buffered, 0, 0, POSIX_FADV_RANDOM), "fadvise");
    for (long i = 0; i < n; i++) {
        off_t at = random_page(s);
        posix_fadvise(s->buffered, at, SMALL, POSIX_FADV_DONTNEED);
        uint64_t start = now();
        if (pread(s->buffered, buffer, SMALL, at) != SMALL) fail("read");
        total += now() - start;
    }
    posix_fadvise(s->buffered, 0, 0, POSIX_FADV_NORMAL);
    return total;
}

static uint64_t op_read_direct(struct system *s, long n) {
    if (s->direct < 0) return 0;
    TIMED(if (pread(s->direct, buffer, SMALL, random_page(s)) != SMALL) fail("direct read"));
}

static uint64_t op_write_direct(struct system *s, long n) {
    if (s->direct < 0) return 0;
    TIMED(if (pwrite(s->direct, buffer, SMALL, random_page(s)) != SMALL) fail("direct write"));
}

static off_t nth_large(long i) { return (off_t)(i % (FILE_BYTES / LARGE)) * LARGE; }

// The file is brought into the cache as a sequential reader brings it: the rows before have left single pages there.
static uint64_t op_read_large(struct system *s, long n) {
    posix_fadvise(s->buffered, 0, 0, POSIX_FADV_DONTNEED);
    for (long i = 0; i < FILE_BYTES / LARGE; i++)
        if (pread(s->buffered, buffer, LARGE, nth_large(i)) != LARGE) fail("read");
    TIMED(if (pread(s->buffered, buffer, LARGE, nth_large(i)) != LARGE) fail("read"));
}

static uint64_t op_read_large_dropped(struct system *s, long n) {
    uint64_t total = 0;
    for (long i = 0; i < n; i++) {
        if (nth_large(i) == 0) posix_fadvise(s->buffered, 0, 0, POSIX_FADV_DONTNEED);
        uint64_t start = now();
        if (pread(s->buffered, buffer, LARGE, nth_large(i)) != LARGE) fail("read");
        total += now() - start;
    }
    return total;
}

static uint64_t op_write_large(struct system *s, long n) {
    TIMED(if (pwrite(s->buffered, buffer, LARGE, nth_large(i)) != LARGE) fail("write"));
}

// A file that grows: pages are made, not overwritten.
static uint64_t op_write_new(struct system *s, long n) {
    int fd = openat(s->top, "growing", O_CREAT | O_TRUNC | O_WRONLY, 0644);
    check(fd, "create");
    uint64_t total = 0;
    for (long i = 0; i < n; i++) {
        if (nth_large(i) == 0) check(ftruncate(fd, 0), "truncate");
        uint64_t start = now();
        if (pwrite(fd, buffer, LARGE, nth_large(i)) != LARGE) fail("write");
        total += now() - start;
    }
    close(fd);
    check(unlinkat(s->top, "growing", 0), "unlink");
    return total;
}

static const struct {
    const char *name;
    operation *run;
} operations[] = {
    {"stat", op_stat},
    {"fstat", op_fstat},
    {"stat of a missing name", op_missing},
    {"open+close", op_open},
    {"open+read 4 KiB+close", op_open_read},
    {"create+unlink", op_create},
    {"create+write 4 KiB+unlink", op_create_write},
    {"stdio write+read+unlink", op_stdio},
    {"rename", op_rename},
    {"mkdir+rmdir", op_mkdir},
    {"link+unlink", op_link},
    {"symlink+readlink+unlink", op_symlink},
    {"chmod", op_chmod},
    {"readdir of 1,000", op_readdir},
    {"readdir+stat of 1,000", op_list},
    {"read 4 KiB, cached", op_read_cached},
    {"read 4 KiB, page dropped", op_read_dropped},
    {"read 4 KiB, O_DIRECT", op_read_direct},
    {"write 4 KiB", op_write},
    {"write 4 KiB, O_DIRECT", op_write_direct},
    {"append 4 KiB", op_append},
    {"read 1 MiB, cached", op_read_large},
    {"read 1 MiB, pages dropped", op_read_large_dropped},
    {"write 1 MiB", op_write_large},
    {"write 1 MiB, growing", op_write_new},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

// ---- setting up and measuring ----------------------------------------------------------------------------------------

static void set_up(struct system *s) {
    if (asprintf(&s->directory, "%s/fsbench.%d", s->directory, (int)getpid()) < 0) fail("asprintf");
    check(mkdir(s->directory, 0755), s->directory);
    s->top = open(s->directory, O_RDONLY | O_DIRECTORY);
    check(s->top, s->directory);
    check(mkdirat(s->top, "list", 0755), "mkdir");
    for (int i = 0; i < ENTRIES; i++) {
        char name[64];
        snprintf(name, sizeof name, "list/entry-%d", i);
        int fd = openat(s->top, name, O_CREAT | O_WRONLY, 0644);
        check(fd, name);
        close(fd);
    }
    close(openat(s->top, "a", O_CREAT | O_WRONLY, 0644));
    int fd = openat(s->top, "small", O_CREAT | O_WRONLY, 0644);
    if (write(fd, buffer, SMALL) != SMALL) fail("write");
    close(fd);
    s->buffered = openat(s->top, "data", O_CREAT | O_RDWR, 0644);
    check(s->buffered, "data");
    for (int i = 0; i < FILE_BYTES / LARGE; i++)
        if (pwrite(s->buffered, buffer, LARGE, (off_t)i * LARGE) != LARGE) fail("write");
    fsync(s->buffered);
    for (int i = 0; i < FILE_BYTES / LARGE; i++)
        if (pread(s->buffered, buffer, LARGE, (off_t)i * LARGE) != LARGE) fail("read");
    s->direct = openat(s->top, "data", O_RDWR | O_DIRECT);
    s->random = 1;
}

static void tear_down(struct system *s) {
    static const char *files[] = {"a", "b", "small", "data"};
    if (s->direct >= 0) close(s->direct);
    close(s->buffered);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) unlinkat(s->top, files[i], 0);
    for (int i = 0; i < ENTRIES; i++) {
        char name[64];
        snprintf(name, sizeof name, "list/entry-%d", i);
        unlinkat(s->top, name, 0);
    }
    unlinkat(s->top, "list", AT_REMOVEDIR);
    close(s->top);
    rmdir(s->directory);
}

// How often an operation is repeated to last about `target` ns; also warms the caches.
static long calibrate(operation *run, struct system *s, uint64_t target) {
    // What happens once (a file becomes shared memory, for instance) must not be taken for what each time costs.
    if (run(s, 1) == 0) return 0;
    for (long n = 1;; n *= 4) {
        uint64_t took = run(s, n);
        if (took == 0) return 0;
        if (took >= target / 8 || n > 1 << 22) {
            long fitting = (long)((double)n * (double)target / (double)took);
            return fitting < 1 ? 1 : fitting;
        }
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_time(double ns) {
    if (ns == 0) {
        printf(" %14s", "-");
    } else if (ns < 10e3) {
        printf(" %11.2f us", ns / 1e3);
    } else {
        printf(" %11.1f us", ns / 1e3);
    }
}

// Whether an operation is one of those asked for.
static int is_wanted(const char *name, const char **only, int count) {
    for (int i = 0; i < count; i++)
        if (only[i][0] == '=' ? strcmp(name, only[i] + 1) == 0 : strstr(name, only[i]) != NULL) return 1;
    return count == 0;
}

int main(int argc, char **argv) {
    struct system systems[SYSTEMS_MAX];
    int count = 0, rounds = 9, tabs = 0, option;
    uint64_t target = 20000000;
    const char *only[OPERATIONS];
    int wanted = 0;
    while ((option = getopt(argc, argv, "r:m:o:t")) != -1) {
        switch (option) {
        case 'r': rounds = atoi(optarg); break;
        case 'm': target = (uint64_t)(atof(optarg) * 1e6); break;
        case 'o':
            if (wanted < OPERATIONS) only[wanted++] = optarg;
            break;
        case 't': tabs = 1; break;
        default: return 1;
        }
    }
    if (rounds < 1 || rounds > ROUNDS_MAX || target == 0 || optind >= argc || argc - optind > SYSTEMS_MAX) {
        fprintf(stderr, "usage: fsbench [-r ROUNDS] [-m MILLISECONDS] [-o OPERATION] [-t] NAME=DIRECTORY...\n");
        return 1;
    }
    if (posix_memalign((void **)&buffer, SMALL, LARGE) != 0) return 1;
    memset(buffer, 'f', LARGE);
    for (int i = optind; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            fprintf(stderr, "fsbench: %s: not NAME=DIRECTORY\n", argv[i]);
            return 1;
        }
        *equals = '\0';
        systems[count].name = argv[i];
        systems[count].directory = equals + 1;
        set_up(&systems[count++]);
    }

    if (tabs) {
        printf("operation");
        for (int i = 0; i < count; i++) printf("\t%s", systems[i].name);
        printf("\n");
    } else {
        printf("%-26s", "");
        for (int i = 0; i < count; i++) printf(" %14s", systems[i].name);
        for (int i = 1; i < count; i++) {
            char title[80];
            int floor = strcmp(systems[i].name, "tmpfs") == 0;
            snprintf(title, sizeof title, "%s/%s", systems[floor ? 0 : i].name, systems[floor ? i : 0].name);
            printf(" %18s", title);
        }
        printf("\n");
    }
    for (int o = 0; o < OPERATIONS; o++) {
        static double times[SYSTEMS_MAX][ROUNDS_MAX];
        long repeats[SYSTEMS_MAX];
        double median[SYSTEMS_MAX];
        if (!is_wanted(operations[o].name, only, wanted)) continue;
        for (int i = 0; i < count; i++) repeats[i] = calibrate(operations[o].run, &systems[i], target);
        for (int r = 0; r < rounds; r++) {
            for (int k = 0; k < count; k++) {
                int i = (k + r) % count;
                times[i][r] = repeats[i] == 0 ? 0 : (double)operations[o].run(&systems[i], repeats[i]) / (double)repeats[i];
            }
        }
        for (int i = 0; i < count; i++) {
            qsort(times[i], (size_t)rounds, sizeof(double), compare);
            median[i] = rounds & 1 ? times[i][rounds / 2] : (times[i][rounds / 2 - 1] + times[i][rounds / 2]) / 2;
        }
        if (tabs) {
            printf("%s", operations[o].name);
            for (int i = 0; i < count; i++) printf("\t%.0f", median[i]);
        } else {
            printf("%-26s", operations[o].name);
            for (int i = 0; i < count; i++) print_time(median[i]);
            for (int i = 1; i < count; i++) {
                int floor = strcmp(systems[i].name, "tmpfs") == 0;
                if (median[0] == 0 || median[i] == 0) {
                    printf(" %18s", "-");
                } else {
                    printf(" %18.2f", floor ? median[0] / median[i] : median[i] / median[0]);
                }
            }
        }
        printf("\n");
        fflush(stdout);
    }
    for (int i = 0; i < count; i++) tear_down(&systems[i]);
    return 0;
}
