// Finds each `syscall` instruction and the window before it that can move to a trampoline.
//
// A window is a run of whole instructions that ends where the `syscall` begins. It may move if none of them depends on its
// place (no branch, no rip-relative operand) and nothing jumps to any but the first of them: the first becomes a jump, and
// what is between it and the `syscall` is overwritten or dead. The `syscall` stays: a call that is passed on is made there,
// so the program counter of a blocked call, which unwinding and debuggers look at, is the one it always was.
// Best is `mov $number, %eax` alone: five bytes, the size of the jump, nothing in between, and the number is known. Where
// less than five bytes can move, a 2-byte jump goes to padding between functions nearby, which has room for the 5-byte one.
//
// What may be jumped to: targets of direct branches, function starts, and the targets of jump tables, found as the tables
// that a `lea` of the same function refers to. Where that cannot be all (a function with exception tables, code between
// functions) only windows of one instruction are used.
#include "elf_file.h"
#include "csyscallsites.h"

#include <capstone/capstone.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { JUMP_NEAR = 5, JUMP_SHORT = 2, PAD = 5, SHORT_REACH = 127, TABLE_ENTRIES_MAX = 1024 };

enum { NO_REGISTER = 0xff, REGISTERS = 16 };

struct instruction {
    uint32_t address;
    uint8_t length;
    uint8_t movable, is_syscall, is_nop, ends_flow, is_call;
    // Where the number of a system call comes from: registers that are written, and for a move, from what.
    uint8_t moved_to, moved_from;  // general registers as the hardware numbers them, or NO_REGISTER
    uint16_t written;
    uint32_t value;                // moved_to gets it, if moved_from is NO_REGISTER
    uint32_t branch;               // where a direct jump goes, or 0
};

struct pad {
    uint32_t address, end;
};

struct finder {
    struct elf_file *file;
    csh engine;
    uint8_t *target;   // a bit for each byte of the text: something jumps here
    uint8_t *entered;  // of these: from outside the function, or by a table
    struct instruction *instruction;
    size_t instructions, room;
    struct pad *pad;
    size_t pads, pads_room;
    struct fos_site *site;
    struct fos_site_refused *refused;
    uint32_t sites, refusals;
    int error;
};

static void mark(struct finder *finder, uint64_t address, int from_outside) {
    if (address < finder->file->text || address >= finder->file->text_end) return;
    uint64_t offset = address - finder->file->text;
    finder->target[offset / 8] |= (uint8_t)(1u << (offset % 8));
    if (from_outside) finder->entered[offset / 8] |= (uint8_t)(1u << (offset % 8));
}
static int is_marked(const struct finder *finder, const uint8_t *bits, uint64_t address) {
    uint64_t offset = address - finder->file->text;
    return bits[offset / 8] >> (offset % 8) & 1;
}
static int is_target(const struct finder *finder, uint64_t address) { return is_marked(finder, finder->target, address); }

static void *grown(void *array, size_t count, size_t *room, size_t size) {
    if (count < *room) return array;
    *room = *room == 0 ? 4096 : *room * 2;
    return realloc(array, *room * size);
}

// Marks what a jump table at `table` can lead to: 32-bit distances from the table to places in the function.
static void mark_table(struct finder *finder, const struct function *function, uint64_t table) {
    for (int i = 0; i < TABLE_ENTRIES_MAX; i++) {
        const uint8_t *at = elf_at(finder->file, table + 4u * (unsigned)i, 4);
        int32_t distance;
        if (at == NULL) return;
        memcpy(&distance, at, 4);
        uint64_t address = table + (uint64_t)(int64_t)distance;
        if (address < function->start || address >= function->end) return;
        mark(finder, address, 1);
    }
}

