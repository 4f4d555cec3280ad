// The abstract listening socket, peer identity, and SCM_RIGHTS.
#define _GNU_SOURCE
#include <cplatform/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59  // Linux 4.13
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5
#endif

int fos_platform_listen(uint32_t uid, const char *name, uint32_t name_length, int backlog) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "fos/%u/%.*s", uid, (int)name_length, name);
    if (length <= 0 || (size_t)length >= sizeof address.sun_path - 1) { return -ENAMETOOLONG; }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) { return -errno; }
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    if (bind(fd, (struct sockaddr *)&address, bytes) < 0 || listen(fd, backlog) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int fos_platform_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fos_platform_peer(int socket, struct fos_platform_peer *peer) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) { return -errno; }
    peer->uid = credentials.uid;
    peer->gid = credentials.gid;
    peer->pid = credentials.pid;
    int pidfd = -1;
    length = sizeof pidfd;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) < 0) {
        pidfd = credentials.pid > 0 ? (int)syscall(SYS_pidfd_open, credentials.pid, 0) : -1;
    }
    peer->pidfd = pidfd;
    return 0;
}

int fos_platform_peer_groups(int socket, uint32_t *groups, uint32_t room) {
    socklen_t bytes = room * (socklen_t)sizeof *groups;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) == 0 || errno == ERANGE) { return (int)(bytes / sizeof *groups); }
    return -errno;
}

enum { DESCRIPTORS_MAX = 4 };

int fos_platform_send(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count) {
    if (descriptor_count < 0 || descriptor_count > DESCRIPTORS_MAX) { return -EINVAL; }
    struct iovec part = {(void *)bytes, count};
    union {
        char room[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptor_count > 0) {
        size_t payload = (size_t)descriptor_count * sizeof(int);
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(payload);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(payload);
        memcpy(CMSG_DATA(header), descriptors, payload);
    }
    ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : 0;
}

int64_t fos_platform_receive(int socket, void *bytes, size_t room) {
    // No control buffer: the kernel drops descriptors that a peer sends along (MSG_CTRUNC).
    ssize_t got = recv(socket, bytes, room, MSG_DONTWAIT | MSG_TRUNC);
    return got < 0 ? -(int64_t)errno : (int64_t)got;
}

int fos_platform_poll_create(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fos_platform_poll_add(int poll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data = {.u64 = key}};
    return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int fos_platform_poll_add_once(int poll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = key}};
    return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int fos_platform_poll_arm(int poll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = key}};
    return epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}

int fos_platform_poll_remove(int poll, int fd) {
    return epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
}

enum { EVENTS_MAX = 64 };

int fos_platform_poll_wait(int poll, struct fos_platform_ready *ready, int room, int timeout_ms) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poll, events, room < EVENTS_MAX ? room : EVENTS_MAX, timeout_ms);
    if (count < 0) { return errno == EINTR ? 0 : -errno; }
    for (int i = 0; i < count; i++) {
        ready[i].key = events[i].data.u64;
        ready[i].events = (events[i].events & EPOLLIN ? FOS_PLATFORM_READABLE : 0) |
            (events[i].events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR) ? FOS_PLATFORM_HANG_UP : 0);
    }
    return count;
}

int fos_platform_event_create(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void fos_platform_event_signal(int event) { (void)eventfd_write(event, 1); }

void fos_platform_event_clear(int event) {
    eventfd_t value;
    (void)eventfd_read(event, &value);
}

int fos_platform_spare_descriptor(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void fos_platform_close(int fd) {
    if (fd >= 0) { close(fd); }
}
