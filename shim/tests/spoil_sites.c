// spoil_sites FILE KIND: damages a table, for tests that it is then refused. The kinds that a checksum would find by itself are
// made whole again, so that the check behind it is what is tested.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fos/sites.h>

int main(int count, char **arguments) {
    if (count != 3) return 2;
    int fd = open(arguments[1], O_RDWR);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) return 2;
    size_t bytes = (size_t)status.st_size;
    struct fos_sites_header *table = malloc(bytes + 64);
    if (table == NULL || read(fd, table, bytes) != (ssize_t)bytes) return 2;
    struct fos_site *site = (struct fos_site *)(table + 1);
    const char *kind = arguments[2];
    int whole = 1;
    if (strcmp(kind, "magic") == 0) table->magic[0] ^= 1;
    else if (strcmp(kind, "version") == 0) table->version++;
    else if (strcmp(kind, "build-id") == 0) table->build_id[3] ^= 1;
    else if (strcmp(kind, "length") == 0) table->build_id_length = 255;
    else if (strcmp(kind, "count") == 0) table->count = UINT32_MAX / sizeof *site;
    else if (strcmp(kind, "bit") == 0) site[table->count / 2].bytes[1] ^= 4, whole = 0;
    else if (strcmp(kind, "last") == 0) ((uint8_t *)table)[bytes - 1] ^= 0x80, whole = 0;
    else if (strcmp(kind, "bytes") == 0) for (uint32_t i = 0; i < table->count; i++) site[i].bytes[0] ^= 1;
    else if (strcmp(kind, "one-site") == 0) {
        // The last site that is always redirected: all before it fit.
        for (uint32_t i = table->count; i-- > 0;) {
            if (site[i].number == FOS_SITE_NUMBER_UNKNOWN) {
                site[i].bytes[0] ^= 1;
                break;
            }
        }
    } else if (strcmp(kind, "outside") == 0) site[table->count - 1].window = 0x7fffff00;
    else if (strcmp(kind, "below") == 0) site[0].window = 16;
    else if (strcmp(kind, "order") == 0) site[1].window = site[0].window;
    else if (strcmp(kind, "kind") == 0) site[0].kind = 9;
    else if (strcmp(kind, "window") == 0) site[0].length = 200;
    else if (strcmp(kind, "short") == 0) bytes -= 8, whole = 0;
    else if (strcmp(kind, "long") == 0) memset((uint8_t *)table + bytes, 0, 8), bytes += 8, whole = 0;
    else if (strcmp(kind, "header") == 0) bytes = sizeof *table - 8, whole = 0;
    else if (strcmp(kind, "empty") == 0) bytes = 0, whole = 0;
    else return 2;
    if (whole && table->count <= FOS_SITES_COUNT_MAX) table->checksum = fos_sites_checksum(table + 1, (size_t)status.st_size - sizeof *table);
    return ftruncate(fd, 0) == 0 && pwrite(fd, table, bytes, 0) == (ssize_t)bytes ? 0 : 2;
}
