// What the files of the shim that know about files share.
//
// Role: fos_calls_handle (calls.c) is handed every system call of the program. Those that concern a file of a fos mount
// become messages; all others get FOS_PASS at once. Whatever is not sure to come out right by messages goes through
// the mount, where the kernel does it (counted as a bypass).
//
//   context.c      who may use which channel: a call takes a context, uses it, and gives it back
//   alone.h        atomic changes that need no lock while the process has one thread
//   words.h        texts a word at a time
//   mounts.c       which mounts there are, connections to them, identity, standing aside; mounts.h lists the files beside it
//   descriptors.c  numbers of the program -> open file descriptions of ours
//   paths.c        from a path to a directory's inode and a name
//   cache.c        attributes and entries under the board's epochs
//   placement.c    keeps a thread off its server's CPU
//   brought.c      content that came with the opening of a file
//   delegations.c  changes of a file that are left where its owner finds them
//   references.c   of files that were closed, for the next open
//   listings.c     the last listing, for the next one
//   materialise.c  makes a description the kernel's, or puts one of the kernel's behind it
//   adopt.c        descriptions that the program before this one has left
//   programs.c     whether a program that is executed will have the shim
//   locks.c        record locks and flock: the kernel's, on files that stay here
//   calls_*.c      the handlers, by topic; calls_table.h says which call goes where
//
// Invariants: no libc function that makes a system call is used, none that allocates; nothing here blocks signals (but for the
// moment of an adoption); each function may be interrupted by a signal handler that makes calls itself, and never return.
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
#include "alone.h"
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

// ---- what the program hands in --------------------------------------------------------------------------------------

// A pointer that cannot be the program's: the first page and the kernel's half. Others are used as they are.
static inline int fos_bad_pointer(const void *pointer) { return (uintptr_t)pointer < 4096 || (uintptr_t)pointer >> 47 != 0; }

// ---- contexts (context.c) -------------------------------------------------------------------------------------------

// What one call needs while it runs: a channel of each connection, and room for paths.
struct fos_context {
    uint32_t owner;    // id of the thread that has it, 0 = free
    uint32_t index;    // also its channel
    uintptr_t stack;   // where its call began
    long number;       // of the system call, for the figures
    uint32_t posted;   // bits by mount: the last request was posted and not waited for
    uint32_t delegation;  // tag of the connection on whose channel a file was delegated last (delegations.c); 0: none
    // What an OPEN has brought lies in the channel's bulk area until its next request (brought.c).
    uint32_t brought_by, brought_epoch, brought_bytes;  // tag of the connection, 0: nothing
    uint64_t brought;  // the inode
    char path[2][FOS_PATH_BYTES];  // what a walk expands symbolic links into
    char text[FOS_PATH_BYTES];     // paths for the kernel
};

// A context for the running call; NULL: all are taken (the call goes through the mount).
struct fos_context *fos_enter(long number);
void fos_leave(struct fos_context *context);
void fos_contexts_reset(void);
int fos_context_is_mine(uint32_t index);            // 1: this thread has it
int fos_context_is_left(uint32_t index);            // 1: no thread has it, or one that has ended
int fos_contexts_alone(const struct fos_context *context);  // 1: no other call runs
// Waits for all that was posted. How many contexts, and channels, were ever used; 0: another call runs, or something stays
// unanswered.
uint32_t fos_contexts_settle(struct fos_context *context);

// ---- mounts (mounts.c, hidden.c, keep.c) ----------------------------------------------------------------------------------------------

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
    uint32_t syncs_nothing;  // tag of the connection whose servers have nothing to sync (FOS_REPLY_NOTHING_TO_SYNC); 0: not known
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
extern uint32_t fos_mounts_used;        // places of it that ever held a mount: the others' memory is not touched
extern uint32_t fos_umask;
extern uint32_t fos_mounts_served;      // 1: this process, or one that it was forked from, has had a connection
extern uint32_t fos_mounts_doubtful;    // 1: the mount table may have changed
extern uint32_t fos_file_size_limited;  // RLIMIT_FSIZE is set: the kernel has to count

