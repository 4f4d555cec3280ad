// Counters and trace records that every server keeps.
#ifndef FOS_STATISTICS_H
#define FOS_STATISTICS_H

#include <assert.h>
#include <stdint.h>
#include <fos/limits.h>

enum fos_service_kind {
    FOS_SERVICE_NONE = 0,
    FOS_SERVICE_NAME = 1,
    FOS_SERVICE_PRIVILEGE = 2,
    FOS_SERVICE_FILE = 3,
    FOS_SERVICE_MEMORY = 4,
    FOS_SERVICE_PLACEMENT = 5,
};

struct fos_statistics {  // reply of FOS_OP_STATISTICS; best effort
    uint32_t service;    // enum fos_service_kind
    uint32_t member;
    uint32_t core;
    uint32_t mailbox;
    uint64_t requests, replies, forwards, retries, errors, sent;
    uint64_t queue_now, queue_peak;
    uint64_t continuations_now, continuations_peak;
    uint64_t inodes, pages, bytes_metadata, locks, leases_revoked;  // file service
    uint64_t names;                                                // name service
};

struct fos_trace_record {
    uint64_t time;      // monotonic ns
    uint16_t operation;
    uint16_t kind;      // 0 request, 1 response, 2 sent, 3 replied, 4 notice
    int32_t status;
    uint64_t inode;
    uint32_t client;
    uint32_t detail;
};
static_assert(sizeof(struct fos_trace_record) == 32, "two records a cache line");
enum { FOS_TRACE_RECORDS = 256 };

#endif
