// Connecting to an instance: the handshake over its Unix socket, and the two shared mappings.
//
// Protocol (fos/handshake.h): connect to the abstract SOCK_SEQPACKET address "\0fos/UID/NAME", check with SO_PEERCRED
// that UID or root listens, send a hello, receive a welcome with two descriptors: the segment, mapped read-write, and
// the board, mapped read-only. The usual hello is not sent: an address of its own says it.
// Both mappings must be sealed against a change of size, so that no access here can ever fault.
// Invariants: after a failure nothing stays open or mapped; sizes and offsets are checked once, here, and then trusted.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include "proxy.h"

static long system_close(int fd) { return fos_system(SYS_close, fd, 0, 0, 0, 0, 0); }

static void *map(size_t bytes, int protection, int flags, int fd) {
    long address = fos_system(SYS_mmap, 0, (long)bytes, protection, flags, fd, 0);
    return address < 0 && address > -4096 ? NULL : (void *)address;
}
static void unmap(const void *address, size_t bytes) {
    if (address != NULL) fos_system(SYS_munmap, (long)address, (long)bytes, 0, 0, 0, 0);
}

int fos_lost(struct fos_client *client) {
    fos_store_relaxed_u32(&client->gone, 1);
    return -ENOTCONN;
}

int fos_client_alive(struct fos_client *client) {
    if (fos_is_gone(client)) {
        fos_lost(client);
        return 0;
    }
    // The instance never writes to the socket after the welcome, and closes it only by ending.
    struct pollfd socket = {.fd = client->socket, .events = POLLRDHUP};
    struct timespec none = {0, 0};
    if (fos_system(SYS_ppoll, (long)&socket, 1, (long)&none, 0, 8, 0) > 0 && (socket.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL))) {
        fos_lost(client);
        return 0;
    }
    return 1;
}

// An instance that hangs must not hang its clients at the door; unix(7) sockets honour the send timeout in connect too.
static void limit_waiting(int socket) {
    struct timeval patience = {.tv_sec = 5};
    fos_system(SYS_setsockopt, socket, SOL_SOCKET, SO_RCVTIMEO, (long)&patience, sizeof patience, 0);
    fos_system(SYS_setsockopt, socket, SOL_SOCKET, SO_SNDTIMEO, (long)&patience, sizeof patience, 0);
}

// Receives the welcome and exactly two descriptors with it. Descriptors that come with a refusal are closed.
static int receive_welcome(int socket, struct fos_welcome *welcome, int fds[2]) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = welcome, .iov_len = sizeof *welcome};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long received;
    do {
        received = fos_system(SYS_recvmsg, socket, (long)&message, MSG_CMSG_CLOEXEC, 0, 0, 0);
    } while (received == -EINTR);
    if (received < 0) return received == -EAGAIN ? -ETIMEDOUT : (int)received;
    int count = 0, got[4] = {-1, -1, -1, -1};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here && count < 4; i++) memcpy(&got[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    int result = 0;
    if (received == 0) result = -ECONNREFUSED;  // closed without an answer: the instance is ending
    else if (received != (long)sizeof *welcome || welcome->magic != FOS_HELLO_MAGIC) result = -EPROTO;
    else if (welcome->status != 0) result = welcome->status < 0 && welcome->status > -4096 ? welcome->status : -EPROTO;
    else if (welcome->version != FOS_WIRE_VERSION || welcome->layout_hash != fos_layout_hash() || count != 2) result = -EPROTO;
    if (result != 0) {
        for (int i = 0; i < count; i++) system_close(got[i]);
        return result;
    }
    fds[0] = got[0];
    fds[1] = got[1];
    return 0;
}

// A memfd of exactly `bytes` that can neither shrink (a fault here) nor grow.
static int check_memfd(int fd, uint64_t bytes) {
    struct stat status;
    long seals = fos_system(SYS_fcntl, fd, F_GET_SEALS, 0, 0, 0, 0);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) return -EPROTO;
    if (fos_system(SYS_fstat, fd, (long)&status, 0, 0, 0, 0) != 0 || status.st_size < 0 || (uint64_t)status.st_size != bytes) return -EPROTO;
    return 0;
}

