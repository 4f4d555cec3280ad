// Differential test: random programs of file calls, run on a local directory and on a mount under the shim, must say and
// leave the same.
//
//   differential [-n PROGRAMS] [-s SEED] [-c CALLS] [-k] LIBFOS LOCAL MOUNT
//       runs PROGRAMS programs from SEED on: each in a fresh directory of LOCAL, plainly, and in one of MOUNT with LIBFOS
//       preloaded; compares what they printed, and both trees as a process without the shim sees them. The first
//       difference is shown, with its seed, and is the exit status. -k goes on after one.
//   differential run SEED CALLS DIRECTORY
//       one program; prints a line for each call: its number, what it did, the result, and a hash of the data
//
// A program is a sequence of calls on a few names and descriptors, chosen by its seed. Some make a child, by fork or by
// fork and exec of this very program, that goes on with calls of its own on the shared descriptors while the parent waits:
// so shared offsets, inherited descriptors and the hand-over to the kernel are all part of it, and the result is
// determined. Half of the executed ones first use all that they inherited, at length. Some go on without the shim, so that
// both ways to a file meet. What file systems may answer differently (inode numbers, order of listings, sizes of directories,
// times) is not printed.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SLOTS = 8, DATA = 70000, DEPTH = 2 };

static uint64_t state;
static int slots[SLOTS];
static int depth, step;
static uint8_t data[DATA], other[DATA];

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}
static unsigned below(unsigned bound) { return (unsigned)((next() >> 33) % bound); }
static int chance(unsigned percent) { return below(100) < percent; }

static uint32_t hash(const void *bytes, size_t count) {
    uint32_t value = 2166136261u;
    for (size_t i = 0; i < count; i++) value = (value ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    return value;
}

// ---- what calls are made with ---------------------------------------------------------------------------------------

static const char *name(char *room) {
    static const char *const directories[] = {"", "", "", "d1/", "d1/", "d1/d2/", "d3/", "./", "d1/../", "ld/", "none/"};
    static const char *const names[] = {"a", "b", "c", "d", "e", "l", "d1", "d2", "d3", "ld", "f/", "d1/", "longer-name-of-a-file", "."};
    snprintf(room, 64, "%s%s", directories[below(sizeof directories / sizeof *directories)], names[below(sizeof names / sizeof *names)]);
    return room;
}
static int *slot(void) { return &slots[below(SLOTS)]; }
static size_t length(void) {
    switch (below(5)) {
    case 0: return below(8);
    case 1: return below(200);
    case 2: return below(5000);
    case 3: return 4096;
    default: return below(chance(20) ? DATA : 300);
    }
}
static off_t place(void) { return chance(70) ? (off_t)below(9000) : (off_t)below(200000); }
static void fill(size_t count) {
    uint8_t start = (uint8_t)next();
    for (size_t i = 0; i < count; i++) data[i] = (uint8_t)(start + i * 7);
}

static void say(const char *what, const char *subject, long result, uint32_t sum) {
    int error = result < 0 ? errno : 0;
    printf("%d.%d %s %s %ld %d %08x\n", depth, step, what, subject, result, error, sum);
}

static void say_stat(const char *what, const char *subject, int result, const struct stat *seen) {
    if (result < 0) return say(what, subject, result, 0);
    int directory = S_ISDIR(seen->st_mode);
    long words[] = {(long)seen->st_mode, directory ? 0 : (long)seen->st_size, (long)seen->st_uid, (long)seen->st_gid, (long)seen->st_nlink, (long)seen->st_rdev};
    printf("%d.%d %s %s 0 mode %lo size %ld links %ld\n", depth, step, what, subject, words[0], words[1], words[4]);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
    char *names[256];
    int count = 0;
    DIR *directory = opendir(path);
    if (directory == NULL) return say("list", path, -1, 0);
    errno = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL && count < 256;) {
        char text[300];
        snprintf(text, sizeof text, "%s:%d", entry->d_name, entry->d_type);
        names[count++] = strdup(text);
    }
    int error = errno;
    closedir(directory);
    qsort(names, (size_t)count, sizeof *names, compare_names);
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        sum = sum * 31 + hash(names[i], strlen(names[i]));
        free(names[i]);
    }
    errno = error;
    say("list", path, error != 0 ? -1 - count : count, sum);
}

