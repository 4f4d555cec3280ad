// Limits of the wire, as numbers and as the sums they come from.
//
// They are enumerators, not macros, so that Swift imports each with a value.
#ifndef FOS_LIMITS_H
#define FOS_LIMITS_H

#include <stdint.h>

enum {
    FOS_WIRE_VERSION = 3,

    FOS_CACHE_LINE = 64,
    FOS_PAGE_BYTES = 4096,

    FOS_NAME_BYTES_MAX = 255,      // one path component, as NAME_MAX in POSIX
    FOS_SYMLINK_BYTES_MAX = 4095,  // PATH_MAX less its NUL
    FOS_XATTR_BYTES_MAX = 65536,   // XATTR_SIZE_MAX
    FOS_LINKS_MAX = 0x7fffffff,

    // A message is a 64-byte header and at most 896 bytes of payload: two names of 255 bytes and 386 bytes of
    // fixed fields. What is larger (data, symlink targets, xattr values, listings) travels in the bulk area.
    FOS_MESSAGE_HEADER_BYTES = 64,
    FOS_PAYLOAD_BYTES_MAX = 896,
    FOS_MESSAGE_BYTES = FOS_MESSAGE_HEADER_BYTES + FOS_PAYLOAD_BYTES_MAX,  // 960

    // The bulk area of a channel: a 1 MiB transfer, and a 64 KiB head in which a FUSE request header may precede it.
    FOS_TRANSFER_BYTES_MAX = 1048576,
    FOS_BULK_BYTES = FOS_TRANSFER_BYTES_MAX + 65536,
    FOS_DELEGATION_BYTES = 131072,  // behind it: struct fos_delegation
    FOS_CHANNEL_AREA_BYTES = FOS_BULK_BYTES + FOS_DELEGATION_BYTES,

    FOS_CHANNELS_MAX = 256,  // of one client process: 4 words of 64 doorbell bits
    FOS_BELL_WORDS = FOS_CHANNELS_MAX / 64,
    FOS_CORES_MAX = 256,
    FOS_NOTICES = 256,       // slots of one core's notice ring to one client
    FOS_FLEET_MEMBERS_MAX = 256,
    FOS_CPUS_MAX = 1024,     // CPUs of the machine that placement can tell apart
    FOS_FLEET_SENDERS = 64,  // CPUs in one report of a server: the ones with most requests
    FOS_SLOTS = 4096,        // inode slots; the low bits of an inode number are its slot
    FOS_MAP_BYTES_MAX = 16777216,  // of a file that can be mapped: what a server copies in one turn
    FOS_INODE_EPOCH_BITS = 16,
    FOS_INODE_EPOCHS = 1 << FOS_INODE_EPOCH_BITS,  // words of the board that count changes of inodes
    FOS_ABSENT_SECONDS = 30,  // for which the kernel behind a FUSE mount believes that a name is absent
    FOS_SERVICE_NAME_BYTES_MAX = 127,  // a symbolic mailbox name
};

#endif