// The hardware's number of a general register, whatever part of it is named.
static uint8_t register_number(csh engine, unsigned name) {
    static const char *const names[REGISTERS][4] = {
        {"rax", "eax", "ax", "al"}, {"rcx", "ecx", "cx", "cl"}, {"rdx", "edx", "dx", "dl"}, {"rbx", "ebx", "bx", "bl"},
        {"rsp", "esp", "sp", "spl"}, {"rbp", "ebp", "bp", "bpl"}, {"rsi", "esi", "si", "sil"}, {"rdi", "edi", "di", "dil"},
        {"r8", "r8d", "r8w", "r8b"}, {"r9", "r9d", "r9w", "r9b"}, {"r10", "r10d", "r10w", "r10b"}, {"r11", "r11d", "r11w", "r11b"},
        {"r12", "r12d", "r12w", "r12b"}, {"r13", "r13d", "r13w", "r13b"}, {"r14", "r14d", "r14w", "r14b"},
        {"r15", "r15d", "r15w", "r15b"},
    };
    const char *text = cs_reg_name(engine, name);
    for (uint8_t number = 0; text != NULL && number < REGISTERS; number++) {
        for (int form = 0; form < 4; form++) {
            if (strcmp(text, names[number][form]) == 0) return number;
        }
    }
    // ah and its kind are the first four again.
    if (text != NULL && text[1] == 'h' && text[2] == 0) return text[0] == 'a' ? 0 : text[0] == 'c' ? 1 : text[0] == 'd' ? 2 : 3;
    return NO_REGISTER;
}

// What an instruction does to registers, for the data flow below.
static void trace_registers(struct finder *finder, const cs_insn *from, struct instruction *to) {
    cs_regs read, written;
    uint8_t reads, writes;
    to->moved_to = to->moved_from = NO_REGISTER;
    to->written = UINT16_MAX;
    if (to->is_syscall) to->value = FOS_SITE_NUMBER_UNKNOWN;  // until find_numbers
    if (cs_regs_access(finder->engine, from, read, &reads, written, &writes) != CS_ERR_OK) return;
    to->written = 0;
    for (uint8_t i = 0; i < writes; i++) {
        uint8_t number = register_number(finder->engine, written[i]);
        if (number != NO_REGISTER) to->written |= (uint16_t)(1u << number);
    }
    const cs_x86_op *operand = from->detail->x86.operands;
    if (from->detail->x86.op_count != 2 || operand[0].type != X86_OP_REG || operand[0].size < 4) return;
    uint8_t target = register_number(finder->engine, operand[0].reg);
    if (from->id == X86_INS_XOR && operand[1].type == X86_OP_REG && operand[1].reg == operand[0].reg) {
        to->moved_to = target;
    } else if (from->id == X86_INS_MOV && operand[1].type == X86_OP_IMM) {
        to->moved_to = target;
        to->value = (uint32_t)operand[1].imm;
    } else if (from->id == X86_INS_MOV && operand[1].type == X86_OP_REG) {
        to->moved_to = target;
        to->moved_from = register_number(finder->engine, operand[1].reg);
    }
}

