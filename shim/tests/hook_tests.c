// What a program must not notice of interception. Run alone, and under libfos_pass.so and libfos_answer.so, which hook every
// system call: each test must pass in all three.
//
// usage: hook_tests [NAME]      with SITES=TABLE,LIBRARY in the environment, `sites` also looks at the text itself
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fos/sites.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __func__, __LINE__, #condition, errno); \
            exit(1); \
        } \
    } while (0)

extern char **environ;

// ---- registers and the stack -----------------------------------------------------------------------------------------

// libc's getppid is nothing but a system call: all registers but rax, rcx, r11 come back as the kernel leaves them, and what
// lies below the stack pointer too.
static void registers(void) {
    static uint64_t vectors[2][64] __attribute__((aligned(64)));
    uint64_t before[12], after[12], low[16];
    pid_t (*function)(void) = getppid;
    long result;
    for (int i = 0; i < 12; i++) before[i] = 0x1111111111111111u * (unsigned)(i + 1);
    for (int i = 0; i < 64; i++) vectors[0][i] = (uint64_t)i * 0x0123456789abcdefu + 7;
    struct { uint64_t *before, *after, *low, *vectors, *vectors_after; void *function; long *result; } p = {
        before, after, low, vectors[0], vectors[1], (void *)function, &result};
    __asm__ __volatile__(
        "push %%rbp\n push %%rbx\n push %%rax\n"  // rax = &p
        "mov 24(%%rax), %%rcx\n"
        "movdqu 0(%%rcx), %%xmm0\n movdqu 16(%%rcx), %%xmm1\n movdqu 32(%%rcx), %%xmm2\n movdqu 48(%%rcx), %%xmm3\n"
        "movdqu 64(%%rcx), %%xmm4\n movdqu 80(%%rcx), %%xmm5\n movdqu 96(%%rcx), %%xmm6\n movdqu 112(%%rcx), %%xmm7\n"
        "movdqu 128(%%rcx), %%xmm8\n movdqu 144(%%rcx), %%xmm9\n movdqu 160(%%rcx), %%xmm10\n movdqu 176(%%rcx), %%xmm11\n"
        "movdqu 192(%%rcx), %%xmm12\n movdqu 208(%%rcx), %%xmm13\n movdqu 224(%%rcx), %%xmm14\n movdqu 240(%%rcx), %%xmm15\n"
        "mov 40(%%rax), %%rcx\n"
        "mov 0(%%rax), %%rax\n"
        "mov 0(%%rax), %%rbx\n mov 8(%%rax), %%rbp\n mov 16(%%rax), %%rdi\n mov 24(%%rax), %%rsi\n mov 32(%%rax), %%rdx\n"
        "mov 40(%%rax), %%r8\n mov 48(%%rax), %%r9\n mov 56(%%rax), %%r10\n mov 64(%%rax), %%r12\n mov 72(%%rax), %%r13\n"
        "mov 80(%%rax), %%r14\n mov 88(%%rax), %%r15\n"
        // The red zone of the function that will be called: 128 bytes below its return address.
        "movq $0x5aa5, -16(%%rsp)\n movq $0x6bb6, -72(%%rsp)\n movq $0x7cc7, -136(%%rsp)\n"
        "call *%%rcx\n"
        "mov (%%rsp), %%rcx\n"
        "mov 48(%%rcx), %%r11\n mov %%rax, (%%r11)\n"
        "mov 8(%%rcx), %%rax\n"
        "mov %%rbx, 0(%%rax)\n mov %%rbp, 8(%%rax)\n mov %%rdi, 16(%%rax)\n mov %%rsi, 24(%%rax)\n mov %%rdx, 32(%%rax)\n"
        "mov %%r8, 40(%%rax)\n mov %%r9, 48(%%rax)\n mov %%r10, 56(%%rax)\n mov %%r12, 64(%%rax)\n mov %%r13, 72(%%rax)\n"
        "mov %%r14, 80(%%rax)\n mov %%r15, 88(%%rax)\n"
        "mov 16(%%rcx), %%rax\n"
        "mov -16(%%rsp), %%rbx\n mov %%rbx, 0(%%rax)\n mov -72(%%rsp), %%rbx\n mov %%rbx, 8(%%rax)\n"
        "mov -136(%%rsp), %%rbx\n mov %%rbx, 16(%%rax)\n"
        "mov 32(%%rcx), %%rax\n"
        "movdqu %%xmm0, 0(%%rax)\n movdqu %%xmm1, 16(%%rax)\n movdqu %%xmm2, 32(%%rax)\n movdqu %%xmm3, 48(%%rax)\n"
        "movdqu %%xmm4, 64(%%rax)\n movdqu %%xmm5, 80(%%rax)\n movdqu %%xmm6, 96(%%rax)\n movdqu %%xmm7, 112(%%rax)\n"
        "movdqu %%xmm8, 128(%%rax)\n movdqu %%xmm9, 144(%%rax)\n movdqu %%xmm10, 160(%%rax)\n movdqu %%xmm11, 176(%%rax)\n"
        "movdqu %%xmm12, 192(%%rax)\n movdqu %%xmm13, 208(%%rax)\n movdqu %%xmm14, 224(%%rax)\n movdqu %%xmm15, 240(%%rax)\n"
        "pop %%rax\n pop %%rbx\n pop %%rbp\n"
        :
        : "a"(&p)
        : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2",
          "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    CHECK(result == syscall(SYS_getppid));
    CHECK(memcmp(before, after, sizeof before) == 0);
    CHECK(low[0] == 0x5aa5 && low[1] == 0x6bb6 && low[2] == 0x7cc7);
    CHECK(memcmp(vectors[0], vectors[1], 256) == 0);
}

static int hooked_text;  // set by sites

// Each site of the table is redirected, or left alone as the table says; the `syscall` is always where it was.
static void sites(void) {
    const char *path = getenv("SITES");
    if (path == NULL) return;
    int fd = open(path, O_RDONLY);
    struct stat status;
    CHECK(fd >= 0 && fstat(fd, &status) == 0);
    const struct fos_sites_header *table = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(table != MAP_FAILED);
    const struct fos_site *site = (const struct fos_site *)(table + 1);
    const struct fos_site_refused *left = (const struct fos_site_refused *)(site + table->count);
    // The load address by a symbol of libc: the table is libc's.
    const uint8_t *base = NULL;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    CHECK(maps != NULL);
    while (base == NULL && fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, "libc.so.6") != NULL) base = (const uint8_t *)strtoul(line, NULL, 16);
    }
    fclose(maps);
    CHECK(base != NULL && table->count > 300);
    for (uint32_t i = 0; i < table->count; i++) {
        const uint8_t *window = base + site[i].window, *call = window + site[i].length;
        CHECK(call[0] == 0x0f && call[1] == 0x05);
        int jumps = site[i].kind == FOS_SITE_NEAR ? window[0] == 0xe9 : window[0] == 0xeb && base[site[i].pad] == 0xe9;
        CHECK(jumps == hooked_text);
    }
    for (uint32_t i = 0; i < table->refused; i++) {
        CHECK(base[left[i].address] == 0x0f && base[left[i].address + 1] == 0x05);
        CHECK(left[i].reason >= FOS_REFUSED_RETURN && left[i].reason <= FOS_REFUSED_ROOM);
    }
    close(fd);
}