// Names a mount and the connection to it, never 0: what is kept for an older connection is nobody's.
static inline uint32_t fos_connection_tag(const struct fos_mount *mount) { return (mount->generation << 4 | mount->index) + 1; }
void fos_read_size_limit(void);  // sets fos_file_size_limited
// The mount that an absolute path names a place in, connected, and where the rest of the path begins. NULL: not ours.
int fos_is_system_path(const char *path);  // 1: it is never served
struct fos_mount *fos_mount_of_path(const char *path, const char **rest);
// The mount that a path relative to the current directory names a place in, connected: the current directory's own (`inode`
// is the directory's), or one that lies below it (`rest` then begins at its root). NULL: not ours.
struct fos_mount *fos_mount_of_relative(const char *path, const char **rest, uint64_t *inode);
// The options of a mount as statfs(2) shows them (f_flags); -1: the kernel does not tell.
long fos_mount_says(const struct fos_mount *mount);
int fos_is_of_mount(const struct stat *seen);  // 1: a file of one of the mounts
int fos_mounts_in_use(void);         // 1: this process has a connection, or is left one
extern uint32_t fos_cwd_known;       // 0: ask the kernel again
int fos_cwd_is(const struct fos_mount *mount, uint64_t inode);  // 1: it is this directory
const char *fos_cwd_path(void);      // absolute; "" if it is not known, or too long
// At the start: takes the word that says what an earlier program of this process has left out of the environment.
void fos_mounts_start(char **environment);
// The shim stands aside: nobody goes on with what an earlier program has left.
void fos_mounts_leave_kept(void);
// Before an exec: leaves the connection to the new program, and writes the word for its environment (64 bytes). 0: cannot be.
int fos_mounts_keep(struct fos_context *context, char *word);
void fos_mounts_keep_failed(void);
// Writes the word that tells a new program which mounts are fos (FOS_SEEN_BYTES). 0: that is not known.
enum { FOS_SEEN_MOUNTS = 4 };
int fos_mounts_tell(char *word);
void fos_mounts_after_fork(void);     // in the child: the connections are the parent's
// The user or its groups are about to change: everything open becomes the kernel's, and the next call connects anew.
void fos_identity_changes(struct fos_context *context);
// A mount whose memory fleet may serve this process, connected, but none of `without` (bits by index); NULL: there is none.
struct fos_mount *fos_mount_for_memory(uint32_t without);
// Descriptors of the memory fleet's regions among the shim's own (memory.h: fos_fleet_keep and so on).
int fos_hide_for_memory(int place, int fd);
int fos_hidden_for_memory(int place);
void fos_forget_for_memory(int place);
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
static inline void fos_put_fixed(struct fos_message *request, const void *fixed, uint32_t bytes) {
    fos_put_named(request, fixed, bytes, "", 0);
}
// Sends what was built; nobody looks at the answer.
void fos_send_and_forget(struct fos_context *context, struct fos_mount *mount);
// The same two, to the best member of a symbolic name instead of the inode's owner; NULL: the owner.
int fos_send_to(struct fos_context *context, struct fos_mount *mount, const char *name);
// 0, or -ENOTCONN if the daemon has gone: without a message, by one system call.
int fos_check_alive(struct fos_mount *mount);
void fos_post_to(struct fos_context *context, struct fos_mount *mount, const char *name);
// Gives one reference of an inode back to its server, with what it was opened for: what that granted ends. Nobody waits for
// the answer.
void fos_give_back(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint32_t open_flags);
static inline const struct fos_message *fos_answer(const struct fos_context *context, const struct fos_mount *mount) {
    return fos_reply(&mount->client, (int)context->index);
}
static inline uint8_t *fos_bulk_of(struct fos_context *context, struct fos_mount *mount) {
    return fos_bulk(&mount->client, (int)context->index);
}

// After a message: a thread that keeps sending from its server's CPU moves to another one (placement.c).
void fos_step_aside(struct fos_context *context, struct fos_mount *mount);

// ---- descriptors (descriptors.c) ------------------------------------------------------------------------------------

enum fos_file_state {
    FOS_FILE_MESSAGE = 0,  // the number is an O_PATH duplicate; data and offset are here
    FOS_FILE_KERNEL = 1,   // materialised meanwhile: the number is the kernel's. Directories stay in the table so
    FOS_FILE_SHARED = 2,   // of a file, by a fork: the number and the offset are the kernel's; calls that need no offset are messages
};

