// Fleet management: operations 800 to 899.
//
// Role: clients with FOS_RIGHT_ADMIN ask the fleet manager (/sys/placement) how the fleets are and set their sizes
// (FLEET_STATUS, FLEET_SET). The manager starts and ends servers with the microkernels, tells the members of a fleet who
// they are, and which of their slots to give to whom. Servers report to it how long requests wait for them.
// Invariants: a server acts on FLEET_MEMBERS, GIVE and TAKE only if the manager's mailbox or a microkernel sent them; all
// of them may come twice, and in any order, without harm.
#ifndef FOS_FLEET_H
#define FOS_FLEET_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <fos/limits.h>

enum { FOS_FLEET_BITMAP_WORDS = FOS_FLEET_MEMBERS_MAX / 64 };

struct fos_fleet_members {    // FLEET_MEMBERS
    uint32_t service;         // enum fos_service_kind
    uint32_t epoch;           // counts changes; an older one is ignored
    uint64_t alive[FOS_FLEET_BITMAP_WORDS];
    uint64_t dead[FOS_FLEET_BITMAP_WORDS];  // lost with what they had; the other members not alive have left in order
};

enum { FOS_FLEET_ANY_SLOT = 0xffffffff };
struct fos_fleet_give {       // FLEET_GIVE
    uint32_t member;          // to whom
    uint32_t slots;           // how many
    uint32_t slot;            // this one, or FOS_FLEET_ANY_SLOT
    uint32_t reserved;
};

struct fos_fleet_sender {
    uint16_t cpu;
    uint16_t requests;        // at most 65535
};
struct fos_fleet_report {     // FLEET_REPORT; counts since the server started, so that a lost report loses nothing
    uint32_t service, member;
    uint64_t requests;
    uint64_t samples;         // requests whose delay was measured
    uint64_t delay_sum;       // ns that those waited from arrival to service
    uint64_t delay_max;       // the longest since the last report
    uint64_t forwards;        // requests passed on to another member
    uint64_t delayed;         // requests answered RETRY because their inode was on its way
    uint32_t slots;           // owned
    uint32_t orders;          // slots it is still to give
    uint64_t inodes, pages;
    uint64_t moved_slots, moved_inodes, moved_bytes;  // given away since it started
    // From where programs sent it requests since the last report, among those that were measured: the CPUs with most of them, in
    // no order; one with 0 requests ends the list. By the clients' own word.
    struct fos_fleet_sender senders[FOS_FLEET_SENDERS];
};

struct fos_fleet_take {       // FLEET_TAKE
    uint32_t version_step;    // the slots' versions grow by it, so that no older news counts
    uint32_t reserved;
    uint64_t slots[FOS_SLOTS / 64];
};

// FLEET_STATUS: reply payload = a fos_fleet_summary a fleet; bulk = a fos_fleet_member a member, in order of fleets and
// members. -ERANGE: the bulk room is too small.
struct fos_fleet_summary {
    uint32_t service;
    uint32_t members;         // that serve
    uint32_t target;          // that are wanted
    uint32_t minimum, maximum;
    uint32_t is_automatic;    // the manager chooses the target by queueing delay
    uint32_t is_changing;     // servers are starting, leaving, or slots are to be moved
    uint32_t changes;         // since the instance started
    uint64_t change_ns;       // how long the last change took, or takes so far
    uint64_t change_slots, change_inodes, change_bytes;  // moved by it
    uint64_t change_forwarded, change_delayed;           // requests passed on, and answered RETRY, meanwhile
};
enum fos_fleet_state { FOS_FLEET_ABSENT = 0, FOS_FLEET_STARTING = 1, FOS_FLEET_SERVING = 2, FOS_FLEET_LEAVING = 3, FOS_FLEET_DEAD = 4 };
struct fos_fleet_member {
    uint32_t service, member;
    uint32_t core, mailbox;
    uint32_t state;           // enum fos_fleet_state
    uint32_t slots, orders;
    uint16_t cpu;             // 1 + the CPU from which programs have asked it most lately; 0: not known
    uint16_t cpu_percent;     // of what programs asked it
    uint64_t requests;
    uint64_t delay_mean, delay_max;  // ns, over the last interval
    uint64_t inodes, pages;
};

struct fos_fleet_set {        // FLEET_SET; -EINVAL outside the bounds, -EPERM without FOS_RIGHT_ADMIN
    uint32_t service;
    uint32_t members;         // 0: the manager chooses
};

static_assert(sizeof(struct fos_fleet_take) == 8 + FOS_SLOTS / 8, "fleet layout");
static_assert(sizeof(struct fos_fleet_take) <= FOS_PAYLOAD_BYTES_MAX, "a set of slots fits a message");
static_assert(sizeof(struct fos_fleet_summary) == 80, "fleet layout");
static_assert(sizeof(struct fos_fleet_member) == 72, "fleet layout");
static_assert(sizeof(struct fos_fleet_members) == 72, "fleet layout");
static_assert(sizeof(struct fos_fleet_give) == 16, "fleet layout");
static_assert(sizeof(struct fos_fleet_sender) == 4, "fleet layout");
static_assert(offsetof(struct fos_fleet_report, senders) == 104 && sizeof(struct fos_fleet_report) == 360, "fleet layout");
static_assert(offsetof(struct fos_fleet_member, cpu) == 28 && offsetof(struct fos_fleet_member, requests) == 32, "fleet layout");
static_assert(sizeof(struct fos_fleet_report) <= FOS_PAYLOAD_BYTES_MAX, "a report fits a message");

#endif
