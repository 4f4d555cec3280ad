// Zeroing of much memory that nobody reads soon.
#ifndef FOS_CPLATFORM_ZERO_H
#define FOS_CPLATFORM_ZERO_H

#include <stddef.h>

/// Zeroes `bytes` at `start` past the caches, where the processor can: a frame that is zeroed ahead of need would only drive
/// out of the caches what is in use, and each of its lines would be read before it is written. On an AMD EPYC it takes half
/// the time of memset. What was written is visible to other processors before the return, as with memset and a release.
/// - start, bytes: multiples of 64.
void fos_platform_zero(void *start, size_t bytes);

#endif