static void classify(struct finder *finder, const struct function *function, const cs_insn *from, struct instruction *to) {
    const cs_x86 *x86 = &from->detail->x86;
    *to = (struct instruction){.address = (uint32_t)from->address, .length = (uint8_t)from->size, .movable = 1};
    to->is_syscall = from->id == X86_INS_SYSCALL;
    to->is_nop = from->id == X86_INS_NOP;
    trace_registers(finder, from, to);
    for (int i = 0; i < from->detail->groups_count; i++) {
        uint8_t group = from->detail->groups[i];
        if (group == X86_GRP_JUMP || group == X86_GRP_CALL || group == X86_GRP_RET || group == X86_GRP_INT ||
            group == X86_GRP_IRET || group == X86_GRP_PRIVILEGE || group == X86_GRP_BRANCH_RELATIVE) {
            to->movable = 0;
        }
        if (group == X86_GRP_RET) to->ends_flow = 1;
        if (group == X86_GRP_CALL || (group == X86_GRP_INT && !to->is_syscall)) to->is_call = 1;
    }
    if (from->id == X86_INS_JMP || from->id == X86_INS_LJMP || from->id == X86_INS_HLT || from->id == X86_INS_UD2) to->ends_flow = 1;
    if (to->is_syscall || from->id == X86_INS_ENDBR64 || from->id == X86_INS_ENDBR32 || from->id == X86_INS_HLT ||
        from->id == X86_INS_UD2 || from->id == X86_INS_XBEGIN || from->id == X86_INS_XEND) {
        to->movable = 0;
    }
    for (int i = 0; i < x86->op_count; i++) {
        const cs_x86_op *operand = &x86->operands[i];
        if (operand->type == X86_OP_IMM && cs_insn_group(finder->engine, from, X86_GRP_BRANCH_RELATIVE)) {
            uint64_t goal = (uint64_t)operand->imm;
            int inside = goal >= function->start && goal < function->end && !to->is_call;
            mark(finder, goal, !inside);
            if (inside) to->branch = (uint32_t)goal;
        }
        if (operand->type == X86_OP_MEM && operand->mem.base == X86_REG_RIP) {
            to->movable = 0;
            if (from->id == X86_INS_LEA) mark_table(finder, function, from->address + from->size + (uint64_t)operand->mem.disp);
        }
        // The trampoline is reached with the stack as it was; windows that move it would puzzle unwinding inside it.
        if (operand->type == X86_OP_REG && (operand->reg == X86_REG_RSP || operand->reg == X86_REG_ESP) &&
            (operand->access & CS_AC_WRITE)) {
            to->movable = 0;
        }
    }
    if (from->id == X86_INS_PUSH || from->id == X86_INS_POP || from->id == X86_INS_LEAVE || from->id == X86_INS_ENTER ||
        from->id == X86_INS_PUSHFQ || from->id == X86_INS_POPFQ) {
        to->movable = 0;
    }
}

static void add_pad(struct finder *finder, uint64_t start, uint64_t end) {
    if (end - start < PAD) return;
    finder->pad = grown(finder->pad, finder->pads, &finder->pads_room, sizeof *finder->pad);
    if (finder->pad == NULL) finder->error = -ENOMEM;
    else finder->pad[finder->pads++] = (struct pad){(uint32_t)start, (uint32_t)end};
}

// Disassembles [start, end) into finder->instruction, from its current end on. Stops at what cannot be decoded.
static void sweep(struct finder *finder, const struct function *function, uint64_t start, uint64_t end) {
    const uint8_t *code = elf_at(finder->file, start, end - start);
    size_t left = end - start;
    uint64_t address = start;
    cs_insn *decoded = cs_malloc(finder->engine);
    if (code == NULL || decoded == NULL) {
        finder->error = code == NULL ? -ENOEXEC : -ENOMEM;
        return;
    }
    while (finder->error == 0 && left > 0 && cs_disasm_iter(finder->engine, &code, &left, &address, decoded)) {
        finder->instruction = grown(finder->instruction, finder->instructions, &finder->room, sizeof *finder->instruction);
        if (finder->instruction == NULL) finder->error = -ENOMEM;
        else classify(finder, function, decoded, &finder->instruction[finder->instructions++]);
    }
    cs_free(decoded, 1);
}

// Padding: what follows an instruction that does not go on, as long as it is nothing and no one's target.
static void find_pads(struct finder *finder) {
    for (size_t i = 1; i < finder->instructions; i++) {
        const struct instruction *before = &finder->instruction[i - 1], *first = &finder->instruction[i];
        if (!before->ends_flow || !first->is_nop || first->address != before->address + before->length) continue;
        uint64_t end = first->address;
        while (i < finder->instructions && finder->instruction[i].is_nop && finder->instruction[i].address == end &&
               !is_target(finder, end)) {
            end += finder->instruction[i++].length;
        }
        add_pad(finder, first->address, end);
    }
}

