// What the table maker needs of an ELF file: its text, its functions by the unwind tables, its build-id. Internal.
#ifndef FOS_SITES_ELF_H
#define FOS_SITES_ELF_H

#include <elf.h>
#include <stddef.h>
#include <stdint.h>

struct function {
    uint64_t start, end;
    int has_pads;      // exception handlers or cleanups may be entered from outside
    int signal_frame;  // returns from a signal handler
};

struct elf_file {
    const uint8_t *data;
    size_t bytes;
    const Elf64_Phdr *segment;
    int segments;
    uint64_t text, text_end;  // addresses of the executable segment
    const uint8_t *build_id;
    uint32_t build_id_length;
    struct function *function;  // ascending, not overlapping
    size_t functions;
};

// Maps and checks the file. 0 or a negative errno; elf_close in any case.
int elf_open(struct elf_file *file, const char *path);
// Fills `function` from the unwind tables.
int elf_functions(struct elf_file *file);
void elf_close(struct elf_file *file);
// The file's bytes at an address, NULL if fewer than `length` of them are in one segment.
const uint8_t *elf_at(const struct elf_file *file, uint64_t address, uint64_t length);

#endif
