// The crash handler: async-signal-safe, write(2) alone.
#define _GNU_SOURCE
#include <cplatform/crash.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>

static __thread const struct fos_crash_core *current_core __attribute__((tls_model("initial-exec")));
static volatile sig_atomic_t reporting;

struct line {
    char text[160];
    size_t length;
};

static void put(struct line *line, const char *text) {
    size_t count = strlen(text), room = sizeof line->text - line->length;
    if (count > room) { count = room; }
    memcpy(line->text + line->length, text, count);
    line->length += count;
}

static void put_number(struct line *line, uint64_t value, unsigned base) {
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    put(line, digits + at);
}

static void flush(struct line *line, int fd) {
    put(line, "\n");
    if (line->length == sizeof line->text) { line->text[line->length - 1] = '\n'; }
    ssize_t written = write(fd, line->text, line->length);
    (void)written;
    line->length = 0;
}

static const char *signal_name(int signal) {
    switch (signal) {
    case SIGILL: return "SIGILL (a trap: a broken invariant)";
    case SIGTRAP: return "SIGTRAP (a trap: a broken invariant)";
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGABRT: return "SIGABRT";
    default: return "a signal";
    }
}

static const char *kind_name(unsigned kind) {
    static const char *const names[] = {"request", "response", "sent", "replied", "notice"};
    return kind < 5 ? names[kind] : "record";
}

void fos_crash_report(int fd, int signal, const void *address) {
    struct line line = {.length = 0};
    const struct fos_crash_core *core = current_core;
    put(&line, "fos: ");
    if (core == NULL) {
        put(&line, "a thread that is no core died of ");
        put(&line, signal_name(signal));
        put(&line, ", address 0x");
        put_number(&line, (uint64_t)(uintptr_t)address, 16);
        flush(&line, fd);
        return;
    }
    uint32_t index = *core->running;
    const struct fos_crash_server *server = index < core->servers ? &core->server[index] : NULL;
    put(&line, "server ");
    put(&line, server ? server->name : "microkernel");
    put(&line, " on core ");
    put_number(&line, core->core, 10);
    put(&line, " died of ");
    put(&line, signal_name(signal));
    put(&line, ", address 0x");
    put_number(&line, (uint64_t)(uintptr_t)address, 16);
    flush(&line, fd);
    if (server == NULL || server->records == NULL) { return; }
    uint64_t count = *server->count;
    uint64_t shown = count < 16 ? count : 16;
    put(&line, "fos: its last ");
    put_number(&line, shown, 10);
    put(&line, " of ");
    put_number(&line, count, 10);
    put(&line, " trace records (time ns, kind, operation, status, inode, client, detail):");
    flush(&line, fd);
    for (uint64_t i = count - shown; i < count; i++) {
        const struct fos_trace_record *record = &server->records[i % FOS_TRACE_RECORDS];
        put(&line, "fos:   ");
        put_number(&line, record->time, 10);
        put(&line, " ");
        put(&line, kind_name(record->kind));
        put(&line, " ");
        put_number(&line, record->operation, 10);
        put(&line, record->status < 0 ? " -" : " ");
        put_number(&line, record->status < 0 ? (uint64_t)(-(int64_t)record->status) : (uint64_t)record->status, 10);
        put(&line, " ");
        put_number(&line, record->inode, 10);
        put(&line, " ");
        put_number(&line, record->client, 10);
        put(&line, " ");
        put_number(&line, record->detail, 10);
        flush(&line, fd);
    }
}

static void handle(int signal, siginfo_t *info, void *context) {
    (void)context;
    if (!reporting) {  // a second core that dies meanwhile only dies
        reporting = 1;
        fos_crash_report(STDERR_FILENO, signal, info ? info->si_addr : NULL);
    }
    // SA_RESETHAND has put the default action back; returning repeats a synchronous fault, raise covers the others.
    raise(signal);
}

void fos_crash_install(void) {
    static const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++) { (void)sigaction(signals[i], &action, NULL); }
}

void fos_crash_enter_core(const struct fos_crash_core *core, void *stack, uint64_t stack_bytes) {
    current_core = core;
    if (stack != NULL) {
        stack_t alternate = {.ss_sp = stack, .ss_flags = 0, .ss_size = stack_bytes};
        (void)sigaltstack(&alternate, NULL);
    }
}

void fos_crash_leave_core(void) {
    current_core = NULL;
    stack_t off = {.ss_flags = SS_DISABLE};
    (void)sigaltstack(&off, NULL);
}
