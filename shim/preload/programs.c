// Programs: whether one that is executed is sure to have the shim.
//
// What the environment says (LD_PRELOAD) the loader does only for a program that it loads: not for a static one, nor for one that
// gives its user more rights (it drops the shim), nor for one of another machine or libc. A script is what its first line names.
// Where it matters that the next program has the shim, anything in doubt counts as no.
#define _GNU_SOURCE
#include <elf.h>
#include "calls.h"

enum { SCRIPTS = 4, SEGMENTS = 16, LINE = 256 };  // scripts that name scripts; program headers that are looked at; the first line's bytes

static int reads(long fd, void *to, size_t bytes, uint64_t at) { return fos_raw(SYS_pread64, fd, to, bytes, at) == (long)bytes; }

// 1: an ELF program of this machine that glibc's loader loads.
static int is_loaded_here(long fd) {
    static const char loader[] = "/lib64/ld-linux-x86-64.so.2";
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    char name[sizeof loader];
    if (!reads(fd, &header, sizeof header, 0) || header.e_machine != EM_X86_64 || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
    for (int i = 0; i < header.e_phnum && i < SEGMENTS; i++) {
        if (!reads(fd, &segment, sizeof segment, header.e_phoff + (uint64_t)i * sizeof segment)) return 0;
        if (segment.p_type != PT_INTERP) continue;
        return segment.p_filesz == sizeof loader && reads(fd, name, sizeof name, segment.p_offset) && memcmp(name, loader, sizeof loader) == 0;
    }
    return 0;
}

// The path that the first line of a script names, in `line`; NULL: it is no script, or a long one.
static const char *interpreter(char *line, long bytes) {
    if (bytes < 3 || line[0] != '#' || line[1] != '!') return NULL;
    long at = 2, end;
    while (at < bytes && (line[at] == ' ' || line[at] == '\t')) at++;
    for (end = at; end < bytes && line[end] != ' ' && line[end] != '\t' && line[end] != '\n'; end++) {}
    if (end == bytes || end == at) return NULL;
    line[end] = 0;
    return line + at;
}

// Whether the loader would take it for one that must not be interfered with.
static int has_rights_of_its_own(long fd) {
    struct stat seen;
    if (fos_raw(SYS_fstat, fd, &seen) != 0 || (seen.st_mode & (S_ISUID | S_ISGID)) != 0) return 1;
    return fos_raw(SYS_fgetxattr, fd, "security.capability", NULL, 0) > 0;
}

int fos_program_is_served(const char *path) {
    uint32_t user[3], group[3];
    char line[LINE];
    fos_raw(SYS_getresuid, &user[0], &user[1], &user[2]);
    fos_raw(SYS_getresgid, &group[0], &group[1], &group[2]);
    if (user[0] != user[1] || group[0] != group[1]) return 0;
    for (int script = 0; path != NULL && script <= SCRIPTS; script++) {
        long fd = fos_raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        // What is not there is not executed: execvp(3) looks along the PATH, and what is open stays this program's.
        if (fd < 0) return fd == -ENOENT || fd == -ENOTDIR;
        int served = is_loaded_here(fd), refuses = has_rights_of_its_own(fd);
        long got = served || refuses ? 0 : fos_raw(SYS_pread64, fd, line, sizeof line, 0);
        fos_raw(SYS_close, fd);
        if (served || refuses) return served && !refuses;
        path = interpreter(line, got);
    }
    return 0;
}
