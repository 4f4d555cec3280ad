// Page frames for the memory fleet: memory that is lent to programs, and what Linux says of it.
#ifndef FOS_CPLATFORM_FRAMES_H
#define FOS_CPLATFORM_FRAMES_H

#include <stdint.h>

// Maps `bytes` (a power of two) of zeros at a multiple of `bytes`, for reading and writing; huge 1 asks Linux for frames of
// 2 MiB. With `lent` the memory is a memfd, sealed against any change of size, that the owner alone may open again, and
// *fd its descriptor; else it is private, and *fd -1. NULL on failure.
void *fos_platform_frames(uint64_t bytes, int huge, int lent, int *fd);
// A descriptor to hand out: an open file of its own, for reading and writing; -errno.
int fos_platform_frames_open(int fd);
// 1 if no other open file of the memfd exists: no descriptor from fos_platform_frames_open and no mapping made with one, in
// any process (fcntl(2), F_SETLEASE: a write lease is given to the only opener).
int fos_platform_frames_alone(int fd);
// Makes a range present (MADV_POPULATE_WRITE, or a touch of each page before Linux 5.14).
void fos_platform_frames_populate(void *address, uint64_t bytes);
// Gives a range back to Linux; it is zeros when it comes back. `lent` as above.
void fos_platform_frames_discard(void *address, uint64_t bytes, int lent);
// 1 if Linux gives 2 MiB frames to memfds that ask for them (shmem_enabled in /sys/kernel/mm/transparent_hugepage).
int fos_platform_frames_huge(void);

#endif
