// Mounts: which fos mounts there are, connections to them, and who this process is to their servers.
//
// The mount table is read at the first path that could lead to a mount, and again when its list of mount numbers
// (listmount(2), one cheap call) has changed: looked at a few times a second, after a child was waited for, and after
// a daemon was lost. A mount that is missed costs speed only: its files are reached through the kernel.
// Standing aside: a mount with another one mounted inside it, or for an identity that the servers cannot judge as the
// kernel does (capabilities that do not go with the user), is left to the kernel as a whole.
// Invariant: one thread at a time changes the list, with signals put off (signals.h). Who waits for it too long, or has it already,
// uses what is there.
#define _GNU_SOURCE
#include <linux/capability.h>
#include <sys/mman.h>
#include <time.h>
#include "mounts.h"
#include "signals.h"
#include "../proxy/proxy.h"

enum { LOOK_AGAIN_NS = 200000000 };
static_assert((int)FOS_CONTEXTS_MAX == (int)FOS_HELLO_USUAL_CHANNELS, "the hello that is not sent");

struct fos_mount fos_mounts[FOS_MOUNTS_MAX] FOS_LARGE;
struct fos_identity fos_identity;
uint32_t fos_mounts_used, fos_mounts_served, fos_umask, fos_mounts_doubtful = 1, fos_file_size_limited, fos_cwd_known;

static uint32_t busy;           // 1 while a thread reads the table or connects
static uintptr_t busy_owner;
static uint64_t busy_signals;   // what the owner had blocked
static uint64_t looked_at;      // coarse ns
static uint64_t numbers_hash;   // of the mount numbers when the table was read
static char line[FOS_MOUNT_LINE_BYTES] FOS_LARGE;
static struct fos_mount *cwd_mount;
static uint64_t cwd_inode;
static char cwd_path[FOS_PATH_BYTES] FOS_LARGE;

// ---- one at a time --------------------------------------------------------------------------------------------------

int fos_mounts_claim(void) {
    uintptr_t self = (uintptr_t)__builtin_thread_pointer();
    for (int attempt = 0; attempt < 50000; attempt++) {
        uint64_t signals = fos_put_signals_off();
        if (fos_compare_exchange_u32(&busy, 0, 1)) {
            busy_owner = self;
            busy_signals = signals;
            return 1;
        }
        fos_let_signals_in(signals);
        if (busy_owner == self) return 0;
        fos_sleep(100000);
    }
    return 0;
}
void fos_mounts_unclaim(void) {
    uint64_t signals = busy_signals;
    busy_owner = 0;
    fos_store_release_u32(&busy, 0);
    fos_let_signals_in(signals);
}

// ---- the mount table ------------------------------------------------------------------------------------------------

static uint64_t coarse_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// A place for a mount that the table names: its own from before, a free one, or a dead one.
static struct fos_mount *place_for(const struct fos_mount_line *entry) {
    struct fos_mount *room = NULL;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (mount->state == FOS_MOUNT_NONE || (mount->state == FOS_MOUNT_DEAD && !mount->listed)) {
            if (room == NULL || room->state == FOS_MOUNT_DEAD) room = mount;
        } else if (mount->state != FOS_MOUNT_DEAD && mount->mount_id == entry->id && strcmp(mount->path, entry->point) == 0 && strcmp(mount->name, entry->name) == 0) {
            return mount;
        }
    }
    if ((room == NULL || room->state == FOS_MOUNT_DEAD) && fos_mounts_used < FOS_MOUNTS_MAX) {
        room = &fos_mounts[fos_mounts_used];
        room->index = fos_mounts_used;
        fos_store_release_u32(&fos_mounts_used, fos_mounts_used + 1);
    }
    if (room == NULL) return NULL;
    size_t path = strlen(entry->point), name = strlen(entry->name);
    if (path >= sizeof room->path || name >= sizeof room->name) return NULL;
    room->state = FOS_MOUNT_NONE;
    room->generation++;  // what is left from before is not this mount's (take_over)
    room->mount_id = entry->id;
    room->uid = entry->uid;
    room->path_length = (uint32_t)path;
    memcpy(room->path, entry->point, path + 1);
    memcpy(room->name, entry->name, name + 1);
    return room;
}

