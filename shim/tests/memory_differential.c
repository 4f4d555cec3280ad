// Differential test of memory: random programs of mmap, munmap, mremap, mprotect, madvise, mlock, brk and fork, run plainly
// and under the shim with served memory, must say the same and leave the same bytes.
//
//   memory_differential [-n PROGRAMS] [-s SEED] [-c CALLS] [-k] LIBRARY
//       runs PROGRAMS programs from SEED on, with and without LIBRARY preloaded (FOS_MEMORY is set for it), and compares what
//       they printed. The first difference is shown with its seed, and is the exit status. -k goes on after one.
//   memory_differential run SEED CALLS
//       one program; prints a line for each call: its number, what it did, the result, and a hash of what is readable
//
// A program works in an arena at a fixed place, so that addresses are the same in both runs, and keeps a book of what each of
// its pages may be used for, from the results that it got. Besides the arena it has mappings where the kernel likes, and
// the heap. Children, by fork and by clone with a stack, go on with calls of their own before or after their parent does, so
// both sides change what the other must not see. In some programs a timer's handler maps and unmaps all the time.
// What Linux may answer differently is left out: addresses of its choice, mremap of several mappings at once.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 4096, SLOTS = 6, DEPTH = 3, HEAP_PAGES = 2048 };
static uint8_t *const arena = (uint8_t *)UINT64_C(0x100000000000);
extern char **environ;

static struct page {
    uint8_t mapped, readable, writable, executable;
    uint8_t charged;  // could be written once: Linux counts it, and keeps it apart from what could not
    uint8_t traits;  // advice and locks that make mappings of their own
    uint32_t id;     // of the mapping that it belongs to
} pages[PAGES];
static struct slot {
    uint8_t *at;
    size_t count;
} slots[SLOTS];
static uint8_t *heap_start;
static size_t heap_bytes;
static uint64_t state;
static uint32_t ids;
static int depth, step;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}
static uint64_t below(uint64_t limit) { return (next() >> 11) % limit; }
static int chance(int percent) { return (int)below(100) < percent; }
static void seed(uint64_t value) {
    state = value * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 0; i < 8; i++) next();
}

static uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, size_t count) {
    const uint64_t *words = (const uint64_t *)bytes;
    for (size_t i = 0; i < count / 8; i++) hash = (hash ^ words[i]) * UINT64_C(0x100000001b3) + (hash >> 29);
    return hash;
}
static void say(const char *what, long result, size_t first, size_t count, uint64_t sum) {
    printf("%d.%d %s [%zu+%zu] %ld %d %016lx\n", depth, step, what, first, count, result, result < 0 ? errno : 0, sum);
}

// ---- the arena -------------------------------------------------------------------------------------------------------

static void choose(size_t *first, size_t *count) {
    static const size_t lengths[] = {1, 2, 7, 16, 17, 40, 130, 520, 1100};
    *count = 1 + below(lengths[below(sizeof lengths / sizeof *lengths)]);
    *first = below(PAGES - *count);
    if (!chance(60)) return;
    // Rather somewhere in what is mapped.
    for (int look = 0; look < 30 && !pages[*first].mapped; look++) *first = below(PAGES - *count);
}
static uint8_t *address(size_t page) { return arena + page * PAGE; }

static uint64_t hash_readable(size_t first, size_t count) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = first; i < first + count; i++) {
        if (pages[i].readable) hash = hash_bytes(hash, address(i), PAGE);
    }
    return hash;
}
static void set(size_t first, size_t count, int mapped, int protection, uint32_t id) {
    for (size_t i = first; i < first + count; i++) {
        pages[i] = (struct page){(uint8_t)mapped, (protection & (PROT_READ | PROT_WRITE)) != 0, (protection & PROT_WRITE) != 0,
                                 (protection & PROT_EXEC) != 0, (protection & PROT_WRITE) != 0, 0, id};
    }
}
// One mapping, alike throughout: what mremap takes.
static int uniform(size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (!pages[i].mapped || pages[i].id != pages[first].id || pages[i].traits != pages[first].traits ||
            pages[i].readable != pages[first].readable || pages[i].writable != pages[first].writable ||
            pages[i].executable != pages[first].executable || pages[i].charged != pages[first].charged) return 0;
    }
    return 1;
}

static int protection(void) {
    static const int all[] = {PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                              PROT_READ, PROT_NONE, PROT_WRITE | PROT_READ | PROT_EXEC};
    return all[below(sizeof all / sizeof *all)];
}

