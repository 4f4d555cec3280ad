// An empty FUSE server: it answers each request at once, and keeps of an inode its attributes alone. What a file operation
// takes here is what the kernel and the switches to and from a server take: the floor for any FUSE file system.
//
// usage: empty DIRECTORY      mounts, serves in the foreground until it is unmounted
//
// No name is ever found (the kernel keeps those that it has made itself), nothing is listed, data are zeros. The kernel
// caches as long as it likes, as on a fos mount: OPEN, OPENDIR and FLUSH are answered ENOSYS.
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { INODES = 1 << 20, LARGE = 1 << 20 };
static const double forever = 1e9;
static struct stat inodes[INODES];  // by number; those of removed files are used again when all have been
static char zeros[LARGE];
static fuse_ino_t last = FUSE_ROOT_ID;

static struct stat *find(fuse_ino_t inode) { return &inodes[inode % INODES]; }

static void agree(void *userdata, struct fuse_conn_info *c) {
    (void)userdata;
    c->want |= c->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPLICIT_INVAL_DATA);
    c->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC);
    c->max_read = LARGE;
    c->max_write = LARGE;
    c->max_readahead = LARGE;
}

static void make(fuse_req_t request, mode_t mode) {
    struct fuse_entry_param entry = {.entry_timeout = forever, .attr_timeout = forever};
    entry.ino = ++last;
    entry.attr = (struct stat){.st_ino = last, .st_mode = mode, .st_nlink = S_ISDIR(mode) ? 2 : 1, .st_blksize = 4096};
    *find(last) = entry.attr;
    fuse_reply_entry(request, &entry);
}

static void lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    (void)parent, (void)name;
    struct fuse_entry_param absent = {.entry_timeout = forever};
    fuse_reply_entry(request, &absent);
}
static void forget(fuse_req_t request, fuse_ino_t inode, uint64_t count) {
    (void)inode, (void)count;
    fuse_reply_none(request);
}
static void get_attributes(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)file;
    fuse_reply_attr(request, find(inode), forever);
}
static void set_attributes(fuse_req_t request, fuse_ino_t inode, struct stat *to, int which, struct fuse_file_info *file) {
    (void)file;
    if (which & FUSE_SET_ATTR_MODE) find(inode)->st_mode = to->st_mode;
    if (which & FUSE_SET_ATTR_SIZE) find(inode)->st_size = to->st_size;
    fuse_reply_attr(request, find(inode), forever);
}
static void make_node(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t device) {
    (void)parent, (void)name, (void)device;
    make(request, mode);
}
static void make_directory(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    (void)parent, (void)name;
    make(request, S_IFDIR | mode);
}
static void make_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name) {
    (void)parent, (void)name, (void)target;
    make(request, S_IFLNK | 0777);
}
static void read_symlink(fuse_req_t request, fuse_ino_t inode) {
    (void)inode;
    fuse_reply_readlink(request, "a");
}
static void make_link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, const char *name) {
    (void)parent, (void)name;
    struct fuse_entry_param entry = {.ino = inode, .attr = *find(inode), .entry_timeout = forever, .attr_timeout = forever};
    entry.attr.st_nlink = 2;  // until the kernel removes one of the names
    fuse_reply_entry(request, &entry);
}
static void remove_name(fuse_req_t request, fuse_ino_t parent, const char *name) {
    (void)parent, (void)name;
    fuse_reply_err(request, 0);
}
static void rename_name(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *other, unsigned flags) {
    (void)parent, (void)name, (void)to, (void)other, (void)flags;
    fuse_reply_err(request, 0);
}
static void read_data(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file) {
    (void)file;
    off_t left = find(inode)->st_size - offset;
    fuse_reply_buf(request, zeros, left <= 0 ? 0 : (off_t)size < left ? size : (size_t)left);
}
static void write_data(fuse_req_t request, fuse_ino_t inode, const char *data, size_t size, off_t offset, struct fuse_file_info *file) {
    (void)file, (void)data;
    if (find(inode)->st_size < offset + (off_t)size) find(inode)->st_size = offset + (off_t)size;
    fuse_reply_write(request, size);
}
static void list(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file) {
    (void)inode, (void)size, (void)offset, (void)file;
    fuse_reply_buf(request, NULL, 0);
}
static void synchronize(fuse_req_t request, fuse_ino_t inode, int data_only, struct fuse_file_info *file) {
    (void)inode, (void)data_only, (void)file;
    fuse_reply_err(request, 0);
}

// Absent: open, opendir, flush, create, getxattr, whose ENOSYS the kernel remembers.
static const struct fuse_lowlevel_ops operations = {
    .init = agree, .lookup = lookup, .forget = forget, .getattr = get_attributes, .setattr = set_attributes, .mknod = make_node,
    .mkdir = make_directory, .symlink = make_symlink, .readlink = read_symlink, .link = make_link, .unlink = remove_name,
    .rmdir = remove_name, .rename = rename_name, .read = read_data, .write = write_data, .readdir = list, .fsync = synchronize,
};

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: empty DIRECTORY\n");
        return 1;
    }
    *find(FUSE_ROOT_ID) = (struct stat){.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0777, .st_nlink = 2};
    char *words[] = {argv[0], "-o", "fsname=empty,default_permissions,max_read=1048576"};
    struct fuse_args arguments = FUSE_ARGS_INIT(3, words);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (session == NULL || fuse_session_mount(session, argv[1]) != 0) return 1;
    int result = fuse_session_loop(session);
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return result != 0;
}