// 1: `path` is `above` or lies below it.
static int below(const char *path, const char *above, uint32_t length) {
    return strncmp(path, above, length) == 0 && (path[length] == 0 || path[length] == '/');
}

// Mounts come in the order in which they cover each other.
static void consider(void *context, const struct fos_mount_line *entry) {
    (void)context;
    // What is mounted on a fos mount, or inside one, hides a part of it.
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (mount->listed && below(entry->point, mount->path, mount->path_length)) mount->listed = 0;
    }
    if (entry->name == NULL || entry->point[1] == 0) return;
    if (fos_options.mount != NULL && strcmp(fos_options.mount, entry->point) != 0) return;
    struct fos_mount *mount = place_for(entry);
    if (mount == NULL) return;
    mount->listed = 1;
    if (mount->state == FOS_MOUNT_NONE) fos_store_release_u32(&mount->state, FOS_MOUNT_KNOWN);
}

void fos_mounts_are_known(uint64_t hash) {
    numbers_hash = hash;
    fos_mounts_doubtful = 0;
    looked_at = coarse_clock();
}
uint64_t fos_mounts_known_as(void) { return numbers_hash; }

static void read_table(void) {
    if (!fos_mounts_claim()) return;
    uint64_t hash = fos_mount_numbers();
    if (hash != numbers_hash || fos_mounts_doubtful > 1) {
        for (uint32_t i = 0; i < fos_mounts_used; i++) fos_mounts[i].listed = 0;
        if (!fos_each_listed_mount(consider, NULL)) fos_each_mount("/proc/self/mountinfo", line, sizeof line, consider, NULL);
        fos_cwd_known = 0;
    }
    fos_mounts_are_known(hash);
    fos_mounts_unclaim();
}

// ---- identity -------------------------------------------------------------------------------------------------------

// Servers give user 0 all rights over files and everybody else none: 1 if the kernel sees it that way too.
int fos_identity_is_plain(void) {
    uint32_t real, effective, saved;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    fos_raw(SYS_getresuid, &real, &effective, &saved);
    fos_identity.uid = effective;
    fos_raw(SYS_getresgid, &real, &effective, &saved);
    fos_identity.gid = effective;
    long groups = fos_raw(SYS_getgroups, FOS_GROUPS_MAX, fos_identity.groups);
    fos_identity.group_count = groups < 0 ? -1 : (int32_t)groups;
    if (fos_raw(SYS_capget, &header, sets) != 0) return 0;
    uint32_t files = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | 1u << CAP_FSETID;
    uint32_t held = sets[0].effective & files;
    return fos_identity.uid == 0 ? held == files : held == 0;
}

// ---- connections ----------------------------------------------------------------------------------------------------

// The mount point as it is reached now must be this very mount: that also proves that this user may come to it. What is asked for
// never changes: the kernel need not ask the daemon, which would cost more than the connection.
int fos_mount_verify(struct fos_mount *mount) {
    struct statx seen;
    if (fos_raw(SYS_statx, AT_FDCWD, mount->path, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, &seen) != 0) return 0;
    if (seen.stx_mnt_id != mount->mount_id) return 0;
    mount->device_major = seen.stx_dev_major;
    mount->device_minor = seen.stx_dev_minor;
    mount->device = (uint64_t)(seen.stx_dev_minor & 0xff) | (uint64_t)seen.stx_dev_major << 8 | (uint64_t)(seen.stx_dev_minor & ~0xffu) << 12;
    return 1;
}

