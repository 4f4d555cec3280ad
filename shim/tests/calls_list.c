// The list of system calls in preload/calls_table.h, as text.
//
//   calls_list            the table of docs/shim-calls.md: every call about files, and what the shim does with it
//   calls_list others     the numbers and names of all others
//   calls_list missing    the numbers that the headers this was compiled with have and the list has not, one a line
//                         (read from `cpp -dM` on standard input); the exit status says whether there are any
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../preload/calls_numbers.h"

enum kind { MESSAGE, SPECIAL, KERNEL, ELSEWHERE, UNTOUCHED, NO_FILE };
static const char *const kinds[] = {"message", "kernel, with the shim's help", "kernel, through the mount", "process", "untouched", ""};

struct row {
    int number;
    const char *name;
    enum kind kind;
    const char *text;
};
#define FOS_MESSAGE(name, handler, text) {SYS_##name, #name, MESSAGE, text},
#define FOS_SPECIAL(name, handler, text) {SYS_##name, #name, SPECIAL, text},
#define FOS_KERNEL(name, fds, reason, text) {SYS_##name, #name, KERNEL, text},
#define FOS_ELSEWHERE(name, text) {SYS_##name, #name, ELSEWHERE, text},
#define FOS_UNTOUCHED(name, text) {SYS_##name, #name, UNTOUCHED, text},
#define FOS_NO_FILE(name) {SYS_##name, #name, NO_FILE, ""},
static const struct row rows[] = {
#include "../preload/calls_table.h"
};
enum { ROWS = sizeof rows / sizeof *rows };

static int missing(void) {
    char line[512], name[128];
    int number, found = 0, seen = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "#define __NR_%127s %d", name, &number) != 2) continue;
        seen++;
        int known = 0;
        for (int i = 0; i < ROWS; i++) known |= rows[i].number == number && strcmp(rows[i].name, name) == 0;
        if (known) continue;
        printf("%d %s\n", number, name);
        found++;
    }
    // Headers without any number are no headers.
    return found > 0 || seen < 300;
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "files";
    if (strcmp(what, "missing") == 0) return missing();
    if (strcmp(what, "others") == 0) {
        for (int i = 0; i < ROWS; i++) {
            if (rows[i].kind == NO_FILE) printf("%d %s\n", rows[i].number, rows[i].name);
        }
        return 0;
    }
    printf("| number | call | done by | how |\n|---|---|---|---|\n");
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].kind != NO_FILE) printf("| %d | `%s` | %s | %s |\n", rows[i].number, rows[i].name, kinds[rows[i].kind], rows[i].text);
    }
    return 0;
}
