// Directories that nobody but this process changes: their other entries stay known over its own changes.
//
// Why: an entry is known as long as its directory's epoch is the one that it was learnt under, and every new name moves that. Who
// makes, renames and removes files beside others in one directory (a journal beside a database, objects of git, temporary files)
// would ask for all the others again after each step.
// Protocol: a reply to a change says from which epoch it took the directory to which (FOS_REPLY_CHANGED_FROM), and that nothing but
// the request's names changed between. Such steps that follow each other are one run: what was learnt under any of its epochs is
// true under its last one, but for the names that were changed, whose entries each step replaces.
// Invariants: entries are written, and runs made longer, by one call at a time (`fos_changes_begin`), so that a step's names are
// written before the run covers it, and an answer from before a step never replaces what the step has written (`fos_changes_passed`).
// Who does not get its turn writes nothing, and its step ends the run: a handler that interrupts a call, and a thread beside another.
#define _GNU_SOURCE
#include <fcntl.h>
#include "calls.h"
#include "sequence.h"

enum { RUNS = 64 };

static struct run {
    uint32_t sequence;  // odd while it is written
    uint32_t owner;     // fos_connection_tag
    uint64_t directory;
    uint32_t from, to;  // epochs
} runs[RUNS];
static uint32_t busy;

int fos_changes_begin(void) {
    // Another thread is at it for some 50 ns; a call that a handler has interrupted, for as long as the handler waits for it.
    for (int tries = 0; tries < 20; tries++) {
        if (fos_own_compare_exchange_u32(&busy, 0, 1)) return 1;
        fos_spin_pause();
    }
    return 0;
}
void fos_changes_end(void) { fos_store_release_u32(&busy, 0); }

// Another thread may have been in the middle of one; and this process is another client.
void fos_changes_after_fork(void) {
    busy = 0;
    for (int i = 0; i < RUNS; i++) runs[i] = (struct run){.sequence = 0};
}

static struct run *run_of(uint64_t directory) { return &runs[directory * UINT64_C(0x9e3779b97f4a7c15) >> 58]; }
static_assert(RUNS == 1 << 6, "the place of a directory is 6 bits of its hash");

static int is_of(const struct run *run, uint32_t owner, uint64_t directory) { return run->directory == directory && run->owner == owner; }

void fos_changes_add(uint32_t owner, uint64_t directory, uint32_t before, uint32_t after) {
    struct run *run = run_of(directory);
    // A step that comes to this late, after one that followed it.
    if (is_of(run, owner, directory) && (int32_t)(after - run->to) <= 0) return;
    int goes_on = is_of(run, owner, directory) && run->to == before;
    if (!fos_begin_write(&run->sequence)) return;
    if (!goes_on) {
        run->owner = owner;
        run->directory = directory;
        run->from = before;
    }
    run->to = after;
    fos_end_write(&run->sequence);
}

int fos_changes_passed(uint32_t owner, uint64_t directory, uint32_t epoch) {
    const struct run *run = run_of(directory);
    return is_of(run, owner, directory) && epoch != run->to && epoch - run->from <= run->to - run->from;
}

int fos_changes_cover(uint32_t owner, uint64_t directory, uint32_t known, uint32_t now) {
    const struct run *run = run_of(directory);
    uint32_t sequence = fos_begin_read(&run->sequence);
    int covers = is_of(run, owner, directory) && run->to == now && known - run->from <= now - run->from;
    return fos_end_read(&run->sequence, sequence) && covers;
}