static void do_map(void) {
    size_t first, count;
    choose(&first, &count);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (chance(70) ? MAP_FIXED : MAP_FIXED_NOREPLACE), wanted = protection();
    if (chance(10)) flags |= MAP_NORESERVE;
    if (chance(10)) flags |= MAP_POPULATE;
    if (chance(5)) flags |= MAP_STACK;
    void *at = mmap(address(first), count * PAGE, wanted, flags, -1, 0);
    if (at != MAP_FAILED) set(first, count, 1, wanted, ++ids);
    say("mmap", at == MAP_FAILED ? -1 : at == address(first), first, count, hash_readable(first, count));
}

static void do_map_shared(void) {
    size_t first, count;
    choose(&first, &count);
    int fd = memfd_create("other", 0);
    if (fd < 0 || ftruncate(fd, (off_t)(count * PAGE)) != 0) abort();
    if (pwrite(fd, "of a file", 9, 0) != 9) abort();
    void *at = mmap(address(first), count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) set(first, count, 1, PROT_READ | PROT_WRITE, ++ids);
    for (size_t i = first; i < first + count && at != MAP_FAILED; i++) pages[i].traits = 64;  // no anonymous memory
    say("map file", at == MAP_FAILED ? -1 : 0, first, count, hash_readable(first, count));
}

static void do_unmap(void) {
    size_t first, count;
    choose(&first, &count);
    int result = munmap(address(first), count * PAGE);
    if (result == 0) set(first, count, 0, 0, 0);
    say("munmap", result, first, count, 0);
}

static void do_protect(void) {
    size_t first, count;
    choose(&first, &count);
    int wanted = protection(), result = mprotect(address(first), count * PAGE, wanted);
    // What lies before the first hole has changed.
    for (size_t i = first; i < first + count && pages[i].mapped; i++) {
        pages[i].readable = (wanted & (PROT_READ | PROT_WRITE)) != 0;
        pages[i].writable = (wanted & PROT_WRITE) != 0;
        pages[i].executable = (wanted & PROT_EXEC) != 0;
        pages[i].charged |= pages[i].writable;
    }
    say("mprotect", result, first, count, hash_readable(first, count));
}

static void write_pages(size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (!pages[i].writable) continue;
        uint64_t value = next();
        if (chance(20)) memset(address(i), (int)value, PAGE);
        else memcpy(address(i) + below(PAGE / 8) * 8, &value, 8);
    }
}

static void do_write(void) {
    size_t first, count;
    choose(&first, &count);
    write_pages(first, count);
    say("write", 0, first, count, hash_readable(first, count));
}

static void do_advise(void) {
    static const struct { int advice; const char *name; uint8_t set, clear; } all[] = {
        {MADV_DONTNEED, "DONTNEED", 0, 0}, {MADV_DONTNEED, "DONTNEED", 0, 0}, {MADV_DONTNEED, "DONTNEED", 0, 0}, {MADV_FREE, "FREE", 0, 0},
        {MADV_DONTFORK, "DONTFORK", 1, 0}, {MADV_DOFORK, "DOFORK", 0, 1}, {MADV_DONTDUMP, "DONTDUMP", 2, 0}, {MADV_DODUMP, "DODUMP", 0, 2},
        {MADV_WIPEONFORK, "WIPEONFORK", 4, 0}, {MADV_KEEPONFORK, "KEEPONFORK", 0, 4}, {MADV_REMOVE, "REMOVE", 0, 0},
        {MADV_WILLNEED, "WILLNEED", 0, 0}, {MADV_RANDOM, "RANDOM", 16, 0}, {MADV_NORMAL, "NORMAL", 0, 16},
        {MADV_POPULATE_WRITE, "POPULATE_WRITE", 0, 0}, {MADV_COLD, "COLD", 0, 0}, {999, "none", 0, 0},
    };
    size_t first, count, which = below(sizeof all / sizeof *all);
    choose(&first, &count);
    for (size_t i = first; i < first + count; i++) {
        // Advice that anonymous memory takes and other memory refuses ends in the middle; and locked memory refuses some.
        if ((pages[i].traits & 64) != 0) return;
    }
    int result = madvise(address(first), count * PAGE, all[which].advice);
    if (result == 0 || errno == ENOMEM) {
        for (size_t i = first; i < first + count; i++) pages[i].traits = (uint8_t)((pages[i].traits | all[which].set) & ~all[which].clear);
    }
    // Linux may free these or not: what is there must not matter.
    if (all[which].advice == MADV_FREE) {
        for (size_t i = first; i < first + count; i++) {
            if (pages[i].writable) memset(address(i), (int)i, PAGE);
        }
        for (size_t i = first; i < first + count; i++) {
            if (!pages[i].writable && pages[i].mapped && munmap(address(i), PAGE) == 0) set(i, 1, 0, 0, 0);
        }
    }
    char what[40];
    snprintf(what, sizeof what, "madvise %s", all[which].name);
    say(what, result, first, count, hash_readable(first, count));
}

