// What `fos trace` records: each call that the preload shim answers, and each message that it takes, with the times of its steps.
//
// Role: one file that `fos trace` makes and every shimmed process maps shared. A writer claims an entry by adding to `next`, and
// sets `complete` last; entries beyond `room` are counted in `next` and lost.
#ifndef FOS_CALLTRACE_H
#define FOS_CALLTRACE_H

#include <assert.h>
#include <stdint.h>

#define FOS_CALL_TRACE_MAGIC UINT64_C(0x6563617274736f66)  // "fostrace"

struct fos_call_trace_header {
    uint64_t magic;
    uint64_t room;  // entries behind this header
    uint64_t next;  // entries claimed so far
    uint64_t reserved[5];
};
static_assert(sizeof(struct fos_call_trace_header) == 64, "entries stay aligned");

enum fos_call_trace_kind { FOS_TRACED_CALL = 1, FOS_TRACED_MESSAGE = 2 };

struct fos_call_trace_entry {  // times: CLOCK_MONOTONIC in ns; 0 = did not happen
    uint64_t start;            // of the call, for a message: of the call that it is part of
    uint64_t end;              // of the call, or of the message
    uint32_t process, thread;
    uint16_t kind;             // enum fos_call_trace_kind
    uint16_t number;           // of the system call, or of the operation
    uint32_t complete;         // 1 once all else is written
    int64_t result;            // for a call that went on to the kernel: INT64_MIN
    uint64_t inode;            // of a message
    // Of a message, as in fos_proxy.h.
    uint64_t built, sent, resolved, posted, taken, begun, answered, replied;
    uint32_t retries, parked;
    uint64_t reserved;
};
static_assert(sizeof(struct fos_call_trace_entry) == 128, "no padding");

static inline void fos_call_trace_begin(struct fos_call_trace_header *header, uint64_t room) {
    header->room = room;
    __atomic_store_n(&header->magic, FOS_CALL_TRACE_MAGIC, __ATOMIC_RELEASE);
}

#endif
