// Shared memory that a peer can neither shrink nor grow, and anonymous memory for rings.
#ifndef FOS_CPLATFORM_MEMORY_H
#define FOS_CPLATFORM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// A memfd of `bytes` bytes, sealable, close-on-exec. Returns the descriptor.
int fos_platform_memfd(const char *name, uint64_t bytes);
// Fixes size and seals for good; both sides may still write (a client's segment). memfd_create(2), fcntl(2) F_ADD_SEALS.
int fos_platform_seal_size(int fd);
// The same, and no new writable mapping or write: mappings made before stay writable (the board).
int fos_platform_seal_read_only(int fd);
// A descriptor of the same file that can be mapped and read, and through which other users cannot come to write; -errno.
int fos_platform_open_read_only(int fd);
// Maps the whole of a shared descriptor for reading and writing; NULL on failure.
void *fos_platform_map_shared(int fd, uint64_t bytes);
// Another descriptor of the same file, close-on-exec; -errno.
int fos_platform_duplicate(int fd);
// Zeroed private memory, touched only when used; NULL on failure.
void *fos_platform_map_private(uint64_t bytes);
void fos_platform_unmap(void *address, uint64_t bytes);

#endif