static void do_lock(void) {
    size_t first, count;
    choose(&first, &count);
    if (count > 20) count = 20;
    int locks = chance(50), result = locks ? mlock(address(first), count * PAGE) : munlock(address(first), count * PAGE);
    for (size_t i = first; i < first + count && pages[i].mapped; i++) pages[i].traits = (uint8_t)(locks ? pages[i].traits | 32 : pages[i].traits & ~32);
    // Locking fetches what can be fetched, and says so of what cannot.
    if (result == 0) say(locks ? "mlock" : "munlock", result, first, count, hash_readable(first, count));
}

static void do_move(void) {
    size_t first, count, target, length;
    for (int look = 0;; look++) {
        choose(&first, &count);
        if (uniform(first, count) && (pages[first].traits & 64) == 0) break;
        if (look == 30) return;
    }
    choose(&target, &length);
    if (chance(50)) length = count;
    if (chance(15)) length = 1 + below(count);
    if (target + length > PAGES) target = PAGES - length;
    int flags = chance(70) ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;
    if (flags != 0 && chance(20)) flags |= MREMAP_DONTUNMAP;
    if (flags == 0 && first + length > PAGES) return;
    struct page was = pages[first];
    errno = 0;
    void *at = mremap(address(first), count * PAGE, length * PAGE, flags, address(target));
    if (at != MAP_FAILED) {
        if (flags == 0) target = first;
        int protection = (was.readable ? PROT_READ : 0) | (was.writable ? PROT_WRITE : 0) | (was.executable ? PROT_EXEC : 0);
        if ((flags & MREMAP_DONTUNMAP) == 0) set(first, count, 0, 0, 0);
        else {
            ids++;
            for (size_t i = first; i < first + count; i++) pages[i].id = ids;
        }
        set(target, length, 1, protection, flags == 0 ? was.id : ++ids);
        for (size_t i = target; i < target + length; i++) {
            pages[i].traits = was.traits;
            pages[i].charged = was.charged;
        }
    }
    if (at == MAP_FAILED && errno == EFAULT) errno = ENOMEM;  // neighbours that Linux has not joined: another reason for no
    say(flags == 0 ? "mremap" : flags & MREMAP_DONTUNMAP ? "mremap stays" : "mremap to", at == MAP_FAILED ? -1 : 0, target, length, hash_readable(target, length));
}

static void do_system_call(void) {
    size_t first, count;
    choose(&first, &count);
    if (count > 15) count = 15;  // what a pipe holds
    int ends[2];
    if (pipe(ends) != 0) abort();
    ssize_t wrote = write(ends[1], address(first), count * PAGE);
    int error = errno;
    size_t to, room;
    choose(&to, &room);
    ssize_t got = wrote > 0 ? read(ends[0], address(to), (size_t)wrote) : 0;
    close(ends[0]);
    close(ends[1]);
    errno = error;
    say("write to a pipe", wrote, first, count, 0);
    say("read from it", got < 0 ? -2 : got, to, room, hash_readable(to, room));
    if (chance(30)) say("msync", msync(address(first), count * PAGE, MS_SYNC), first, count, 0);
}

// ---- mappings of the kernel's choice, and the heap -------------------------------------------------------------------