// `count` parts of `size` bytes at `offset`: aligned, and inside the segment.
static int part_fits(const struct fos_segment_header *header, uint64_t offset, uint64_t count, uint64_t size, uint64_t alignment) {
    return offset % alignment == 0 && offset >= sizeof *header && offset <= header->bytes && count * size <= header->bytes - offset;
}

static int map_segment(struct fos_client *client, uint64_t bytes) {
    if (bytes < sizeof(struct fos_segment_header) || bytes > UINT64_C(1) << 40) return -EPROTO;
    int checked = check_memfd(client->segment_fd, bytes);
    if (checked != 0) return checked;
    client->segment_bytes = (size_t)bytes;
    client->segment = map(client->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, client->segment_fd);
    if (client->segment == NULL) return -ENOMEM;
    // A copy: the checks and the use see the same numbers.
    struct fos_segment_header header;
    memcpy(&header, client->segment, sizeof header);
    if (header.magic != FOS_SEGMENT_MAGIC || header.version != FOS_WIRE_VERSION || header.bytes != bytes) return -EPROTO;
    if (header.cores == 0 || header.cores > FOS_CORES_MAX || header.channels == 0 || header.channels > FOS_CHANNELS_MAX) return -EPROTO;
    if (!part_fits(&header, header.bells_offset, header.cores, sizeof(struct fos_bell), FOS_CACHE_LINE)) return -EPROTO;
    if (!part_fits(&header, header.notices_offset, 1, sizeof(struct fos_notice_control) + header.cores * sizeof(struct fos_notice_ring), FOS_CACHE_LINE)) return -EPROTO;
    if (!part_fits(&header, header.channels_offset, header.channels, sizeof(struct fos_channel), FOS_CACHE_LINE)) return -EPROTO;
    if (!part_fits(&header, header.bulk_offset, header.channels, FOS_CHANNEL_AREA_BYTES, FOS_PAGE_BYTES)) return -EPROTO;
    client->cores = header.cores;
    client->channels = header.channels;
    client->bells = (struct fos_bell *)(client->segment + header.bells_offset);
    client->notice_control = (struct fos_notice_control *)(client->segment + header.notices_offset);
    client->notice_rings = (struct fos_notice_ring *)(client->notice_control + 1);
    client->channel = (struct fos_channel *)(client->segment + header.channels_offset);
    client->bulk = client->segment + header.bulk_offset;
    return 0;
}

static int map_board(struct fos_client *client, uint64_t bytes) {
    if (bytes < sizeof(struct fos_board) || bytes > UINT64_C(1) << 30) return -EPROTO;
    int checked = check_memfd(client->board_fd, bytes);
    if (checked != 0) return checked;
    client->board_bytes = (size_t)bytes;
    client->board = map(client->board_bytes, PROT_READ, MAP_SHARED, client->board_fd);
    if (client->board == NULL) return -ENOMEM;
    if (client->board->magic != FOS_BOARD_MAGIC || client->board->version != FOS_WIRE_VERSION) return -EPROTO;
    return client->board->cores == client->cores ? 0 : -EPROTO;
}

// Has the core ready that the first request most likely goes to, while the rest of the connection is made. On the core's own CPU it
// would put this thread aside.
static void wake_ahead(const struct fos_client *client) {
    fos_mailbox owner = fos_owner(client, FOS_ROOT_INODE);
    if (owner == FOS_MAILBOX_NONE) return;
    const uint32_t *parked = &client->board->core[owner >> 16].parked;
    int here = sched_getcpu();
    if (fos_load_relaxed_u32(parked) != 0 && here >= 0 && here != fos_board_cpu(client->board, owner >> 16)) fos_futex_wake(parked);
}

