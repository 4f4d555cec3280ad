// What the files of the shim that know about files share.
//
// Role: fos_calls_handle (calls.c) is handed every system call of the program. Those that concern a file of a fos mount
// become messages; all others get FOS_PASS at once. Whatever is not sure to come out right by messages goes through
// the mount, where the kernel does it (counted as a bypass).
//
//   context.c      who may use which channel: a call takes a context, uses it, and gives it back
//   mounts.c       which mounts there are, connections to them, identity, standing aside
//   descriptors.c  numbers of the program -> open file descriptions of ours
//   paths.c        from a path to a directory's inode and a name
//   cache.c        attributes and entries under the board's epochs
//   materialise.c  makes a description the kernel's
//   calls_*.c      the handlers, by topic; calls_table.h says which call goes where
//
// Invariants: no libc function that makes a system call is used, none that allocates; nothing here blocks signals; each
// function may be interrupted by a signal handler that makes calls itself, and never return.
#ifndef FOS_CALLS_H
#define FOS_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <fos_proxy.h>
#include "shim.h"

#pragma GCC visibility push(hidden)

enum {
    FOS_MOUNTS_MAX = 8,            // fos mounts that one process uses by messages
    FOS_CONTEXTS_MAX = 64,         // calls of one process at the same time; also the channels of its connections
    FOS_DESCRIPTORS_MAX = 65536,   // higher numbers are the kernel's
    FOS_FILES_MAX = 4096,          // open file descriptions of ours; more are the kernel's
    FOS_FILE_PATH_BYTES = 432,     // of the path a description remembers; a longer one is opened through the mount
    FOS_PATH_BYTES = 4096,         // PATH_MAX, NUL included
    FOS_WALKS_MAX = 100,           // of one call, when what it found is gone each time it wants to use it
    FOS_SYMLINKS_MAX = 40,         // as the kernel's MAXSYMLINKS
    FOS_GROUPS_MAX = 32,           // supplementary groups that are checked here; with more, servers are asked
};

// ---- system calls of our own ----------------------------------------------------------------------------------------

#define FOS_RAW_ARGUMENTS(n, a, b, c, d, e, f, ...) fos_system(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define fos_raw(...) FOS_RAW_ARGUMENTS(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

// strnlen(3), which in libc uses vector registers.
static inline size_t fos_text_length(const char *text, size_t most) {
    const char *end = memchr(text, 0, most);
    return end == NULL ? most : (size_t)(end - text);
}
// A pointer that cannot be the program's: the first page and the kernel's half. Others are used as they are.
static inline int fos_bad_pointer(const void *pointer) { return (uintptr_t)pointer < 4096 || (uintptr_t)pointer >> 47 != 0; }

// ---- contexts (context.c) -------------------------------------------------------------------------------------------

// What one call needs while it runs: a channel of each connection, and room for paths.
struct fos_context {
    uintptr_t owner;   // thread pointer of the thread that has it, 0 = free
    uintptr_t stack;   // where its call began
    uint32_t index;    // also its channel
    long number;       // of the system call, for the figures
    uint32_t posted;   // bits by mount: the last request was posted and not waited for
    char path[2][FOS_PATH_BYTES];  // what a walk expands symbolic links into
    char text[FOS_PATH_BYTES];     // paths for the kernel
};

// A context for the running call; NULL: all are taken (the call goes through the mount).
struct fos_context *fos_enter(long number);
void fos_leave(struct fos_context *context);
void fos_contexts_reset(void);
int fos_context_is_mine(uint32_t index);            // 1: this thread has it
int fos_contexts_alone(const struct fos_context *context);  // 1: no other call runs

// ---- mounts (mounts.c) ----------------------------------------------------------------------------------------------

enum fos_mount_state {
    FOS_MOUNT_NONE = 0,
    FOS_MOUNT_KNOWN = 1,      // in the mount table; not connected yet
    FOS_MOUNT_CONNECTED = 2,
    FOS_MOUNT_DEAD = 3,       // its daemon has gone: calls on open files fail, paths are the kernel's
    FOS_MOUNT_ASIDE = 4,      // may not be used by messages: a mount inside it, an identity servers cannot check
};

