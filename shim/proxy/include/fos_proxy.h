// The message proxy library: the only code that speaks the client side of the wire.
//
// Role: connects a process to a fos instance, hands out channels, sends requests and waits for replies. Used by the
// FUSE front end, by tests and tools, and by the preload shim. Plain C on libc alone; no malloc after connect, no
// stdio, no locks; a channel belongs to one thread at a time.
//
//   struct fos_client c;                        one a process and instance
//   fos_client_connect(&c, "/name", ...);       handshake, maps segment and board
//   int ch = fos_channel_acquire(&c);           one a thread
//   struct fos_message *m = fos_request(&c, ch, FOS_OP_GETATTR, inode);   build in private memory
//   int status = fos_call(&c, ch);              post to the owner, spin, park; RETRY, STALE, FULL handled inside
//   const struct fos_message *r = fos_reply(&c, ch);
//
// Errors: functions return 0 or a positive result, or a negative errno. -ENOTCONN: the instance is gone; every
// later call on the client says so at once.
#ifndef FOS_PROXY_H
#define FOS_PROXY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <fos/wire.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FOS_PROXY_NAMES = 16, FOS_PROXY_MEMBERS = 64 };

// One entry of the client's name cache: a symbolic name and its members, best first.
struct fos_name_entry {
    uint32_t name_length;  // 0 = free
    uint32_t member_count;
    uint64_t version;
    char name[FOS_SERVICE_NAME_BYTES_MAX + 1];
    struct fos_name_member members[FOS_PROXY_MEMBERS];
};

struct fos_client {
    int socket;              // kept open: its hang-up says that the instance is gone
    int segment_fd, board_fd;
    uint32_t client, rights, cores, channels;
    uint8_t *segment;        // struct fos_segment_header at 0
    size_t segment_bytes;
    const struct fos_board *board;  // read-only mapping
    size_t board_bytes;
    struct fos_bell *bells;
    struct fos_notice_control *notice_control;
    struct fos_notice_ring *notice_rings;
    struct fos_channel *channel;    // array
    uint8_t *bulk;
    uint32_t name_servers;
    fos_mailbox name_server[4];
    uint32_t name_server_epoch[4];
    uint64_t channels_used[FOS_BELL_WORDS];  // bits, taken atomically by fos_channel_acquire
    uint32_t gone;                           // 1 once the instance is known to be gone
    uint32_t names_lock;                     // the name cache is written rarely; guarded by a sequence count
    uint32_t names_used;                     // bits: entries of the cache that hold something
    uint32_t spin_ns;        // longest that a call spins before it parks; 0 = park at once. Adapts down by channel
    uint32_t timed;          // 1 = take the times of each call (costs some clock readings; off by default)
    uint32_t slot_epoch_seen;                  // of the board, when the file fleet was last looked up
    uint32_t notice_next;                      // ring that fos_notice_take looks at first, for fairness
    uint64_t channels_draining[FOS_BELL_WORDS];  // released while a request was in flight: usable once it is answered
    struct fos_channel_state *state;           // array, private to the process (call.c)
    uint32_t *notice_tails;                    // array by core: the client's own copy of each ring's tail
    size_t private_bytes;                      // of the mapping behind `state`
    // Called by a thread that has spun for its reply in vain, before it sleeps: gives away what others wait for. NULL: none.
    void (*before_sleep)(void *context, int channel);
    void *before_sleep_context;
    struct fos_name_entry names[FOS_PROXY_NAMES];  // last: only entries in use are ever touched
};

// How each step of the last call on a channel went, for traces (monotonic ns; 0 = did not happen).
struct fos_call_times {
    uint64_t built;     // the proxy begins to build the message
    uint64_t sent;      // it is built
    uint64_t resolved;  // its destination is known
    uint64_t posted;    // it is the microkernel's
    uint64_t taken, begun, answered;  // as the microkernel says (struct fos_request_times)
    uint64_t replied;   // the reply is seen
    uint64_t returned;  // to whoever called the proxy
    uint32_t retries, parked;
};

// Connects to the instance `name` of user `uid` at its abstract socket. `flags`: enum fos_hello_flag.
// Errors: -ECONNREFUSED or -ENOENT no such instance, -EPROTO version or layout differs, -EACCES not entitled.
int fos_client_connect(struct fos_client *client, uid_t uid, const char *name, uint32_t channels, uint32_t flags);
// The same over an already connected socket (tests; in-process instances).
int fos_client_attach(struct fos_client *client, int socket, uint32_t channels, uint32_t flags);
void fos_client_disconnect(struct fos_client *client);
// What a program that replaces this one (execve(2)) needs to know to go on with the connection, besides its descriptors.
// No request may be in flight.
struct fos_client_kept {
    uint64_t segment_bytes, board_bytes;
    uint32_t client, rights, name_servers;
    fos_mailbox name_server[4];
    uint32_t name_server_epoch[4];
    uint32_t channels_used;  // channels from here on have carried nothing
    struct fos_file_servers files;
};
void fos_client_keep(const struct fos_client *client, uint32_t channels_used, struct fos_client_kept *kept);
// Goes on with a connection that was kept. The descriptors become the client's; on an error they are closed. -EPROTO: this
// is no connection of that kind.
int fos_client_resume(struct fos_client *client, const struct fos_client_kept *kept, int socket, int segment_fd, int board_fd);
// 1 if the instance still lives, 0 if it is gone. Cheap; checks the board, then the socket.
int fos_client_alive(struct fos_client *client);

// A free channel number, or -EAGAIN when all are taken.
int fos_channel_acquire(struct fos_client *client);
void fos_channel_release(struct fos_client *client, int channel);

