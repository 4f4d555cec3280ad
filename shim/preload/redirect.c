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

static int near_enough(uintptr_t from, uintptr_t to) {
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

// The pages from the first to the last that is changed, as one range: what a mprotect costs is itself, not the pages that
// nobody has touched yet, so one over all of libc is cheaper than one for each group of sites.
enum { PAGE = 4096 };
struct range {
    uintptr_t start, end;
};

static void widen(struct range *range, uintptr_t from, uintptr_t to) {
    uintptr_t start = from & ~(uintptr_t)(PAGE - 1), end = (to + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    if (range->end == 0 || start < range->start) range->start = start;
    if (end > range->end) range->end = end;
}

static long protect(struct range range, int protection) {
    return fos_system(SYS_mprotect, (long)range.start, (long)(range.end - range.start), protection, 0, 0, 0);
}

// Makes the page private by a write that changes nothing: one fault, where reading first and writing then would be two.
static void own(uintptr_t address) { __asm__ __volatile__("lock orb $0, %0" : "+m"(*(uint8_t *)address) : : "memory", "cc"); }

static int fits(const struct fos_object *object, const struct fos_site *sites, uint32_t count) {
    uintptr_t owned = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!fos_site_hooked(&sites[i])) continue;
        uintptr_t window = object->base + sites[i].window;
        if (window / PAGE != owned) own(window), owned = window / PAGE;
        if (!fos_site_fits(object, &sites[i])) return 0;
    }
    return 1;
}

static void change(const struct fos_object *object, const struct fos_site *site) {
    uint8_t *window = (uint8_t *)(object->base + site->window);
    uintptr_t code = fill(fos_trampolines + SLOT * used++, site, (uintptr_t)window + site->length);
    if (site->kind != FOS_SITE_PAD) return jump(window, code);
    uint8_t *pad = (uint8_t *)(object->base + site->pad);
    jump(pad, code);
    window[0] = 0xeb;  // jmp, 8-bit distance
    window[1] = (uint8_t)(pad - (window + 2));
}

int fos_redirect(const struct fos_object *object, const struct fos_sites_header *table) {
    const struct fos_site *sites = (const struct fos_site *)(table + 1);
    uintptr_t slots = (uintptr_t)fos_trampolines, slots_end = slots + sizeof fos_trampolines;
    if (!near_enough(object->text, slots_end) || !near_enough(object->text_end, slots)) return -ERANGE;
    struct range text = {0, 0}, room = {0, 0};
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        if (!fos_site_hooked(&sites[i])) continue;
        wanted++;
        uintptr_t window = object->base + sites[i].window, pad = object->base + sites[i].pad;
        widen(&text, window, window + sites[i].length);
        if (sites[i].kind == FOS_SITE_PAD) widen(&text, pad, pad + sizeof sites[i].pad_bytes);
    }
    if (wanted == 0) return 0;
    if (wanted > SLOTS - used) return -E2BIG;
    widen(&room, slots + SLOT * used, slots + SLOT * (used + wanted));
    // The room begins as memory that may be written; only what the slots of an object before share with these is not any more.
    long error = used > 0 ? protect(room, PROT_READ | PROT_WRITE | PROT_EXEC) : 0;
    if (error == 0) error = protect(text, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (error == 0 && !fits(object, sites, table->count)) error = -EILSEQ;
    for (uint32_t i = 0; i < table->count && error == 0; i++) {
        if (fos_site_hooked(&sites[i])) change(object, &sites[i]);
    }
    protect(room, PROT_READ | PROT_EXEC);
    protect(text, PROT_READ | PROT_EXEC);
    return (int)error;
}
