// A well-behaved client that works on files of its own and checks every result against a model in its memory.
//
// It makes the directory "public" (mode 1777) for the hostile ones, and works in "steady-SEED" (mode 0700). Whatever
// the others do, each of its calls must end soon and say what the model says.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client.h"

enum { FILES = 16, FILE_BYTES = 65536, TRANSFER_MAX = 16384 };
static const uint64_t PATIENCE_NS = UINT64_C(10) * 1000 * 1000 * 1000;

struct file {
    int exists;
    uint64_t inode;
    uint32_t size;
    uint8_t bytes[FILE_BYTES];
};
static struct file files[FILES];
static struct fos_client client;
static int channel;
static uint64_t home, longest;

// The last calls, printed with a violation.
static struct {
    const char *what;
    uint64_t inode, start;
    uint32_t sequence, retries, took_us;
    int status;
    char name[40];
} history[32];
static unsigned calls;

static void print_history(void) {
    for (unsigned i = calls < 32 ? 0 : calls - 32; i < calls; i++) {
        fprintf(stderr, "  %llu.%06u us %s inode %llu %s: status %d, sequence %u, retries %u\n",
            (unsigned long long)(history[i % 32].start / 1000), history[i % 32].took_us, history[i % 32].what,
            (unsigned long long)history[i % 32].inode, history[i % 32].name, history[i % 32].status, history[i % 32].sequence, history[i % 32].retries);
    }
}

static void note(const char *what, uint64_t start, uint64_t took, int status) {
    const struct fos_channel *shared = &client.channel[channel];
    struct fos_call_times times;
    fos_call_timing(&client, channel, &times);
    unsigned at = calls++ % 32;
    history[at].what = what;
    history[at].inode = shared->request.inode;
    history[at].start = start;
    history[at].took_us = (uint32_t)(took / 1000);
    history[at].sequence = shared->request.sequence;
    history[at].retries = times.retries;
    history[at].status = status;
    // The names in a payload follow its fixed fields: what is printable of it says enough.
    uint32_t length = 0;
    for (uint32_t i = 0; i < shared->request.length && length < sizeof history[at].name - 1; i++) {
        uint8_t byte = shared->request_payload[i];
        if (byte > ' ' && byte < 127) history[at].name[length++] = (char)byte;
    }
    history[at].name[length] = 0;
}

// Sends what was built; the reply's status, which must be `expected`.
static const struct fos_message *call(const char *what, int expected) {
    uint64_t start = clock_ns();
    int result = fos_post_owner(&client, channel);
    if (result == 0) {
        result = fos_wait(&client, channel, PATIENCE_NS);
        if (result == 1) result = fos_reply(&client, channel)->status;
    }
    uint64_t took = clock_ns() - start;
    if (took > longest) longest = took;
    note(what, start, took, result);
    if (result == -ENOTCONN) {
        fprintf(stderr, "fos-hostile steady: the instance is gone during %s\n", what);
        _exit(EXIT_GONE);
    }
    if (result != expected) violation("%s: status %d, expected %d", what, result, expected);
    return fos_reply(&client, channel);
}

static struct fos_attributes attributes_of(const struct fos_message *reply, const char *what) {
    struct fos_attributes attributes;
    if (reply->length < sizeof attributes) violation("%s: a reply of %u bytes", what, reply->length);
    memcpy(&attributes, fos_payload_const(reply), sizeof attributes);
    return attributes;
}

static uint32_t file_name(int index, char *name) { return (uint32_t)sprintf(name, "file-%d", index); }

// MKDIR or CREATE; the new inode.
static uint64_t make(uint16_t operation, uint64_t parent, const char *name, uint32_t mode, int expected) {
    uint32_t length = (uint32_t)strlen(name);
    struct fos_message *request = fos_request(&client, channel, operation, parent);
    struct fos_make_request body = {.mode = mode, .name_length = length, .open_flags = O_RDWR | O_CREAT | O_EXCL};
    memcpy(fos_payload(request), &body, sizeof body);
    memcpy((uint8_t *)fos_payload(request) + sizeof body, name, length);
    request->length = (uint32_t)(sizeof body + length);
    const struct fos_message *reply = call(operation == FOS_OP_MKDIR ? "mkdir" : "create", expected);
    return expected == 0 ? attributes_of(reply, name).inode : 0;
}

