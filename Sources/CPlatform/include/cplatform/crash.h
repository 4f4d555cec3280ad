// The report of a crash: which server ran on which core, and the last records of its trace ring.
//
// Protocol: each core thread describes itself once with fos_crash_enter_core; its run loop keeps `running` current.
// The handler runs on an alternate stack, uses write(2) alone, and raises the signal again with its default action,
// so the process ends (and the kernel aborts the mount) rather than hangs.
#ifndef FOS_CPLATFORM_CRASH_H
#define FOS_CPLATFORM_CRASH_H

#include <fos/statistics.h>
#include <stdint.h>

struct fos_crash_server {
    char name[32];                     // "file/1", NUL-terminated
    struct fos_trace_record *records;  // FOS_TRACE_RECORDS of them
    uint64_t *count;                   // records ever written
};
struct fos_crash_core {
    uint32_t core;
    uint32_t servers;
    const uint32_t *running;           // index into `server` of the one that runs
    struct fos_crash_server *server;
};

// Installs the handlers for SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE and SIGABRT. Once a process.
void fos_crash_install(void);
// The calling thread is this core from now on; gives it an alternate signal stack (`stack`, `stack_bytes`).
void fos_crash_enter_core(const struct fos_crash_core *core, void *stack, uint64_t stack_bytes);
// The calling thread is a core no longer.
void fos_crash_leave_core(void);
// Writes what the handler would write for the calling thread to a descriptor (used by the handler, and tests).
void fos_crash_report(int fd, int signal, const void *address);

#endif