static void do_slot(void) {
    struct slot *slot = &slots[below(SLOTS)];
    size_t count = 1 + below(chance(50) ? 40 : 1500);
    if (slot->at == NULL) {
        void *at = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) abort();
        *slot = (struct slot){at, count};
        say("map anywhere", 0, 0, count, hash_bytes(1, at, count * PAGE));
    } else if (chance(30)) {
        say("unmap it", munmap(slot->at, slot->count * PAGE), 0, slot->count, hash_bytes(1, slot->at, 0));
        slot->at = NULL;
    } else if (chance(50)) {
        void *at = mremap(slot->at, slot->count * PAGE, count * PAGE, MREMAP_MAYMOVE);
        if (at == MAP_FAILED) {
            say("resize it", -1, 0, count, 0);
            return;
        }
        *slot = (struct slot){at, count};
        say("resize it", 0, 0, count, hash_bytes(1, at, count * PAGE));
    }
    if (slot->at == NULL) return;
    for (int i = 0; i < 30; i++) slot->at[below(slot->count * PAGE)] = (uint8_t)next();
    if (chance(20)) {
        size_t first = below(slot->count), some = 1 + below(slot->count - first);
        say("madvise it", madvise(slot->at + first * PAGE, some * PAGE, MADV_DONTNEED), first, some, 0);
    }
    say("its bytes", 0, 0, slot->count, hash_bytes(1, slot->at, slot->count * PAGE));
}

// Not by sbrk: libc's own heap is none of this program's business.
static void do_heap(void) {
    size_t wanted = below(chance(70) ? HEAP_PAGES * PAGE : 300000);
    uintptr_t to = (uintptr_t)heap_start + wanted;
    long now = syscall(SYS_brk, to);
    if ((uintptr_t)now == to) heap_bytes = wanted;
    say("brk", now - (long)heap_start, 0, wanted, 0);
    // The rest of the last page keeps what it had.
    for (int i = 0; i < 30 && heap_bytes > 0; i++) heap_start[below(heap_bytes)] = (uint8_t)next();
    say("heap", (long)syscall(SYS_brk, 0) - (long)heap_start, 0, heap_bytes, hash_bytes(1, heap_start, heap_bytes));
}

// ---- children --------------------------------------------------------------------------------------------------------

static void run(int calls);
static void say_all(const char *what) {
    uint64_t hash = hash_bytes(hash_readable(0, PAGES), heap_start, heap_bytes);
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i].at != NULL) hash = hash_bytes(hash, slots[i].at, slots[i].count * PAGE);
    }
    say(what, 0, 0, 0, hash);
}

static struct child {
    uint64_t seed;
    int calls, start;  // start: read end of what is closed when the child may begin
} child;

// What the child does not have, or has as zeros.
static void inherit(void) {
    for (size_t i = 0; i < PAGES; i++) {
        if ((pages[i].traits & 1) != 0) set(i, 1, 0, 0, 0);
        else pages[i].traits &= (uint8_t)~32;
    }
}
static int be_child(void *unused) {
    char byte;
    (void)unused;
    if (read(child.start, &byte, 1) != 0) abort();
    close(child.start);
    depth++;
    step = 0;
    seed(child.seed);
    inherit();
    say_all("child begins");
    run(child.calls);
    say_all("child ends");
    fflush(stdout);
    _exit(0);
}

static void do_fork(void) {
    if (depth == DEPTH) return;
    static uint8_t stack[DEPTH][65536] __attribute__((aligned(16)));
    int ends[2], kind = (int)below(3);
    child = (struct child){next(), 2 + (int)below(10), 0};
    if (pipe(ends) != 0) abort();
    child.start = ends[0];
    fflush(stdout);
    pid_t pid;
    if (kind < 2) {
        pid = fork();
    } else {
        close(ends[1]);  // such a child begins at once: it would have the end that is waited for
        pid = clone(be_child, stack[depth] + sizeof stack[depth], SIGCHLD, NULL);
    }
    if (pid == 0) {
        close(ends[1]);
        be_child(NULL);
    }
    if (pid < 0) abort();
    close(ends[0]);
    // The parent first, or the child.
    if (kind == 1) {
        int calls = (int)below(8);
        while (calls-- > 0) do_write();
        do_map();
        fflush(stdout);
    }
    if (kind < 2) close(ends[1]);
    int status;
    if (waitpid(pid, &status, 0) != pid) abort();
    say("child", status, 0, 0, 0);
    say_all("after child");
}

static void do_spawn(void) {
    char *const arguments[] = {"true", NULL};
    pid_t pid;
    fflush(stdout);
    int status = -1;
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0) waitpid(pid, &status, 0);
    say("spawn", status, 0, 0, 0);
}

// ---- programs --------------------------------------------------------------------------------------------------------