static int open_flags(void) {
    static const int access[] = {O_RDONLY, O_RDWR, O_WRONLY, O_RDWR};
    int flags = access[below(4)];
    if (chance(50)) flags |= O_CREAT;
    if (chance(15)) flags |= O_EXCL;
    if (chance(15)) flags |= O_TRUNC;
    if (chance(20)) flags |= O_APPEND;
    if (chance(30)) flags |= O_CLOEXEC;
    if (chance(8)) flags |= O_NOFOLLOW;
    if (chance(8)) flags |= O_DIRECTORY;
    // O_EXCL without O_CREAT is undefined, and O_TRUNC of what may only be read.
    if ((flags & O_CREAT) == 0) flags &= ~O_EXCL;
    if ((flags & O_ACCMODE) == O_RDONLY) flags &= ~O_TRUNC;
    if ((flags & O_DIRECTORY) != 0) flags &= ~O_CREAT & ~O_EXCL;
    return flags;
}

// ---- the calls ------------------------------------------------------------------------------------------------------

static void run(int calls);

static void show_slots(char *text) {
    int used = 0;
    text[0] = 0;
    for (int i = 0; i < SLOTS; i++) used += snprintf(text + used, 300 - (size_t)used, "%d ", slots[i]);
}

// In a child that is about to be another program: files that nobody shares, one under two numbers, and their places.
static void open_alone(uint64_t seed, char *text) {
    static const int access[] = {O_RDWR, O_WRONLY, O_RDWR | O_APPEND, O_WRONLY | O_APPEND};
    for (int i = 0; i < 3; i++) close(slots[i]);
    slots[0] = open("a", access[seed >> 8 & 3] | O_CREAT, 0644);
    slots[1] = seed & 16 ? dup(slots[0]) : open("c", O_RDONLY | O_CREAT | (seed & 32 ? O_CLOEXEC : 0), 0644);
    slots[2] = open("b", O_RDONLY);
    say("alone", "a", write(slots[0], "some bytes to begin with", 20), (uint32_t)lseek(slots[2], 7, SEEK_SET));
    if (seed & 64) lseek(slots[0], 5, SEEK_SET);
    show_slots(text);
    fflush(stdout);
}

static void make_child(const char *self) {
    int kind = (int)below(4), calls = 3 + (int)below(8);
    uint64_t seed = next();
    fflush(stdout);
    pid_t child = 0;
    if (kind < 2) {
        child = fork();
    } else {
        char arguments[4][300];
        snprintf(arguments[0], 300, "%llu", (unsigned long long)seed);
        snprintf(arguments[1], 300, "%d", calls);
        snprintf(arguments[2], 300, "%d", depth + 1);
        show_slots(arguments[3]);
        char *list[] = {(char *)self, "go-on", arguments[0], arguments[1], arguments[2], arguments[3], NULL};
        if (kind == 2) {
            child = fork();
            if (child == 0) {
                if (seed & 4) open_alone(seed, arguments[3]);
                // Half of them go on without the shim, on the mount.
                if (seed & 1) unsetenv("LD_PRELOAD");
                execv(self, list);
                _exit(99);
            }
        } else {
            extern char **environ;
            if (posix_spawn(&child, self, NULL, NULL, list, environ) != 0) child = -1;
        }
    }
    if (child == 0) {
        state = seed | 1;
        depth++;
        step = 0;
        run(calls);
        fflush(stdout);
        _exit(7);
    }
    int status = 0;
    waitpid(child, &status, 0);
    say("child", "", WEXITSTATUS(status), 0);
}

static const char *self;

