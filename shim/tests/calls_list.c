// The list of system calls in preload/calls_table.h, as text.
//
//   calls_list            the table of docs/shim-calls.md: every call about files, and what the shim does with it
//   calls_list others     the numbers and names of all others
//   calls_list missing    the numbers that the headers this was compiled with have and the list has not, one a line
//                         (read from `cpp -dM` on standard input); the exit status says whether there are any
//   calls_list memory     the calls that preload/memory_calls.h and the list do not agree about; the exit status says whether
//                         there are any
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../preload/calls_numbers.h"

enum kind { MESSAGE, SPECIAL, KERNEL, ELSEWHERE, UNTOUCHED, MEMORY, NO_FILE };
static const char *const kinds[] = {"message", "kernel, with the shim's help", "kernel, through the mount", "process", "untouched", "memory", ""};

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
#define FOS_MEMORY(name, text) {SYS_##name, #name, MEMORY, text},
#define FOS_NO_FILE(name) {SYS_##name, #name, NO_FILE, ""},
static const struct row rows[] = {
#include "../preload/calls_table.h"
};
enum { ROWS = sizeof rows / sizeof *rows };

// The memory side's calls: each is a row of its kind, or another side's too.
static const char *const memory_calls[] = {
#define FOS_MEMORY_CALL(name, handler) #name,
#include "../preload/memory_calls.h"
};
static int memory(void) {
    int wrong = 0;
    for (int i = 0; i < ROWS; i++) {
        int seen = 0;
        for (size_t j = 0; j < sizeof memory_calls / sizeof *memory_calls; j++) seen |= strcmp(rows[i].name, memory_calls[j]) == 0;
        if ((rows[i].kind == MEMORY && !seen) || (seen && (rows[i].kind == UNTOUCHED || rows[i].kind == NO_FILE))) {
            printf("%d %s\n", rows[i].number, rows[i].name);
            wrong++;
        }
    }
    return wrong > 0;
}

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
    if (strcmp(what, "memory") == 0) return memory();
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
