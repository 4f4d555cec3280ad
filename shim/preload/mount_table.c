// The mounts of this process, as Linux lists them.
//
// /proc/self/mountinfo costs some microseconds a mount, more than anything else that a short program does here. So the list
// of mount numbers (listmount(2)) tells whether anything has changed, and statmount(2) which of them are FUSE, which takes a
// fraction of a microsecond each; only what may be a fos mount is asked for in full. Where the kernel has neither (before
// Linux 6.13), the table is read.
// Which of the mounts are fos, a program tells the next one in a word of its environment (FOS_SEEN), beside the hash of the list
// that this was found in: with the same list only those are asked about. A word that lies can hide a mount, which then is reached
// through the kernel; it cannot make one up.
#define _GNU_SOURCE
#include <linux/mount.h>
#include <linux/types.h>
#include <sys/statvfs.h>
#include "mounts.h"
#include "../proxy/proxy.h"

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u  // Linux 6.8
#endif

enum { MOUNT_NUMBERS = 1024, SYS_STATMOUNT = 457, SYS_LISTMOUNT = 458, FUSE_MAGIC = 0x65735546, TEXT_ROOM = 4096 + 1024 };
enum { WANT_BASIC = 1, WANT_MOUNT = 2, WANT_ROOT = 8, WANT_POINT = 16, WANT_OPTIONS = 0x80, WANT_SUBTYPE = 0x100, WANT_SOURCE = 0x200 };

struct question {  // struct mnt_id_req, its first version
    uint32_t size, spare;
    uint64_t mount, what;
    uint64_t space;
};
struct answer {    // struct statmount of Linux 6.13; texts are offsets into `text`
    uint32_t size, options;
    uint64_t mask;
    uint32_t device_major, device_minor;
    uint64_t magic;
    uint32_t flags, type;
    uint64_t mount, parent;
    uint32_t old_mount, old_parent;
    uint64_t attributes, propagation, peers, master, propagate_from;
    uint32_t root, point;
    uint64_t space;
    uint32_t subtype, source;
    uint64_t rest[48];
    char text[TEXT_ROOM];
};
static_assert(offsetof(struct answer, text) == 512, "as in <linux/mount.h>");
static_assert(offsetof(struct answer, root) == 104 && offsetof(struct answer, source) == 124, "as in <linux/mount.h>");

static uint64_t numbers[MOUNT_NUMBERS] FOS_LARGE;
static long count;
static uint64_t numbers_hash;
static struct answer answer FOS_LARGE;

static const char seen_word[] = "FOS_SEEN=";
// What the list with this hash has of FUSE mounts. count < 0: not known, or too many to be told.
static struct { uint64_t hash; uint64_t mount[FOS_SEEN_MOUNTS]; int count; } seen = {.count = -1};

static long list(uint64_t mount, uint64_t *to, long most) {
    struct question question = {.size = 24, .mount = mount};
    return fos_raw(SYS_LISTMOUNT, &question, to, most, 0);
}

uint64_t fos_mount_numbers(void) {
    static uint64_t unknown;
    count = list(UINT64_MAX, numbers, MOUNT_NUMBERS);
    // Without listmount(2), or with more mounts than fit, each look finds something new.
    if (count <= 0 || count >= MOUNT_NUMBERS) {
        count = 0;
        return ++unknown;
    }
    uint64_t hash = UINT64_C(0xcbf29ce484222325) + (uint64_t)count;
    for (long i = 0; i < count; i++) hash = (hash ^ numbers[i]) * UINT64_C(0x100000001b3);
    return numbers_hash = hash;
}

// ---- the word -------------------------------------------------------------------------------------------------------

static char *append_hex(char *to, uint64_t number) {
    int shift = 60;
    while (shift > 0 && number >> shift == 0) shift -= 4;
    for (; shift >= 0; shift -= 4) *to++ = "0123456789abcdef"[number >> shift & 15];
    return to;
}

static const char *take_hex(const char *from, uint64_t *number) {
    *number = 0;
    for (int digits = 0; digits < 16; digits++, from++) {
        int digit = *from >= '0' && *from <= '9' ? *from - '0' : *from >= 'a' && *from <= 'f' ? *from - 'a' + 10 : -1;
        if (digit < 0) break;
        *number = *number << 4 | (unsigned)digit;
    }
    return from;
}

// Another thread may be at the list: what is told then fits no list, or hides a mount.
int fos_mounts_tell(char *word) {
    if (seen.count < 0) return 0;
    memcpy(word, seen_word, sizeof seen_word - 1);
    word = append_hex(word + sizeof seen_word - 1, seen.hash);
    for (int i = 0; i < seen.count; i++) {
        *word++ = ',';
        word = append_hex(word, seen.mount[i]);
    }
    *word = 0;
    return 1;
}

int fos_mounts_told(const char *word) {
    if (strncmp(word, seen_word, sizeof seen_word - 1) != 0) return 0;
    const char *at = take_hex(word + sizeof seen_word - 1, &seen.hash);
    int told = 0;
    while (*at == ',' && told < FOS_SEEN_MOUNTS) at = take_hex(at + 1, &seen.mount[told++]);
    seen.count = *at == 0 ? told : -1;
    return 1;
}

