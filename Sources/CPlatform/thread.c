// Threads, CPUs, clocks and futexes: thin wrappers that give a negative errno.
#define _GNU_SOURCE
#include <cplatform/thread.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int fos_platform_futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns) {
    struct timespec limit = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    long r = syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns == UINT64_MAX ? NULL : &limit, NULL, 0);
    return r < 0 ? -errno : 0;
}

int fos_platform_futex_wake(uint32_t *word, int count) {
    long r = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    return r < 0 ? -errno : (int)r;
}

enum { CPUS_MAX = 4096 };

int fos_platform_allowed_cpus(int32_t *cpus, int room) {
    unsigned long set[CPUS_MAX / (8 * sizeof(unsigned long))] = {0};
    if (sched_getaffinity(0, sizeof set, (cpu_set_t *)set) < 0) { return -errno; }
    int found = 0;
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        if (CPU_ISSET_S((size_t)cpu, sizeof set, (cpu_set_t *)set)) {
            if (found < room) { cpus[found] = cpu; }
            found++;
        }
    }
    return found;
}

int fos_platform_pin_thread(const int32_t *cpus, int count) {
    unsigned long set[CPUS_MAX / (8 * sizeof(unsigned long))] = {0};
    for (int i = 0; i < count; i++) {
        if (cpus[i] < 0 || cpus[i] >= CPUS_MAX) { return -EINVAL; }
        CPU_SET_S((size_t)cpus[i], sizeof set, (cpu_set_t *)set);
    }
    return sched_setaffinity(0, sizeof set, (cpu_set_t *)set) < 0 ? -errno : 0;
}

int fos_platform_current_cpu(void) { return sched_getcpu(); }

void fos_platform_name_thread(const char *name) { (void)pthread_setname_np(pthread_self(), name); }

int fos_platform_nice_thread(int nice) {
    return setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice) < 0 ? -errno : 0;
}

void fos_platform_block_signals(void) {
    sigset_t all;
    sigfillset(&all);
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    for (unsigned i = 0; i < sizeof synchronous / sizeof synchronous[0]; i++) { sigdelset(&all, synchronous[i]); }
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
}

int fos_platform_random(void *bytes, uint32_t count) {
    ssize_t r = getrandom(bytes, count, 0);
    return r == (ssize_t)count ? 0 : -EIO;
}

uint64_t fos_platform_thread_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int fos_platform_ticks_are_steady(void) {
#if defined(__aarch64__)
    return 1;
#elif defined(__x86_64__)
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd < 0) { return 0; }
    char name[16] = {0};
    ssize_t got = read(fd, name, sizeof name - 1);
    close(fd);
    return got >= 3 && strncmp(name, "tsc", 3) == 0 && (name[3] == 0 || name[3] == '\n');
#else
    return 0;
#endif
}