static struct fos_message *named(uint16_t operation, uint64_t parent, const char *name) {
    struct fos_message *request = fos_request(&client, channel, operation, parent);
    request->length = (uint32_t)strlen(name);
    memcpy(fos_payload(request), name, request->length);
    return request;
}

static void write_file(struct random *random, struct file *file) {
    uint32_t offset = (uint32_t)below(random, FILE_BYTES - TRANSFER_MAX), length = 1 + (uint32_t)below(random, TRANSFER_MAX);
    if (offset > file->size) memset(file->bytes + file->size, 0, offset - file->size);
    fill(random, file->bytes + offset, length);
    struct fos_message *request = fos_request(&client, channel, FOS_OP_WRITE, file->inode);
    struct fos_io_request body = {.offset = offset, .open_flags = O_RDWR};
    memcpy(fos_payload(request), &body, request->length = sizeof body);
    request->bulk_length = length;
    memcpy(fos_bulk(&client, channel), file->bytes + offset, length);
    const struct fos_message *reply = call("write", 0);
    if (reply->bulk_length != length) violation("write: %u of %u bytes", reply->bulk_length, length);
    if (offset + length > file->size) file->size = offset + length;
}

static void read_file(struct random *random, struct file *file) {
    uint32_t offset = (uint32_t)below(random, FILE_BYTES), length = 1 + (uint32_t)below(random, TRANSFER_MAX);
    struct fos_message *request = fos_request(&client, channel, FOS_OP_READ, file->inode);
    struct fos_io_request body = {.offset = offset, .open_flags = O_RDWR};
    memcpy(fos_payload(request), &body, request->length = sizeof body);
    request->bulk_length = length;
    const struct fos_message *reply = call("read", 0);
    uint32_t expected = offset >= file->size ? 0 : length < file->size - offset ? length : file->size - offset;
    if (reply->bulk_length != expected) violation("read at %u: %u bytes, expected %u", offset, reply->bulk_length, expected);
    if (memcmp(fos_bulk(&client, channel) + reply->bulk_offset, file->bytes + offset, expected) != 0) violation("read at %u: other bytes than were written", offset);
}

static void truncate_file(struct random *random, struct file *file) {
    uint32_t size = (uint32_t)below(random, FILE_BYTES);
    struct fos_message *request = fos_request(&client, channel, FOS_OP_SETATTR, file->inode);
    struct fos_setattr_request body = {.valid = FOS_SET_SIZE, .size = size};
    memcpy(fos_payload(request), &body, request->length = sizeof body);
    if (attributes_of(call("truncate", 0), "truncate").size != size) violation("truncate: another size");
    if (size > file->size) memset(file->bytes + file->size, 0, size - file->size);
    file->size = size;
}

static void rename_file(int from, int to) {
    char old_name[32], new_name[32];
    uint32_t old_length = file_name(from, old_name), new_length = file_name(to, new_name);
    struct fos_message *request = fos_request(&client, channel, FOS_OP_RENAME, home);
    struct fos_rename_request body = {.new_parent = home, .old_length = old_length, .new_length = new_length};
    uint8_t *payload = fos_payload(request);
    memcpy(payload, &body, sizeof body);
    memcpy(payload + sizeof body, old_name, old_length);
    memcpy(payload + sizeof body + old_length, new_name, new_length);
    request->length = (uint32_t)sizeof body + old_length + new_length;
    call("rename", files[from].exists ? 0 : -ENOENT);
    if (!files[from].exists || from == to) return;
    files[to] = files[from];
    files[from].exists = 0;
}