// The client's own tables: one anonymous mapping, since nothing here may call malloc. All zero, which each channel's state
// begins with: what no channel has used is never touched.
static int map_private(struct fos_client *client) {
    size_t states = client->channels * sizeof(struct fos_channel_state);
    client->private_bytes = states + client->cores * sizeof(uint32_t);
    uint8_t *memory = map(client->private_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (memory == NULL) return -ENOMEM;
    *memory = 0;  // written before it is read, or the first page would fault twice
    client->state = (struct fos_channel_state *)memory;
    client->notice_tails = (uint32_t *)(memory + states);
    return 0;
}

// A client that is connected to nothing. The entries of its name cache are left as they are, being free.
static void clear(struct fos_client *client) {
    memset(client, 0, offsetof(struct fos_client, names));
    client->socket = client->segment_fd = client->board_fd = -1;
}

static void release(struct fos_client *client) {
    unmap(client->state, client->private_bytes);
    unmap(client->board, client->board_bytes);
    unmap(client->segment, client->segment_bytes);
    if (client->board_fd >= 0) system_close(client->board_fd);
    if (client->segment_fd >= 0) system_close(client->segment_fd);
    if (client->socket >= 0) system_close(client->socket);
    clear(client);
    client->gone = 1;
}

static int say_hello(int socket, uint32_t channels, uint32_t flags) {
    struct fos_hello hello = fos_usual_hello();
    hello.channels = channels;
    hello.flags = flags;
    long result;
    do {
        result = fos_system(SYS_sendto, socket, (long)&hello, sizeof hello, MSG_NOSIGNAL, 0, 0);
    } while (result == -EINTR);
    return result == -EPIPE ? -ECONNREFUSED : result < 0 ? (int)result : 0;
}

// The welcome, after a hello on a socket on which nobody waits without limit.
static int take_welcome(struct fos_client *client, int socket) {
    clear(client);
    client->socket = socket;
    client->spin_ns = FOS_SPIN_DEFAULT_NS;
    struct fos_welcome welcome;
    int fds[2] = {-1, -1};
    int result = receive_welcome(socket, &welcome, fds);
    if (result == 0) {
        client->segment_fd = fds[0];
        client->board_fd = fds[1];
        client->client = welcome.client;
        client->rights = welcome.rights;
        client->name_servers = welcome.name_servers > 4 ? 4 : welcome.name_servers;
        memcpy(client->name_server, welcome.name_server, sizeof client->name_server);
        memcpy(client->name_server_epoch, welcome.name_server_epoch, sizeof client->name_server_epoch);
        result = map_segment(client, welcome.segment_bytes);
    }
    if (result == 0) result = map_board(client, welcome.board_bytes);
    if (result == 0) wake_ahead(client);
    if (result == 0) result = map_private(client);
    if (result != 0) release(client);
    else fos_names_begin(client, &welcome.files);
    return result;
}

void fos_client_keep(const struct fos_client *client, uint32_t channels_used, struct fos_client_kept *kept) {
    *kept = (struct fos_client_kept){
        .segment_bytes = client->segment_bytes, .board_bytes = client->board_bytes, .client = client->client, .rights = client->rights,
        .name_servers = client->name_servers, .channels_used = channels_used};
    memcpy(kept->name_server, client->name_server, sizeof kept->name_server);
    memcpy(kept->name_server_epoch, client->name_server_epoch, sizeof kept->name_server_epoch);
    fos_names_keep(client, &kept->files);
}

int fos_client_resume(struct fos_client *client, const struct fos_client_kept *kept, int socket, int segment_fd, int board_fd) {
    clear(client);
    client->socket = socket;
    client->segment_fd = segment_fd;
    client->board_fd = board_fd;
    client->spin_ns = FOS_SPIN_DEFAULT_NS;
    client->client = kept->client;
    client->rights = kept->rights;
    client->name_servers = kept->name_servers > 4 ? 4 : kept->name_servers;
    memcpy(client->name_server, kept->name_server, sizeof client->name_server);
    memcpy(client->name_server_epoch, kept->name_server_epoch, sizeof client->name_server_epoch);
    int result = map_segment(client, kept->segment_bytes);
    if (result == 0) result = map_board(client, kept->board_bytes);
    if (result == 0) result = map_private(client);
    // The core counts the requests of a channel; so it goes on where the other program stopped.
    for (uint32_t i = 0; result == 0 && i < kept->channels_used; i++) {
        if (i >= client->channels) result = -EPROTO;
        else client->state[i].sequence = fos_load_acquire_u32(&client->channel[i].request.sequence);
    }
    if (result == 0 && !fos_client_alive(client)) result = -ENOTCONN;
    if (result != 0) release(client);
    else fos_names_begin(client, &kept->files);
    return result;
}

// A client that is connected to nothing, and may be disconnected.
static int remain_without(struct fos_client *client, int error) {
    clear(client);
    client->gone = 1;
    return error;
}

static int shake_hands(struct fos_client *client, int socket, uint32_t channels, uint32_t flags) {
    int said = say_hello(socket, channels, flags);
    if (said == 0) return take_welcome(client, socket);
    system_close(socket);
    return remain_without(client, said);
}

int fos_client_attach(struct fos_client *client, int socket, uint32_t channels, uint32_t flags) {
    limit_waiting(socket);
    return shake_hands(client, socket, channels, flags);
}

// Appends `number` in decimal; returns the new length.
static size_t append_number(char *text, size_t length, uint32_t number) {
    char digits[10];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0) text[length++] = digits[--count];
    return length;
}