// Whether a description of the kernel's for the same file stands behind the numbers, as a file with locks has it: the kernel
// keeps the locks, while data and offset stay here.
enum fos_backing {
    FOS_BACKING_NONE = 0,
    FOS_BACKING_BEGINS = 1,  // numbers are being replaced, under the description's lock
    FOS_BACKING_DONE = 2,
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
    int64_t ended_at;        // of a directory: the cookie behind its last entry, if `ended_epoch` still stands; -1: not known
    uint32_t ended_epoch;
    uint32_t message_writes;
    uint32_t backing;        // enum fos_backing
    uint64_t size;           // of a file, as it was opened and as its last WRITE said; UINT64_MAX: not known
    uint32_t is_adopted;     // by an earlier program's leave (adopt.c)
    uint32_t slow;           // FOS_FILE_SHARED: how many messages had to wait for the kernel lately; FOS_SLOW_MOST: no more of them
    uint32_t goes_on;        // an exec is under way: number + 1 that the description has in the list for the next program (adopt.c)
    uint32_t left_behind;    // of a directory: it could not become the kernel's before the fork that made this process
    char path[FOS_FILE_PATH_BYTES];
};

// A small message on a shared description that takes longer than FOS_SLOW_NS has waited for the kernel, which uses the file too. Where
// more than one in FOS_SLOW_SHARE does, for a while, the description is left to the kernel.
enum { FOS_SLOW_NS = 60000, FOS_SLOW_SHARE = 8, FOS_SLOW_MOST = 8 * FOS_SLOW_SHARE };
static inline uint32_t fos_file_state(const struct fos_file *file) { return __atomic_load_n(&file->state, __ATOMIC_ACQUIRE); }
// 1: a call that uses no offset may be a message.
static inline int fos_by_message(const struct fos_file *file) { return fos_file_state(file) != FOS_FILE_KERNEL; }
// 1: opened with O_PATH. What needs more than a name finds that the kernel has it (fos_begin), and says so.
static inline int fos_names_only(const struct fos_file *file) { return (file->flags & O_PATH) != 0; }
static inline int fos_readable(const struct fos_file *file) { return (file->flags & O_ACCMODE) != O_WRONLY && !fos_names_only(file); }
static inline int fos_writable(const struct fos_file *file) { return (file->flags & O_ACCMODE) != O_RDONLY; }
#define FOS_CALL_BYTES_MAX UINT64_C(0x7ffff000)  // the most that one call moves (MAX_RW_COUNT)

extern uint32_t fos_table[FOS_DESCRIPTORS_MAX];  // index + 1 of the description; 0: not ours
static inline int fos_ours(long fd) {
    return (uint32_t)fd < FOS_DESCRIPTORS_MAX && __atomic_load_n(&fos_table[(uint32_t)fd], __ATOMIC_RELAXED) != 0;
}

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
// fcntl's lock commands (locks.c).
long fos_record_lock(struct fos_call *call);
int fos_is_locked(uint64_t inode);  // 1: this process may have record locks on it
// Closing a number drops record locks (fcntl(2)): before it, the kernel gets a descriptor to see that by (locks.c).
void fos_before_close(int fd);
int fos_is_kernels(int fd);  // 1: not ours, or materialised
int fos_is_name(int fd);     // 1: ours, and fos_names_only
static inline struct fos_mount *fos_file_mount(const struct fos_file *file) { return &fos_mounts[file->mount]; }
// The mount of a description if messages can reach it; NULL: its daemon has gone.
static inline struct fos_mount *fos_file_usable(const struct fos_file *file) {
    struct fos_mount *mount = &fos_mounts[file->mount];
    return mount->state == FOS_MOUNT_CONNECTED && mount->generation == file->generation ? mount : NULL;
}

// The mount of a description for a call: as fos_file_usable, but a directory that is left from before a fork is first taken over
// by this process's own connection.
struct fos_mount *fos_file_reach(struct fos_file *file);

// ---- materialising (materialise.c) ----------------------------------------------------------------------------------

