// System calls of the contract suite that Swift cannot call as they are, each as a function that returns a result or
// a negative errno. Every one runs with the acting user's file system identity (contract_become), of this thread only.
#ifndef CONTRACT_SUPPORT_H
#define CONTRACT_SUPPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct contract_status {
    uint64_t inode, size, blocks, device;
    uint32_t mode, links, uid, gid;
    int64_t accessed, modified, changed;  // ns since 1970
};

// Acts as a user from now on: fsuid, fsgid, supplementary groups. Only root can; capabilities over files go with fsuid 0.
int contract_become(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count);

// 1: calls with a path go to the kernel from now on, around a preloaded shim; 0: as libc makes them. Of the process.
void contract_go_around(int on);

long contract_open(const char *path, int flags, uint32_t mode);
long contract_close(int fd);
long contract_pread(int fd, void *to, size_t count, uint64_t offset);
long contract_pwrite(int fd, const void *from, size_t count, uint64_t offset);
long contract_read(int fd, void *to, size_t count);
long contract_write(int fd, const void *from, size_t count);
long contract_lseek(int fd, int64_t offset, int whence);
long contract_ftruncate(int fd, int64_t size);
long contract_truncate(const char *path, int64_t size);
long contract_fsync(int fd);
long contract_fstat(int fd, struct contract_status *status);
long contract_stat(const char *path, int follow, struct contract_status *status);
long contract_mkdir(const char *path, uint32_t mode);
long contract_rmdir(const char *path);
long contract_unlink(const char *path);
long contract_rename(const char *from, const char *to, unsigned flags);
long contract_link(const char *from, const char *to);
long contract_link_handle(int fd, const char *to);
long contract_symlink(const char *target, const char *path);
long contract_readlink(const char *path, char *to, size_t room);
long contract_chmod(const char *path, uint32_t mode);
long contract_fchmod(int fd, uint32_t mode);
long contract_chown(const char *path, int follow, uint32_t uid, uint32_t gid);
// A time of INT64_MIN is "now", of INT64_MIN + 1 "leave it".
long contract_utimes(const char *path, int follow, int64_t accessed, int64_t modified);
long contract_mknod(const char *path, uint32_t mode, uint64_t device);
uint64_t contract_makedev(unsigned major, unsigned minor);
long contract_access(const char *path, int mode);
long contract_setxattr(const char *path, int follow, const char *name, const void *value, size_t size, int flags);
long contract_getxattr(const char *path, int follow, const char *name, void *value, size_t room);
long contract_listxattr(const char *path, int follow, char *list, size_t room);
long contract_removexattr(const char *path, int follow, const char *name);
long contract_fallocate(int fd, int mode, int64_t offset, int64_t length);
long contract_copy_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t length);
// kind: F_RDLCK, F_WRLCK, F_UNLCK; owner is the open file description.
long contract_lock(int fd, int kind, int64_t start, int64_t length);
// 1 and the conflicting lock, or 0.
long contract_getlock(int fd, int kind, int64_t start, int64_t length, int *found_kind, int64_t *found_start, int64_t *found_length);
long contract_flock(int fd, int operation);
// blocks, free blocks (of `block_bytes`), largest name.
long contract_statfs(const char *path, uint64_t *blocks, uint64_t *available, uint32_t *block_bytes, uint32_t *name_max, uint64_t *files, uint64_t *files_free);
// Entries from an open directory (raw getdents64 records).
long contract_getdents(int fd, void *to, size_t room);
// Starts a program (argv, NULL at its end) with no signal blocked, all at their defaults, and only these descriptors as
// standard input, output and error. Its process id, or a negative errno.
int contract_spawn(const char *program, char *const *arguments, int input, int output);
// Waits for a process that was spawned: its exit status, or 128 + signal.
int contract_wait(int process);
// Removes a directory and all in it, without crossing into other file systems.
int contract_remove_tree(const char *path);
const char *contract_error_name(int code);  // NULL if unknown
uint32_t contract_umask(uint32_t mask);

#endif
