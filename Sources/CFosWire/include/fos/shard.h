// Sharded directories: which part of a large directory a name is in, and where a client sees which directories are large.
//
// A directory that has grown large is spread over `1 << bits` shards. Shard 0 stays with the directory's owner; shard i
// is a record in slot (directory's slot + i) of the slot table, so shards of one directory have different owners and move
// with their slots as inodes do. A name belongs to the shard that its hash names. Requests always name the directory:
// the shard is only where they go first, and whoever gets a request for a name that is not its own forwards it to the
// directory's owner, which knows.
//
// The board has a table of the directories that are sharded. An entry is exact: it names the directory in full, and a
// directory that finds no place in the table is not sharded. Order: the owner publishes, then moves the epoch of the
// directory, then moves the first entry; when a directory becomes whole again it takes the entry back, then moves the
// epochs of all shards.
//
// Epochs of entries: the word of a name is that of its shard (fos_shard_key), which is the directory's own in shard 0 and
// in a directory that is whole. A client that keeps an entry, or its absence, keeps fos_entry_epoch beside it: the word's
// place and its value, read before the request is sent, and compared as one.
#ifndef FOS_SHARD_H
#define FOS_SHARD_H

#include <assert.h>
#include <stdint.h>
#include <fos/atomic.h>
#include <fos/limits.h>

enum {
    FOS_SHARD_BITS_MAX = 12,       // one shard a slot
    FOS_SHARDED_GROUPS = 1024,     // of the table: a directory has its place in one group
    FOS_SHARDED_WAYS = 4,          // places of a group
};

struct fos_shard_table {  // directory << 8 | bits; 0: free
    uint64_t place[FOS_SHARDED_GROUPS][FOS_SHARDED_WAYS];
};
static_assert(sizeof(struct fos_shard_table) == 32768, "shard table layout");

static inline uint32_t fos_shard_group(uint64_t directory) {
    return (uint32_t)(directory * UINT64_C(0x9e3779b97f4a7c15) >> 54);
}
static_assert(FOS_SHARDED_GROUPS == 1 << 10, "the group is ten bits of the hash");
static_assert(FOS_SHARDED_WAYS == 4, "fos_shard_bits looks at four places");

// Binary logarithm of a directory's shards; 0: it is whole.
static inline uint32_t fos_shard_bits(const struct fos_shard_table *table, uint64_t directory) {
    const uint64_t *group = table->place[fos_shard_group(directory)];
    // An entry about the directory is its number with the bits behind it; what is left of any other one, without the number, is more
    // than there are bits. With every name that is looked up, so the least of all is taken instead of a loop.
    uint64_t whole = directory << 8;
    uint64_t first = fos_load_acquire_u64(&group[0]) - whole, second = fos_load_acquire_u64(&group[1]) - whole;
    uint64_t third = fos_load_acquire_u64(&group[2]) - whole, fourth = fos_load_acquire_u64(&group[3]) - whole;
    first = first < second ? first : second;
    third = third < fourth ? third : fourth;
    uint64_t bits = first < third ? first : third;
    return bits <= FOS_SHARD_BITS_MAX ? (uint32_t)bits : 0;
}

// For servers: enters a directory. 0 if its group is full.
static inline int fos_shard_publish(struct fos_shard_table *table, uint64_t directory, uint32_t bits) {
    uint64_t *group = table->place[fos_shard_group(directory)];
    for (int way = 0; way < FOS_SHARDED_WAYS; way++) {
        uint64_t expected = 0;
        if (__atomic_compare_exchange_n(&group[way], &expected, directory << 8 | bits, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return 1;
    }
    return 0;
}
// For servers: takes a directory out.
static inline void fos_shard_withdraw(struct fos_shard_table *table, uint64_t directory) {
    uint64_t *group = table->place[fos_shard_group(directory)];
    for (int way = 0; way < FOS_SHARDED_WAYS; way++) {
        uint64_t entry = fos_load_acquire_u64(&group[way]);
        if (entry >> 8 == directory) __atomic_store_n(&group[way], 0, __ATOMIC_SEQ_CST);
    }
}

// The shard of a name, below 1 << bits. Not secret: names chosen to meet in one shard make that shard what every directory
// was before; inside it names are hashed with a seed that clients do not know.
static inline uint32_t fos_shard_of(uint64_t directory, const void *name, uint32_t length, uint32_t bits) {
    const uint8_t *bytes = (const uint8_t *)name;
    uint64_t hash = directory ^ (uint64_t)length << 56;
    for (uint32_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 32;
    hash *= UINT64_C(0xd6e8feb86659fd93);
    return bits == 0 ? 0 : (uint32_t)(hash >> (64 - bits));
}

// The slot whose owner has a shard.
static inline uint32_t fos_shard_slot(uint64_t directory, uint32_t shard) { return (uint32_t)((directory + shard) % FOS_SLOTS); }

// The number whose epoch is that of a shard's entries (fos_inode_epoch_index takes it). Inode numbers are below 2^48.
static inline uint64_t fos_shard_key(uint64_t directory, uint32_t shard) { return directory | (uint64_t)shard << 48; }

#endif