// Makes the description behind a number the kernel's, under all its numbers. 0, or -errno: it stays ours.
long fos_materialise(struct fos_context *context, long fd);
// Puts a description of the kernel's behind all numbers of the one behind `fd`, whose data and offset stay here. 0 or -errno.
long fos_back(struct fos_context *context, long fd);
// The same for all descriptions of an inode.
long fos_back_all(uint64_t inode);
// The same, and the kernel's has the offset and flags of ours, and knows the file as it is.
long fos_back_whole(struct fos_context *context, long fd);
// A descriptor of the kernel's for the file of a description, closed at an exec. Or -errno.
long fos_reopen(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file);
// The kernel has made `made` a duplicate of `fd`, a number of the same description, and the table knows: if the description
// was being backed meanwhile, the duplicate is made again.
void fos_follow_backing(struct fos_context *context, struct fos_file *file, uint32_t before, long fd, long made, long flags);
// Makes all descriptions the kernel's. `inherited_only`: those that a program executed now would get, unless it goes on with them;
// else this program stays, and calls on its files that use no offset stay messages (FOS_FILE_SHARED).
// How many became the kernel's.
int fos_materialise_all(struct fos_context *context, int inherited_only);
// Materialises the files of `fd_mask` (bits by argument), counts a bypass, and returns FOS_PASS or -errno.
long fos_via_kernel(struct fos_call *call, uint32_t fd_mask, enum fos_bypass reason);

// Has the kernel ask for what it decides by, if `path` (empty: `fd` itself) leads to the inode: before it is given a call that
// it may have to refuse, or allow, because of a change by message.
void fos_show(struct fos_context *context, struct fos_mount *mount, uint64_t inode, long fd, const char *path);
// After a reply with FOS_REPLY_LOOK_AGAIN: has the kernel ask for the file's attributes, so that mappings of it end where it does
// now, and its owner and mode are what they are.
void fos_show_size(struct fos_context *context, struct fos_mount *mount, const struct fos_file *file, long fd);

// ---- adoption (adopt.c) ----------------------------------------------------------------------------------------------

enum { FOS_HANDED_MAX = 16 };  // numbers that one program leaves to the next by message
// A number that the next program has, and what it leads to.
struct fos_handed {
    uint64_t inode;
    int32_t fd;
    uint16_t description;  // the same for numbers of one description; below FOS_HANDED_MAX
    uint16_t access;       // O_RDONLY, O_WRONLY or O_RDWR
};
extern uint32_t fos_handed_count;  // numbers that were handed on to this program and are the kernel's yet; mostly 0
// A call that moves data or the offset, on a number that is not ours: its result if the number was handed on, else FOS_PASS.
long fos_handed_call(struct fos_call *call, long fd);
// Before a use that the kernel's description could not be watched in: adopts it, or leaves it to the kernel for good. 1: it is ours.
int fos_handed_take(long fd);
// The number is closed, or its description may be shared from now on: it stays the kernel's.
void fos_handed_forget(long fd);
void fos_handed_forget_all(void);
void fos_handed_after_fork(void);
// What the program before has written down, and later the connection that its references belong to; NULL: it is not taken up.
void fos_handed_receive(const struct fos_handed *list, uint32_t count);
void fos_handed_belong(const struct fos_mount *mount);
// Before an exec of a program that will have the shim: puts the kernel's description behind what it may go on with. How many
// numbers that are; the descriptions are marked until fos_hand_on_ends.
uint32_t fos_hand_on(struct fos_context *context);
uint32_t fos_handed_list(struct fos_handed *list);
void fos_hand_on_ends(void);
// 1: a program that is executed by this path is sure to have the shim if its environment names it, or there is none (programs.c).
int fos_program_is_served(const char *path);

// ---- paths (paths.c) ------------------------------------------------------------------------------------------------

