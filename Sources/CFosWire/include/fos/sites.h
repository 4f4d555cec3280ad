// The table of one ELF file's `syscall` instructions: the file that the fos command makes and the preload shim reads.
//
// Role: the shim redirects system calls by writing a jump over the instructions before each `syscall`. Where that may be
// done is found once for each build of libc, by disassembling it, and kept in
// ${XDG_CACHE_HOME:-~/.cache}/fos/BUILD-ID.sites.
// Protocol: written to a temporary file and renamed, so a reader sees all or nothing. A reader believes nothing: owner
// and mode, magic, version, build-id and checksum must fit, and the bytes of each site must be those in memory.
// Layout: struct fos_sites_header, then `count` struct fos_site, ascending and not overlapping, then `refused` struct
// fos_site_refused, which only tools read. All little-endian.
#ifndef FOS_SITES_H
#define FOS_SITES_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define FOS_SITES_MAGIC "fosSITES"
enum {
    FOS_SITES_VERSION = 3,
    FOS_SITES_BUILD_ID_MAX = 32,
    FOS_SITES_COUNT_MAX = 2048,     // glibc 2.36 has 526
    FOS_SITE_WINDOW_MAX = 12,       // bytes that move to a trampoline
    FOS_SITE_NUMBER_UNKNOWN = 0xffff,
};

// How a site is redirected. In both ways the `syscall` instruction itself stays where it is.
enum fos_site_kind {
    FOS_SITE_NEAR = 1,  // a 5-byte jump at the start of the window, which is at least as long
    FOS_SITE_PAD = 2,   // a 2-byte jump at the start of the window to 5 bytes of padding, and a 5-byte jump there
};

// Why a `syscall` instruction is left alone.
enum fos_site_refusal {
    FOS_REFUSED_RETURN = 1,  // rt_sigreturn: debuggers and unwinders know its bytes
    FOS_REFUSED_TARGET = 2,  // something jumps into the middle of all windows
    FOS_REFUSED_ROOM = 3,    // no window of movable instructions, or no padding in reach
};

struct fos_site {
    uint32_t window;         // address of the first instruction that moves, from the load address
    uint32_t pad;            // FOS_SITE_PAD: address of the padding
    uint16_t number;         // the system call, where the code says it in all cases
    uint8_t kind;            // enum fos_site_kind
    uint8_t length;          // of the window; the `syscall` follows it
    uint8_t bytes[FOS_SITE_WINDOW_MAX + 2];  // the window and the `syscall`, as in the file; zero after
    uint8_t pad_bytes[5];
    uint8_t reserved;
};
static_assert(sizeof(struct fos_site) == 32, "two sites a cache line");

struct fos_site_refused {
    uint32_t address;  // of the `syscall`
    uint32_t reason;   // enum fos_site_refusal
};

struct fos_sites_header {
    char magic[8];
    uint32_t version;
    uint32_t bytes;            // of the whole file
    uint32_t count, refused;
    uint64_t checksum;         // fos_sites_checksum of all after this header
    uint32_t build_id_length;
    uint32_t reserved;
    uint8_t build_id[FOS_SITES_BUILD_ID_MAX];
};
static_assert(sizeof(struct fos_sites_header) == 72, "no padding");

// Of 64-bit words, in four chains that run side by side; `bytes` is a multiple of 8. Finds damage, not intent: what is
// trusted is the owner of the file.
static inline uint64_t fos_sites_checksum(const void *data, size_t bytes) {
    const uint8_t *at = (const uint8_t *)data;
    uint64_t chain[4] = {bytes, 1, 2, 3};
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t word;
        __builtin_memcpy(&word, at + i, 8);
        chain[i / 8 % 4] = ((chain[i / 8 % 4] ^ word) * UINT64_C(0xff51afd7ed558ccd)) ^ word >> 7;
    }
    uint64_t sum = UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < 4; i++) sum = (sum ^ chain[i] ^ chain[i] >> 32) * UINT64_C(0xc4ceb9fe1a85ec53);
    return sum;
}

enum {
    FOS_SITES_BYTES_MAX = (int)(sizeof(struct fos_sites_header) +
                                FOS_SITES_COUNT_MAX * (sizeof(struct fos_site) + sizeof(struct fos_site_refused))),
};

// 1 for the libraries whose system calls are redirected, by the name they are loaded under: libc, and libpthread where it is
// a library of its own (glibc before 2.34). Not the dynamic linker: it opens files to map them, which needs descriptors of
// the kernel anyway, and it keeps these to itself; to redirect it too would cost each program's start 45 us.
static inline int fos_sites_library(const char *path) {
    const char *name = path;
    for (const char *at = path; *at != 0; at++) {
        if (*at == '/') name = at + 1;
    }
    static const char *const known[] = {"libc.so.6", "libpthread.so.0"};
    for (int i = 0; i < 2; i++) {
        if (__builtin_strcmp(name, known[i]) == 0) return 1;
    }
    return 0;
}

// 1 if a process with this effective user may believe a file of this owner and mode: its own or root's, a regular file,
// and nobody else may write it.
static inline int fos_sites_trusted(uint32_t owner, uint32_t mode, uint32_t user) {
    return (owner == 0 || owner == user) && (mode & 0170000) == 0100000 && (mode & 022) == 0;
}

// 1 if `bytes` bytes are a whole table for this build-id. The sites themselves are checked against memory by the shim.
static inline int fos_sites_whole(const struct fos_sites_header *header, size_t bytes, const uint8_t *build_id, uint32_t length) {
    if (bytes < sizeof *header || __builtin_memcmp(header->magic, FOS_SITES_MAGIC, sizeof header->magic) != 0) return 0;
    if (header->version != FOS_SITES_VERSION || header->bytes != bytes) return 0;
    if (header->count > FOS_SITES_COUNT_MAX || header->refused > FOS_SITES_COUNT_MAX) return 0;
    size_t body = header->count * sizeof(struct fos_site) + header->refused * sizeof(struct fos_site_refused);
    if (bytes != sizeof *header + body || length == 0 || length > FOS_SITES_BUILD_ID_MAX) return 0;
    if (header->build_id_length != length || __builtin_memcmp(header->build_id, build_id, length) != 0) return 0;
    return header->checksum == fos_sites_checksum(header + 1, body);
}

#endif