// ---- the mounts -----------------------------------------------------------------------------------------------------

// Asks about one mount; what it has of it, answer.mask says. 0: the kernel does not tell.
static int ask(uint64_t mount, uint64_t wanted) {
    struct question question = {.size = 24, .mount = mount, .what = wanted};
    return fos_raw(SYS_STATMOUNT, &question, &answer, sizeof answer, 0) == 0;
}

static const char *text_at(uint32_t offset) {
    if (offset >= TEXT_ROOM || memchr(answer.text + offset, 0, TEXT_ROOM - offset) == NULL) return "";
    return answer.text + offset;
}

// What statfs(2) says of a mount's options. The kernel has them from the mount and from its file system.
enum { SAYS_VALID = 0x20, SAYS_RELATIME = 0x1000 };
static const struct { uint64_t attribute; long says; } options_said[] = {
    {MOUNT_ATTR_RDONLY, ST_RDONLY}, {MOUNT_ATTR_NOSUID, ST_NOSUID}, {MOUNT_ATTR_NODEV, ST_NODEV}, {MOUNT_ATTR_NOEXEC, ST_NOEXEC},
    {MOUNT_ATTR_NODIRATIME, ST_NODIRATIME}, {MOUNT_ATTR_NOSYMFOLLOW, 0x2000},
};
enum { FILE_SYSTEM_RDONLY = 1, FILE_SYSTEM_SYNCHRONOUS = 16, FILE_SYSTEM_MANDLOCK = 64 };

long fos_mount_says(const struct fos_mount *mount) {
    struct statx seen_now;
    if (fos_raw(SYS_statx, AT_FDCWD, mount->path, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_MNT_ID_UNIQUE, &seen_now) != 0) return -1;
    if ((seen_now.stx_mask & STATX_MNT_ID_UNIQUE) == 0 || !fos_mounts_claim()) return -1;
    long says = -1;
    if (ask(seen_now.stx_mnt_id, WANT_BASIC | WANT_MOUNT) && answer.old_mount == mount->mount_id) {
        says = SAYS_VALID;
        for (size_t i = 0; i < sizeof options_said / sizeof *options_said; i++) {
            if ((answer.attributes & options_said[i].attribute) != 0) says |= options_said[i].says;
        }
        if ((answer.attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_RELATIME) says |= SAYS_RELATIME;
        if ((answer.attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_NOATIME) says |= ST_NOATIME;
        if ((answer.flags & FILE_SYSTEM_RDONLY) != 0) says |= ST_RDONLY;
        if ((answer.flags & FILE_SYSTEM_SYNCHRONOUS) != 0) says |= ST_SYNCHRONOUS;
        if ((answer.flags & FILE_SYSTEM_MANDLOCK) != 0) says |= ST_MANDLOCK;
    }
    fos_mounts_unclaim();
    return says;
}

// Shows `each` a mount if it is one of fos with nothing mounted inside. 0: the kernel does not tell.
static int show(uint64_t mount, void (*each)(void *context, const struct fos_mount_line *mount), void *context) {
    uint64_t inside;
    const uint64_t all = WANT_MOUNT | WANT_ROOT | WANT_POINT | WANT_OPTIONS | WANT_SOURCE;
    if (!ask(mount, all | WANT_SUBTYPE)) return 0;
    if ((answer.mask & all) != all) return 0;
    // FUSE without a subtype is somebody else's.
    if ((answer.mask & WANT_SUBTYPE) == 0) return 1;
    const char *source = text_at(answer.source);
    struct fos_mount_line line = {.id = answer.old_mount, .root = text_at(answer.root), .point = text_at(answer.point)};
    if (strcmp(text_at(answer.subtype), "fos") != 0 || strncmp(source, "fos:", 4) != 0 || source[4] == 0 || strcmp(line.root, "/") != 0) return 1;
    // A mount inside would hide a part of the tree.
    if (!fos_user_option(text_at(answer.options), &line.uid) || list(mount, &inside, 1) != 0) return 1;
    line.name = source + 4;
    each(context, &line);
    return 1;
}

int fos_each_listed_mount(void (*each)(void *context, const struct fos_mount_line *mount), void *context) {
    if (count == 0) return 0;
    if (seen.count >= 0 && seen.hash == numbers_hash) {
        for (int i = 0; i < seen.count; i++) {
            if (!show(seen.mount[i], each, context)) return 0;
        }
        return 1;
    }
    int found = 0;
    seen.count = -1;
    for (long i = 0; i < count; i++) {
        if (!ask(numbers[i], WANT_BASIC) || (answer.mask & WANT_BASIC) == 0) return 0;
        if (answer.magic != FUSE_MAGIC) continue;
        if (found < FOS_SEEN_MOUNTS) seen.mount[found] = numbers[i];
        found++;
        if (!show(numbers[i], each, context)) return 0;
    }
    seen.hash = numbers_hash;
    if (found <= FOS_SEEN_MOUNTS) seen.count = found;
    return 1;
}
