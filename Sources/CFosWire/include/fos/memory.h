// Memory service: operations 500 to 559 from clients and servers, 560 to 599 between members.
//
// Memory is granted in extents: runs of page frames, all zeros, inside a region. A region is a memfd of one frame size,
// sealed against any change of size, and while it is granted from it belongs to one client alone: who has a descriptor of a
// memfd can map all of it, so frames of two clients never share one. Its descriptor comes over the connection's socket, in
// one packet with struct fos_map_packet (fos/map.h) that carries the region's token, the first time that the region is named
// to the client; bit 63 is set in tokens of memory only. The client maps [offset, offset + bytes) MAP_SHARED, and may have
// one mapping of the whole region or the descriptor to make further ones from.
//
// A region leaves its client's hands by RETIRE, or with the client's death. From then on nothing in it can be freed one by
// one, and nothing is granted from it. It is used again when the kernel says that nobody else has it: no descriptor that
// was ever handed out, and no mapping made with one, exists in any process. So a fork needs one RETIRE before it, and none
// after: what parent and child go on to share lives until both have unmapped it, however they end. And a client that
// claims to have freed what it has kept mapped can see only what is granted to itself again.
#ifndef FOS_MEMORY_H
#define FOS_MEMORY_H

#include <assert.h>
#include <stdint.h>
#include <fos/limits.h>
#include <fos/message.h>

enum {
    FOS_MEMORY_FRAME_BYTES = 4096,
    FOS_MEMORY_HUGE_FRAME_BYTES = 2097152,
    FOS_MEMORY_REGION_BYTES_MAX = 67108864,
    FOS_MEMORY_EXTENTS_MAX = 32,  // in one message
};
#define FOS_MEMORY_TOKEN (UINT64_C(1) << 63)

struct fos_memory_extent {
    uint64_t token;        // of the region
    uint64_t offset;       // bytes from the region's start, a multiple of the frame size
    uint64_t bytes;        // a multiple of the frame size
};

// ALLOCATE. Sent to the best member of "/sys/memory". The reply is fos_memory_grant and its extents: at least one frame, at
// most what was asked, rounded up to frames; the client asks again for the rest. It is given less when that is what is zeroed,
// or fits one message. -ENOMEM: the limit; -EOPNOTSUPP: huge frames are not to be had here; -EINVAL: another frame size, no
// bytes, more than 2^47.
struct fos_memory_request {
    uint64_t bytes;
    uint32_t frame_bytes;  // FOS_MEMORY_FRAME_BYTES or FOS_MEMORY_HUGE_FRAME_BYTES
    uint32_t reserved;
};
struct fos_memory_grant {
    uint64_t bytes;        // sum of the extents
    uint32_t extents;      // struct fos_memory_extent, which follow
    uint32_t regions;      // descriptors sent with this reply: regions that are new to this client
    uint64_t address;      // to servers: where the one extent is mapped, for they share the host's memory. To clients 0
};

// FREE, fos_memory_free and its extents: whole ones, or any frames of them, of regions that have the same member in their
// tokens. The header's inode is one of the tokens; any member can be sent it. Done in order until one cannot be: the reply
// says how many were. -EINVAL: the next one is no frames of a region that this client has, all of them granted.
struct fos_memory_free {
    uint32_t extents;
    uint32_t reserved;
};
struct fos_memory_freed {
    uint32_t extents;      // done; with status 0, all
    uint32_t reserved;
};

// RETIRE, the header's inode a token, or 0: all that the client has, of every member. Empty reply. -ENOENT: not the client's.
// REGION, the header's inode a token: sends the descriptor once more. Reply fos_memory_region. -ENOENT.
struct fos_memory_region {
    uint64_t bytes;
    uint32_t frame_bytes;
    uint32_t reserved;
};

// MEMORY_STATISTICS, of the member asked, for each frame size: 0 = 4 KiB, 1 = 2 MiB. Best effort. All in bytes but `regions`.
// What is not granted is zeroed, dirty, or absent (Linux has it, and it is zeros when it comes).
struct fos_memory_frames {
    uint64_t regions;
    uint64_t zeroed, dirty, absent, granted;
    uint64_t unbound;      // of zeroed: in regions that belong to no client yet
    uint64_t retired;      // in regions that somebody may still have mapped
    uint64_t granted_ever, freed_ever, zeroed_ever;
};
struct fos_memory_statistics {
    uint32_t member;
    uint32_t clients;      // that have regions here
    uint64_t limit;        // this member's share of what clients may have, at this moment
    uint64_t charged;      // of it: regions of clients, whole, and retired ones
    uint64_t reserve;      // to be kept zeroed and unbound
    uint64_t servers;      // bytes granted to servers, which the limit does not count
    uint32_t huge;         // 1: 2 MiB frames are to be had
    uint32_t returned_after_ms;  // of idleness: what is beyond the reserve goes back to Linux
    struct fos_memory_frames frames[2];
};

// MEMORY_RESERVE, with FOS_RIGHT_ADMIN: from now on this member keeps so much zeroed and unbound, and begins at once. Empty
// reply. -EPERM, -EINVAL another frame size; -ENOMEM more than the member's share of the limit.
struct fos_memory_reserve {
    uint64_t bytes;
    uint32_t frame_bytes;
    uint32_t reserved;
};

enum fos_memory_peer_operation {
    FOS_OP_PEER_MEMORY_STEAL = 560,   // fos_memory_steal -> fos_memory_donation
    FOS_OP_PEER_MEMORY_RETIRE = 561,  // all of a client's regions here, the envelope's client; empty reply
};
struct fos_memory_steal {
    uint64_t bytes;        // wanted
    uint32_t frame_bytes;
    uint32_t reserved;
};
// One region with all that it holds, zeroed and unbound, if there is one to spare; and a share of the limit, the region's included.
struct fos_memory_donation {
    uint64_t limit;        // bytes that move to the asker
    uint64_t address;      // of the region in the host, 0: none
    uint64_t bytes;
    int32_t handle;        // the host's
    uint32_t frame_bytes;
};

static inline uint64_t fos_memory_token_bit(void) { return FOS_MEMORY_TOKEN; }
static inline uint64_t fos_memory_token(uint32_t member, uint32_t generation, uint32_t index) {
    return FOS_MEMORY_TOKEN | (uint64_t)(member & 0xfff) << 48 | (uint64_t)generation << 16 | (index & 0xffff);
}
static inline uint32_t fos_memory_token_member(uint64_t token) { return (uint32_t)(token >> 48) & 0xfff; }
static inline uint32_t fos_memory_token_index(uint64_t token) { return (uint32_t)token & 0xffff; }

static_assert(sizeof(struct fos_memory_extent) == 24 && sizeof(struct fos_memory_request) == 16, "memory layout");
static_assert(sizeof(struct fos_memory_grant) == 24 && sizeof(struct fos_memory_free) == 8, "memory layout");
static_assert(sizeof(struct fos_memory_frames) == 80 && sizeof(struct fos_memory_statistics) == 208, "memory layout");
static_assert(sizeof(struct fos_memory_steal) == 16 && sizeof(struct fos_memory_donation) == 32, "memory layout");
static_assert(sizeof(struct fos_memory_grant) + FOS_MEMORY_EXTENTS_MAX * sizeof(struct fos_memory_extent) <= FOS_PAYLOAD_BYTES_MAX,
              "a grant fits a message");

#endif
