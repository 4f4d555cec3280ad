// Message round trip against the bare cache-line ping-pong floor, on the same two CPUs, in one run.
//
// Usage: messages DIR | UID NAME [rounds]    DIR is a fos mount; UID NAME is an instance's socket address.
//
// What is measured: an empty FOS_OP_PING through the proxy to a file server of a running instance, from a thread pinned
// beside the server's CPU; and the floor: a word in shared memory passed to and fro by two processes on the same two
// CPUs, each spinning, one cache line each way. Rounds alternate, so both meet the same frequency and neighbours; a
// pause before each floor round lets the idle core park and free its CPU. Printed: medians over the rounds of the mean
// of each, and of the ratio within a round (a virtual machine's CPUs may change places between rounds, and with them
// the floor, by a factor of ten), and the time of a call that finds the core parked.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fos_proxy.h>

enum { ROUNDS_MAX = 1000, TRIPS = 4000, PARKED_TRIPS = 4 };

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what, int error) {
    fprintf(stderr, "messages: %s: %s\n", what, strerror(error));
    exit(1);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity", errno);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct line {
    uint32_t word;
    uint8_t reserved[FOS_CACHE_LINE - 4];
};

// One floor round: the mean ns of a word sent to the other CPU and back.
static double floor_round(int other_cpu, struct line *there, struct line *back) {
    there->word = back->word = 0;
    pid_t child = fork();
    if (child < 0) fail("fork", errno);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(other_cpu);
        for (uint32_t i = 0; i <= TRIPS; i++) {
            while (fos_load_acquire_u32(&there->word) == i) {}
            fos_store_release_u32(&back->word, i + 1);
        }
        _exit(0);
    }
    uint64_t start = 0;
    for (uint32_t i = 0; i <= TRIPS; i++) {
        if (i == 1) start = now();
        fos_store_release_u32(&there->word, i + 1);
        // The first trip waits for the child to start, on this CPU perhaps, so it waits asleep.
        while (i == 0 && fos_load_acquire_u32(&back->word) != 1) usleep(100);
        while (fos_load_acquire_u32(&back->word) != i + 1) {}
    }
    double mean = (double)(now() - start) / TRIPS;
    waitpid(child, NULL, 0);
    return mean;
}

static void call(struct fos_client *client, int channel, const struct fos_name_member *server) {
    fos_request(client, channel, FOS_OP_PING, 0);
    int status = fos_call_mailbox(client, channel, server->mailbox, server->epoch);
    if (status != 0) fail("ping", -status);
}

int main(int argc, char **argv) {
    uid_t uid = 0;
    char name[128], mount_point[4096];
    int at = 2, result = 0;
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: messages DIR | UID NAME [rounds]\n");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    char *real = realpath(argv[1], NULL);
    if (real != NULL && fos_find_mount(real, &uid, name, sizeof name, mount_point, sizeof mount_point) == 0) {
        free(real);
    } else if (argc >= 3) {
        uid = (uid_t)strtoul(argv[1], NULL, 10);
        snprintf(name, sizeof name, "%s", argv[2]);
        at = 3;
    } else {
        fail(argv[1], ENOENT);
    }
    int rounds = argc > at ? atoi(argv[at]) : 61;
    if (rounds < 1 || rounds > ROUNDS_MAX) rounds = 61;

    static struct fos_client client;
    result = fos_client_connect(&client, uid, name, 1, 0);
    if (result != 0) fail("connect", -result);
    struct fos_name_member server;
    int channel = fos_channel_acquire(&client);
    result = fos_lookup(&client, channel, "/sys/file", &server, 1, 0);
    if (result < 0) fail("look up /sys/file", -result);
    int server_cpu = client.board->core[server.mailbox >> 16].cpu, own_cpu = -1;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) fail("sched_getaffinity", errno);
    // The nearest CPU that no fos core holds.
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int taken = 0;
        for (uint32_t core = 0; core < client.cores; core++) taken |= client.board->core[core].cpu == cpu;
        if (!CPU_ISSET(cpu, &allowed) || taken) continue;
        if (own_cpu < 0 || abs(cpu - server_cpu) < abs(own_cpu - server_cpu)) own_cpu = cpu;
    }
    if (own_cpu < 0 || server_cpu < 0) {
        fprintf(stderr, "messages: needs a pinned fos core and a CPU beside it\n");
        return 1;
    }
    pin(own_cpu);

    struct line *lines = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (lines == MAP_FAILED) fail("mmap", errno);
    static double floors[ROUNDS_MAX], messages[ROUNDS_MAX], parked[ROUNDS_MAX], ratios[ROUNDS_MAX];
    for (int round = 0; round < rounds; round++) {
        struct timespec pause = {0, 5000000};
        nanosleep(&pause, NULL);  // the core parks
        floors[round] = floor_round(server_cpu, &lines[0], &lines[2]);
        for (int i = 0; i < 1000; i++) call(&client, channel, &server);
        uint64_t start = now();
        for (int i = 0; i < TRIPS; i++) call(&client, channel, &server);
        messages[round] = (double)(now() - start) / TRIPS;
        ratios[round] = messages[round] / floors[round];
        double sum = 0;
        for (int i = 0; i < PARKED_TRIPS; i++) {
            struct timespec idle = {0, 2000000};
            nanosleep(&idle, NULL);
            start = now();
            call(&client, channel, &server);
            sum += (double)(now() - start);
        }
        parked[round] = sum / PARKED_TRIPS;
    }
    double floor = median(floors, rounds), message = median(messages, rounds);
    printf("CPUs %d and %d, %d rounds of %d round trips, medians\n", own_cpu, server_cpu, rounds, TRIPS);
    printf("cache-line ping-pong floor   %8.0f ns\n", floor);
    printf("message round trip           %8.0f ns   %.2f x floor (goal 1.5)\n", message, median(ratios, rounds));
    printf("message to a parked core     %8.0f ns\n", median(parked, rounds));
    fos_client_disconnect(&client);
    return 0;
}