static void call(void) {
    char one[64], two[64], subject[160];
    struct stat seen;
    int *fd = slot(), *fd2 = slot();
    size_t count = length();
    off_t offset = place();
    ssize_t result;
    snprintf(subject, sizeof subject, "#%d", (int)(fd - slots));
    switch (below(63)) {
    case 0: case 1: case 2: case 3: case 4: {
        int flags = open_flags();
        // A name only, as fchmodat(3) opens one.
        if ((flags & (O_NOFOLLOW | O_CREAT)) == O_NOFOLLOW) flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
        if (*fd >= 0) close(*fd);
        *fd = open(name(one), flags, 0644);
        snprintf(subject, sizeof subject, "%s %o", one, flags);
        return say("open", subject, *fd, 0);
    }
    case 5: case 6:
        result = *fd < 0 ? 0 : close(*fd);
        *fd = -1;
        return say("close", subject, result, 0);
    case 7: case 8: case 9: case 10:
        result = read(*fd, data, count);
        return say("read", subject, result, result > 0 ? hash(data, (size_t)result) : 0);
    case 11: case 12: case 13: case 14: case 15:
        fill(count);
        return say("write", subject, write(*fd, data, count), 0);
    case 16: case 17:
        result = pread(*fd, data, count, offset);
        return say("pread", subject, result, result > 0 ? hash(data, (size_t)result) : 0);
    case 18: case 19:
        fill(count);
        return say("pwrite", subject, pwrite(*fd, data, count, offset), 0);
    case 20: {
        struct iovec parts[3] = {{data, count / 3}, {other, count / 2}, {data + 35000, count / 4}};
        memset(other, 0, count);
        result = readv(*fd, parts, 3);
        return say("readv", subject, result, result > 0 ? hash(data, count / 3 < (size_t)result ? count / 3 : (size_t)result) : 0);
    }
    case 21: {
        fill(count);
        struct iovec parts[3] = {{data, count / 3}, {data + 7, count / 2}, {data + 1, count / 4}};
        return say("writev", subject, writev(*fd, parts, 3), 0);
    }
    case 22: case 23: {
        static const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END, SEEK_SET};
        int whence = whences[below(4)];
        if (fstat(*fd, &seen) == 0 && S_ISDIR(seen.st_mode)) return;
        return say("lseek", subject, lseek(*fd, whence == SEEK_SET ? offset : (off_t)below(3000) - 1500, whence), 0);
    }
    case 24: return say("ftruncate", subject, ftruncate(*fd, offset), 0);
    case 25:
        name(one);
        return say("truncate", one, truncate(one, offset), 0);
    case 26: case 27: case 28:
        result = stat(name(one), &seen);
        return say_stat("stat", one, (int)result, &seen);
    case 29:
        result = lstat(name(one), &seen);
        return say_stat("lstat", one, (int)result, &seen);
    case 30: case 31:
        result = fstat(*fd, &seen);
        return say_stat("fstat", subject, (int)result, &seen);
    case 32:
        name(one);
        return say("access", one, access(one, (int)below(8)), 0);
    case 33: case 34:
        name(one);
        return say("mkdir", one, mkdir(one, 0755), 0);
    case 35:
        name(one);
        return say("rmdir", one, rmdir(one), 0);
    case 36: case 37:
        name(one);
        return say("unlink", one, unlink(one), 0);
    case 38: case 39: case 40:
        name(one), name(two);
        snprintf(subject, sizeof subject, "%s %s", one, two);
        return say("rename", subject, rename(one, two), 0);
    case 41:
        name(one), name(two);
        snprintf(subject, sizeof subject, "%s %s", one, two);
        return say("link", subject, link(one, two), 0);
    case 42:
        name(one), name(two);
        snprintf(subject, sizeof subject, "%s %s", one, two);
        return say("symlink", subject, symlink(one, two), 0);
    case 43:
        result = readlink(name(one), (char *)data, 200);
        return say("readlink", one, result, result > 0 ? hash(data, (size_t)result) : 0);
    case 44: {
        name(one);
        mode_t mode = 0600 | below(0200);
        return say("chmod", one, mode & 1 ? fchmodat(AT_FDCWD, one, mode, AT_SYMLINK_NOFOLLOW) : chmod(one, mode), 0);
    }
    case 45: return say("fchmod", subject, fchmod(*fd, 0600 | below(0200)), 0);
    case 46: return list(name(one));
    case 47:
        if (*fd < 0) return;
        if (*fd2 >= 0) close(*fd2);
        *fd2 = fd == fd2 ? -1 : dup(*fd);
        if (fd == fd2) *fd = -1;
        return say("dup", subject, *fd2, 0);
    case 48:
        if (*fd < 0 || *fd2 < 0) return;
        return say("dup2", subject, dup2(*fd, *fd2), 0);
    case 49: return say("getfl", subject, fcntl(*fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), 0);
    case 50: return say("setfl", subject, fcntl(*fd, F_SETFL, chance(50) ? O_APPEND : 0), 0);
    case 51: return say("setfd", subject, fcntl(*fd, F_SETFD, chance(50) ? FD_CLOEXEC : 0), 0);
    case 52: return say("getfd", subject, fcntl(*fd, F_GETFD), 0);
    case 53: {
        static const short types[] = {F_WRLCK, F_RDLCK, F_RDLCK, F_UNLCK};
        static const int commands[] = {F_SETLK, F_SETLK, F_OFD_SETLK, F_GETLK, F_OFD_GETLK};
        int command = commands[below(5)];
        struct flock lock = {.l_type = types[below(4)], .l_whence = chance(80) ? SEEK_SET : SEEK_END, .l_start = below(100), .l_len = 10};
        result = fcntl(*fd, command, &lock);
        int asked = result == 0 && (command == F_GETLK || command == F_OFD_GETLK);
        snprintf(subject + strlen(subject), 40, " %d", command);
        return say("lock", subject, asked ? 100 + lock.l_type : result, asked ? (uint32_t)(lock.l_start * 1000 + lock.l_len) : 0);
    }
    case 54: {
        if (fstat(*fd, &seen) != 0 || !S_ISREG(seen.st_mode) || seen.st_size == 0 || (fcntl(*fd, F_GETFL) & O_ACCMODE) == O_WRONLY) return;
        size_t bytes = seen.st_size < 100000 ? (size_t)seen.st_size : 100000;
        int shared = (fcntl(*fd, F_GETFL) & O_ACCMODE) == O_RDWR && chance(50);
        uint8_t *memory = mmap(NULL, bytes, shared ? PROT_READ | PROT_WRITE : PROT_READ, shared ? MAP_SHARED : MAP_PRIVATE, *fd, 0);
        if (memory == MAP_FAILED) return say("mmap", subject, -1, 0);
        uint32_t sum = hash(memory, bytes);
        if (shared) memory[below((unsigned)bytes)] ^= 0x55;
        munmap(memory, bytes);
        return say("mmap", subject, (long)bytes, sum);
    }
    case 55:
        if (*fd < 0 || *fd2 < 0 || fd == fd2) return;
        result = chance(50) ? sendfile(*fd2, *fd, NULL, count) : copy_file_range(*fd, NULL, *fd2, NULL, count, 0);
        // What two descriptors of one file copy over each other, and how much at a time, is the file system's choice.
        return;
    case 56: {
        struct pollfd polled = {.fd = *fd, .events = POLLIN | POLLOUT};
        if (*fd < 0) return;
        result = poll(&polled, 1, 0);
        return say("poll", subject, result, (uint32_t)polled.revents);
    }
    case 57: return say("fsync", subject, chance(50) ? fsync(*fd) : fdatasync(*fd), 0);
    case 58:
        if (depth < DEPTH) make_child(self);
        return;
    case 59: {
        snprintf(two, sizeof two, "user.%u", below(3));
        fill(20);
        name(one);
        if (chance(50)) return say("setxattr", one, setxattr(one, two, data, 20, 0), 0);
        result = getxattr(one, two, data, 100);
        return say("getxattr", one, result, result > 0 ? hash(data, (size_t)result) : 0);
    }
    case 60: {
        struct timespec times[2] = {{1000 + below(100), 5}, {2000 + below(100), 7}};
        if (utimensat(AT_FDCWD, name(one), times, AT_SYMLINK_NOFOLLOW) != 0) return say("utimens", one, -1, 0);
        if (lstat(one, &seen) != 0) return say("utimens", one, -1, 0);
        return say("utimens", one, seen.st_mtim.tv_sec, (uint32_t)seen.st_mtim.tv_nsec);
    }
    case 62: {
        static const int operations[] = {LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_UN};
        int operation = operations[below(3)];
        snprintf(subject + strlen(subject), 40, " %d", operation);
        return say("flock", subject, flock(*fd, operation), 0);
    }
    case 61: {
        int directory = open("d1", O_RDONLY | O_DIRECTORY);
        result = openat(directory, "../b", O_RDWR | O_CREAT, 0600);
        say("openat", "../b", result < 0 ? -1 : 0, 0);
        if (result >= 0) close((int)result);
        if (chance(40)) {
            result = fchdir(directory);
            say("fchdir", "d1", result, 0);
            if (result != 0) return;
            result = stat("../a", &seen);
            say_stat("stat", "../a", (int)result, &seen);
            say("chdir", "..", chdir(".."), 0);
        }
        if (directory >= 0) close(directory);
        return;
    }
    }
}

