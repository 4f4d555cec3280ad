// The figures of `fos run --stats`, the end that `--strict` makes, and the one way to say something.
#include "shim.h"

#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>

static struct fos_tally unasked FOS_LARGE;
struct fos_tally *fos_tally = &unasked;

void fos_say(const char *part, ...) {
    struct iovec parts[16];
    int count = 0;
    va_list more;
    parts[count++] = (struct iovec){(void *)(uintptr_t) "fos: ", 5};
    va_start(more, part);
    for (; part != NULL && count < 15; part = va_arg(more, const char *)) {
        parts[count++] = (struct iovec){(void *)(uintptr_t)part, strlen(part)};
    }
    va_end(more);
    parts[count++] = (struct iovec){(void *)(uintptr_t) "\n", 1};
    fos_system(SYS_writev, 2, (long)parts, count, 0, 0, 0);
}

static const char *decimal(long number, char *end) {
    *--end = 0;
    do *--end = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return end;
}

void fos_bypass(enum fos_bypass reason, long number) {
    if (fos_options.counting) {
        fos_tally_add(&fos_tally->reason[(unsigned)reason < FOS_BYPASS_REASONS ? reason : FOS_BYPASS_NONE], 1);
        if (number >= 0 && number < FOS_SYSTEM_CALLS) fos_tally_add(&fos_tally->bypassed[number], 1);
    }
    if (!fos_options.strict) return;
    char text[24];
    fos_say("strict: system call ", decimal(number < 0 ? 0 : number, text + sizeof text),
            " on a mount goes to the kernel: ", fos_bypass_text(reason), NULL);
    fos_system(SYS_exit_group, FOS_STRICT_STATUS, 0, 0, 0, 0, 0);
}