// The padding for a 2-byte jump at `from`, taken out of the list; 0 if none is in reach.
static uint32_t take_pad(struct finder *finder, uint32_t from) {
    for (size_t i = 0; i < finder->pads; i++) {
        struct pad *pad = &finder->pad[i];
        int64_t distance = (int64_t)pad->address - ((int64_t)from + JUMP_SHORT);
        if (pad->end - pad->address < PAD || distance < -SHORT_REACH || distance > SHORT_REACH) continue;
        uint32_t address = pad->address;
        pad->address += PAD;
        return address;
    }
    return 0;
}

static void refuse(struct finder *finder, uint32_t address, enum fos_site_refusal reason) {
    if (finder->refusals == FOS_SITES_COUNT_MAX) finder->error = -E2BIG;
    else finder->refused[finder->refusals++] = (struct fos_site_refused){address, reason};
}

// ---- the number of a system call, by data flow ------------------------------------------------------------------------
//
// Compilers put the number of a call that is made in a loop into a register before the loop. So the constants that registers
// hold are followed along all ways through the function: where two ways meet, a register keeps its constant if both agree.

// What is known before an instruction: the registers in `known` hold `value`, whatever way was taken.
struct constants {
    uint8_t reached;
    uint16_t known;
    uint32_t value[REGISTERS];
};
// Registers that a call of a function may change (the System V ABI).
enum { CALL_CHANGES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7 | 0xf << 8, FLOW_ROUNDS = 64 };

static int merge(struct constants *into, const struct constants *from) {
    if (!into->reached) {
        *into = *from;
        return 1;
    }
    uint16_t kept = into->known & from->known;
    for (int i = 0; i < REGISTERS; i++) {
        if ((kept >> i & 1) && into->value[i] != from->value[i]) kept &= (uint16_t)~(1u << i);
    }
    int changed = kept != into->known;
    into->known = kept;
    return changed;
}

static void apply(struct constants *state, const struct instruction *instruction) {
    uint8_t to = instruction->moved_to, from = instruction->moved_from;
    int known = to != NO_REGISTER && (from == NO_REGISTER || (state->known >> from & 1));
    uint32_t value = !known ? 0 : from == NO_REGISTER ? instruction->value : state->value[from];
    state->known &= (uint16_t)~instruction->written;
    if (instruction->is_call) state->known &= (uint16_t)~CALL_CHANGES;
    if (instruction->is_syscall) state->known &= (uint16_t)~(1 << 0 | 1 << 1 | 1 << 11);
    if (!known) return;
    state->known |= (uint16_t)(1u << to);
    state->value[to] = value;
}

static size_t find_instruction(const struct instruction *list, size_t count, uint32_t address) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle].address < address) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Fills states[0..count) for the instructions of one function. 0 if it did not come to rest.
static int follow(const struct finder *finder, const struct instruction *list, size_t count, struct constants *states) {
    const struct constants nothing = {.reached = 1};
    memset(states, 0, count * sizeof *states);
    for (int round = 0; round < FLOW_ROUNDS; round++) {
        int changed = 0;
        for (size_t i = 0; i < count; i++) {
            if (is_marked(finder, finder->entered, list[i].address)) changed |= merge(&states[i], &nothing);
            if (!states[i].reached) continue;
            struct constants after = states[i];
            apply(&after, &list[i]);
            if (!list[i].ends_flow && i + 1 < count) changed |= merge(&states[i + 1], &after);
            if (list[i].branch == 0) continue;
            size_t goal = find_instruction(list, count, list[i].branch);
            if (goal < count && list[goal].address == list[i].branch) changed |= merge(&states[goal], &after);
        }
        if (!changed) return 1;
    }
    return 0;
}

