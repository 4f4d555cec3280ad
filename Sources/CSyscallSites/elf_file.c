// Reads an ELF file: segments, build-id, and function ranges from .eh_frame.
//
// Why the unwind tables: libc is stripped, so its symbol table lacks the local functions, but every function, also those
// written in assembly, has an entry in .eh_frame, or no thread could be cancelled in it. Disassembly that starts at these
// starts never meets data or padding by surprise.
// Invariant: nothing of the file is believed; each access goes through elf_at or `within`.
#include "elf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FUNCTIONS_MAX = 1 << 20 };

const uint8_t *elf_at(const struct elf_file *file, uint64_t address, uint64_t length) {
    for (int i = 0; i < file->segments; i++) {
        const Elf64_Phdr *segment = &file->segment[i];
        if (segment->p_type != PT_LOAD || address < segment->p_vaddr || address - segment->p_vaddr > segment->p_filesz) continue;
        uint64_t offset = address - segment->p_vaddr;
        if (length > segment->p_filesz - offset) return NULL;
        return file->data + segment->p_offset + offset;
    }
    return NULL;
}

static int find_build_id(struct elf_file *file, const Elf64_Phdr *notes) {
    const uint8_t *at = file->data + notes->p_offset, *end = at + notes->p_filesz;
    while ((size_t)(end - at) >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, at, sizeof note);
        at += sizeof note;
        uint64_t name = ((uint64_t)note.n_namesz + 3) & ~3ull, text = ((uint64_t)note.n_descsz + 3) & ~3ull;
        if (name + text > (uint64_t)(end - at)) return 0;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(at, "GNU", 4) == 0 && note.n_descsz > 0 &&
            note.n_descsz <= 32) {
            file->build_id = at + name;
            file->build_id_length = note.n_descsz;
            return 1;
        }
        at += name + text;
    }
    return 0;
}

int elf_open(struct elf_file *file, const char *path) {
    memset(file, 0, sizeof *file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < (off_t)sizeof(Elf64_Ehdr)) {
        close(fd);
        return -ENOEXEC;
    }
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int error = errno;
    close(fd);
    if (data == MAP_FAILED) return -error;
    file->data = data;
    file->bytes = (size_t)status.st_size;
    const Elf64_Ehdr *header = data;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
        header->e_machine != EM_X86_64 || header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff % 8 != 0 ||
        header->e_phoff > file->bytes || header->e_phnum > (file->bytes - header->e_phoff) / sizeof(Elf64_Phdr)) {
        return -ENOEXEC;
    }
    file->segment = (const Elf64_Phdr *)(file->data + header->e_phoff);
    file->segments = header->e_phnum;
    for (int i = 0; i < file->segments; i++) {
        const Elf64_Phdr *segment = &file->segment[i];
        if (segment->p_offset > file->bytes || segment->p_filesz > file->bytes - segment->p_offset) return -ENOEXEC;
    }
    for (int i = 0; i < file->segments; i++) {
        const Elf64_Phdr *segment = &file->segment[i];
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && file->text_end == 0) {
            file->text = segment->p_vaddr;
            file->text_end = segment->p_vaddr + segment->p_filesz;
        }
        if (segment->p_type == PT_NOTE && file->build_id == NULL) find_build_id(file, segment);
    }
    return 0;
}

void elf_close(struct elf_file *file) {
    if (file->data != NULL) munmap((void *)(uintptr_t)file->data, file->bytes);
    free(file->function);
    memset(file, 0, sizeof *file);
}

// ---- .eh_frame: DWARF's call frame information as the Linux Standard Base describes it ------------------------------

struct reader {
    const uint8_t *at, *end;
    int failed;
};

static int within(struct reader *reader, size_t length) {
    if ((size_t)(reader->end - reader->at) < length) reader->failed = 1;
    return !reader->failed;
}
static uint64_t take(struct reader *reader, int length) {
    uint64_t value = 0;
    if (!within(reader, (size_t)length)) return 0;
    memcpy(&value, reader->at, (size_t)length);
    reader->at += length;
    return value;
}
static uint64_t take_leb(struct reader *reader) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t byte = (uint8_t)take(reader, 1);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) break;
    }
    return value;
}

// The augmentation of a common information entry: how its pointers are written, and whether there are exception tables.
struct common {
    uint8_t pointer_encoding;
    int augmented, has_lsda, signal_frame;
};

