// Changes the text: each site that somebody wants jumps to a slot of its own, which ends in fos_entry.
//
// A site whose number is known and wanted by nobody is not touched, so that it costs nothing and its page stays shared.
// Why bytes in place and not prepared pages mapped over the text: whatever else changed the text (a debugger's breakpoints,
// another preloaded library) survives, and nothing of the cache file is ever executed.
// Invariant: either all wanted sites of an object are redirected or none. The text is writable only while it is changed, and
// never without being executable too, so a system that forbids that says so before anything has happened.
#include "shim.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOT = 32, SLOT_CODE = 8, SLOTS = 1536 };  // as in entry.S

extern uint8_t fos_trampolines[SLOTS * SLOT] __attribute__((visibility("hidden")));
static uint32_t used;

static int near(uintptr_t from, uintptr_t to) {
    long distance = (long)to - (long)from;
    return distance >= INT32_MIN && distance <= INT32_MAX;
}

static void jump(uint8_t *at, uintptr_t to) {
    int32_t distance = (int32_t)((long)to - (long)((uintptr_t)at + 5));
    at[0] = 0xe9;
    memcpy(at + 1, &distance, sizeof distance);
}

// Fills a slot and returns where its code begins.
static uintptr_t fill(uint8_t *slot, const struct fos_site *site, uintptr_t call) {
    uint8_t *at = slot + SLOT_CODE;
    memcpy(slot, &call, sizeof call);
    memcpy(at, site->bytes, site->length);
    at += site->length;
    static const uint8_t lea_rcx[] = {0x48, 0x8d, 0x0d};  // lea distance(%rip), %rcx
    int32_t distance = (int32_t)((long)call - (long)((uintptr_t)at + 7));
    memcpy(at, lea_rcx, sizeof lea_rcx);
    memcpy(at + 3, &distance, sizeof distance);
    jump(at + 7, (uintptr_t)fos_entry);
    return (uintptr_t)slot + SLOT_CODE;
}

static long protect(uintptr_t start, uintptr_t end, int protection) {
    return fos_system(SYS_mprotect, (long)start, (long)(end - start), protection, 0, 0, 0);
}

int fos_redirect(const struct fos_object *object, const struct fos_sites_header *table) {
    const struct fos_site *sites = (const struct fos_site *)(table + 1);
    uintptr_t slots = (uintptr_t)fos_trampolines, slots_end = slots + sizeof fos_trampolines;
    if (!near(object->text, slots_end) || !near(object->text_end, slots)) return -ERANGE;
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < table->count; i++) wanted += (uint32_t)fos_site_hooked(&sites[i]);
    if (wanted > SLOTS - used) return -E2BIG;
    const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
    long error = protect(slots, slots_end, all);
    if (error == 0) error = protect(object->text, object->text_end, all);
    for (uint32_t i = 0; i < table->count && error == 0; i++) {
        const struct fos_site *site = &sites[i];
        if (!fos_site_hooked(site)) continue;
        uint8_t *window = (uint8_t *)(object->base + site->window);
        uintptr_t code = fill(fos_trampolines + SLOT * used++, site, (uintptr_t)window + site->length);
        if (site->kind == FOS_SITE_PAD) {
            uint8_t *pad = (uint8_t *)(object->base + site->pad);
            jump(pad, code);
            window[0] = 0xeb;
            window[1] = (uint8_t)(pad - (window + 2));
        } else {
            jump(window, code);
        }
    }
    protect(slots, slots_end, PROT_READ | PROT_EXEC);
    protect(object->text, object->text_end, PROT_READ | PROT_EXEC);
    return (int)error;
}