struct fos_mount {
    uint32_t state;        // enum fos_mount_state
    uint32_t generation;   // counts connections: a description of an older one is dead
    uint32_t index;
    uint32_t path_length;
    uint64_t mount_id;     // as statx(2) and mountinfo have it
    uint64_t device;       // st_dev
    uint32_t device_major, device_minor;
    uint32_t listed;       // paths may lead to it: in the mount table, and nothing mounted inside
    uint32_t uid;
    char name[FOS_SERVICE_NAME_BYTES_MAX + 1];
    char path[FOS_PATH_BYTES];
    struct fos_client client;
};

// Who the servers take this process for, as it was when it connected.
struct fos_identity {
    uint32_t uid, gid;
    int32_t group_count;  // -1: more than fit here
    uint32_t groups[FOS_GROUPS_MAX];
};
extern struct fos_identity fos_identity;
extern struct fos_mount fos_mounts[FOS_MOUNTS_MAX];
extern uint32_t fos_umask;
extern uint32_t fos_mounts_doubtful;    // 1: the mount table may have changed
extern uint32_t fos_file_size_limited;  // RLIMIT_FSIZE is set: the kernel has to count

// Names a mount and the connection to it, never 0: what is kept for an older connection is nobody's.
static inline uint32_t fos_connection_tag(const struct fos_mount *mount) { return (mount->generation << 4 | mount->index) + 1; }
void fos_read_size_limit(void);  // sets fos_file_size_limited
// The mount that an absolute path names a place in, connected, and where the rest of the path begins. NULL: not ours.
struct fos_mount *fos_mount_of_path(const char *path, const char **rest);
// The mount that a path relative to the current directory names a place in, connected: the current directory's own (`inode`
// is the directory's), or one that lies below it (`rest` then begins at its root). NULL: not ours.
struct fos_mount *fos_mount_of_relative(const char *path, const char **rest, uint64_t *inode);
extern uint32_t fos_cwd_known;       // 0: ask the kernel again
const char *fos_cwd_path(void);      // absolute; "" if it is not known, or too long
void fos_mounts_after_fork(void);     // in the child: the connections are the parent's
// The user or its groups are about to change: everything open becomes the kernel's, and the next call connects anew.
void fos_identity_changes(struct fos_context *context);
int fos_neutral_descriptor(void);        // what numbers of ours are duplicates of; -1: there is none
int fos_hidden_descriptor(int fd);       // 1: it is the shim's own
int fos_highest_hidden_descriptor(void); // -1: there is none
long fos_move_hidden_descriptor(int fd); // frees the number for the program

// ---- requests -------------------------------------------------------------------------------------------------------

struct fos_message *fos_build(struct fos_context *context, struct fos_mount *mount, uint16_t operation, uint64_t inode);
// Sends what was built and waits. The reply's status, or -ENOTCONN.
int fos_send(struct fos_context *context, struct fos_mount *mount);
// The payload of a request: its operation's fixed part, and a name behind it where it has one.
static inline void fos_put_named(struct fos_message *request, const void *fixed, uint32_t bytes, const char *name, uint32_t name_length) {
    uint8_t *payload = fos_payload(request);
    memcpy(payload, fixed, bytes);
    memcpy(payload + bytes, name, name_length);
    request->length = bytes + name_length;
}
static inline void fos_put_fixed(struct fos_message *request, const void *fixed, uint32_t bytes) { fos_put_named(request, fixed, bytes, "", 0); }
// Sends what was built; nobody looks at the answer.
void fos_send_and_forget(struct fos_context *context, struct fos_mount *mount);
// Gives one reference of an inode back to its server. Nobody waits for the answer.
void fos_give_back(struct fos_context *context, struct fos_mount *mount, uint64_t inode);
static inline const struct fos_message *fos_answer(const struct fos_context *context, const struct fos_mount *mount) {
    return fos_reply(&mount->client, (int)context->index);
}
static inline uint8_t *fos_bulk_of(struct fos_context *context, struct fos_mount *mount) {
    return fos_bulk(&mount->client, (int)context->index);
}

// ---- descriptors (descriptors.c) ------------------------------------------------------------------------------------

enum fos_file_state {
    FOS_FILE_MESSAGE = 0,  // the number is an O_PATH duplicate; data and offset are here
    FOS_FILE_KERNEL = 1,   // materialised meanwhile: the number is the kernel's. Directories stay in the table so
};