// ---- cancellation and unwinding --------------------------------------------------------------------------------------

static int cleaned;
static void clean(void *unused) {
    (void)unused;
    __atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST);
}
static int pipes[2];

static void *blocked_read(void *unused) {
    char byte;
    pthread_cleanup_push(clean, NULL);
    CHECK(read(pipes[0], &byte, 1) < 0);
    pthread_cleanup_pop(0);
    return unused;
}
static void *blocked_poll(void *unused) {
    struct pollfd one = {pipes[0], POLLIN, 0};
    pthread_cleanup_push(clean, NULL);
    poll(&one, 1, -1);
    pthread_cleanup_pop(0);
    return unused;
}
static void *blocked_sleep(void *unused) {
    pthread_cleanup_push(clean, NULL);
    sleep(1000);
    pthread_cleanup_pop(0);
    return unused;
}
static void *blocked_open(void *fifo) {
    pthread_cleanup_push(clean, NULL);
    open(fifo, O_RDONLY);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancellation(void) {
    CHECK(pipe(pipes) == 0);
    char fifo[] = "/tmp/fos-hook-XXXXXX";
    CHECK(mkdtemp(fifo) != NULL);
    char path[64];
    snprintf(path, sizeof path, "%s/fifo", fifo);
    CHECK(mkfifo(path, 0600) == 0);
    void *(*const kinds[])(void *) = {blocked_read, blocked_poll, blocked_sleep, blocked_open};
    for (int round = 0; round < 20; round++) {
        for (size_t kind = 0; kind < 4; kind++) {
            pthread_t thread;
            void *result;
            int before = cleaned;
            CHECK(pthread_create(&thread, NULL, kinds[kind], path) == 0);
            if (round > 2) usleep((useconds_t)(round * 37 % 400));
            else usleep(3000);
            CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
            CHECK(result == PTHREAD_CANCELED && cleaned - before <= 1);
            if (round <= 2) CHECK(cleaned == before + 1);
        }
    }
    unlink(path);
    rmdir(fifo);
    close(pipes[0]), close(pipes[1]);
}

static void *spinning(void *started) {
    int old;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
    __atomic_store_n((int *)started, 1, __ATOMIC_SEQ_CST);
    for (;;) getppid();
    return NULL;
}
// Anywhere: in the trampoline, the entry, the hook, before and after the `syscall`.
static void cancellation_anywhere(void) {
    for (int round = 0; round < 200; round++) {
        pthread_t thread;
        void *result;
        int started = 0;
        CHECK(pthread_create(&thread, NULL, spinning, &started) == 0);
        while (!__atomic_load_n(&started, __ATOMIC_SEQ_CST)) sched_yield();
        for (volatile int spin = 0; spin < round * 97 % 5000; spin++) {}
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    }
}

static volatile sig_atomic_t frames_to_here;
static void *here;
static void count_frames(int signal) {
    (void)signal;
    void *frames[64];
    int count = backtrace(frames, 64);
    for (int i = 0; i < count; i++) {
        if ((uint8_t *)frames[i] > (uint8_t *)here && (uint8_t *)frames[i] < (uint8_t *)here + 4096) frames_to_here = i;
    }
}
static void __attribute__((noinline)) call_often(void) {
    for (int i = 0; i < 2000; i++) getppid();
}
static void backtraces(void) {
    void *warm[4];
    backtrace(warm, 4);  // loads the unwinder
    here = (void *)call_often;
    struct sigaction action = {.sa_handler = count_frames};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    int good = 0, total = 0;
    for (int round = 0; round < 200; round++) {
        struct itimerval soon = {{0, 0}, {0, 50 + round % 150}};
        frames_to_here = 0;
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        for (int i = 0; i < 200 && frames_to_here == 0; i++) call_often();
        total++;
        good += frames_to_here > 0;
    }
    if (good != total) fprintf(stderr, "backtraces: %d of %d reached the caller\n", good, total);
    CHECK(good == total);
}

// ---- signals ---------------------------------------------------------------------------------------------------------

static volatile sig_atomic_t handled;
static void call_in_handler(int signal) {
    (void)signal;
    struct stat status;
    int fd = open("/dev/null", O_WRONLY);
    if (fd >= 0 && write(fd, "x", 1) == 1 && fstat(fd, &status) == 0 && close(fd) == 0 && stat("/", &status) == 0) handled++;
}
static void small_stacks(void) {
    size_t size = (size_t)sysconf(_SC_MINSIGSTKSZ) + 1024;
    uint8_t *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && mprotect(memory, 4096 * 4, PROT_NONE) == 0);
    stack_t stack = {.ss_sp = memory + 4096 * 4, .ss_size = size}, none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&stack, NULL) == 0);
    struct sigaction action = {.sa_handler = call_in_handler, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    for (int i = 0; i < 100; i++) CHECK(raise(SIGUSR1) == 0);
    CHECK(handled == 100 && sigaltstack(&none, NULL) == 0);
}

