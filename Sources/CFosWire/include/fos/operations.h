// Every operation number. Append-only within its hundred; a number is never used again for something else.
#ifndef FOS_OPERATIONS_H
#define FOS_OPERATIONS_H

enum fos_operation {
    // 1..99: any service
    FOS_OP_PING = 1,         // empty reply; the message round trip of the benchmark
    FOS_OP_STATISTICS = 2,   // reply payload: struct fos_statistics
    FOS_OP_CLIENT_GONE = 3,  // from the microkernel, one-way: envelope.client has died; give back all it held
    FOS_OP_TRACE = 4,        // reply bulk: the trace ring, oldest first, as struct fos_trace_record
    FOS_OP_TICK = 5,         // from the microkernel, one-way: about every 10 ms on a busy core, before parking on an idle one
    FOS_OP_IDLE = 6,         // from the microkernel, one-way: nothing else is to be done; to servers that asked (Kernel.idleAgain)
    FOS_OP_SERVER_GONE = 7,  // from the microkernel, one-way: the server of the mailbox in `inode` has died; flags 1 = for good
    FOS_OP_SERVER_BACK = 8,  // the same: it is there again; flags 1 = with all it had committed, 0 = empty

    // 100..199: name service
    FOS_OP_NAME_LOOKUP = 100,
    FOS_OP_NAME_REGISTER = 101,
    FOS_OP_NAME_DEREGISTER = 102,
    FOS_OP_NAME_REDIRECT = 103,
    FOS_OP_NAME_LIST = 104,
    FOS_OP_NAME_MEMBER_DEAD = 105,
    FOS_OP_NAME_LOAD = 106,
    FOS_OP_NAME_SHARD_PIECE = 110,  // 110 to 119: between name servers only: copies of names (fos/name.h)
    FOS_OP_NAME_SHARD_END = 111,    // I send you no copies any more
    FOS_OP_NAME_SHARD_NEWS = 112,   // I serve my names from now on
    FOS_OP_NAME_JOIN = 113,         // make copies for me of what will be mine, and say when they are all there
    FOS_OP_NAME_YIELD = 114,        // I have them all: serve nothing that will be mine until you hear from me
    FOS_OP_NAME_SHARD_LAST = 119,

    // 200..299: privilege service
    FOS_OP_PRIVILEGE_CHECK = 200,
    FOS_OP_PRIVILEGE_SET = 201,
    FOS_OP_PRIVILEGE_LIST = 202,
    FOS_OP_PRIVILEGE_SUBSCRIBE = 203,
    FOS_OP_PRIVILEGE_INVALIDATE = 204,  // to every microkernel

    // 300..399: file service, from clients
    FOS_OP_FILE_FIRST = 300,
    FOS_OP_FILE_LAST = 399,
    FOS_OP_LOOKUP = 300,
    FOS_OP_GETATTR = 301,
    FOS_OP_SETATTR = 302,
    FOS_OP_READLINK = 303,
    FOS_OP_SYMLINK = 304,
    FOS_OP_MKNOD = 305,
    FOS_OP_MKDIR = 306,
    FOS_OP_UNLINK = 307,
    FOS_OP_RMDIR = 308,
    FOS_OP_RENAME = 309,
    FOS_OP_LINK = 310,
    FOS_OP_READ = 311,
    FOS_OP_WRITE = 312,
    FOS_OP_STATFS = 313,
    FOS_OP_FSYNC = 314,
    FOS_OP_SETXATTR = 315,
    FOS_OP_GETXATTR = 316,
    FOS_OP_LISTXATTR = 317,
    FOS_OP_REMOVEXATTR = 318,
    FOS_OP_READDIR = 319,
    FOS_OP_CREATE = 320,
    FOS_OP_TMPFILE = 321,
    FOS_OP_FALLOCATE = 322,
    FOS_OP_LSEEK = 323,
    FOS_OP_COPY_RANGE = 324,
    FOS_OP_ACCESS = 325,
    FOS_OP_GETLK = 326,
    FOS_OP_SETLK = 327,
    FOS_OP_FLOCK = 328,
    FOS_OP_CANCEL = 329,
    FOS_OP_FORGET = 330,
    FOS_OP_OPEN = 331,
    FOS_OP_RELEASE = 332,
    FOS_OP_FLUSH = 333,
    FOS_OP_LEASE_ACK = 334,
    FOS_OP_LOOKUP_OPEN = 335,
    FOS_OP_MAP = 336,
    FOS_OP_GIVE_BACK = 399,

    // 400..499: file service, between its members only (fos/file_peer.h)
    FOS_OP_PEER_FIRST = 400,
    FOS_OP_PEER_LAST = 499,

    // 500..559: memory service (between its members 560..599, fos/memory.h)
    FOS_OP_MEMORY_ALLOCATE = 500,
    FOS_OP_MEMORY_FREE = 501,
    FOS_OP_MEMORY_RETIRE = 502,
    FOS_OP_MEMORY_REGION = 503,
    FOS_OP_MEMORY_STATISTICS = 504,
    FOS_OP_MEMORY_RESERVE = 505,
    // 800..899: fleet management (fos/fleet.h); 800 to 819 from clients with FOS_RIGHT_ADMIN, the others among servers
    FOS_OP_FLEET_STATUS = 800,
    FOS_OP_FLEET_SET = 801,
    FOS_OP_FLEET_INTERNAL_FIRST = 820,
    FOS_OP_FLEET_REPORT = 820,   // to the manager, one-way: how a server does
    FOS_OP_FLEET_MEMBERS = 821,  // from the manager, one-way: who makes up the fleet
    FOS_OP_FLEET_GIVE = 822,     // from the manager, one-way: give slots to a member
    // 823, 824: not used
    FOS_OP_FLEET_TAKE = 825,     // from the manager, one-way: slots whose owner is lost are yours
    FOS_OP_FLEET_INTERNAL_LAST = 899,
};

#endif