// An open file description of ours.
struct fos_file {
    uint32_t references;   // numbers of the table, and calls that use it now
    uint32_t lock;         // index + 1 of the context that changes the offset
    uint32_t state;        // enum fos_file_state
    uint32_t mount, generation;
    uint32_t flags;        // as F_GETFL shows them
    uint32_t is_directory;
    uint32_t path_length;  // 0: not remembered
    uint64_t inode;
    int64_t offset;        // of a directory: the cookie
    uint32_t next_free;
    uint32_t region;         // index + 1 of the region it is read in (maps.c), 0: none
    uint32_t message_reads;  // since the last look whether a region would pay
    uint64_t message_bytes;
    uint32_t reserved;
    char path[FOS_FILE_PATH_BYTES];
};

extern uint32_t fos_table[FOS_DESCRIPTORS_MAX];  // index + 1 of the description; 0: not ours
static inline int fos_ours(long fd) { return (uint32_t)fd < FOS_DESCRIPTORS_MAX && __atomic_load_n(&fos_table[(uint32_t)fd], __ATOMIC_RELAXED) != 0; }

// The description behind a number, with a reference; NULL: not ours.
struct fos_file *fos_file_get(long fd);
void fos_file_put(struct fos_context *context, struct fos_file *file);
// A description with one reference (the table's to be); NULL: there is no room.
struct fos_file *fos_file_new(void);
void fos_file_delete(struct fos_file *file);
// The lowest free number, taken for a description to come. Or -errno (-EMFILE as the kernel says it); FOS_PASS: it would
// be beyond the table.
long fos_number_take(int close_on_exec);
// The number leads to the description, whose first reference becomes the table's.
void fos_number_publish(int fd, struct fos_file *file);
// The kernel has made `fd` a duplicate of `from`'s number: the table follows.
void fos_table_set(struct fos_context *context, int fd, struct fos_file *file);
void fos_table_clear(struct fos_context *context, int fd);
int fos_table_highest(void);
void fos_file_lock(struct fos_context *context, struct fos_file *file);
void fos_file_unlock(struct fos_context *context, struct fos_file *file);
void fos_files_after_fork(void);
// A POSIX lock is about to be asked for on a descriptor. From then on closes of the file are the kernel's business:
// fos_before_close hands it the number.
void fos_note_locks(int fd);
void fos_before_close(int fd);
int fos_is_kernels(int fd);  // 1: not ours, or materialised
static inline struct fos_mount *fos_file_mount(const struct fos_file *file) { return &fos_mounts[file->mount]; }
// The mount of a description if messages can reach it; NULL: its daemon has gone.
static inline struct fos_mount *fos_file_usable(const struct fos_file *file) {
    struct fos_mount *mount = &fos_mounts[file->mount];
    return mount->state == FOS_MOUNT_CONNECTED && mount->generation == file->generation ? mount : NULL;
}

// ---- materialising (materialise.c) ----------------------------------------------------------------------------------

// Makes the description behind a number the kernel's, under all its numbers. 0, or -errno: it stays ours.
long fos_materialise(struct fos_context *context, long fd);
// The same for all descriptions; `inherited_only`: those that a program executed now would get.
// How many became the kernel's.
int fos_materialise_all(struct fos_context *context, int inherited_only);
// Materialises the files of `fd_mask` (bits by argument), counts a bypass, and returns FOS_PASS or -errno.
long fos_via_kernel(struct fos_call *call, uint32_t fd_mask, enum fos_bypass reason);

// ---- paths (paths.c) ------------------------------------------------------------------------------------------------

enum fos_walk_flag {
    FOS_WALK_FOLLOW = 1,   // the last component too
    FOS_WALK_PARENT = 2,   // stop at the directory and the last name, which may not be there
    FOS_WALK_EMPTY = 4,    // AT_EMPTY_PATH: an empty path is the directory argument itself
    FOS_WALK_CREATE = 8,   // with FOLLOW: an absent last name is no error; `found` says
};
struct fos_place {
    struct fos_mount *mount;
    uint64_t parent;         // the directory that the name is in; 0: the place is the start itself, or was reached by dots
    uint32_t name_length;    // 0: as parent 0
    uint32_t found;          // attributes are set
    uint32_t slash;          // the path ended in one
    uint32_t parent_mode, parent_uid;  // with `parent_known`
    uint32_t parent_known;
    struct fos_attributes attributes;
    char name[FOS_NAME_BYTES_MAX + 1];
};
// 0, -errno as the call would fail with, or FOS_PASS: the kernel must walk (a descriptor of ours in `directory` has
// been materialised then).
long fos_walk(struct fos_context *context, long directory, const char *path, uint32_t flags, struct fos_place *place);
// Leaves a path to the kernel: a directory argument of ours becomes the kernel's. FOS_PASS or -errno.
long fos_hand_over(struct fos_context *context, long directory, enum fos_bypass reason);
// Before a path goes to the kernel: if it names a descriptor of ours (/proc/self/fd/N, /dev/fd/N), makes it the kernel's.
void fos_path_to_kernel(struct fos_context *context, const char *path);
// The absolute path of what was walked to, as text: 0 if it does not fit.
uint32_t fos_absolute_path(long directory, const char *path, char *text, uint32_t room);

