// The cache of tables: where one lies, whether it can be believed, how it is written.
#define _GNU_SOURCE
#include "csyscallsites.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "elf_file.h"

static int write_all(int fd, const void *data, size_t bytes) {
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t count = write(fd, at, bytes);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? -errno : -EIO;
        at += count;
        bytes -= (size_t)count;
    }
    return 0;
}

static void hexadecimal(const uint8_t *bytes, uint32_t length, char *text) {
    for (uint32_t i = 0; i < length; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * length] = 0;
}

int fos_sites_build_id(const char *path, char *text) {
    struct elf_file file;
    int result = elf_open(&file, path);
    if (result == 0 && file.build_id == NULL) result = -ENODATA;
    if (result == 0) hexadecimal(file.build_id, file.build_id_length, text);
    elf_close(&file);
    return result;
}

int fos_sites_store(const char *directory, const struct fos_sites_header *table, size_t bytes) {
    char name[2 * FOS_SITES_BUILD_ID_MAX + 1], path[PATH_MAX], temporary[PATH_MAX];
    hexadecimal(table->build_id, table->build_id_length, name);
    int one = snprintf(path, sizeof path, "%s/%s.sites", directory, name);
    int other = snprintf(temporary, sizeof temporary, "%s/.%s.%ld.XXXXXX", directory, name, (long)getpid());
    if (one < 0 || other < 0 || (size_t)one >= sizeof path || (size_t)other >= sizeof temporary) return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) return -errno;
    // Others may read it: root's tables serve programs that gave root up.
    int result = fchmod(fd, 0644) == 0 ? write_all(fd, table, bytes) : -errno;
    if (close(fd) != 0 && result == 0) result = -errno;
    if (result == 0 && rename(temporary, path) != 0) result = -errno;
    if (result != 0) unlink(temporary);
    return result;
}

static int parse_build_id(const char *text, uint8_t *bytes, uint32_t *length) {
    size_t digits = strlen(text);
    if (digits % 2 != 0 || digits / 2 > FOS_SITES_BUILD_ID_MAX) return 0;
    for (size_t i = 0; i < digits / 2; i++) {
        unsigned value;
        if (sscanf(text + 2 * i, "%2x", &value) != 1) return 0;
        bytes[i] = (uint8_t)value;
    }
    *length = (uint32_t)(digits / 2);
    return 1;
}

int fos_sites_usable(const char *directory, const char *build_id) {
    char path[PATH_MAX];
    uint8_t id[FOS_SITES_BUILD_ID_MAX];
    uint32_t length;
    int count = snprintf(path, sizeof path, "%s/%s.sites", directory, build_id);
    if (count < 0 || (size_t)count >= sizeof path || !parse_build_id(build_id, id, &length)) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return 0;
    struct stat status;
    int usable = 0;
    if (fstat(fd, &status) == 0 && fos_sites_trusted(status.st_uid, status.st_mode, geteuid()) &&
        status.st_size >= (off_t)sizeof(struct fos_sites_header) && status.st_size <= FOS_SITES_BYTES_MAX) {
        void *table = malloc((size_t)status.st_size);
        ssize_t got = table == NULL ? -1 : pread(fd, table, (size_t)status.st_size, 0);
        usable = got == status.st_size && fos_sites_whole(table, (size_t)got, id, length);
        free(table);
    }
    close(fd);
    return usable;
}

struct loaded {
    void (*each)(const char *path, void *context);
    void *context;
    int count;
};

static int visit(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    struct loaded *loaded = context;
    if (!fos_sites_library(info->dlpi_name)) return 0;
    loaded->count++;
    loaded->each(info->dlpi_name, loaded->context);
    return 0;
}

int fos_sites_loaded(void (*each)(const char *path, void *context), void *context) {
    struct loaded loaded = {each, context, 0};
    dl_iterate_phdr(visit, &loaded);
    return loaded.count;
}

int fos_sites_interpreter(const char *path, char *text, size_t room) {
    struct elf_file file;
    int result = elf_open(&file, path);
    if (room > 0) text[0] = 0;
    for (int i = 0; i < file.segments && result == 0; i++) {
        const Elf64_Phdr *segment = &file.segment[i];
        if (segment->p_type != PT_INTERP) continue;
        if (segment->p_filesz == 0 || segment->p_filesz > room) result = -ENAMETOOLONG;
        else memcpy(text, file.data + segment->p_offset, segment->p_filesz), text[segment->p_filesz - 1] = 0;
    }
    elf_close(&file);
    return result;
}
