// Signals, cancellation and forks in the middle of file calls. It runs in the current directory and prints what a local directory
// makes it print too; a test compares the two.
//
//   signals      handlers that make file calls themselves, on a small alternate stack, with SA_RESTART, jumping out of calls,
//                and ending waits; more threads cancelled in their calls than a process can have calls at a time; forks of a
//                program whose other threads are in their calls
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 400, CANCELLED = 160, FORKS = 30, BLOCK = 3000 };
static char block[BLOCK];
static sigjmp_buf back;
static volatile sig_atomic_t handled, wrong, may_jump, jumped, rearms;

static void soon(long microseconds) {
    struct itimerval timer = {{0, 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void handle(int signal) {
    (void)signal;
    int before = errno;
    struct stat seen;
    char text[4], *name = handled % 2 ? "handler-a" : "handler-b";
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    wrong += fd < 0 || write(fd, "abc", 3) != 3 || pread(fd, text, 3, 0) != 3 || memcmp(text, "abc", 3) != 0;
    wrong += fstat(fd, &seen) != 0 || seen.st_size != 3 || close(fd) != 0;
    wrong += rename(name, "handler-c") != 0 || stat("handler-c", &seen) != 0 || unlink("handler-c") != 0;
    handled++;
    errno = before;
    if (rearms) soon(300);
    if (may_jump && handled % 2) {
        jumped++;
        siglongjmp(back, 1);
    }
}

static void on_signal(int signal, int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

// The very first calls of this program, on no more stack than what the kernel's frame leaves of its least and 2 KiB.
static void small_stack(void) {
    size_t size = getauxval(AT_MINSIGSTKSZ) + 2048, whole = (size + 4095) / 4096 * 4096;
    char *memory = mmap(NULL, whole + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory, 4096, PROT_NONE);
    stack_t stack = {.ss_sp = memory + 4096, .ss_size = size}, none = {.ss_flags = SS_DISABLE};
    sigaltstack(&stack, NULL);
    on_signal(SIGUSR1, SA_ONSTACK);
    for (int i = 0; i < 10; i++) raise(SIGUSR1);
    sigaltstack(&none, NULL);
    printf("small stack: %d handled, %d wrong\n", handled, wrong);
}

static int write_and_look(const char *name) {
    struct stat seen;
    int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0644), bad = 0;
    for (int i = 0; i < 5; i++) bad += write(fd, block, BLOCK) != BLOCK;
    bad += fstat(fd, &seen) != 0 || seen.st_size != 5 * BLOCK || lseek(fd, 0, SEEK_CUR) != 5 * BLOCK;
    bad += pread(fd, block, BLOCK, BLOCK) != BLOCK || stat("nothing", &seen) == 0;
    close(fd);
    DIR *listed = opendir(".");
    int names = 0;
    while (listed != NULL && readdir(listed) != NULL) names++;
    closedir(listed);
    return bad + (names < 3);
}

static void interrupted(void) {
    int bad = 0;
    on_signal(SIGALRM, SA_RESTART);
    rearms = 1;
    soon(300);
    for (int i = 0; i < ROUNDS; i++) bad += write_and_look("interrupted");
    printf("interrupted: %d wrong, %d in handlers, often %d\n", bad, wrong, handled > 20);
}

static void left_by_jumps(void) {
    volatile int round = 0;
    struct stat seen;
    may_jump = 1;
    sigsetjmp(back, 1);
    while (jumped < 200 && round++ < 2000000) {
        int fd = open("jumps", O_CREAT | O_RDWR, 0644);
        pwrite(fd, block, BLOCK, 0);
        pread(fd, block, BLOCK, 0);
        stat("jumps", &seen);
        rename("jumps", "jumped");
        rename("jumped", "jumps");
        close(fd);
    }
    may_jump = rearms = 0;
    soon(0);
    int bad = 0;
    for (int i = 0; i < 20; i++) bad += write_and_look("after jumps");
    printf("jumps: %d, %d wrong, %d in handlers\n", jumped, bad, wrong);
    closefrom(3);
}

static int cleaned;
static void clean(void *lock) { __atomic_add_fetch((int *)lock, 1, __ATOMIC_RELAXED); }
static int shared_fd;
static void *to_be_cancelled(void *argument) {
    pthread_cleanup_push(clean, &cleaned);
    for (unsigned i = 0;; i++) {
        char name[20], text[8];
        snprintf(name, sizeof name, "cancel-%u", i % 5);
        int fd = open(name, O_CREAT | O_RDWR, 0644);
        write(fd, "hello", 5);
        read(shared_fd, text, 1);
        fsync(fd);
        close(fd);
        // A child that was waited for may have mounted something: the next path is looked for in the mount table.
        waitpid(-1, NULL, WNOHANG);
    }
    pthread_cleanup_pop(0);
    return argument;
}

static void cancelled(void) {
    int ended = 0, bad = 0;
    shared_fd = open("shared", O_CREAT | O_RDWR, 0644);
    ftruncate(shared_fd, 1 << 20);
    for (int round = 0; round < CANCELLED / 4; round++) {
        pthread_t threads[4];
        void *result;
        for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, to_be_cancelled, NULL);
        usleep(1000 + round % 7 * 300);
        for (int i = 0; i < 4; i++) pthread_cancel(threads[i]);
        for (int i = 0; i < 4; i++) ended += pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED;
    }
    struct timespec start, end;
    char text;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < 20; i++) bad += write_and_look("after cancelling") + (read(shared_fd, &text, 1) != 1);
    clock_gettime(CLOCK_MONOTONIC, &end);
    // Whatever those threads held when they ended, nobody waits for it.
    printf("cancelled: %d, %d cleaned, %d wrong, in time %d\n", ended, cleaned, bad, end.tv_sec - start.tv_sec < 5);
    closefrom(3);
}

static volatile int ends;
static void *busy(void *argument) {
    while (!ends) write_and_look(argument);
    return NULL;
}

static void forks(void) {
    static char names[4][8] = {"busy-0", "busy-1", "busy-2", "busy-3"};
    pthread_t threads[4];
    int good = 0, fd = open("parent", O_CREAT | O_RDWR, 0644);
    struct stat seen;
    write(fd, block, BLOCK);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, busy, names[i]);
    for (int i = 0; i < FORKS; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            char text[10];
            int log = open("log", O_CREAT | O_WRONLY | O_APPEND, 0644);
            _exit(write(log, "line\n", 5) != 5 || pread(fd, text, 10, 100) != 10 || memcmp(text, block + 100, 10) != 0);
        }
        good += waitpid(child, &status, 0) == child && status == 0;
    }
    ends = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    stat("log", &seen);
    printf("forks: %d good, log %ld\n", good, (long)seen.st_size);
}

static void ended_waits(void) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int ready[2], done[2];
    char byte;
    pipe(ready);
    pipe(done);
    if (fork() == 0) {
        fcntl(open("locked", O_CREAT | O_RDWR, 0644), F_SETLK, &whole);
        write(ready[1], "x", 1);
        read(done[0], &byte, 1);
        _exit(0);
    }
    read(ready[0], &byte, 1);
    on_signal(SIGALRM, 0);
    int fd = open("locked", O_CREAT | O_RDWR, 0644);
    soon(20000);
    int refused = fcntl(fd, F_SETLKW, &whole) == 0 ? 0 : errno;
    mkfifo("fifo", 0600);
    soon(20000);
    int opened = open("fifo", O_RDONLY) >= 0 ? 0 : errno;
    write(done[1], "x", 1);
    int got = fcntl(fd, F_SETLKW, &whole);
    printf("waits: %s, %s, %d\n", strerror(refused), strerror(opened), got);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < BLOCK; i++) block[i] = (char)(i * 7);
    small_stack();
    interrupted();
    left_by_jumps();
    cancelled();
    forks();
    ended_waits();
    printf("handlers: %d wrong\n", wrong);
    return 0;
}
