// What the files about mounts and connections share, and other handlers do not see.
//
//   mounts.c       the list, connecting, standing aside, the current directory
//   mount_table.c  what the kernel says is mounted
//   hidden.c       the shim's own descriptors
//   keep.c         a connection that goes on in the next program
#ifndef FOS_MOUNTS_H
#define FOS_MOUNTS_H

#include "calls.h"

#pragma GCC visibility push(hidden)

// One thread at a time changes the list, with signals put off until it unclaims. 0: this thread is at it already, or another one
// does not come out.
int fos_mounts_claim(void);
void fos_mounts_unclaim(void);
// 1: servers see this process as the kernel does. Fills fos_identity.
int fos_identity_is_plain(void);
// 1: the mount point as it is reached now is this very mount. Fills the device.
int fos_mount_verify(struct fos_mount *mount);
// The mount's client is connected: calls may use it.
void fos_mount_serve(struct fos_mount *mount);
// The list is what the table said when it had this hash (fos_mount_numbers).
void fos_mounts_are_known(uint64_t hash);
uint64_t fos_mounts_known_as(void);

// mount_table.c
struct fos_mount_line;
// A hash of the numbers of all mounts: another one when something was mounted or unmounted.
uint64_t fos_mount_numbers(void);
// Calls `each` for every whole fos mount with nothing mounted inside, of those that fos_mount_numbers found. 0: the kernel
// does not tell; the table must be read.
int fos_each_listed_mount(void (*each)(void *context, const struct fos_mount_line *mount), void *context);

// Takes what an earlier program has told of this list, if that is what the word is. 1: it is, and nobody else is to see it.
int fos_mounts_told(const char *word);

// hidden.c
enum { FOS_OF_CONNECTION = 3 };  // descriptors of a connection: its socket, segment and board
int *fos_client_descriptor(struct fos_mount *mount, int which);
void fos_hide_connection(struct fos_mount *mount);
void fos_close_connection(struct fos_mount *mount);
int fos_connection_is_open(const struct fos_mount *mount);
// The mount's client has descriptors that are hidden already.
void fos_note_hidden(struct fos_mount *mount);

// The descriptors of a connection that is kept (keep.c), where they are and as they are. They may be moved until they are taken back.
void fos_hide_kept(const int *descriptors);
void fos_unhide_kept(int *descriptors);

// keep.c
extern int fos_kept_here;  // 1: fos_resume_kept is due
void fos_resume_kept(void);

#pragma GCC visibility pop

#endif
