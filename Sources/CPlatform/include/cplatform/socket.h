// The listening socket, who is at the other end, and handing over descriptors.
#ifndef FOS_CPLATFORM_SOCKET_H
#define FOS_CPLATFORM_SOCKET_H

#include <stddef.h>
#include <stdint.h>

struct fos_platform_peer {
    uint32_t uid, gid;
    int32_t pid;    // in this process's pid namespace; 0 if not visible in it
    int32_t pidfd;  // -1 if none could be had
};

// Listens on the abstract SOCK_SEQPACKET address "\0fos/UID/NAME", non-blocking. -EADDRINUSE: the instance exists.
// `name` of `length` bytes.
int fos_platform_listen(uint32_t uid, const char *name, uint32_t length, int backlog);
// Takes one connection, non-blocking and close-on-exec. -EAGAIN: none waits.
int fos_platform_accept(int listener);
// Identity at connect time: SO_PEERCRED, and SO_PEERPIDFD or else pidfd_open of that pid.
int fos_platform_peer(int socket, struct fos_platform_peer *peer);
// Supplementary groups of the peer at connect time (SO_PEERGROUPS).
// Stores them if there are at most `room`; returns how many there are, or -errno.
int fos_platform_peer_groups(int socket, uint32_t *groups, uint32_t room);
// Sends one packet with descriptors (SCM_RIGHTS), without blocking.
int fos_platform_send(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count);
// Receives one packet without blocking; discards any descriptors sent along. Returns its length (longer than `room`
// if it was cut), 0 at end of stream, -EAGAIN if none waits.
int64_t fos_platform_receive(int socket, void *bytes, size_t room);

// A set of descriptors to wait on (epoll(7)), each with a key. `events` below is a mask of enum fos_platform_event.
enum fos_platform_event { FOS_PLATFORM_READABLE = 1, FOS_PLATFORM_HANG_UP = 2 };
struct fos_platform_ready {
    uint64_t key;
    uint32_t events;
    uint32_t reserved;
};
int fos_platform_poll_create(void);
int fos_platform_poll_add(int poll, int fd, uint64_t key);
int fos_platform_poll_remove(int poll, int fd);
// Watches fd until it has been found ready once; and from then on once more.
int fos_platform_poll_add_once(int poll, int fd, uint64_t key);
int fos_platform_poll_arm(int poll, int fd, uint64_t key);
// Waits at most `timeout_ms` (-1: without limit). Returns how many were stored; 0 also after a signal.
int fos_platform_poll_wait(int poll, struct fos_platform_ready *ready, int room, int timeout_ms);
// A counter that wakes a poll; `clear` takes it back to zero.
int fos_platform_event_create(void);
void fos_platform_event_signal(int event);
void fos_platform_event_clear(int event);
// A descriptor kept in reserve, so that one connection can still be taken (and refused) when no other is to be had.
int fos_platform_spare_descriptor(void);
void fos_platform_close(int fd);

#endif
