// Reads the table of an object's sites and believes nothing of it: see fos/sites.h for the file.
//
// Invariant: a table that this returns is whole, belongs to this user or root, and names only places inside the executable
// segment. Whether these hold the bytes that the table was made from, redirect.c asks (fos_site_fits) before it changes one.
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PATH_ROOM = 4096 };

// DIRECTORY/BUILD-ID.sites. 0 if it does not fit.
static int name_table(const struct fos_object *object, const char *directory, char *path) {
    size_t length = strlen(directory);
    if (length + 2 * object->build_id_length + sizeof "/.sites" > PATH_ROOM) return 0;
    memcpy(path, directory, length);
    char *at = path + length;
    *at++ = '/';
    for (uint32_t i = 0; i < object->build_id_length; i++) {
        *at++ = "0123456789abcdef"[object->build_id[i] >> 4];
        *at++ = "0123456789abcdef"[object->build_id[i] & 15];
    }
    memcpy(at, ".sites", sizeof ".sites");
    return 1;
}

static int in_text(const struct fos_object *object, uintptr_t address, size_t length) {
    return address >= object->text && address < object->text_end && length <= object->text_end - address;
}

// 1 if the sites are in order, apart from each other, inside the executable segment, and of a known kind. Reads no text.
static int well_formed(const struct fos_object *object, const struct fos_sites_header *table) {
    const struct fos_site *site = (const struct fos_site *)(table + 1);
    uintptr_t after = 0;
    for (uint32_t i = 0; i < table->count; i++, site++) {
        uintptr_t window = object->base + site->window, pad = object->base + site->pad;
        if (window < after || site->length < 2 || site->length > FOS_SITE_WINDOW_MAX) return 0;
        if (site->bytes[site->length] != 0x0f || site->bytes[site->length + 1] != 0x05) return 0;
        after = window + site->length + 2;
        if (!in_text(object, window, site->length + 2u)) return 0;
        if (site->kind == FOS_SITE_PAD) {
            long distance = (long)pad - (long)(window + 2);
            if (distance < -128 || distance > 127 || !in_text(object, pad, sizeof site->pad_bytes)) return 0;
        } else if (site->kind != FOS_SITE_NEAR || site->length < 5) {
            return 0;
        }
    }
    return 1;
}

int fos_site_fits(const struct fos_object *object, const struct fos_site *site) {
    if (memcmp((const void *)(object->base + site->window), site->bytes, site->length + 2u) != 0) return 0;
    return site->kind != FOS_SITE_PAD || memcmp((const void *)(object->base + site->pad), site->pad_bytes, sizeof site->pad_bytes) == 0;
}

const struct fos_sites_header *fos_sites_load(const struct fos_object *object, const char *directory, const char **why) {
    char path[PATH_ROOM];
    struct stat status;
    *why = "its table's name is too long";
    if (!name_table(object, directory, path)) return NULL;
    // Not blocking: a FIFO of that name must not stop the program.
    long fd = fos_system(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0, 0, 0);
    *why = fd == -ENOENT ? "it has no table of sites; 'fos run' and 'fos shim-path' make one" : "its table cannot be opened";
    if (fd < 0) return NULL;
    const void *data = NULL;
    long bytes = 0;
    *why = "its table is not a file of this user or root that only its owner may write";
    if (fos_system(SYS_fstat, fd, (long)&status, 0, 0, 0, 0) == 0 &&
        fos_sites_trusted(status.st_uid, status.st_mode, (uint32_t)getauxval(AT_EUID))) {
        bytes = status.st_size;
        *why = "its table has a wrong size";
        if (bytes >= (long)sizeof(struct fos_sites_header) && bytes <= FOS_SITES_BYTES_MAX) {
            long at = fos_system(SYS_mmap, 0, bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
            *why = "its table cannot be mapped";
            if (at > 0 || at < -4095) data = (const void *)at;
        }
    }
    fos_system(SYS_close, fd, 0, 0, 0, 0, 0);
    if (data == NULL) return NULL;
    const struct fos_sites_header *table = data;
    *why = "its table is damaged, or of another version";
    if (fos_sites_whole(table, (size_t)bytes, object->build_id, object->build_id_length) && well_formed(object, table)) return table;
    fos_system(SYS_munmap, (long)data, bytes, 0, 0, 0, 0);
    return NULL;
}

void fos_sites_unload(const struct fos_sites_header *table) { fos_system(SYS_munmap, (long)table, table->bytes, 0, 0, 0, 0); }