static int read_common(struct reader reader, struct common *common) {
    memset(common, 0, sizeof *common);
    uint8_t version = (uint8_t)take(&reader, 1);
    const char *augmentation = (const char *)reader.at;
    size_t length = strnlen(augmentation, (size_t)(reader.end - reader.at));
    if (!within(&reader, length + 1) || (version != 1 && version != 3)) return 0;
    reader.at += length + 1;
    take_leb(&reader);
    take_leb(&reader);
    if (version == 1) take(&reader, 1);
    else take_leb(&reader);
    if (augmentation[0] != 'z') return augmentation[0] == 0 && !reader.failed;
    common->augmented = 1;
    take_leb(&reader);
    for (const char *letter = augmentation + 1; *letter != 0; letter++) {
        if (*letter == 'R') common->pointer_encoding = (uint8_t)take(&reader, 1);
        else if (*letter == 'L') common->has_lsda = (uint8_t)take(&reader, 1) != 0xff;
        else if (*letter == 'P') {
            uint8_t encoding = (uint8_t)take(&reader, 1);
            take(&reader, (encoding & 7) == 3 ? 4 : (encoding & 7) == 2 ? 2 : 8);
        } else if (*letter == 'S') common->signal_frame = 1;
        else if (*letter != 'B') return 0;
    }
    return !reader.failed;
}

// Only what compilers and glibc's assembly use: 4-byte addresses relative to where they are.
enum { PC_RELATIVE_32 = 0x1b };

static int compare_functions(const void *one, const void *other) {
    const struct function *a = one, *b = other;
    return a->start < b->start ? -1 : a->start > b->start;
}

int elf_functions(struct elf_file *file) {
    const Elf64_Phdr *header = NULL;
    for (int i = 0; i < file->segments; i++) {
        if (file->segment[i].p_type == PT_GNU_EH_FRAME) header = &file->segment[i];
    }
    const uint8_t *at = header == NULL ? NULL : elf_at(file, header->p_vaddr, 12);
    // Version 1, then how the address of .eh_frame is written.
    if (at == NULL || at[0] != 1 || at[1] != PC_RELATIVE_32) return -ENOEXEC;
    int32_t relative;
    memcpy(&relative, at + 4, 4);
    uint64_t address = header->p_vaddr + 4 + (uint64_t)(int64_t)relative;
    const uint8_t *frames = elf_at(file, address, 4), *segment_end = NULL;
    for (int i = 0; i < file->segments; i++) {
        const Elf64_Phdr *segment = &file->segment[i];
        if (segment->p_type == PT_LOAD && address >= segment->p_vaddr && address < segment->p_vaddr + segment->p_filesz) {
            segment_end = file->data + segment->p_offset + segment->p_filesz;
        }
    }
    if (frames == NULL || segment_end == NULL) return -ENOEXEC;
    struct reader all = {.at = frames, .end = segment_end};
    size_t room = 0;
    while (all.end - all.at >= 4) {
        uint64_t length = take(&all, 4);
        if (length == 0) break;
        if (length >= 0xfffffff0 || !within(&all, length)) return -ENOEXEC;
        struct reader entry = {.at = all.at, .end = all.at + length};
        const uint8_t *id_at = all.at;
        all.at += length;
        uint32_t id = (uint32_t)take(&entry, 4);
        if (id == 0) continue;
        if (id > (size_t)(id_at - frames)) return -ENOEXEC;
        struct reader parent = {.at = id_at - id, .end = segment_end};
        uint64_t parent_length = take(&parent, 4);
        if (!within(&parent, parent_length) || take(&parent, 4) != 0) return -ENOEXEC;
        parent.end = id_at - id + 4 + parent_length;
        struct common common;
        if (!read_common(parent, &common) || common.pointer_encoding != PC_RELATIVE_32) return -ENOEXEC;
        uint64_t here = address + (uint64_t)(entry.at - frames);
        uint64_t start = here + (uint64_t)(int64_t)(int32_t)take(&entry, 4);
        uint64_t size = (uint32_t)take(&entry, 4);
        int has_lsda = 0;
        if (common.augmented && take_leb(&entry) >= 4 && common.has_lsda) has_lsda = take(&entry, 4) != 0;
        // The return from a signal handler is described from one byte before it, so that unwinders that look one byte
        // before a return address find it.
        if (common.signal_frame && size > 1) start++, size--;
        if (entry.failed || size == 0 || start < file->text || start >= file->text_end || size > file->text_end - start) continue;
        if (file->functions == room) {
            room = room == 0 ? 4096 : room * 2;
            struct function *larger = room > FUNCTIONS_MAX ? NULL : realloc(file->function, room * sizeof *larger);
            if (larger == NULL) return -ENOMEM;
            file->function = larger;
        }
        file->function[file->functions++] = (struct function){start, start + size, has_lsda, common.signal_frame};
    }
    if (file->functions == 0) return -ENOEXEC;
    qsort(file->function, file->functions, sizeof *file->function, compare_functions);
    size_t kept = 1;
    for (size_t i = 1; i < file->functions; i++) {
        if (file->function[i].start < file->function[kept - 1].end) continue;
        file->function[kept++] = file->function[i];
    }
    file->functions = kept;
    return 0;
}
