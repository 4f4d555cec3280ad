// A message: a 64-byte header and a payload whose layout its operation defines.
//
// The same struct is a request and a reply. The receiver's microkernel copies it once out of shared memory, then
// validates it; identity (client, credentials) is never read from it but from the envelope the microkernel adds.
#ifndef FOS_MESSAGE_H
#define FOS_MESSAGE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <fos/atomic.h>
#include <fos/limits.h>

// A mailbox address is a capability: core index in the high 16 bits, mailbox index on that core in the low 16.
typedef uint32_t fos_mailbox;
enum { FOS_MAILBOX_NONE = 0 };  // core 0 mailbox 0 is the microkernel's own, never a destination for clients

struct fos_message {
    uint16_t operation;    // enum fos_operation
    uint16_t flags;        // of the operation
    uint32_t length;       // payload bytes that follow the header, at most FOS_PAYLOAD_BYTES_MAX
    fos_mailbox destination;
    uint32_t epoch;        // the mailbox's epoch as the sender's name cache has it; another one is refused as stale.
                           // In a file server's reply: the epoch of reply.inode on the board (fos/file.h)
    int32_t status;        // in a reply: 0, a negative errno, or a positive enum fos_transport_status. In a client's request:
                           // 1 + the CPU it runs on, 0 if it does not say; a hint for placement, and 0 for the server
    uint32_t sequence;     // the channel's request number, repeated in the reply
    uint32_t bulk_offset;  // bytes from the start of the channel's bulk area
    uint32_t bulk_length;  // request: bytes offered or wanted; reply: bytes transferred
    uint64_t inode;        // the inode the operation is routed by; 0 if none
    uint32_t uid, gid;     // acting user, honoured from clients with FOS_RIGHT_ACT_AS only (the FUSE front end)
    uint32_t pid;          // acting process, for lock owners and traces; same rule.
                           // In a reply with FOS_REPLY_CHANGED_FROM: the epoch of reply.inode before the change
    uint16_t timed;        // 1: the microkernel notes when it did what to this request (struct fos_request_times)
    uint16_t given_for;    // with `given`: what it was opened for, as the flags of RELEASE (enum fos_release_flag); and FOS_GIVEN_RECORD
    uint64_t given;        // file operations: the inode of a reference that the client gives back along with this
                           // request, to the same server, as RELEASE does; 0: none. Sent again after RETRY it is 0
};
enum fos_given { FOS_GIVEN_RECORD = 0x8000 };  // the channel's area has a record for a file server (fos/delegation.h)
static_assert(sizeof(struct fos_message) == FOS_MESSAGE_HEADER_BYTES, "a header is one cache line");
static_assert(offsetof(struct fos_message, inode) == 32, "header layout");
static_assert(offsetof(struct fos_message, given_for) == 54, "header layout");
static_assert(offsetof(struct fos_message, given) == 56, "header layout");

static inline void *fos_payload(struct fos_message *message) { return message + 1; }
static inline const void *fos_payload_const(const struct fos_message *message) { return message + 1; }

// Writes a message, with its payload of `length` bytes, into a channel so that its `sequence` is the last word to change: who
// sees the new sequence sees the whole message. `from` is private to the writer; its own length is not looked at.
// The lines are sent on their way to the reader, who waits for them.
static inline void fos_write_message(struct fos_message *to, const struct fos_message *from, uint32_t length, uint32_t sequence) {
    enum { BEFORE = offsetof(struct fos_message, sequence), AFTER = BEFORE + 4 };
    memcpy(to + 1, from + 1, length);
    memcpy(to, from, BEFORE);
    memcpy((uint8_t *)to + AFTER, (const uint8_t *)from + AFTER, sizeof *to - AFTER);
    fos_store_release_u32(&to->sequence, sequence);
    for (uint32_t line = 0; line < sizeof *to + length; line += FOS_CACHE_LINE) fos_demote((const uint8_t *)to + line);
}

// Outcomes of sending that are not errors of the operation. The proxy handles all of them; programs never see one.
enum fos_transport_status {
    FOS_TRANSPORT_RETRY = 1,  // the request met a transaction in progress; send it again
    FOS_TRANSPORT_STALE = 2,  // the mailbox's epoch has changed; look the name up again
    FOS_TRANSPORT_FULL = 3,   // the mailbox was full; send again after a pause
    FOS_TRANSPORT_DENIED = 4, // the privilege fleet does not let this client send there
};

// What the receiving microkernel knows about a message. Lives in server memory only.
enum fos_sender_kind {
    FOS_SENDER_NONE = 0,    // one-way, nobody to reply to
    FOS_SENDER_CLIENT = 1,  // a client's channel
    FOS_SENDER_SERVER = 2,  // a server's continuation
    FOS_SENDER_KERNEL = 3,  // a microkernel (privilege and name questions, lifecycle news)
};
enum fos_right {
    FOS_RIGHT_ACT_AS = 1,       // may name another uid, gid and pid in its requests
    FOS_RIGHT_KERNEL_CACHE = 2, // is the FUSE front end: holds kernel leases, has done default_permissions checks
    FOS_RIGHT_ADMIN = 4,        // instance owner or root: may shut down, resize, change privileges
};
struct fos_envelope {
    uint8_t sender_kind;      // enum fos_sender_kind
    uint8_t settled;          // bits: forwarded by the giver of a slot in motion, whose taker decides: it has not got the inode (1),
                              // or the shard that the name is in (2); the directory's owner says that this shard is in use (4); for the
                              // directory's owner, as where the shard should be there is none (8)
    uint16_t rights;          // enum fos_right, of the client
    uint32_t client;          // client index, if a client began this request (kept across forwards)
    uint32_t channel;         // of the client
    uint32_t sequence;        // the client's request number, for the reserved reply slot
    fos_mailbox from;         // sending server's mailbox, if FOS_SENDER_SERVER
    uint32_t continuation;    // sending server's continuation, if FOS_SENDER_SERVER
    uint32_t uid, gid, pid;   // acting credentials, already decided
    uint32_t client_generation;  // a reused client index never takes another client's reply
    uint16_t hops;            // forwards so far
    uint16_t cpu;             // 1 + the CPU (simulated: the core) on which the client was when it sent this, by its own word; 0: not known
    uint32_t host_mark;       // the host's own. The live microkernel: the slot that a server reserved for the response;
                              // the simulator: which part of a mailbox a letter on its way goes into
    uint64_t host_note;       // the host's own. The live microkernel: 1 for a client's request that is timed;
                              // the simulator: the serial number of a request that a server awaits
    uint64_t arrived;         // monotonic ns when the microkernel took it in
};
static_assert(sizeof(struct fos_envelope) == 64, "an envelope is one cache line");
static_assert(offsetof(struct fos_envelope, hops) == 40 && offsetof(struct fos_envelope, cpu) == 42, "envelope layout");

// A mailbox slot: envelope and message together, 1 KiB.
struct fos_letter {
    struct fos_envelope envelope;
    struct fos_message message;
    uint8_t payload[FOS_PAYLOAD_BYTES_MAX];
};
static_assert(sizeof(struct fos_letter) == 1024, "a letter is 1 KiB");

#endif