static void run(int calls) {
    static void (*const all[])(void) = {do_map, do_map, do_map, do_map, do_map_shared, do_unmap, do_unmap, do_protect, do_protect, do_write, do_write, do_write,
                                        do_advise, do_advise, do_advise, do_lock, do_move, do_move, do_move, do_system_call, do_slot, do_slot, do_slot,
                                        do_heap, do_heap, do_fork, do_spawn};
    for (int i = 0; i < calls; i++) {
        step++;
        // A fork now and then: it costs most of the time.
        void (*call)(void) = all[below(sizeof all / sizeof *all)];
        if (call == do_spawn && chance(70)) call = do_write;
        call();
    }
}

static void on_timer(int number) {
    (void)number;
    int error = errno;
    static const size_t bytes = 200000;
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) {
        for (size_t i = 0; i < bytes; i += 1000) {
            if (at[i] != 0) abort();
            at[i] = 1;
        }
        munmap(at, bytes);
    }
    errno = error;
}

static int run_program(uint64_t number, int calls) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    seed(number);
    heap_start = (uint8_t *)((syscall(SYS_brk, 0) + 2 * PAGE) & ~(long)(PAGE - 1));
    heap_start = (uint8_t *)syscall(SYS_brk, heap_start);
    if (chance(30)) {
        struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
        struct itimerval timer = {{0, 700}, {0, 700}};
        sigaction(SIGPROF, &action, NULL);
        setitimer(ITIMER_PROF, &timer, NULL);
    }
    run(calls);
    say_all("end");
    return 0;
}

// ---- comparing -------------------------------------------------------------------------------------------------------

static int start(const char *self, const char *library, uint64_t number, int calls, const char *output) {
    pid_t pid = fork();
    if (pid == 0) {
        char seed_text[24], calls_text[16];
        snprintf(seed_text, sizeof seed_text, "%lu", number);
        snprintf(calls_text, sizeof calls_text, "%d", calls);
        if (library != NULL) setenv("LD_PRELOAD", library, 1);
        if (freopen(output, "w", stdout) == NULL) _exit(98);
        alarm(120);
        execl(self, self, "run", seed_text, calls_text, NULL);
        _exit(97);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
}

static int show_difference(const char *plain, const char *served) {
    char one[400], other[400];
    FILE *a = fopen(plain, "r"), *b = fopen(served, "r");
    int line = 0, differ = 0;
    if (a == NULL || b == NULL) return 1;
    for (;;) {
        char *x = fgets(one, sizeof one, a), *y = fgets(other, sizeof other, b);
        line++;
        if (x == NULL && y == NULL) break;
        if (x != NULL && y != NULL && strcmp(one, other) == 0) continue;
        fprintf(stderr, "line %d\n  plain:  %s  served: %s", line, x == NULL ? "(ended)\n" : one, y == NULL ? "(ended)\n" : other);
        differ = 1;
        break;
    }
    fclose(a);
    fclose(b);
    return differ;
}

int main(int count, char **arguments) {
    if (count == 4 && strcmp(arguments[1], "run") == 0) return run_program(strtoull(arguments[2], NULL, 10), atoi(arguments[3]));
    uint64_t programs = 100, first = 1;
    int calls = 60, go_on = 0, option;
    while ((option = getopt(count, arguments, "n:s:c:k")) != -1) {
        if (option == 'n') programs = strtoull(optarg, NULL, 10);
        else if (option == 's') first = strtoull(optarg, NULL, 10);
        else if (option == 'c') calls = atoi(optarg);
        else if (option == 'k') go_on = 1;
        else return 2;
    }
    if (optind + 1 != count) {
        fprintf(stderr, "usage: memory_differential [-n PROGRAMS] [-s SEED] [-c CALLS] [-k] LIBRARY\n");
        return 2;
    }
    char directory[] = "/tmp/memory-differential.XXXXXX", plain[64], served[64], self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0 || mkdtemp(directory) == NULL) return 2;
    self[length] = 0;
    snprintf(plain, sizeof plain, "%s/plain", directory);
    snprintf(served, sizeof served, "%s/served", directory);
    int failed = 0;
    for (uint64_t number = first; number < first + programs; number++) {
        int one = start(self, NULL, number, calls, plain), other = start(self, arguments[optind], number, calls, served);
        if (show_difference(plain, served) == 0 && one == 0 && other == 0) continue;
        fprintf(stderr, "seed %lu: status %d plain, %d served\n", number, one, other);
        failed = 1;
        if (!go_on) break;
    }
    unlink(plain);
    unlink(served);
    rmdir(directory);
    if (!failed) printf("%lu programs from seed %lu agree\n", programs, first);
    return failed;
}