enum fos_walk_flag {
    FOS_WALK_FOLLOW = 1,   // the last component too
    FOS_WALK_PARENT = 2,   // stop at the directory and the last name, which may not be there
    FOS_WALK_EMPTY = 4,    // AT_EMPTY_PATH: an empty path is the directory argument itself
    FOS_WALK_CREATE = 8,   // with FOLLOW: an absent last name is no error; `found` says
    FOS_WALK_DESCRIPTOR = 16,  // with FOLLOW: /proc/self/fd/N may be what a description of ours is about
};
struct fos_place {
    struct fos_mount *mount;
    uint64_t parent;         // the directory that the name is in; 0: the place is the start itself, or was reached by dots
    uint32_t name_length;    // 0: as parent 0
    uint32_t found;          // attributes are set
    uint32_t slash;          // the path ended in one
    int32_t descriptor;      // of FOS_WALK_DESCRIPTOR: the number that the path named, else -1
    uint32_t parent_mode, parent_uid;  // with `parent_known`
    uint32_t parent_known;
    struct fos_attributes attributes;
    char name[FOS_NAME_BYTES_MAX + 1];
};
// The target of a symbolic link, in the context's bulk area of the mount. Its length; -ESTALE: it is gone, or no link any more;
// or another error.
long fos_link_target(struct fos_context *context, struct fos_mount *mount, uint64_t inode);
// 0, -errno as the call would fail with, or FOS_PASS: the kernel must walk (a descriptor of ours in `directory` has
// been materialised then).
long fos_walk(struct fos_context *context, long directory, const char *path, uint32_t flags, struct fos_place *place);
// Leaves a path to the kernel: a directory argument of ours becomes the kernel's. FOS_PASS or -errno.
long fos_hand_over(struct fos_context *context, long directory, enum fos_bypass reason);
// FOS_PASS for a call that the kernel decides by what it knows of a file (its owner, mode or size): it looks first, because a
// change by message may have come since it last did. `path` NULL: the descriptor itself.
long fos_pass_looking(long directory, const char *path, int flags);
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
    long fd;
};
// 0, -errno, or FOS_PASS: the descriptor is not ours, or names a file only and has become the kernel's. Only after 0 fos_end must
// follow.
long fos_begin(struct fos_call *call, long fd, struct fos_use *use);
// The same for a call that a name is enough for.
long fos_begin_by_name(struct fos_call *call, long fd, struct fos_use *use);
// After a reply that asks for it (FOS_REPLY_LOOK_AGAIN): has the kernel look at the file.
void fos_show_if_due(struct fos_use *use);
// Gives all back and returns `result`.
long fos_end(struct fos_use *use, long result);

typedef long fos_handler(struct fos_call *call);
#define FOS_MESSAGE(name, handler, text) fos_handler fos_##handler;
#define FOS_SPECIAL(name, handler, text) fos_handler fos_##handler;
#define FOS_KERNEL(name, fds, reason, text)
#define FOS_ELSEWHERE(name, text)
#define FOS_UNTOUCHED(name, text)
#define FOS_MEMORY(name, text)
#define FOS_NO_FILE(name)
#include "calls_table.h"
#undef FOS_MESSAGE
#undef FOS_SPECIAL
#undef FOS_KERNEL
#undef FOS_ELSEWHERE
#undef FOS_UNTOUCHED
#undef FOS_MEMORY
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
void fos_cache_after_fork(void);
int fos_cache_enabled(void);
// Copies attributes out of a reply, and keeps them. 0 or -EIO.
int fos_take_attributes(const struct fos_mount *mount, const struct fos_message *reply, struct fos_attributes *attributes);
// 1: known, `child` is its inode or 0. As far as is known here, this process may search the directory.
int fos_known_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length, uint64_t *child);
// The epoch of a whole directory speaks for its entries; that of a sharded one does not.
static inline int fos_is_sharded(const struct fos_mount *mount, uint64_t directory) {
    return fos_shard_bits(&mount->client.board->sharded, directory) != 0;
}
// look_ahead.c. A name of the directory is not known. 1: now it may be.
int fos_look_ahead(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length);
void fos_ahead_note(uint64_t directory, int by_message);  // a name in it was found, by message or without
void fos_ahead_after_fork(void);
// own_changes.c: entries are written between begin (1: it is this call's turn) and end. `owner` is the connection's tag, epochs are
// the directory's own.
int fos_changes_begin(void);
void fos_changes_end(void);
void fos_changes_after_fork(void);
// A step of this process's, which alone took the directory from one epoch to the other; its names' entries have been written.
void fos_changes_add(uint32_t owner, uint64_t directory, uint32_t before, uint32_t after);
// 1: an answer under this epoch is from before a step whose names have been written.
int fos_changes_passed(uint32_t owner, uint64_t directory, uint32_t epoch);
// 1: an entry that was true under the epoch `known` is so under the epoch `now`.
int fos_changes_cover(uint32_t owner, uint64_t directory, uint32_t known, uint32_t now);
// Keeps what the reply to a change of a name says: what was made, the directory as it is now, and that the name is there or not.
void fos_take_change(const struct fos_mount *mount, const struct fos_message *reply, uint16_t operation, const struct fos_place *place);
// The same of a rename: what was moved, and both directories.
void fos_take_rename(const struct fos_mount *mount, const struct fos_message *reply, const struct fos_place *source, const struct fos_place *target);
// Keeps the attributes of what was read, which a reply may have after `before` bytes.
void fos_take_told(const struct fos_mount *mount, const struct fos_message *reply, uint32_t before);
// 1: it is known here that a directory has this name, which this process may look up.
int fos_is_entry(struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length);
// The entry `name` of a directory: 0 with attributes, or -errno.
long fos_lookup_entry(struct fos_context *context, struct fos_mount *mount, uint64_t directory, const char *name, uint32_t length,
                      struct fos_attributes *attributes);