// Uses what was inherited so much that it pays to take it over from the kernel. Draws nothing, so that seeds mean what they did.
static void use_inherited(void) {
    char subject[160];
    for (int i = 0; i < SLOTS; i++) {
        struct stat seen;
        int flags = fcntl(slots[i], F_GETFL);
        if (flags < 0 || fstat(slots[i], &seen) != 0 || !S_ISREG(seen.st_mode)) continue;
        long moved = 0;
        uint32_t sum = 0;
        for (int times = 0; times < 200; times++) {
            uint8_t piece[8] = {(uint8_t)times, (uint8_t)i};
            ssize_t got = (flags & O_ACCMODE) == O_RDONLY || ((flags & O_ACCMODE) == O_RDWR && times % 3 == 0) ? read(slots[i], piece, 1 + (size_t)times % 8) : write(slots[i], piece, 1 + (size_t)times % 3);
            sum = sum * 31 + hash(piece, sizeof piece) + (uint32_t)lseek(slots[i], times % 50 == 49 ? -20 : 0, SEEK_CUR);
            moved += got;
        }
        snprintf(subject, sizeof subject, "#%d %o", i, flags & (O_ACCMODE | O_APPEND));
        say("inherited", subject, moved, sum);
        if ((flags & O_ACCMODE) == O_RDONLY || (i & 1) == 0) continue;
        long shorter = ftruncate(slots[i], 100);
        say("shorter", subject, shorter, pread(slots[i], data, 50, 10) > 0 ? hash(data, 50) : 0);
    }
}

