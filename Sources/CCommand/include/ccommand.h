// What the fos command needs from Linux that Swift's Glibc module does not show: GNU extensions of posix_spawn,
// SO_PEERCRED, memfd_create, and prctl.
//
// Protocol: every function returns 0 or a useful non-negative value, or a negative errno.
#ifndef FOS_CCOMMAND_H
#define FOS_CCOMMAND_H

#include <sys/types.h>

// Starts `path` with `argv` and this process's environment: standard input from /dev/null, standard output and error
// to `output` (-1: inherited, and then standard input is too), descriptor `pass` (-1: none) as descriptor 3, no other
// descriptor, all signals unblocked and at their defaults, its own session if `new_session`. Returns the process id.
pid_t fos_command_spawn(const char *path, char *const argv[], int output, int pass, int new_session);

// Asks for `signal` when the parent process ends. Returns 1 if the parent is no longer `parent`, else 0.
int fos_command_signal_with_parent(int signal, pid_t parent);

// "ENOENT" for the error 2; an empty text for a number that is none.
const char *fos_command_error_name(int error);

// A descriptor of `bytes` bytes of zeroed memory (memfd_create(2)), closed on exec.
int fos_command_memory(const char *name, size_t bytes);

// The process that listens at the abstract address of instance `name` of user `uid` (fos/handshake.h), from
// SO_PEERCRED. -ECONNREFUSED: nobody listens there. -EACCES: somebody does who is neither `uid` nor root.
pid_t fos_command_listener(uid_t uid, const char *name);

#endif