// A connection is there: calls may use it.
void fos_mount_serve(struct fos_mount *mount) {
    // Both mappings are the parent's alone: a child that wrote to them would speak in its name.
    fos_raw(SYS_madvise, mount->client.segment, mount->client.segment_bytes, MADV_DONTFORK);
    fos_raw(SYS_madvise, mount->client.board, mount->client.board_bytes, MADV_DONTFORK);
    mount->client.timed = (uint32_t)fos_options.tracing;
    fos_read_size_limit();
    mount->generation++;
    fos_mounts_served = 1;
    fos_store_release_u32(&mount->state, FOS_MOUNT_CONNECTED);
}

static void connect_now(struct fos_mount *mount) {
    if (!fos_identity_is_plain() || !fos_mount_verify(mount)) {
        fos_store_release_u32(&mount->state, FOS_MOUNT_ASIDE);
        return;
    }
    struct fos_client *client = &mount->client;
    int result = fos_client_connect(client, mount->uid, mount->name, FOS_CONTEXTS_MAX, 0);
    if (result == 0 && client->channels < FOS_CONTEXTS_MAX) {
        fos_client_disconnect(client);
        result = -EAGAIN;
    }
    if (result != 0) {
        // A daemon that is gone, or may not be spoken to: what the kernel says of this mount counts.
        fos_store_release_u32(&mount->state, FOS_MOUNT_ASIDE);
        return;
    }
    fos_hide_connection(mount);
    fos_tally_add(&fos_tally->connections, 1);
    fos_mount_serve(mount);
}

static inline void look_at_table(void) {
    if (__builtin_expect(fos_kept_here, 0)) fos_resume_kept();
    if (fos_mounts_doubtful || coarse_clock() - looked_at > LOOK_AGAIN_NS) read_table();
}

int fos_is_of_mount(const struct stat *seen) {
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        if (fos_mounts[i].state != FOS_MOUNT_NONE && fos_mounts[i].device == seen->st_dev) return 1;
    }
    return 0;
}

int fos_mounts_in_use(void) {
    if (fos_kept_here) return 1;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        if (fos_mounts[i].state != FOS_MOUNT_KNOWN) return 1;
    }
    return 0;
}

// Returns the mount if messages can be used, NULL if not.
static struct fos_mount *connected(struct fos_mount *mount) {
    if (__builtin_expect(mount->state == FOS_MOUNT_CONNECTED, 1)) {
        if (__builtin_expect(!fos_load_acquire_u32(&mount->client.board->down), 1)) return mount;
        fos_store_release_u32(&mount->state, FOS_MOUNT_DEAD);
        fos_mounts_doubtful = 1;
        return NULL;
    }
    if (mount->state != FOS_MOUNT_KNOWN || !fos_mounts_claim()) return NULL;
    if (mount->state == FOS_MOUNT_KNOWN) connect_now(mount);
    fos_mounts_unclaim();
    return mount->state == FOS_MOUNT_CONNECTED ? mount : NULL;
}

// Paths of the system itself, which every program opens at its start. A mount among them is reached through the kernel.
int fos_is_system_path(const char *path) {
    static const char *const prefixes[] = {"/usr/", "/lib", "/etc/", "/proc/", "/sys/", "/bin/", "/sbin/", "/dev/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (path[1] == prefixes[i][1] && strncmp(path, prefixes[i], strlen(prefixes[i])) == 0) return strncmp(path, "/dev/shm/", 9) != 0;
    }
    return 0;
}

struct fos_mount *fos_mount_of_path(const char *path, const char **rest) {
    if (fos_is_system_path(path)) return NULL;
    look_at_table();
    struct fos_mount *longest = NULL;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (!mount->listed || !below(path, mount->path, mount->path_length)) continue;
        if (longest == NULL || mount->path_length > longest->path_length) longest = mount;
    }
    if (longest == NULL) return NULL;
    *rest = path + longest->path_length;
    return connected(longest);
}