long fos_get_attributes(struct fos_context *context, struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes);
// 1 if they are known and true now.
int fos_cached_attributes(struct fos_mount *mount, uint64_t inode, struct fos_attributes *attributes);
void fos_keep_attributes(const struct fos_mount *mount, const struct fos_attributes *attributes);
// Whether this process may do `wanted` (read 4, write 2, execute 1), by the rules of the servers.
int fos_may(uint32_t wanted, const struct fos_attributes *attributes);
// Takes a record of a READDIR with FOS_READDIR_SHORT apart, of which `bytes` are there at most. Its name; NULL: it is none.
// Attributes are set if has_attributes is 1.
const char *fos_listed(const uint8_t *at, size_t bytes, struct fos_directory_entry *record);
// Before a READDIR: 1 if it should bring attributes.
int fos_listing_begins(uint64_t directory);
// 1 if an inode's epoch is still this.
int fos_epoch_stands(const struct fos_mount *mount, uint64_t inode, uint32_t epoch);
// Keeps an entry of a listing; `epoch` came with the listing.
void fos_keep_listed(const struct fos_mount *mount, uint64_t directory, uint32_t epoch, const struct fos_directory_entry *record,
                     const char *name);
// Copies from a page that is known and true now. The bytes copied (0 at the end of the file), -1: not known.
long fos_cached_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t within, uint8_t *to, size_t most);
// Forgets what is kept of a range of a file.
void fos_forget_pages(struct fos_mount *mount, uint64_t inode, uint64_t offset, uint64_t bytes);
void fos_keep_page(struct fos_mount *mount, uint64_t inode, uint64_t index, uint32_t epoch, const uint8_t *from, uint32_t bytes);

// ---- a listing kept for the next one (listings.c) ----------------------------------------------------------------------------

struct fos_listing {
    const uint8_t *records;  // as fos_listed takes them apart
    size_t bytes;
    uint32_t epoch;          // of the directory
    uint32_t sequence;       // listings.c's own
};
// Keeps the records of a whole listing.
void fos_keep_listing(const struct fos_mount *mount, uint64_t directory, uint32_t epoch, const uint8_t *records, size_t bytes);
// 1: it is kept and true now, from the record behind `cookie` on. What was read of it counts if it still stands afterwards.
int fos_kept_listing(const struct fos_mount *mount, uint64_t directory, uint64_t cookie, struct fos_listing *listing);
int fos_listing_stands(const struct fos_listing *listing);

// ---- content that came with an open (brought.c) ---------------------------------------------------------------------------------

// Before an OPEN of a file that is like this: how many bytes of it are welcome; 0: none.
uint32_t fos_room_to_bring(const struct fos_attributes *attributes, int open_flags);
// After its reply, of which attributes and a delegation have been taken.
void fos_take_brought(struct fos_context *context, const struct fos_mount *mount, const struct fos_message *reply,
                      const struct fos_attributes *attributes);