static void run(int calls) {
    for (step = 0; step < calls; step++) call();
}

static int run_program(uint64_t seed, int calls, const char *directory) {
    state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < SLOTS; i++) slots[i] = -1;
    if (chdir(directory) != 0) return 2;
    // Renames of the directory that the program stands in are left out: "." has no name on some file systems.
    mkdir("d1", 0755);
    mkdir("d1/d2", 0755);
    if (symlink("d1", "ld") != 0 || symlink("a", "l") != 0) return 2;
    run(calls);
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i] >= 0) printf("end %d %ld\n", i, (long)lseek(slots[i], 0, SEEK_CUR) >= 0 ? 1L : 0L);
    }
    fflush(stdout);
    return 0;
}

// ---- the comparison -------------------------------------------------------------------------------------------------

static char *read_all(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*bytes + 1);
    *bytes = fread(text, 1, *bytes, file);
    text[*bytes] = 0;
    fclose(file);
    return text;
}

static int run_in(const char *library, uint64_t seed, int calls, const char *directory, const char *output) {
    pid_t child = fork();
    if (child == 0) {
        char text[2][32];
        int out = open(output, O_CREAT | O_TRUNC | O_WRONLY, 0600);
        dup2(out, 1);
        close(out);
        snprintf(text[0], 32, "%llu", (unsigned long long)seed);
        snprintf(text[1], 32, "%d", calls);
        if (library != NULL) setenv("LD_PRELOAD", library, 1);
        umask(022);
        alarm(60);
        execl(self, self, "run", text[0], text[1], directory, (char *)NULL);
        _exit(98);
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

// A tree as text: every name, sorted, with mode, links, size and a hash of the content.
static FILE *tree_output;
static void show_entry(const char *path, const struct stat *seen) {
    uint32_t sum = 0;
    char link[300] = "";
    if (S_ISREG(seen->st_mode)) {
        int fd = open(path, O_RDONLY);
        for (ssize_t got; (got = read(fd, data, sizeof data)) > 0;) sum = sum * 31 + hash(data, (size_t)got);
        close(fd);
    } else if (S_ISLNK(seen->st_mode) && readlink(path, link, sizeof link - 1) < 0) {
        link[0] = '?';
    }
    fprintf(tree_output, "%o %ld %ld %08x %s\n", seen->st_mode, S_ISDIR(seen->st_mode) ? 0L : (long)seen->st_size, (long)seen->st_nlink, sum, link);
}

static void show_tree(const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[4096];
        struct stat seen;
        snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
        if (strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0 && lstat(path, &seen) == 0) {
            fprintf(tree_output, "%s ", entries[i]->d_name);
            show_entry(path, &seen);
            if (S_ISDIR(seen.st_mode)) show_tree(path);
        }
        free(entries[i]);
    }
    if (count >= 0) free(entries);
}

static int remove_entry(const char *path, const struct stat *seen, int type, struct FTW *where) {
    (void)seen, (void)type, (void)where;
    return remove(path);
}

static int differ(const char *what, const char *one, const char *two, uint64_t seed) {
    size_t bytes[2] = {0, 0};
    char *text[2] = {read_all(one, &bytes[0]), read_all(two, &bytes[1])};
    int different = bytes[0] != bytes[1] || memcmp(text[0], text[1], bytes[0]) != 0;
    if (different) {
        printf("seed %llu: %s differs\n", (unsigned long long)seed, what);
        fflush(stdout);
        char command[700];
        snprintf(command, sizeof command, "diff -U4 --label local --label mount %s %s | head -40", one, two);
        if (system(command) < 0) printf("(no diff)\n");
    }
    free(text[0]);
    free(text[1]);
    return different;
}

int main(int count, char **arguments) {
    static char path[4096];
    ssize_t own = readlink("/proc/self/exe", path, sizeof path - 1);
    if (own < 0) return 2;
    self = path;
    if (count == 5 && strcmp(arguments[1], "run") == 0) return run_program(strtoull(arguments[2], NULL, 10), atoi(arguments[3]), arguments[4]);
    if (count == 6 && strcmp(arguments[1], "go-on") == 0) {
        state = strtoull(arguments[2], NULL, 10) | 1;
        depth = atoi(arguments[4]);
        char again[32], *at = arguments[5];
        for (int i = 0; i < SLOTS; i++) slots[i] = (int)strtol(at, &at, 10);
        // Closed on exec: their numbers are free now, and this program opens its own there.
        for (int i = 0; i < SLOTS; i++) {
            if (slots[i] >= 0 && fcntl(slots[i], F_GETFD) < 0) slots[i] = -1;
        }
        if (state & 2) use_inherited();
        if (state & 8) {
            // And once more by the same program, which has used them.
            snprintf(again, sizeof again, "%llu", (unsigned long long)(state & ~UINT64_C(8)));
            arguments[2] = again;
            fflush(stdout);
            execv(self, arguments);
        }
        run(atoi(arguments[3]));
        fflush(stdout);
        return 8;
    }
    uint64_t seed = 1;
    int programs = 50, calls = 120, keep_on = 0, option, failed = 0;
    while ((option = getopt(count, arguments, "n:s:c:k")) > 0) {
        if (option == 'n') programs = atoi(optarg);
        else if (option == 's') seed = strtoull(optarg, NULL, 10);
        else if (option == 'c') calls = atoi(optarg);
        else if (option == 'k') keep_on = 1;
        else return 2;
    }
    if (count - optind != 3) {
        fprintf(stderr, "usage: differential [-n PROGRAMS] [-s SEED] [-c CALLS] [-k] LIBFOS LOCAL MOUNT\n");
        return 2;
    }
    printf("seeds %llu to %llu, %d calls each\n", (unsigned long long)seed, (unsigned long long)seed + (unsigned)programs - 1, calls);
    fflush(stdout);
    // The programs run in directories of their own. A library that the loader did not find would compare nothing.
    char *library = realpath(arguments[optind], NULL);
    if (library == NULL) {
        perror(arguments[optind]);
        return 2;
    }
    for (int i = 0; i < programs; i++) {
        char directory[2][2000], output[2][2100];
        int status[2];
        for (int side = 0; side < 2; side++) {
            snprintf(directory[side], sizeof directory[side], "%s/p%llu", arguments[optind + 1 + side], (unsigned long long)seed + (unsigned)i);
            snprintf(output[side], sizeof output[side], "%s/out.%d", arguments[optind + 1], side);
            if (mkdir(directory[side], 0755) != 0) {
                perror(directory[side]);
                return 2;
            }
            status[side] = run_in(side == 0 ? NULL : library, seed + (unsigned)i, calls, directory[side], output[side]);
        }
        int different = differ("output", output[0], output[1], seed + (unsigned)i);
        if (status[0] != status[1]) {
            printf("seed %llu: status %x and %x\n", (unsigned long long)seed + (unsigned)i, status[0], status[1]);
            different = 1;
        }
        for (int side = 0; side < 2; side++) {
            tree_output = fopen(output[side], "w");
            show_tree(directory[side]);
            fclose(tree_output);
        }
        different |= differ("tree", output[0], output[1], seed + (unsigned)i);
        failed += different;
        for (int side = 0; side < 2; side++) nftw(directory[side], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        if (different && !keep_on) break;
    }
    if (failed == 0) printf("%d programs agree\n", programs);
    else printf("%d programs differ\n", failed);
    return failed != 0;
}