static sigjmp_buf out;
static void jump_out(int signal) {
    (void)signal;
    siglongjmp(out, 1);
}
static void jumps_and_interrupts(void) {
    char byte;
    CHECK(pipe(pipes) == 0);
    struct sigaction action = {.sa_handler = jump_out};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval soon = {{0, 0}, {0, 2000}};
    for (volatile int round = 0; round < 20; round++) {
        if (sigsetjmp(out, 1) == 0) {
            CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
            CHECK(read(pipes[0], &byte, 1) == 12345);
        }
    }
    action.sa_handler = call_in_handler;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(read(pipes[0], &byte, 1) == -1 && errno == EINTR);
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(write(pipes[1], "y", 1) != 1);
    }
    CHECK(read(pipes[0], &byte, 1) == 1 && byte == 'y');
    CHECK(waitpid(child, NULL, 0) == child);
    close(pipes[0]), close(pipes[1]);
}

// ---- processes -------------------------------------------------------------------------------------------------------

static int child_status(pid_t pid) {
    int status = -1;
    CHECK(pid > 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
static int in_clone(void *number) {
    struct stat status;
    if (stat("/", &status) != 0 || getpid() == *(pid_t *)number) return 99;
    return 7;
}
static void processes(void) {
    volatile int i;  // survives the return of vfork in the child
    static uint8_t stack[65536] __attribute__((aligned(16)));
    static pid_t self;
    self = getpid();
    for (i = 0; i < 30; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(getpid() != self && getppid() == self ? 3 : 4);
        CHECK(child_status(pid) == 3);
        pid = vfork();
        if (pid == 0) {
            close(100);
            _exit(5);
        }
        CHECK(child_status(pid) == 5);
        pid = vfork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", "exit 6", (char *)NULL);
            _exit(9);
        }
        CHECK(child_status(pid) == 6);
        CHECK(child_status(clone(in_clone, stack + sizeof stack, SIGCHLD, &self)) == 7);
        CHECK(child_status(clone(in_clone, stack + sizeof stack, SIGCHLD | CLONE_VM | CLONE_VFORK, &self)) == 7);
        char *const arguments[] = {"sh", "-c", "exit 8", NULL};
        CHECK(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ) == 0 && child_status(pid) == 8);
        CHECK(posix_spawn(&pid, "/nonexistent", NULL, NULL, arguments, environ) == ENOENT);
        CHECK(execl("/nonexistent", "x", (char *)NULL) == -1 && errno == ENOENT);
        CHECK(getpid() == self);
    }
    CHECK(system("exit 4") == 4 << 8);
    FILE *pipe = popen("echo popen", "r");
    char text[16];
    CHECK(pipe != NULL && fgets(text, sizeof text, pipe) != NULL && strcmp(text, "popen\n") == 0 && pclose(pipe) == 0);
}

