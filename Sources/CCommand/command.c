// GNU extensions for the fos command. See include/ccommand.h.
#define _GNU_SOURCE
#include "ccommand.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PASSED = 3 };

pid_t fos_command_spawn(const char *path, char *const argv[], int output, int pass, int new_session) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid = 0;
    int first_closed = PASSED, error;
    if ((error = posix_spawn_file_actions_init(&actions)) != 0) return -error;
    if ((error = posix_spawnattr_init(&attributes)) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -error;
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    // A dup2 onto itself clears close-on-exec in posix_spawn, so equal numbers need no special case.
    if (output >= 0) {
        error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        if (!error) error = posix_spawn_file_actions_adddup2(&actions, output, 1);
        if (!error) error = posix_spawn_file_actions_adddup2(&actions, output, 2);
    }
    if (!error && pass >= 0) {
        error = posix_spawn_file_actions_adddup2(&actions, pass, PASSED);
        first_closed = PASSED + 1;
    }
    if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, first_closed);
    if (!error) error = posix_spawnattr_setsigmask(&attributes, &none);
    if (!error) error = posix_spawnattr_setsigdefault(&attributes, &all);
    if (!error) {
        short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
        if (new_session) flags |= POSIX_SPAWN_SETSID;
        error = posix_spawnattr_setflags(&attributes, flags);
    }
    if (!error) error = posix_spawn(&pid, path, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error ? -error : pid;
}

int fos_command_signal_with_parent(int signal, pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, signal) != 0) return -errno;
    return getppid() != parent;
}

const char *fos_command_error_name(int error) {
    const char *name = strerrorname_np(error);
    return name == NULL ? "" : name;
}

int fos_command_memory(const char *name, size_t bytes) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) return -errno;
    if (ftruncate(fd, (off_t)bytes) == 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

pid_t fos_command_listener(uid_t uid, const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "fos/%u/%s", (unsigned)uid, name);
    if (length < 0 || (size_t)length >= sizeof address.sun_path - 1) return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    pid_t result;
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) != 0) {
        result = -errno;
    } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        result = -errno;
    } else {
        result = peer.uid == uid || peer.uid == 0 ? peer.pid : -EACCES;
    }
    close(fd);
    return result;
}
