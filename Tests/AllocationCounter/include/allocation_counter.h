// Counts heap allocations by thread, by standing in front of the C library's malloc in the test executable.
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H

#include <stdint.h>

// Allocations (malloc, calloc, realloc, aligned_alloc, posix_memalign) the calling thread has made so far.
uint64_t allocation_count(void);

#endif