// Signals may come between the hook's note that a child is to be made and the child: it must be found there all the same.
static void children_under_signals(void) {
    struct sigaction action = {.sa_handler = call_in_handler, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 40}, {0, 40}}, never = {{0, 0}, {0, 0}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (volatile int i = 0; i < 1500; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            struct stat status;
            close(100);
            _exit(stat("/", &status) == 0 && access("/", R_OK) == 0 ? 5 : 6);
        }
        int status;
        CHECK(pid > 0);
        while (waitpid(pid, &status, 0) < 0) CHECK(errno == EINTR);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(syscall(SYS_clone3, (void *)16, 64) == -1 && errno == EFAULT);
    CHECK(syscall(SYS_clone3, NULL, 8) == -1 && errno == EINVAL);
}

static void *fork_in_thread(void *unused) {
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(3);
        CHECK(child_status(pid) == 3);
    }
    return unused;
}
static void threads(void) {
    for (int round = 0; round < 10; round++) {
        pthread_t thread[8];
        for (int i = 0; i < 8; i++) CHECK(pthread_create(&thread[i], NULL, fork_in_thread, NULL) == 0);
        for (int i = 0; i < 8; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    }
}

static void closes_all(void) {
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 0; fd < 256; fd++) close(fd);
        syscall(SYS_close_range, 0, ~0u, 0);
        int fd = open("/dev/null", O_RDWR);
        _exit(fd == 0 && dup(fd) == 1 ? 0 : 1);
    }
    CHECK(child_status(pid) == 0);
}

static const struct { const char *name; void (*run)(void); } tests[] = {
    {"registers", registers}, {"sites", sites}, {"cancellation", cancellation}, {"cancellation anywhere", cancellation_anywhere},
    {"backtraces", backtraces}, {"small stacks", small_stacks}, {"jumps and interrupts", jumps_and_interrupts},
    {"processes", processes}, {"children under signals", children_under_signals}, {"threads", threads}, {"closes all", closes_all},
};

int main(int count, char **arguments) {
    const char *preload = getenv("LD_PRELOAD");
    hooked_text = preload != NULL && *preload != 0;
    alarm(120);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (count > 1 && strcmp(arguments[1], tests[i].name) != 0) continue;
        tests[i].run();
        printf("ok %s\n", tests[i].name);
        fflush(stdout);
    }
    return 0;
}
