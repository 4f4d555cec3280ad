// make_sites DIRECTORY [ELF-FILE...]: makes the tables of what this process has loaded and of these files, and lists them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "csyscallsites.h"

static const char *directory;
static int failed;

static void make(const char *path, void *context) {
    (void)context;
    struct fos_sites_header *table = NULL;
    size_t bytes = 0;
    int result = fos_sites_make(path, &table, &bytes);
    if (result == 0) result = fos_sites_store(directory, table, bytes);
    if (result != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(-result));
        failed = 1;
        return;
    }
    const struct fos_site *site = (const struct fos_site *)(table + 1);
    const struct fos_site_refused *refused = (const struct fos_site_refused *)(site + table->count);
    printf("%s: %u sites, %u left alone\n", path, table->count, table->refused);
    for (uint32_t i = 0; i < table->count; i++) {
        printf("site %x %s %d\n", site[i].window + site[i].length, site[i].kind == FOS_SITE_NEAR ? "near" : "pad",
               site[i].number == FOS_SITE_NUMBER_UNKNOWN ? -1 : site[i].number);
    }
    static const char *const reasons[] = {"", "returns from a signal handler", "jumped into", "no room"};
    for (uint32_t i = 0; i < table->refused; i++) printf("left %x %s\n", refused[i].address, reasons[refused[i].reason & 3]);
    free(table);
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    directory = arguments[1];
    if (fos_sites_loaded(make, NULL) < 1) failed = 1;
    for (int i = 2; i < count; i++) make(arguments[i], NULL);
    return failed;
}