// ---- handlers (calls_*.c) -------------------------------------------------------------------------------------------

// A call on a descriptor of ours: its description, mount and context, held from fos_begin to fos_end.
struct fos_use {
    struct fos_file *file;
    struct fos_mount *mount;
    struct fos_context *context;
};
// 0, -errno, or FOS_PASS: the descriptor is not ours. Only after 0 fos_end must follow.
long fos_begin(struct fos_call *call, long fd, struct fos_use *use);
// Gives all back and returns `result`.
long fos_end(struct fos_use *use, long result);

typedef long fos_handler(struct fos_call *call);
#define FOS_MESSAGE(name, handler, text) fos_handler fos_##handler;
#define FOS_SPECIAL(name, handler, text) fos_handler fos_##handler;
#define FOS_KERNEL(name, fds, reason, text)
#define FOS_ELSEWHERE(name, text)
#define FOS_UNTOUCHED(name, text)
#define FOS_NO_FILE(name)
#include "calls_table.h"
#undef FOS_MESSAGE
#undef FOS_SPECIAL
#undef FOS_KERNEL
#undef FOS_ELSEWHERE
#undef FOS_UNTOUCHED
#undef FOS_NO_FILE

// What several topics need.
enum { FOS_UNSURE = -1 };
// Whether a descriptor is a regular file of another file system than `file`: 1 it is, 0 it is of ours on the same mount,
// FOS_UNSURE: the kernel has to say.
int fos_other_file_system(const struct fos_file *file, int fd);
void fos_fill_stat(const struct fos_mount *mount, const struct fos_attributes *attributes, struct stat *to);
long fos_set_attributes(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const struct fos_setattr_request *set);

// ---- what is remembered (cache.c) -----------------------------------------------------------------------------------

void fos_cache_start(int enabled);
int fos_cache_enabled(void);
// Copies attributes out of a reply, and keeps them. 0 or -EIO.
int fos_take_attributes(const struct fos_mount *mount, const struct fos_message *reply, struct fos_attributes *attributes);
// The entry `name` of a directory: 0 with attributes, or -errno.
long fos_lookup_entry(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, struct fos_attributes *attributes);
long fos_get_attributes(struct fos_context *context, struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes);
// 1 if they are known and true now.
int fos_cached_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes);
void fos_keep_attributes(const struct fos_mount *mount, const struct fos_attributes *attributes);
// Whether this process may do `wanted` (read 4, write 2, execute 1), by the rules of the servers.
int fos_may(uint32_t wanted, const struct fos_attributes *attributes);
// Before a READDIR: 1 if it should bring attributes; `epoch` is what its entries are kept under.
int fos_listing_begins(const struct fos_mount *mount, uint64_t directory, uint64_t *epoch);
void fos_keep_listed(const struct fos_mount *mount, uint64_t directory, uint64_t epoch, const struct fos_directory_entry *record, const char *name);
// Copies from a page that is known and true now. The bytes copied (0 at the end of the file), -1: not known.
long fos_cached_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t within, uint8_t *to, size_t most);
void fos_keep_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t epoch, const uint8_t *from, uint32_t bytes);

// ---- reading in shared memory (maps.c) ------------------------------------------------------------------------------

// Bytes read from the file's region, -1: a message is needed.
long fos_mapped_read(struct fos_mount *mount, struct fos_file *file, uint64_t offset, void *to, uint64_t bytes);
// After a READ: asks for a region when that pays. Uses the context's channel: what the reply held must have been taken.
void fos_read_by_message(struct fos_context *context, struct fos_mount *mount, struct fos_file *file, uint64_t size, uint64_t bytes);
// With the last number of a description.
void fos_unmap(struct fos_file *file);
void fos_maps_after_fork(void);

#pragma GCC visibility pop

#endif
