// The start of the shim: reads the environment, finds libc in memory, redirects it.
//
// Role: the library's only constructor. It runs before all others (DF_1_INITFIRST), so that nothing has threads yet and other
// libraries' constructors are served already. Nothing else happens until a call touches a mount.
// Rule: whatever is missing or wrong, the program runs as without the shim; FOS_VERBOSE=1 says why in one line.
//
// Environment: FOS_VERBOSE=1, FOS_STRICT=1, FOS_NO_CACHE=1, FOS_MOUNT=DIR, FOS_STATS=FILE, FOS_TRACE=FILE, FOS_MEMORY=BYTES; the
// tables are in FOS_CACHE, or XDG_CACHE_HOME/fos, or HOME/.cache/fos.
#define _GNU_SOURCE
#include "shim.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { OBJECTS = 4, DIRECTORY_ROOM = 2048, PAGE = 4096 };

struct fos_options fos_options;

struct start {
    struct fos_object object[OBJECTS];
    int objects;
};

static const char *value(char *const *environment, const char *name) {
    size_t length = strlen(name);
    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') return *environment + length + 1;
    }
    return NULL;
}
static int is_on(char *const *environment, const char *name) {
    const char *text = value(environment, name);
    return text != NULL && strcmp(text, "1") == 0;
}

// Digits as a number; anything else is 0.
static uint64_t bytes_of(const char *digits) {
    uint64_t bytes = 0;
    for (; *digits >= '0' && *digits <= '9' && bytes < UINT64_C(1) << 50; digits++) bytes = bytes * 10 + (uint64_t)(*digits - '0');
    return *digits == 0 ? bytes : 0;
}

// Where the tables are. 0 if the environment does not say.
static int cache_directory(char *const *environment, char *path) {
    static const struct { const char *variable, *below; } places[] = {
        {"FOS_CACHE", ""}, {"XDG_CACHE_HOME", "/fos"}, {"HOME", "/.cache/fos"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *start = value(environment, places[i].variable);
        if (start == NULL || start[0] != '/') continue;
        size_t length = strlen(start), more = strlen(places[i].below) + 1;
        if (length + more > DIRECTORY_ROOM) return 0;
        memcpy(path, start, length);
        memcpy(path + length, places[i].below, more);
        return 1;
    }
    return 0;
}

static void find_build_id(struct fos_object *object, const uint8_t *at, const uint8_t *end) {
    while ((size_t)(end - at) >= sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *note = (const void *)at;
        const uint8_t *name = at + sizeof *note, *text = name + ((note->n_namesz + 3u) & ~3u);
        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(name, "GNU", 4) == 0 &&
            note->n_descsz <= FOS_SITES_BUILD_ID_MAX) {
            object->build_id = text;
            object->build_id_length = note->n_descsz;
            return;
        }
        at = text + ((note->n_descsz + 3u) & ~3u);
    }
}

static int visit(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    struct start *start = context;
    if (start->objects == OBJECTS || !fos_sites_library(info->dlpi_name)) return 0;
    struct fos_object *object = &start->object[start->objects];
    *object = (struct fos_object){.path = info->dlpi_name, .base = info->dlpi_addr};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && object->text_end == 0) {
            object->text = at & ~(uintptr_t)(PAGE - 1);
            object->text_end = (at + segment->p_memsz + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
        }
        if (segment->p_type == PT_NOTE && object->build_id == NULL) {
            find_build_id(object, (const uint8_t *)at, (const uint8_t *)at + segment->p_memsz);
        }
    }
    // A page of text is the empty shell that libpthread is since glibc 2.34.
    if (object->text_end - object->text > PAGE) start->objects++;
    return 0;
}

// Maps the file of figures, if one was asked for and it is one.
static void open_tally(const char *path) {
    struct stat status;
    long fd = fos_system(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0, 0, 0);
    if (fd < 0) return;
    if (fos_system(SYS_fstat, fd, (long)&status, 0, 0, 0, 0) == 0 && S_ISREG(status.st_mode) &&
        status.st_size == (off_t)sizeof(struct fos_tally)) {
        long at = fos_system(SYS_mmap, 0, sizeof(struct fos_tally), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        struct fos_tally *tally = (struct fos_tally *)at;
        if (at > 0 && tally->magic == FOS_TALLY_MAGIC && tally->bytes == sizeof *tally) {
            fos_tally = tally;
            fos_options.counting = 1;
            fos_tally_add(&tally->processes, 1);
        }
    }
    fos_system(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void stand_aside(const char *what, const char *why) {
    if (fos_options.counting) fos_tally_add(&fos_tally->aside, 1);
    if (fos_options.verbose) fos_say("standing aside: ", what, ": ", why, NULL);
}

// One object that stays as it is does not keep the others from being redirected; the first is the one that is reported. How many were.
static int redirect_all(const struct start *start, const char *directory) {
    int redirected = 0;
    const char *what = start->objects == 0 ? "libc" : NULL, *why = "is not in this process";
    for (int i = 0; i < start->objects; i++) {
        const struct fos_object *object = &start->object[i];
        const char *reason;
        const struct fos_sites_header *table = fos_sites_load(object, directory, &reason);
        if (table != NULL) {
            int error = fos_redirect(object, table);
            fos_sites_unload(table);
            redirected += error == 0;
            if (error == 0) continue;
            reason = error == -EILSEQ ? "its table does not fit what is in memory" : "its text cannot be changed";
        }
        if (what == NULL) what = object->path, why = reason;
    }
    if (what != NULL) stand_aside(what, why);
    return redirected;
}

__attribute__((constructor)) static void begin(int count, char **arguments, char **environment) {
    (void)count, (void)arguments;
    // The loader drops preloaded libraries in setuid programs; should one get here by way of a trusted directory, leave it.
    if (environment == NULL || getauxval(AT_SECURE) != 0) return;
    fos_options.verbose = is_on(environment, "FOS_VERBOSE");
    fos_options.strict = is_on(environment, "FOS_STRICT");
    fos_options.no_cache = is_on(environment, "FOS_NO_CACHE");
    fos_options.mount = value(environment, "FOS_MOUNT");
    const char *figures = value(environment, "FOS_STATS");
    if (figures != NULL && figures[0] == '/') open_tally(figures);

    const char *trace = value(environment, "FOS_TRACE");
    if (trace != NULL && trace[0] == '/') fos_trace_open(trace);

    struct start start = {.objects = 0};
    char directory[DIRECTORY_ROOM];
    if (fos_calls_start(environment) != 0) return stand_aside("files", "cannot be served");
    if (!cache_directory(environment, directory)) {
        stand_aside("tables", "neither FOS_CACHE nor XDG_CACHE_HOME nor HOME is set");
        return fos_calls_stand_aside();
    }
    dl_iterate_phdr(visit, &start);
    for (int i = 0; i < FOS_SYSTEM_CALLS; i++) fos_hooks[i] = fos_calls_wanted[i] ? FOS_HOOK_CALLS : FOS_HOOK_NONE;
    fos_process_hooks(fos_hooks);
    const char *memory = value(environment, "FOS_MEMORY");
    if (memory != NULL) fos_memory_start(bytes_of(memory));
    if (redirect_all(&start, directory) == 0) fos_calls_stand_aside();
}