// Zeroes the header of the channel's request, sets operation and inode, and returns it; the payload follows it.
struct fos_message *fos_request(struct fos_client *client, int channel, uint16_t operation, uint64_t inode);
// The same request again, as it has been built so far or was sent.
struct fos_message *fos_draft(struct fos_client *client, int channel);
// The caller has answered something without a request, and one may follow soon: wakes the channel's core ahead of it if that has
// paid before (ahead.c).
void fos_expect_request(struct fos_client *client, int channel);
// The reply of the last completed call. Valid until the next request on the channel.
const struct fos_message *fos_reply(const struct fos_client *client, int channel);
// The channel's bulk area: FOS_BULK_BYTES, shared with the servers.
uint8_t *fos_bulk(struct fos_client *client, int channel);
// Where the channel leaves changes of a file that is delegated to it (fos/delegation.h).
struct fos_delegation *fos_delegation_area(struct fos_client *client, int channel);

// Sends the request to the file server that owns request.inode (slot table of the board, checked against the name
// cache) and waits. Returns reply.status (0 or negative errno); -ENOTCONN, -EPERM (denied) from the transport.
int fos_call(struct fos_client *client, int channel);
// The same, to a given mailbox (statistics of one server, FOS_OP_LEASE_ACK).
int fos_call_mailbox(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch);
// The same, to the best member of a symbolic name (looked up and cached).
int fos_call_name(struct fos_client *client, int channel, const char *name);
// Posts without waiting, and waits for what was posted; for callers that keep many requests in flight. 0, or -EBUSY:
// the channel's last request is not answered yet; -EINVAL no such channel or core; -ENOTCONN.
int fos_post(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch);
// The same, to the file server that owns request.inode.
int fos_post_owner(struct fos_client *client, int channel);
// The same, to the best member of a symbolic name.
int fos_post_name(struct fos_client *client, int channel, const char *name);
// 1 = the reply is there, 0 = not yet (never blocks); or waits at most timeout_ns (UINT64_MAX = without limit): 1 or
// -ETIMEDOUT (the request stays in flight). Both: -ENOTCONN, -EPERM denied, -ESTALE the mailbox named in fos_post is
// gone. The outcome of the operation itself is fos_reply()->status.
int fos_poll(struct fos_client *client, int channel);
int fos_wait(struct fos_client *client, int channel, uint64_t timeout_ns);
// For the next user of a channel whose call may never have come back: its thread was cancelled, or a signal handler jumped out.
// What was not put into the channel yet is given up, what the server may not have heard of is announced. 1: a request is in flight,
// and fos_wait must follow; 0: the channel is free.
int fos_take_over(struct fos_client *client, int channel);
// The times of the last call on a channel, if client.timed was set before fos_request.
void fos_call_timing(const struct fos_client *client, int channel, struct fos_call_times *times);

// Members of a symbolic name, best first, from the cache or the name fleet. Returns how many were stored, or -errno.
int fos_lookup(struct fos_client *client, int channel, const char *name, struct fos_name_member *members, int room, int refresh);
// The mailbox of the file server that owns an inode, as the board hints.
fos_mailbox fos_owner(const struct fos_client *client, uint64_t inode);

// Takes the next notice: 1 stored, 0 none within timeout_ns, -ENOTCONN. One thread a client at a time.
int fos_notice_take(struct fos_client *client, struct fos_notice *notice, uint64_t timeout_ns);
// Acknowledges a notice over `channel`.
int fos_notice_acknowledge(struct fos_client *client, int channel, const struct fos_notice *notice);

// A file that is mapped for reading (fos/map.h).
struct fos_mapping {
    const uint8_t *data;                     // NULL: none
    uint64_t bytes;                          // of the file that it covers
    const struct fos_map_control *control;
    uint32_t writable;                       // 1: mapped for writing too
};
// Takes the descriptor that belongs to a reply of FOS_OP_MAP from the connection's socket, and maps it. Packets of
// requests that were given up are dropped. One thread a client at a time, from sending the request on. 0, -ETIMEDOUT
// (five seconds), -ENOTCONN, -EPROTO, -ENOMEM.
int fos_map_receive(struct fos_client *client, const struct fos_map_reply *reply, struct fos_mapping *mapping);
// One packet with its descriptor, which is the caller's. 0, -ETIMEDOUT, -ENOTCONN, -EPROTO.
int fos_packet_receive(struct fos_client *client, struct fos_map_packet *packet, int *fd);
void fos_map_release(struct fos_mapping *mapping);
// Reads without a message. How many bytes were read, 0 at and beyond the end of the file; -EAGAIN: send READ; -ESTALE:
// the same, and the mapping is of no use any more. `now`: seconds of CLOCK_REALTIME, coarse is good enough.
long fos_map_read(const struct fos_mapping *mapping, uint64_t offset, void *buffer, uint64_t count, int64_t now);
// Overwrites bytes of the file without a message: `count`, all of them. -EAGAIN: send WRITE; -ESTALE: the same, and the mapping
// is of no use any more. `now`: nanoseconds of CLOCK_REALTIME, coarse is good enough.
long fos_map_write(const struct fos_mapping *mapping, uint64_t offset, const void *buffer, uint64_t count, uint64_t now);

// Finds the instance of a mount in /proc/self/mountinfo by the path of its mount point (or any path below it):
// fills uid and name. The path is absolute and free of symbolic links, "." and ".." (realpath(3)): it is compared as
// text. -ENOENT: not on a fos mount (or on a bind mount of only a part of one); -ENAMETOOLONG: no room.
int fos_find_mount(const char *path, uid_t *uid, char *name, size_t name_room, char *mount_point, size_t mount_room);

#ifdef __cplusplus
}
#endif
#endif
