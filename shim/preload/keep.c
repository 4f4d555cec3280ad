// A connection that outlives the program: execve leaves it to the next one.
//
// The descriptors stay open over the exec, a word of the environment names them, and what else must be known is written
// into the segment, behind its header, where only clients look. The new program takes the word out of its environment, and
// goes on with the connection at its first call that could touch a mount, if it is the same process with the same rights and
// nothing was mounted meanwhile; else it closes the descriptors and connects anew.
// Only the only connection is left, with no open file but those that the new program goes on with (adopt.c), and no call of another thread. The
// instance sees nothing of all this: the process, and so who it is, stay the same.
#define _GNU_SOURCE
#include <assert.h>
#include "mounts.h"

enum { KEPT_AT = FOS_SEGMENT_CLIENT_AT, KEPT_PATH = 1024 };
#define KEPT_MAGIC UINT64_C(0x317470656b736f66)
static const char kept_word[] = "FOS_KEPT=";

struct kept {
    uint64_t magic, layout_hash, numbers_hash;
    uint64_t mount_id;
    uint32_t process, uid;
    struct fos_identity identity;
    struct fos_client_kept client;
    uint32_t handed_count, reserved;
    struct fos_handed handed[FOS_HANDED_MAX];
    char name[FOS_SERVICE_NAME_BYTES_MAX + 1];
    char path[KEPT_PATH];
};
static_assert(KEPT_AT + sizeof(struct kept) <= FOS_PAGE_BYTES, "what is kept lies in the header's page");

int fos_kept_here;  // 1: descriptors of a connection are hidden, and to be looked at

// The only mount that is connected; NULL: there is none, or several.
static struct fos_mount *only_connection(void) {
    struct fos_mount *only = NULL;
    for (uint32_t i = 0; i < fos_mounts_used; i++) {
        if (fos_mounts[i].state != FOS_MOUNT_CONNECTED) continue;
        if (only != NULL) return NULL;
        only = &fos_mounts[i];
    }
    return only;
}

static void mark_kept(struct fos_mount *mount, int stays) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) fos_raw(SYS_fcntl, *fos_client_descriptor(mount, which), F_SETFD, stays ? 0 : FD_CLOEXEC);
}

int fos_mounts_keep(struct fos_context *context, char *word) {
    struct fos_mount *mount = only_connection();
    if (mount == NULL || mount->path_length >= KEPT_PATH || mount->client.segment_fd < 0 || mount->client.board_fd < 0) return 0;
    if (fos_contexts_settle(context) == 0 || fos_load_acquire_u32(&mount->client.board->down)) return 0;
    struct kept *kept = (struct kept *)(mount->client.segment + KEPT_AT);
    *kept = (struct kept){
        .magic = KEPT_MAGIC, .layout_hash = fos_layout_hash(), .numbers_hash = fos_mounts_known_as(), .mount_id = mount->mount_id,
        .process = (uint32_t)fos_raw(SYS_getpid), .uid = mount->uid, .identity = fos_identity};
    fos_client_keep(&mount->client, fos_contexts_settle(context), &kept->client);
    kept->handed_count = fos_handed_list(kept->handed);
    memcpy(kept->name, mount->name, sizeof kept->name);
    memcpy(kept->path, mount->path, mount->path_length + 1);
    memcpy(word, kept_word, sizeof kept_word - 1);
    word += sizeof kept_word - 1;
    for (int which = 0; which < FOS_OF_CONNECTION; which++) {
        char digits[12], *digit = digits + sizeof digits;
        int fd = *fos_client_descriptor(mount, which);
        do *--digit = (char)('0' + fd % 10); while ((fd /= 10) != 0);
        memcpy(word, digit, (size_t)(digits + sizeof digits - digit));
        word += digits + sizeof digits - digit;
        *word++ = which + 1 < FOS_OF_CONNECTION ? ',' : 0;
    }
    mark_kept(mount, 1);
    return 1;
}

void fos_mounts_keep_failed(void) {
    struct fos_mount *mount = only_connection();
    if (mount != NULL) mark_kept(mount, 0);
}

// 1: the descriptors are a connection that was left to this process.
static int read_kept(const int *descriptors, struct kept *kept) {
    return fos_raw(SYS_pread64, descriptors[1], kept, sizeof *kept, KEPT_AT) == (long)sizeof *kept && kept->magic == KEPT_MAGIC &&
        kept->process == (uint32_t)fos_raw(SYS_getpid);
}