static void list(void) {
    struct fos_message *request = fos_request(&client, channel, FOS_OP_READDIR, home);
    struct fos_readdir_request body = {0};
    memcpy(fos_payload(request), &body, request->length = sizeof body);
    request->bulk_length = 65536;
    const struct fos_message *reply = call("readdir", 0);
    unsigned seen = 0;
    const uint8_t *at = fos_bulk(&client, channel) + reply->bulk_offset, *end = at + reply->bulk_length;
    while (at < end) {
        struct fos_directory_entry entry;
        if ((size_t)(end - at) < sizeof entry) violation("readdir: a torn record");
        memcpy(&entry, at, sizeof entry);
        if (entry.record_length < sizeof entry + entry.name_length || entry.record_length > (size_t)(end - at)) violation("readdir: a bad record length");
        char name[256] = "";
        memcpy(name, at + sizeof entry, entry.name_length < 255 ? entry.name_length : 255);
        at += entry.record_length;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        int index = -1;
        if (sscanf(name, "file-%d", &index) != 1 || index < 0 || index >= FILES || !files[index].exists) violation("readdir: a strange entry '%s'", name);
        if (entry.inode != files[index].inode) violation("readdir: '%s' has another inode", name);
        seen |= 1u << index;
    }
    for (int i = 0; i < FILES; i++) {
        if (files[i].exists && !(seen & 1u << i)) violation("readdir: file-%d is missing", i);
    }
}

static void step(struct random *random) {
    int index = (int)below(random, FILES);
    struct file *file = &files[index];
    char name[32];
    file_name(index, name);
    switch (below(random, 12)) {
    case 0: case 1: {
        uint64_t inode = make(FOS_OP_CREATE, home, name, S_IFREG | 0600, file->exists ? -EEXIST : 0);
        if (!file->exists) *file = (struct file){.exists = 1, .inode = inode};
        break;
    }
    case 2:
        named(FOS_OP_UNLINK, home, name);
        call("unlink", file->exists ? 0 : -ENOENT);
        file->exists = 0;
        break;
    case 3: rename_file(index, (int)below(random, FILES)); break;
    case 4: list(); break;
    case 5:
        named(FOS_OP_LOOKUP, home, name);
        if (!file->exists) {
            call("lookup", -ENOENT);
        } else {
            struct fos_attributes attributes = attributes_of(call("lookup", 0), "lookup");
            if (attributes.inode != file->inode || attributes.size != file->size) violation("lookup of '%s': another inode or size", name);
        }
        break;
    case 6: if (file->exists) truncate_file(random, file); break;
    case 7: case 8: case 9: if (file->exists) write_file(random, file); break;
    default: if (file->exists) read_file(random, file); break;
    }
}

int run_steady(struct random *random, uint64_t deadline) {
    at_violation = print_history;
    int result = fos_client_connect(&client, instance_uid, instance_name, 1, 0);
    if (result != 0) violation("connect: %d", result);
    channel = fos_channel_acquire(&client);
    named(FOS_OP_LOOKUP, FOS_ROOT_INODE, "public");
    if (fos_call(&client, channel) == -ENOENT) {
        uint64_t inode = make(FOS_OP_MKDIR, FOS_ROOT_INODE, "public", 0777, 0);
        struct fos_message *chmod = fos_request(&client, channel, FOS_OP_SETATTR, inode);
        struct fos_setattr_request body = {.valid = FOS_SET_MODE, .mode = 01777};
        memcpy(fos_payload(chmod), &body, chmod->length = sizeof body);
        call("chmod", 0);
    }
    char name[64];
    snprintf(name, sizeof name, "steady-%llu", (unsigned long long)run_seed);
    home = make(FOS_OP_MKDIR, FOS_ROOT_INODE, name, 0700, 0);
    uint64_t steps = 0, calls_start = clock_ns();
    while (clock_ns() < deadline) {
        step(random);
        steps++;
    }
    for (int i = 0; i < FILES; i++) {
        if (!files[i].exists) continue;
        file_name(i, name);
        named(FOS_OP_UNLINK, home, name);
        call("unlink", 0);
        files[i].exists = 0;
    }
    list();
    printf("steady: %llu steps, %.1f us each, longest %.1f ms\n", (unsigned long long)steps, (double)(clock_ns() - calls_start) / 1e3 / (double)(steps + 1), (double)longest / 1e6);
    fos_client_disconnect(&client);
    return EXIT_OK;
}
