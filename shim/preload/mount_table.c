// The mounts of this process, as Linux lists them.
//
// /proc/self/mountinfo costs some microseconds a mount, more than anything else that a short program does here. So the list
// of mount numbers (listmount(2)) tells whether anything has changed, and statmount(2) which of them are FUSE, which takes a
// fraction of a microsecond each; only what may be a fos mount is asked for in full. Where the kernel has neither (before
// Linux 6.13), the table is read.
#define _GNU_SOURCE
#include <linux/types.h>
#include "mounts.h"
#include "../proxy/proxy.h"

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

static uint64_t numbers[MOUNT_NUMBERS];
static long count;
static struct answer answer;

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
    return hash;
}

// Asks about one mount; what it has of it, answer.mask says. 0: the kernel does not tell.
static int ask(uint64_t mount, uint64_t wanted) {
    struct question question = {.size = 24, .mount = mount, .what = wanted};
    return fos_raw(SYS_STATMOUNT, &question, &answer, sizeof answer, 0) == 0;
}

static const char *text_at(uint32_t offset) {
    if (offset >= TEXT_ROOM || memchr(answer.text + offset, 0, TEXT_ROOM - offset) == NULL) return "";
    return answer.text + offset;
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
    for (long i = 0; i < count; i++) {
        if (!ask(numbers[i], WANT_BASIC) || (answer.mask & WANT_BASIC) == 0) return 0;
        if (answer.magic == FUSE_MAGIC && !show(numbers[i], each, context)) return 0;
    }
    return count > 0;
}
