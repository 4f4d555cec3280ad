// Records calls and messages for `fos trace` (fos/calltrace.h). Nothing of it runs in other programs.
#include "shim.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "../proxy/include/fos_proxy.h"

static struct fos_call_trace_header *file;
// The call that this thread is in, 0 for none, and whether it has sent messages. A handler's call within it puts it aside.
static __thread uint64_t call_start __attribute__((tls_model("initial-exec")));
static __thread uint32_t call_messages __attribute__((tls_model("initial-exec")));

void fos_trace_open(const char *path) {
    struct stat status;
    long fd = fos_system(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0, 0, 0);
    if (fd < 0) return;
    if (fos_system(SYS_fstat, fd, (long)&status, 0, 0, 0, 0) == 0 && S_ISREG(status.st_mode) && status.st_size >= (off_t)sizeof *file) {
        long at = fos_system(SYS_mmap, 0, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        struct fos_call_trace_header *header = (struct fos_call_trace_header *)at;
        uint64_t room = ((uint64_t)status.st_size - sizeof *file) / sizeof(struct fos_call_trace_entry);
        if (at > 0 && header->magic == FOS_CALL_TRACE_MAGIC && header->room <= room) {
            file = header;
            fos_options.tracing = 1;
        }
    }
    fos_system(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void record(const struct fos_call_trace_entry *entry) {
    uint64_t index = __atomic_fetch_add(&file->next, 1, __ATOMIC_RELAXED);
    if (index >= file->room) return;
    struct fos_call_trace_entry *to = (struct fos_call_trace_entry *)(file + 1) + index;
    *to = *entry;
    to->process = (uint32_t)fos_system(SYS_getpid, 0, 0, 0, 0, 0, 0);
    to->thread = (uint32_t)fos_system(SYS_gettid, 0, 0, 0, 0, 0, 0);
    __atomic_store_n(&to->complete, 1, __ATOMIC_RELEASE);
}

long fos_trace_call(struct fos_call *call) {
    uint64_t outer = call_start;
    uint32_t outer_messages = call_messages;
    struct fos_call_trace_entry entry = {.kind = FOS_TRACED_CALL, .number = (uint16_t)call->number, .start = fos_clock()};
    call_start = entry.start;
    call_messages = 0;
    long result = fos_calls_handle(call);
    entry.end = fos_clock();
    entry.result = result;
    // What passes without a message is no file of a mount.
    if (result != FOS_PASS || call_messages != 0) record(&entry);
    call_start = outer;
    call_messages = outer_messages;
    return result;
}

void fos_trace_message(const struct fos_client *client, int channel, uint16_t operation, uint64_t inode, int result) {
    struct fos_call_times times;
    fos_call_timing(client, channel, &times);
    call_messages++;
    record(&(struct fos_call_trace_entry){
        .kind = FOS_TRACED_MESSAGE, .number = operation, .start = call_start, .end = times.returned, .result = result, .inode = inode,
        .built = times.built, .sent = times.sent, .resolved = times.resolved, .posted = times.posted,
        .taken = times.taken, .begun = times.begun, .answered = times.answered, .replied = times.replied,
        .retries = times.retries, .parked = times.parked,
    });
}