struct fos_mount *fos_mount_for_memory(uint32_t without) {
    look_at_table();
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = fos_mounts[i].listed && (without >> i & 1) == 0 ? connected(&fos_mounts[i]) : NULL;
        if (mount != NULL) return mount;
    }
    return NULL;
}

// Asks the kernel where the current directory is, if anything is mounted at all.
static void learn_cwd(void) {
    struct statx seen;
    int any = 0;
    for (uint32_t i = 0; i < fos_mounts_used; i++) any |= (int)fos_mounts[i].listed;
    fos_cwd_known = 1;
    cwd_mount = NULL;
    cwd_path[0] = 0;
    if (!any) return;
    long length = fos_raw(SYS_getcwd, cwd_path, sizeof cwd_path);
    if (length <= 0 || cwd_path[0] != '/') cwd_path[0] = 0;
    if (fos_raw(SYS_statx, AT_FDCWD, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, &seen) != 0) return;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        if (fos_mounts[i].listed && fos_mounts[i].mount_id == seen.stx_mnt_id) cwd_mount = &fos_mounts[i];
    }
    cwd_inode = seen.stx_ino;
}

// The mount that lies below the current directory on this very path: its mount point's names are no links.
static struct fos_mount *below_cwd(const char *path, const char **rest) {
    uint32_t above = (uint32_t)strlen(cwd_path);
    if (above == 1) above = 0;  // the root directory: its slash is the next name's
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        while (*path == '/') path++;
    }
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (!mount->listed || mount->path_length <= above + 1 || !below(mount->path, cwd_path, above) || cwd_path[0] == 0) continue;
        uint32_t length = mount->path_length - above - 1;
        if (!below(path, mount->path + above + 1, length)) continue;
        *rest = path + length;
        return connected(mount);
    }
    return NULL;
}

struct fos_mount *fos_mount_of_relative(const char *path, const char **rest, uint64_t *inode) {
    look_at_table();
    if (!fos_cwd_known) learn_cwd();
    if (cwd_mount == NULL) {
        *inode = FOS_ROOT_INODE;
        return cwd_path[0] == 0 ? NULL : below_cwd(path, rest);
    }
    if (!cwd_mount->listed) return NULL;
    *inode = cwd_inode;
    return connected(cwd_mount);
}

int fos_cwd_is(const struct fos_mount *mount, uint64_t inode) {
    look_at_table();
    if (!fos_cwd_known) learn_cwd();
    return cwd_mount == mount && cwd_inode == inode;
}

const char *fos_cwd_path(void) { return fos_cwd_known ? cwd_path : ""; }

// ---- changes of the process -----------------------------------------------------------------------------------------

static void drop_connection(struct fos_mount *mount) {
    fos_close_connection(mount);
    fos_store_release_u32(&mount->state, FOS_MOUNT_KNOWN);
}

void fos_mounts_after_fork(void) {
    busy = 0;
    busy_owner = 0;
    fos_mounts_doubtful = 1;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (!fos_connection_is_open(mount)) continue;
        fos_raw(SYS_munmap, mount->client.state, mount->client.private_bytes);
        if (mount->state == FOS_MOUNT_CONNECTED) drop_connection(mount);
        else fos_close_connection(mount);
    }
}

void fos_identity_changes(struct fos_context *context) {
    fos_handed_forget_all();
    fos_materialise_all(context, 0);
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        struct fos_mount *mount = &fos_mounts[i];
        if (mount->state == FOS_MOUNT_ASIDE) fos_store_release_u32(&mount->state, FOS_MOUNT_KNOWN);
        if (mount->state != FOS_MOUNT_CONNECTED) continue;
        if (fos_contexts_alone(context)) {
            struct fos_client *client = &mount->client;
            drop_connection(mount);
            fos_client_disconnect(client);
        } else {
            // Calls of other threads run on this connection.
            fos_store_release_u32(&mount->state, FOS_MOUNT_ASIDE);
        }
    }
}
