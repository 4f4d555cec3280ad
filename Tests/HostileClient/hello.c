// Attacks on the handshake: bad hellos, descriptors nobody asked for, silence.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "client.h"

static int door(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "fos/%u/%s", instance_uid, instance_name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

// Sends bytes with `count` copies of a descriptor attached.
static void send_with_descriptors(int fd, const void *bytes, size_t length, int count) {
    int extra[16];
    for (int i = 0; i < count; i++) extra[i] = STDIN_FILENO;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof extra)];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), extra, (size_t)count * sizeof(int));
    }
    sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void attack_handshake(struct random *random) {
    enum { DOORS = 6 };
    int fds[DOORS];
    unsigned count = 1 + (unsigned)below(random, DOORS);
    for (unsigned i = 0; i < count; i++) {
        fds[i] = door();
        if (fds[i] < 0) continue;
        struct fos_hello hello = {
            .magic = FOS_HELLO_MAGIC, .version = FOS_WIRE_VERSION, .layout_hash = fos_layout_hash(), .channels = 1 + (uint32_t)below(random, 4)};
        uint8_t noise[4096];
        switch (below(random, 8)) {
        case 0: break;  // says nothing
        case 1: {
            size_t length = below(random, sizeof noise);
            fill(random, noise, length);
            send(fds[i], noise, length, MSG_NOSIGNAL | MSG_DONTWAIT);
            break;
        }
        case 2: send(fds[i], &hello, below(random, sizeof hello), MSG_NOSIGNAL | MSG_DONTWAIT); break;
        case 3:
            ((uint8_t *)&hello)[below(random, sizeof hello)] ^= (uint8_t)(1 + below(random, 255));
            send(fds[i], &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT);
            break;
        case 4:
            hello.channels = (uint32_t)odd_number(random);
            hello.flags = (uint32_t)odd_number(random);
            send(fds[i], &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT);
            break;
        case 5: send_with_descriptors(fds[i], &hello, sizeof hello, 1 + (int)below(random, 16)); break;
        case 6:  // one good hello and many more
            for (int more = 0; more < 50; more++) send(fds[i], &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT);
            break;
        default:
            send(fds[i], &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT);
            shutdown(fds[i], chance(random, 50) ? SHUT_WR : SHUT_RD);
            break;
        }
    }
    if (chance(random, 20)) usleep((useconds_t)below(random, 30000));
    for (unsigned i = 0; i < count; i++) {
        if (fds[i] >= 0) close(fds[i]);
    }
}

int run_idle(uint64_t deadline) {
    enum { DOORS = 200 };
    for (int i = 0; i < DOORS; i++) door();  // kept open until the process ends
    while (clock_ns() < deadline) usleep(10000);
    return EXIT_OK;
}