// Notes the numbers of the system calls of one function (indices [first, end) of the list).
static void find_numbers(struct finder *finder, const struct function *function, size_t first, size_t end) {
    while (first < end && finder->instruction[first].address < function->start) first++;
    struct instruction *list = finder->instruction + first;
    size_t count = end - first, calls = 0;
    for (size_t i = 0; i < count; i++) calls += list[i].is_syscall;
    if (calls == 0) return;
    struct constants *states = calloc(count, sizeof *states);
    if (states == NULL) {
        finder->error = -ENOMEM;
        return;
    }
    if (follow(finder, list, count, states)) {
        for (size_t i = 0; i < count; i++) {
            if (list[i].is_syscall && states[i].reached && (states[i].known & 1)) list[i].value = states[i].value[0];
        }
    }
    free(states);
}

// Straight back from a `syscall`, as long as nothing jumps in between: for functions whose ways are not all known.
static uint32_t number_straight(const struct finder *finder, size_t index) {
    for (size_t i = index; i-- > 0;) {
        const struct instruction *after = &finder->instruction[i + 1], *instruction = &finder->instruction[i];
        if (is_target(finder, after->address) || instruction->address + instruction->length != after->address) break;
        if (instruction->ends_flow || instruction->is_call || instruction->is_syscall) break;
        if ((instruction->written & 1) == 0) continue;
        if (instruction->moved_to == 0 && instruction->moved_from == NO_REGISTER) return instruction->value;
        break;
    }
    return FOS_SITE_NUMBER_UNKNOWN;
}

static void consider(struct finder *finder, size_t index, int one_only) {
    // One instruction: something may jump into the middle of several that the disassembly does not show.
    const struct instruction *call = &finder->instruction[index];
    uint32_t best = 0, length = 0, count = 0;
    int blocked = is_target(finder, call->address);
    // Backwards: the shortest window of five bytes, else the longest of fewer.
    for (size_t i = index; i-- > 0 && !blocked && length < JUMP_NEAR;) {
        const struct instruction *instruction = &finder->instruction[i];
        if (!instruction->movable || instruction->address + instruction->length != call->address - length) break;
        if (length + instruction->length > FOS_SITE_WINDOW_MAX || (one_only && count == 1)) break;
        length += instruction->length;
        count++;
        best = instruction->address;
        // Jumped to, it can be the first of a window, but not be inside one.
        if (is_target(finder, instruction->address)) blocked = 1;
    }
    if (length == 0) return refuse(finder, call->address, blocked ? FOS_REFUSED_TARGET : FOS_REFUSED_ROOM);
    const uint8_t *window = elf_at(finder->file, best, length + 2);
    struct fos_site site = {.window = best, .number = FOS_SITE_NUMBER_UNKNOWN, .kind = FOS_SITE_NEAR, .length = (uint8_t)length};
    memcpy(site.bytes, window, length + 2);
    uint32_t number = one_only ? number_straight(finder, index) : call->value;
    if (number < FOS_SITE_NUMBER_UNKNOWN) site.number = (uint16_t)number;
    if (length < JUMP_NEAR) {
        site.kind = FOS_SITE_PAD;
        site.pad = length < JUMP_SHORT ? 0 : take_pad(finder, best);
        if (site.pad == 0) return refuse(finder, call->address, blocked ? FOS_REFUSED_TARGET : FOS_REFUSED_ROOM);
        memcpy(site.pad_bytes, elf_at(finder->file, site.pad, PAD), PAD);
    }
    if (finder->sites == FOS_SITES_COUNT_MAX) finder->error = -E2BIG;
    else finder->site[finder->sites++] = site;
}


