// What the files of the proxy share, and its users do not see.
#ifndef FOS_PROXY_INTERNAL_H
#define FOS_PROXY_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include "fos_proxy.h"
#include "system.h"

#define FOS_FILE_FLEET "/sys/file"

enum {
    FOS_SPIN_DEFAULT_NS = 50000,  // about twice what a wake across CPUs costs
    FOS_SPIN_LEAST_NS = 2000,
    FOS_EAGER_LOOKS = 200,        // without a pause, which takes as long as a fifth of a round trip: about 0.3 us
    FOS_QUIET_LOOKS = 24,         // then, before the first bell of a call: about a microsecond in all
    FOS_PATIENCE_START = 48,      // how long a channel waits at first until it looks for a reply, in 16ths of a pause
    FOS_PATIENCE_MOST = 128,
    FOS_PATIENCE_STEP = 7,        // what is added for a reply that was not there at the first look, to 1 that is taken off
    FOS_BYTES_A_LOOK = 128,       // bytes of bulk that take as long to be moved as a look
    FOS_QUIET_BYTES = 16384,      // of a request with more the reply takes so long that a bell is nothing beside it
    FOS_LOOKS_IN_VAIN = 2,        // in a row, and then
    FOS_LOUD_CALLS = 15,          // calls that ring at once
    FOS_CHECK_NS = 50000000,      // a parked client looks this often whether the instance still lives
    FOS_LOOKUP_MEMBERS_MAX = 32,  // in one reply of NAME_LOOKUP
};

// How the destination of a request is found again when its mailbox turns out stale.
enum fos_route {
    FOS_ROUTE_MAILBOX = 0,  // named by the caller: it is told -ESTALE
    FOS_ROUTE_OWNER = 1,    // the file server that owns request.inode
};

// One channel's client-side state, on cache lines of its own: channels belong to different threads.
struct fos_channel_state {
    uint32_t sequence;     // of the last request posted
    uint32_t in_flight;    // 1 from post until the reply has been taken
    uint32_t resend;       // 1 = answered RETRY or FULL; goes out again at resend_at
    uint32_t route;        // enum fos_route
    uint64_t resend_at;    // monotonic ns
    fos_mailbox destination;
    uint32_t epoch;
    uint32_t attempts;     // resends of this request so far, for the exponential back-off
    uint32_t stale;        // how many of them because of a stale mailbox
    uint32_t spin_ns;      // what this channel spins at present; 0, and at most: client.spin_ns
    uint32_t calls, late;  // of the present window of the adaptation
    uint32_t wake_missed;  // the core was on its way to sleep when it was woken: wake it again soon
    uint64_t random;       // xorshift state; 0: not seeded yet
    struct fos_call_times times;
    uint32_t loud;         // calls still to ring at once
    uint32_t shared;       // requests posted on the server's own CPU
    uint32_t parked;       // what client_parked of the channel is
    int32_t patience;      // how much later, or sooner, than FOS_PATIENCE_START replies are looked for, in the same unit
    uint32_t unannounced;  // 1 until the bell was rung for the last request; a quick reply needs none
    uint32_t foresight;    // how sure it is that a request follows when a sleeping core is first noticed (ahead.c)
    uint64_t noticed_at;   // monotonic ns of that; 0: not since the last request
    uint64_t shared_at;    // monotonic ns when `shared` was last looked at (the shim's placement.c)
    uint32_t in_vain;      // looks for a quick reply in a row that saw none
    uint8_t reserved[4];
    // The request, while it is built and until it is answered: a core may watch the channel, and its lines should cross over once.
    struct fos_message request;
    uint8_t request_payload[FOS_PAYLOAD_BYTES_MAX];
};
static_assert(sizeof(struct fos_channel_state) == 192 + FOS_MESSAGE_BYTES, "whole cache lines");
static_assert(offsetof(struct fos_channel_state, request) == 192, "whole cache lines");

// call.c
// Publishes the request that the channel's state holds. The destination's core has been checked.
void fos_publish(struct fos_client *client, int channel, fos_mailbox destination, uint32_t epoch);

// ahead.c
// A request goes out after a sleeping core was noticed: whether it would have paid to wake the core then.
void fos_learn_foresight(struct fos_channel_state *state);

// The request is built: what follows is finding its way.
static inline void fos_note_sent(struct fos_client *client, int channel) {
    struct fos_call_times *times = &client->state[channel].times;
    if (client->timed && times->sent == 0) times->sent = fos_clock();
}

// names.c
// The file servers of the welcome, or of what was kept, into the empty cache of a client whose board is mapped; and back.
void fos_names_begin(struct fos_client *client, const struct fos_file_servers *files);
void fos_names_keep(const struct fos_client *client, struct fos_file_servers *files);
// The epoch of a file server's mailbox as the cache has it. 1 found, 0 not.
int fos_cached_epoch(const struct fos_client *client, fos_mailbox mailbox, uint32_t *epoch);
// Where the channel's request goes now. Leaves the channel's request intact. 0 or -errno.
int fos_resolve_owner(struct fos_client *client, int channel, int refresh, fos_mailbox *destination, uint32_t *epoch);

// connect.c
// Notes that the instance is gone; returns -ENOTCONN.
int fos_lost(struct fos_client *client);

// mount.c
enum { FOS_MOUNT_LINE_BYTES = 8192 };
// One line of a mount table; the texts are the caller's buffer's.
struct fos_mount_line {
    uint64_t id;
    const char *root, *point;
    const char *name;  // of the instance; NULL: not a whole fos mount
    uid_t uid;         // with `name`
};
// The value of user_id= in comma-separated options. 1 found, 0 not.
int fos_user_option(const char *options, uid_t *uid);
// Calls `each` for every mount of the table, in its order. `line` is room to work in. 0 or -errno.
int fos_each_mount(const char *table, char *line, size_t room, void (*each)(void *context, const struct fos_mount_line *mount), void *context);
// fos_find_mount over a given mount table; tests have their own.
int fos_find_mount_in(const char *table, const char *path, uid_t *uid, char *name, size_t name_room, char *mount_point, size_t mount_room);

static inline int fos_channel_valid(const struct fos_client *client, int channel) {
    return channel >= 0 && (uint32_t)channel < client->channels;
}
static inline int fos_destination_valid(const struct fos_client *client, fos_mailbox destination) {
    return destination >> 16 < client->cores;
}
static inline int fos_is_gone(const struct fos_client *client) {
    return fos_load_relaxed_u32(&client->gone) != 0 || fos_load_acquire_u32(&client->board->down) != 0;
}

#endif
