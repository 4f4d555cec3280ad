// Sequence locks: records that one thread writes and others read without waiting; who comes in between goes without the record.
//
// The sequence is odd while the record is written. A reader takes the sequence, reads, and believes what it read if the sequence still
// stands. A writer that finds another one at it, or one that never came back (a handler jumped out), does not write.
#ifndef FOS_SEQUENCE_H
#define FOS_SEQUENCE_H

#include "alone.h"

static inline uint32_t fos_begin_read(const uint32_t *sequence) { return fos_load_acquire_u32(sequence); }
// 1: what was read since `before` is one record.
static inline int fos_end_read(const uint32_t *sequence, uint32_t before) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return (before & 1) == 0 && fos_load_relaxed_u32(sequence) == before;
}

// `before`: the sequence as it is known to be. 0: somebody else writes.
static inline int fos_begin_write_at(uint32_t *sequence, uint32_t before) {
    if ((before & 1) != 0 || !fos_own_compare_exchange_u32(sequence, before, before + 1)) return 0;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return 1;
}
static inline int fos_begin_write(uint32_t *sequence) { return fos_begin_write_at(sequence, fos_load_relaxed_u32(sequence)); }
static inline void fos_end_write(uint32_t *sequence) { fos_store_release_u32(sequence, fos_load_relaxed_u32(sequence) + 1); }

#endif
