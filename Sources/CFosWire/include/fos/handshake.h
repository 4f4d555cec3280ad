// Connect: what a client and the instance say to each other over the Unix socket, before shared memory.
//
// The endpoint of a mount is found from the mount table alone: the mount source is "fos:NAME" and the option
// user_id is UID, so the abstract SOCK_SEQPACKET address is "\0fos/UID/NAME". The client checks with SO_PEERCRED
// that UID or root listens there; the instance takes the client's identity from SO_PEERCRED and a pidfd.
//
// The hello of nearly all clients is the same, so it has an address of its own (fos_usual_name): who connects there has said it.
// That is one wake of the acceptor instead of two. Where nobody listens there (an instance of another layout), the client says its
// hello at the mount's address, and is told why not.
#ifndef FOS_HANDSHAKE_H
#define FOS_HANDSHAKE_H

#include <assert.h>
#include <stdint.h>
#include <fos/limits.h>
#include <fos/message.h>
#include <fos/channel.h>
#include <fos/file.h>

#define FOS_HELLO_MAGIC UINT64_C(0x316f6c6c65682d73)

enum fos_hello_flag {
    FOS_HELLO_FRONT_END = 1,  // asks for FOS_RIGHT_ACT_AS and KERNEL_CACHE; granted to the instance's own process only
};
struct fos_hello {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;
    uint64_t layout_hash;
    uint32_t channels;  // wanted, 1 to FOS_CHANNELS_MAX
    uint32_t reserved;
};
static_assert(sizeof(struct fos_hello) == 32, "hello layout");

// File servers that own slots by the board, as many as there is room for. A hint, which spares nearly every client the
// question that it would begin with: whoever is not among them is looked up, and a wrong epoch is refused as stale.
enum { FOS_FILE_SERVERS_TOLD = 8 };
struct fos_file_servers {
    uint32_t count;
    fos_mailbox mailbox[FOS_FILE_SERVERS_TOLD];
    uint32_t epoch[FOS_FILE_SERVERS_TOLD];
};

struct fos_welcome {  // with SCM_RIGHTS: the segment memfd, then the board memfd; none if status != 0
    uint64_t magic;
    int32_t status;       // 0 or a negative errno: -EPROTO version or layout, -EACCES identity, -EAGAIN too many clients
    uint32_t version;
    uint64_t layout_hash;
    uint64_t segment_bytes;
    uint64_t board_bytes;
    uint32_t client;
    uint32_t rights;      // enum fos_right
    uint32_t name_servers;         // fixed point: how many of the mailboxes below are set
    fos_mailbox name_server[4];    // mailboxes of the name fleet
    uint32_t name_server_epoch[4];
    struct fos_file_servers files;
};
static_assert(sizeof(struct fos_welcome) == 152, "welcome layout");
static_assert(offsetof(struct fos_welcome, files) == 84 && sizeof(struct fos_file_servers) == 68, "welcome layout");

// FNV-1a over the sizes and offsets that both sides must agree on; constant-folded by both compilers.
static inline uint64_t fos_layout_hash(void) {
    const uint64_t parts[] = {
        FOS_WIRE_VERSION, sizeof(struct fos_message), sizeof(struct fos_letter), sizeof(struct fos_channel),
        sizeof(struct fos_bell), sizeof(struct fos_notice), sizeof(struct fos_notice_ring), sizeof(struct fos_board),
        sizeof(struct fos_segment_header), sizeof(struct fos_hello), sizeof(struct fos_welcome),
        offsetof(struct fos_channel, reply), offsetof(struct fos_board, slot_owner), FOS_BULK_BYTES, FOS_DELEGATION_BYTES, FOS_CHANNELS_MAX,
        FOS_NOTICES, FOS_SLOTS, offsetof(struct fos_board, inode_epoch), FOS_INODE_EPOCHS, sizeof(struct fos_attributes),
        offsetof(struct fos_board, sharded),
    };
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        hash = (hash ^ parts[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

// What a client asks for that says no hello: as many channels as a program of many threads uses, and no flags.
enum { FOS_HELLO_USUAL_CHANNELS = 64, FOS_USUAL_NAME_MORE = 17 };
static inline struct fos_hello fos_usual_hello(void) {
    struct fos_hello hello = {FOS_HELLO_MAGIC, FOS_WIRE_VERSION, 0, fos_layout_hash(), FOS_HELLO_USUAL_CHANNELS, 0};
    return hello;
}

// Makes of NAME, with room for FOS_USUAL_NAME_MORE more bytes, the name that stands for the usual hello: NAME/LAYOUT-HASH. No
// name of an instance has a slash. Returns its length.
static inline uint32_t fos_usual_name(char *name, uint32_t length) {
    uint64_t hash = fos_layout_hash();
    name[length++] = '/';
    for (int shift = 60; shift >= 0; shift -= 4) name[length++] = "0123456789abcdef"[hash >> shift & 15];
    return length;
}

#endif