// A socket that is connected to the address; or -errno. -EACCES: whoever listens is neither the mount's user nor root. Anybody may
// bind an abstract name.
static int reach(const struct sockaddr_un *address, size_t length, uid_t uid) {
    long fd = fos_system(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0) return (int)fd;
    limit_waiting((int)fd);  // a full backlog makes connect wait
    long result;
    do {
        result = fos_system(SYS_connect, fd, (long)address, (long)(offsetof(struct sockaddr_un, sun_path) + length), 0, 0, 0);
    } while (result == -EINTR);
    if (result == -EAGAIN) result = -ETIMEDOUT;
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (result == 0) result = fos_system(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&size, 0);
    if (result == 0 && peer.uid != uid && peer.uid != 0) result = -EACCES;
    if (result == 0) return (int)fd;
    system_close((int)fd);
    return (int)result;
}

int fos_client_connect(struct fos_client *client, uid_t uid, const char *name, uint32_t channels, uint32_t flags) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t name_length = strlen(name), length = 1;
    memcpy(address.sun_path + length, "fos/", 4);
    length = append_number(address.sun_path, length + 4, uid);
    address.sun_path[length++] = '/';
    if (name_length == 0) return remain_without(client, -EINVAL);
    if (name_length > sizeof address.sun_path - length) return remain_without(client, -ENAMETOOLONG);
    memcpy(address.sun_path + length, name, name_length);
    length += name_length;

    if (flags == 0 && channels == FOS_HELLO_USUAL_CHANNELS && length + FOS_USUAL_NAME_MORE <= sizeof address.sun_path) {
        int socket = reach(&address, fos_usual_name(address.sun_path, (uint32_t)length), uid);
        if (socket >= 0) return take_welcome(client, socket);
        if (socket != -ECONNREFUSED && socket != -EACCES) return remain_without(client, socket);
    }
    int socket = reach(&address, length, uid);
    return socket < 0 ? remain_without(client, socket) : shake_hands(client, socket, channels, flags);
}

void fos_client_disconnect(struct fos_client *client) { release(client); }
