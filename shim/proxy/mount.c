// Finding the instance behind a path: the mount table is the only directory that clients need.
//
// /proc/self/mountinfo (proc(5)) has one line a mount:
//   id parent major:minor root mount-point options [tags...] - type source super-options
// with space, tab, newline and backslash as octal escapes. A fos mount has type "fuse.fos", source "fos:NAME" and
// the super option user_id=UID. The longest mount point that is a prefix of the path decides, and of equal ones the
// last: it covers the others. It decides also when it is not fos: then the path is not ours.
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include "proxy.h"

enum { FIELDS_MAX = 32 };

// Undoes the octal escapes of a field in place.
static void unescape(char *field) {
    char *to = field;
    for (const char *from = field; *from != 0;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
}

static uint64_t number_of(const char *digits) {
    uint64_t value = 0;
    for (; *digits >= '0' && *digits <= '9'; digits++) value = value * 10 + (uint64_t)(*digits - '0');
    return value;
}

// Length of `mount_point` if it is `path` or a directory above it, else -1.
static long covers(const char *mount_point, const char *path) {
    size_t length = strlen(mount_point);
    if (length == 1 && mount_point[0] == '/') return 0;
    if (strncmp(mount_point, path, length) != 0) return -1;
    return path[length] == 0 || path[length] == '/' ? (long)length : -1;
}

// The value of user_id= in comma-separated options. 1 found, 0 not.
static int user_option(const char *options, uid_t *uid) {
    static const char key[] = "user_id=";
    for (const char *option = options; option != NULL && *option != 0;) {
        if (strncmp(option, key, sizeof key - 1) == 0) {
            uint64_t value = 0;
            const char *digit = option + sizeof key - 1;
            if (*digit < '0' || *digit > '9') return 0;
            for (; *digit >= '0' && *digit <= '9'; digit++) {
                value = value * 10 + (uint64_t)(*digit - '0');
                if (value > UINT32_MAX) return 0;
            }
            if (*digit != 0 && *digit != ',') return 0;
            *uid = (uid_t)value;
            return 1;
        }
        option = strchr(option, ',');
        if (option != NULL) option++;
    }
    return 0;
}

// Splits a line of the table. 1: `mount` refers into it; 0: not a line of this format.
static int split(char *line, struct fos_mount_line *mount) {
    char *field[FIELDS_MAX];
    int count = 0, dash = -1;
    for (char *at = line; at != NULL && count < FIELDS_MAX;) {
        char *end = strchr(at, ' ');
        if (end != NULL) *end++ = 0;
        if (dash < 0 && count >= 6 && strcmp(at, "-") == 0) dash = count;
        field[count++] = at;
        at = end;
    }
    if (dash < 0 || dash + 2 >= count) return 0;
    unescape(field[4]);
    unescape(field[dash + 2]);
    mount->id = number_of(field[0]);
    mount->root = field[3];
    mount->point = field[4];
    mount->name = NULL;
    // A bind mount of a directory inside the tree has another root than "/": its paths are not the instance's.
    if (strcmp(field[dash + 1], "fuse.fos") != 0 || strncmp(field[dash + 2], "fos:", 4) != 0 || field[dash + 2][4] == 0 || strcmp(field[3], "/") != 0) return 1;
    if (dash + 3 >= count || !user_option(field[dash + 3], &mount->uid)) return 1;
    mount->name = field[dash + 2] + 4;
    return 1;
}

int fos_each_mount(const char *table, char *line, size_t room, void (*each)(void *context, const struct fos_mount_line *mount), void *context) {
    long fd = fos_system(SYS_openat, AT_FDCWD, (long)table, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (fd < 0) return (int)fd;
    struct fos_mount_line mount;
    size_t used = 0;
    int skipping = 0;  // the rest of a line that was too long (no fos mount has one: paths are at most 4,095 bytes)
    long got;
    while ((got = fos_system(SYS_read, fd, (long)(line + used), (long)(room - 1 - used), 0, 0, 0)) > 0 || got == -EINTR) {
        if (got < 0) continue;
        used += (size_t)got;
        char *start = line, *end;
        while ((end = memchr(start, '\n', used - (size_t)(start - line))) != NULL) {
            *end = 0;
            if (!skipping && split(start, &mount)) each(context, &mount);
            skipping = 0;
            start = end + 1;
        }
        used -= (size_t)(start - line);
        memmove(line, start, used);
        if (used == room - 1) {
            used = 0;
            skipping = 1;
        }
    }
    fos_system(SYS_close, fd, 0, 0, 0, 0, 0);
    return got < 0 ? (int)got : 0;
}

struct search {
    const char *path;
    long longest;  // -1 = nothing covers the path so far
    int found;     // 0 the longest is not fos, 1 it is, or -errno
    uid_t *uid;
    char *name, *mount_point;
    size_t name_room, mount_room;
};

static void consider(void *context, const struct fos_mount_line *mount) {
    struct search *search = context;
    long length = covers(mount->point, search->path);
    if (length < 0 || length < search->longest) return;
    search->longest = length;
    search->found = 0;
    if (mount->name == NULL) return;
    size_t name_length = strlen(mount->name), mount_length = strlen(mount->point);
    if (name_length >= search->name_room || mount_length >= search->mount_room) {
        search->found = -ENAMETOOLONG;
        return;
    }
    *search->uid = mount->uid;
    memcpy(search->name, mount->name, name_length + 1);
    memcpy(search->mount_point, mount->point, mount_length + 1);
    search->found = 1;
}

int fos_find_mount(const char *path, uid_t *uid, char *name, size_t name_room, char *mount_point, size_t mount_room) {
    return fos_find_mount_in("/proc/self/mountinfo", path, uid, name, name_room, mount_point, mount_room);
}

int fos_find_mount_in(const char *table, const char *path, uid_t *uid, char *name, size_t name_room, char *mount_point, size_t mount_room) {
    if (path == NULL || path[0] != '/') return -EINVAL;
    struct search search = {
        .path = path, .longest = -1, .uid = uid, .name = name, .mount_point = mount_point, .name_room = name_room, .mount_room = mount_room};
    char line[FOS_MOUNT_LINE_BYTES];
    int result = fos_each_mount(table, line, sizeof line, consider, &search);
    if (result < 0) return result;
    return search.found == 1 ? 0 : search.found < 0 ? search.found : -ENOENT;
}