// Nobody else is to see a word of ours, children least of all.
static void take_out(char **word) {
    for (; (word[0] = word[1]) != NULL; word++) {}
}

void fos_mounts_start(char **environment) {
    while (*environment != NULL) {
        if (fos_mounts_told(*environment)) {
            take_out(environment);
            continue;
        }
        if (strncmp(*environment, kept_word, sizeof kept_word - 1) != 0) {
            environment++;
            continue;
        }
        const char *at = *environment + sizeof kept_word - 1;
        int given[FOS_OF_CONNECTION];
        for (int which = 0; which < FOS_OF_CONNECTION; which++) {
            int fd = 0;
            for (; *at >= '0' && *at <= '9' && fd < 1 << 24; at++) fd = fd * 10 + (*at - '0');
            given[which] = fd;
            if (*at++ != (which + 1 < FOS_OF_CONNECTION ? ',' : 0)) return;
        }
        take_out(environment);
        // A word that lies must not cost the program descriptors of its own.
        struct kept kept;
        if (fos_kept_here) continue;
        if (!read_kept(given, &kept)) continue;
        for (int which = 0; which < FOS_OF_CONNECTION; which++) fos_raw(SYS_fcntl, given[which], F_SETFD, FD_CLOEXEC);
        fos_hide_kept(given);
        fos_kept_here = 1;
        fos_handed_receive(kept.handed, kept.handed_count);
    }
}

// 1: what is kept is of this process as it is now.
static int still_true(const struct kept *kept) {
    if (kept->layout_hash != fos_layout_hash()) return 0;
    if (memchr(kept->name, 0, sizeof kept->name) == NULL || memchr(kept->path, 0, sizeof kept->path) == NULL || kept->path[0] != '/') return 0;
    if (fos_options.mount != NULL && strcmp(fos_options.mount, kept->path) != 0) return 0;
    if (!fos_identity_is_plain() || fos_identity.uid != kept->identity.uid || fos_identity.gid != kept->identity.gid) return 0;
    if (fos_identity.group_count != kept->identity.group_count || fos_identity.group_count < 0) return 0;
    if (memcmp(fos_identity.groups, kept->identity.groups, (size_t)fos_identity.group_count * sizeof *kept->identity.groups) != 0) return 0;
    return fos_mount_numbers() == kept->numbers_hash;
}

static void close_all(const int *descriptors) {
    for (int which = 0; which < FOS_OF_CONNECTION; which++) fos_raw(SYS_close, descriptors[which]);
}

void fos_mounts_leave_kept(void) {
    int descriptors[FOS_OF_CONNECTION];
    if (!fos_kept_here) return;
    fos_unhide_kept(descriptors);
    close_all(descriptors);
    fos_kept_here = 0;
    fos_handed_belong(NULL);
}

void fos_resume_kept(void) {
    if (!fos_mounts_claim()) return;
    struct kept kept;
    struct fos_mount *mount = &fos_mounts[0];
    int descriptors[FOS_OF_CONNECTION];
    int taken = 0, resumed = 0, was_kept = fos_kept_here;
    if (was_kept) fos_unhide_kept(descriptors);
    if (was_kept && fos_mounts_used == 0 && read_kept(descriptors, &kept) && still_true(&kept)) {
        size_t path = strlen(kept.path);
        mount->mount_id = kept.mount_id;
        mount->uid = kept.uid;
        mount->path_length = (uint32_t)path;
        memcpy(mount->path, kept.path, path + 1);
        memcpy(mount->name, kept.name, sizeof mount->name);
        taken = fos_mount_verify(mount);
    }
    if (taken && fos_client_resume(&mount->client, &kept.client, descriptors[0], descriptors[1], descriptors[2]) == 0) {
        fos_note_hidden(mount);
        mount->listed = 1;
        fos_mount_serve(mount);
        fos_store_release_u32(&fos_mounts_used, 1);
        fos_mounts_are_known(kept.numbers_hash);
        resumed = 1;
    } else if (was_kept && !taken) {
        close_all(descriptors);
    }
    fos_kept_here = 0;
    fos_mounts_unclaim();
    if (was_kept) fos_handed_belong(resumed ? mount : NULL);
}