static void find(struct finder *finder) {
    const struct elf_file *file = finder->file;
    uint64_t after = file->text;
    // All first: a jump into a function may come from a later one. The instructions of libc take 4 MB.
    size_t *first = calloc(file->functions + 1, sizeof *first);
    if (first == NULL) {
        finder->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < file->functions && finder->error == 0; i++) {
        const struct function *function = &file->function[i];
        first[i] = finder->instructions;
        // What lies between functions: padding, and the end of clone, whose description stops where the stacks part.
        if (function->start > after) sweep(finder, &(struct function){after, function->start, 0, 0}, after, function->start);
        mark(finder, function->start, 1);
        sweep(finder, function, function->start, function->end);
        after = function->end;
    }
    if (finder->error == 0) find_pads(finder);
    first[file->functions] = finder->instructions;
    for (size_t i = 0; i < file->functions && finder->error == 0; i++) {
        if (!file->function[i].has_pads) find_numbers(finder, &file->function[i], first[i], first[i + 1]);
        for (size_t at = first[i]; at < first[i + 1]; at++) {
            if (!finder->instruction[at].is_syscall) continue;
            if (file->function[i].signal_frame) {
                refuse(finder, finder->instruction[at].address, FOS_REFUSED_RETURN);
                continue;
            }
            int outside = finder->instruction[at].address < file->function[i].start;
            consider(finder, at, outside || file->function[i].has_pads);
        }
    }
    free(first);
}

static int compare_sites(const void *one, const void *other) {
    const struct fos_site *a = one, *b = other;
    return a->window < b->window ? -1 : a->window > b->window;
}

static int pack(struct finder *finder, struct fos_sites_header **table, size_t *bytes) {
    size_t sites = finder->sites * sizeof *finder->site, refused = finder->refusals * sizeof *finder->refused;
    *bytes = sizeof **table + sites + refused;
    struct fos_sites_header *header = calloc(1, *bytes);
    if (header == NULL) return -ENOMEM;
    qsort(finder->site, finder->sites, sizeof *finder->site, compare_sites);
    memcpy(header->magic, FOS_SITES_MAGIC, sizeof header->magic);
    header->version = FOS_SITES_VERSION;
    header->bytes = (uint32_t)*bytes;
    header->count = finder->sites;
    header->refused = finder->refusals;
    header->build_id_length = finder->file->build_id_length;
    memcpy(header->build_id, finder->file->build_id, finder->file->build_id_length);
    memcpy(header + 1, finder->site, sites);
    memcpy((uint8_t *)(header + 1) + sites, finder->refused, refused);
    header->checksum = fos_sites_checksum(header + 1, sites + refused);
    *table = header;
    return 0;
}

int fos_sites_make(const char *path, struct fos_sites_header **table, size_t *bytes) {
    struct elf_file file;
    struct finder finder = {.file = &file};
    int result = elf_open(&file, path);
    if (result == 0 && file.text_end == 0) result = -ENOEXEC;
    if (result == 0 && (file.text_end > UINT32_MAX || file.build_id == NULL)) result = -ENODATA;
    if (result == 0) result = elf_functions(&file);
    if (result == 0 && cs_open(CS_ARCH_X86, CS_MODE_64, &finder.engine) != CS_ERR_OK) result = -ENOSYS;
    if (result == 0) {
        cs_option(finder.engine, CS_OPT_DETAIL, CS_OPT_ON);
        finder.target = calloc(1, (file.text_end - file.text) / 8 + 1);
        finder.entered = calloc(1, (file.text_end - file.text) / 8 + 1);
        finder.site = calloc(FOS_SITES_COUNT_MAX, sizeof *finder.site);
        finder.refused = calloc(FOS_SITES_COUNT_MAX, sizeof *finder.refused);
        if (finder.target == NULL || finder.entered == NULL || finder.site == NULL || finder.refused == NULL) finder.error = -ENOMEM;
        if (finder.error == 0) find(&finder);
        result = finder.error;
        if (result == 0) result = pack(&finder, table, bytes);
        cs_close(&finder.engine);
    }
    free(finder.target);
    free(finder.entered);
    free(finder.site);
    free(finder.refused);
    free(finder.instruction);
    free(finder.pad);
    elf_close(&file);
    return result;
}
