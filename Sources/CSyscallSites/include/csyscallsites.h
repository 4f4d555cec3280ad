// Finds the `syscall` instructions of an ELF file and how each can be redirected: the maker of the tables in fos/sites.h.
//
// Role: run once for each build of libc, by `fos run` and `fos shim-path`. Disassembling takes a few tenths of a
// second, which a program's start cannot spend; the preload shim only reads the result.
// Protocol: functions return 0 or a positive value, or a negative errno.
#ifndef FOS_CSYSCALLSITES_H
#define FOS_CSYSCALLSITES_H

#include <stddef.h>
#include <stdint.h>
#include <fos/sites.h>

// Disassembles `path` (x86-64) and makes its table: one malloc'ed block, `*bytes` long, for the caller to free.
// -ENOEXEC: not an x86-64 ELF file with unwind tables; -ENODATA: it has no build-id; -E2BIG: more sites than a table holds.
int fos_sites_make(const char *path, struct fos_sites_header **table, size_t *bytes);

// The build-id of an ELF file as lower-case hexadecimal with a NUL; room for 2 * FOS_SITES_BUILD_ID_MAX + 1. As above.
int fos_sites_build_id(const char *path, char *text);

// Writes a table as DIRECTORY/BUILD-ID.sites: a temporary file, then a rename. The directory must exist.
int fos_sites_store(const char *directory, const struct fos_sites_header *table, size_t bytes);
// 1 if DIRECTORY/BUILD-ID.sites is a table that a process of this user may believe, 0 if not, or not there.
int fos_sites_usable(const char *directory, const char *build_id);

// The ELF files that the shim redirects, as this process has them loaded: calls `each` with the path of libc and,
// with an old glibc, libpthread. Returns how many there were.
int fos_sites_loaded(void (*each)(const char *path, void *context), void *context);
// The program interpreter that an ELF file asks for, or an empty text (static, a script). -ENOEXEC not an ELF file.
int fos_sites_interpreter(const char *path, char *text, size_t room);

// The name of a system call, or an empty text.
const char *fos_system_call_name(unsigned number);

#endif