// 1: all that a file holds is at `content`, and may be read now; the reading has been noted where it must be.
int fos_read_brought(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const uint8_t **content, uint32_t *bytes);
// Before a request in the context's channel: what was brought is no more.
void fos_drop_brought(struct fos_context *context);
// 1: a read of the file now would move its access time, as the server's own rule has it (relatime).
int fos_is_access_due(const struct fos_attributes *attributes);

// ---- changes that are left to be found (delegations.c) -----------------------------------------------------------------------

struct fos_left_change {
    uint32_t cell, changes, bytes, reserved;
    uint64_t before;  // state of the cell
    uint64_t end;     // of a write, in the file
    struct fos_delegation_record record;
    struct fos_attributes attributes;  // of the file afterwards
};
// Before a request whose reply may delegate a file: a call that never comes back to see it must not go on with the one before.
void fos_delegation_may_go(struct fos_context *context);
// After a reply that may delegate the file, which is like this, to the context's channel. `writes`: its data too. Only after
// fos_delegation_may_go; after a failure nothing is delegated.
void fos_take_delegation(struct fos_context *context, const struct fos_mount *mount, const struct fos_message *reply,
                         const struct fos_attributes *attributes, int writes);
// 1: the next message must take a record along.
int fos_delegation_pending(const struct fos_context *context, struct fos_mount *mount);
// Has the owner take what is pending.
void fos_delegation_settle(struct fos_context *context, struct fos_mount *mount);
// Where to copy the bytes of a write to, all of them; then fos_delegated_write makes it. NULL, or 0: it must be sent.
uint8_t *fos_delegated_room(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint64_t offset, int append,
                            uint64_t bytes, struct fos_left_change *change);
int fos_delegated_write(struct fos_context *context, struct fos_mount *mount, struct fos_left_change *change, uint64_t bytes);
// Leaves that the file was read just now. 0: it must be read by message.
int fos_delegated_read(struct fos_context *context, struct fos_mount *mount, uint64_t inode);
// The same of a SETATTR. 0: it must be sent.
int fos_delegated_set(struct fos_context *context, struct fos_mount *mount, uint64_t inode, const struct fos_setattr_request *set);

// ---- references kept for the next open (references.c) -----------------------------------------------------------------------

// With the last number of a description: keeps its reference. 0: it must be given back.
int fos_reference_keep(struct fos_context *context, struct fos_mount *mount, uint64_t inode, uint32_t open_flags);
// 1: a reference that was kept is the caller's.
int fos_reference_take(const struct fos_mount *mount, uint64_t inode);
// Of what is not kept: leaves the reference of a file of this size to the next request. 0: it must be given back.
int fos_reference_give(const struct fos_mount *mount, uint64_t inode, uint32_t open_flags, uint64_t size);
// For a request about an inode: the inode of a reference that it takes along to the same server, as its `given`, and what it was
// opened with; 0: none.
uint64_t fos_reference_given(const struct fos_mount *mount, uint64_t inode, uint32_t *open_flags);
// Gives back what was kept of inodes that have changed since, or all.
void fos_references_settle(struct fos_context *context, int all);
void fos_references_after_fork(void);

// ---- reading and writing in shared memory (maps.c) ------------------------------------------------------------------------------

// Bytes read from the file's region, -1: a message is needed.
long fos_mapped_read(struct fos_mount *mount, struct fos_file *file, uint64_t offset, void *to, uint64_t bytes);
// Descriptors come over the connection's socket, so from a request that brings some until they are taken, one call of the
// process has it. 0: another one does.
int fos_packets_claim(void);
void fos_packets_release(void);
// The same for writing, all of the bytes or none.
long fos_mapped_write(struct fos_mount *mount, struct fos_file *file, uint64_t offset, const void *from, uint64_t bytes);
// After a READ, or a WRITE of bytes that were there: asks for a region when that pays. Uses the context's channel: what the
// reply held must have been taken.
void fos_used_by_message(struct fos_context *context, struct fos_mount *mount, struct fos_file *file, uint64_t size, uint64_t bytes,
                         int is_write);
// With the last number of a description.
void fos_unmap(struct fos_file *file);
void fos_maps_after_fork(void);

#pragma GCC visibility pop

#endif
