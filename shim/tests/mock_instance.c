// The mock instance: see mock_instance.h.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "mock_instance.h"

static void must(int condition, const char *what) {
    if (condition) return;
    perror(what);
    exit(2);
}

static void *memory(int *fd, const char *name, size_t bytes) {
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must(*fd >= 0 && ftruncate(*fd, (off_t)bytes) == 0, "memfd");
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    must(address != MAP_FAILED, "mmap");
    must(fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "seal");
    return address;
}

void mock_start(struct mock_instance *mock, uint32_t channels, int cpu, mock_script script) {
    memset(mock, 0, sizeof *mock);
    int pair[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    mock->client_socket = pair[0];
    mock->server_socket = pair[1];
    mock->channels = channels;
    mock->script = script;
    mock->spin = 20000;
    mock->file_epoch = 7;
    size_t bells = 4096, notices = 8192;
    size_t control = (notices + sizeof(struct fos_notice_control) + sizeof(struct fos_notice_ring) + 63) & ~(size_t)63;
    size_t bulk = (control + channels * sizeof(struct fos_channel) + 4095) & ~(size_t)4095;
    size_t bytes = bulk + (size_t)channels * FOS_CHANNEL_AREA_BYTES;
    mock->segment = memory(&mock->segment_fd, "mock-segment", bytes);
    mock->header = (struct fos_segment_header *)mock->segment;
    mock->segment_bytes = bytes;
    *mock->header = (struct fos_segment_header){
        .magic = FOS_SEGMENT_MAGIC, .version = FOS_WIRE_VERSION, .client = 3, .cores = 1, .channels = channels, .bells_offset = bells,
        .notices_offset = notices, .channels_offset = control, .bulk_offset = bulk, .bytes = bytes};
    mock->bell = (struct fos_bell *)(mock->segment + bells);
    mock->notice_control = (struct fos_notice_control *)(mock->segment + notices);
    mock->notice_ring = (struct fos_notice_ring *)(mock->notice_control + 1);
    mock->channel = (struct fos_channel *)(mock->segment + control);
    mock->board = memory(&mock->board_fd, "mock-board", sizeof(struct fos_board));
    mock->board->magic = FOS_BOARD_MAGIC;
    mock->board->version = FOS_WIRE_VERSION;
    mock->board->cores = 1;
    mock->board->core[0].cpu = cpu;
    mock->welcome = (struct fos_welcome){
        .magic = FOS_HELLO_MAGIC, .version = FOS_WIRE_VERSION, .layout_hash = fos_layout_hash(), .segment_bytes = bytes,
        .board_bytes = sizeof(struct fos_board), .client = 3, .name_servers = 2, .name_server = {1, 2}, .name_server_epoch = {1, 1}};
}

static void answer_hello(struct mock_instance *mock) {
    struct fos_hello hello;
    if (recv(mock->server_socket, &hello, sizeof hello, 0) != (ssize_t)sizeof hello) return;
    char room[CMSG_SPACE(2 * sizeof(int))];
    memset(room, 0, sizeof room);
    struct iovec part = {&mock->welcome, sizeof mock->welcome};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(control), (int[]){mock->segment_fd, mock->board_fd}, 2 * sizeof(int));
    sendmsg(mock->server_socket, &message, MSG_NOSIGNAL);
}

static void serve(struct mock_instance *mock, int index) {
    struct fos_channel *channel = &mock->channel[index];
    struct {
        struct fos_message message;
        uint8_t payload[FOS_PAYLOAD_BYTES_MAX];
    } request, reply;
    uint32_t sequence = fos_load_acquire_u32(&channel->request.sequence);
    request.message = channel->request;
    memcpy(request.payload, channel->request_payload, request.message.length <= sizeof request.payload ? request.message.length : 0);
    reply.message = request.message;
    reply.message.status = 0;
    reply.message.length = 0;
    mock->served++;
    if (!mock->script(mock, index, &request.message, &reply.message)) return;
    memcpy(channel->reply_payload, reply.payload, reply.message.length <= sizeof reply.payload ? reply.message.length : 0);
    reply.message.sequence = 0;
    channel->reply = reply.message;
    fos_store_release_u32(&channel->reply.sequence, sequence);  // the last word of the reply to change
    fos_store_release_u32(&channel->reply_sequence, sequence);
    fos_fence();
    if (fos_load_relaxed_u32(&channel->client_parked)) syscall(SYS_futex, &channel->reply_sequence, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int sweep(struct mock_instance *mock) {
    int found = 0;
    for (int word = 0; word < FOS_BELL_WORDS; word++) {
        if (fos_load_relaxed_u64(&mock->bell->bits[word]) == 0) continue;
        uint64_t bits = fos_exchange_u64(&mock->bell->bits[word], 0);
        for (; bits != 0; bits &= bits - 1) {
            serve(mock, word * 64 + __builtin_ctzll(bits));
            found = 1;
        }
    }
    return found;
}

static void *core(void *context) {
    struct mock_instance *mock = context;
    uint32_t *parked = &mock->board->core[0].parked;
    if (mock->board->core[0].cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(mock->board->core[0].cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    answer_hello(mock);
    uint32_t idle = 0;
    while (!fos_load_relaxed_u32(&mock->stop)) {
        if (sweep(mock)) {
            idle = 0;
            continue;
        }
        fos_spin_pause();
        if (++idle < mock->spin) continue;
        fos_store_release_u32(parked, 1);
        fos_fence();
        struct timespec limit = {0, 500000000};
        if (fos_load_relaxed_u32(&mock->stop) == 0 && !sweep(mock)) syscall(SYS_futex, parked, FUTEX_WAIT, 1, &limit, NULL, 0);
        mock->parks++;
        fos_store_release_u32(parked, 0);
        idle = 0;
    }
    return NULL;
}

void mock_run(struct mock_instance *mock) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, core, mock) == 0, "pthread_create");
    mock->thread = thread;
}

void mock_stop(struct mock_instance *mock) {
    fos_store_release_u32(&mock->stop, 1);
    syscall(SYS_futex, &mock->board->core[0].parked, FUTEX_WAKE, 1, NULL, NULL, 0);
    if (mock->thread != 0) pthread_join(mock->thread, NULL);
    if (mock->server_socket >= 0) close(mock->server_socket);
    munmap(mock->segment, mock->segment_bytes);
    munmap(mock->board, sizeof *mock->board);
    close(mock->segment_fd);
    close(mock->board_fd);
}

void mock_notify(struct mock_instance *mock, const struct fos_notice *notice) {
    struct fos_notice_ring *ring = mock->notice_ring;
    ring->slots[ring->head % FOS_NOTICES] = *notice;
    fos_store_release_u32(&ring->head, ring->head + 1);
    fos_fetch_add_u32(&mock->notice_control->notice_bell, 1);
    fos_fence();
    if (fos_load_relaxed_u32(&mock->notice_control->notice_parked)) syscall(SYS_futex, &mock->notice_control->notice_bell, FUTEX_WAKE, 1, NULL, NULL, 0);
}
