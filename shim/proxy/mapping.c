// Files that are read and overwritten in shared memory: taking the descriptor, and the client's side of the grant (fos/map.h).
//
// Invariants: a region is mapped only if it is sealed against any change of size, so that no access here can ever fault;
// bytes that were copied while the grant changed are never handed out as the file's.
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "proxy.h"

static void system_close(int fd) { fos_system(SYS_close, fd, 0, 0, 0, 0, 0); }

int fos_packet_receive(struct fos_client *client, struct fos_map_packet *packet, int *fd) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = packet, .iov_len = sizeof *packet};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long received;
    do {
        received = fos_system(SYS_recvmsg, client->socket, (long)&message, MSG_CMSG_CLOEXEC, 0, 0, 0);
    } while (received == -EINTR);
    if (received == -EAGAIN) return -ETIMEDOUT;
    if (received <= 0) return fos_lost(client);
    *fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
            if (*fd < 0) *fd = got;
            else system_close(got);
        }
    }
    if (received == (long)sizeof *packet && packet->magic == FOS_MAP_MAGIC && *fd >= 0) return 0;
    if (*fd >= 0) system_close(*fd);
    return -EPROTO;
}

int fos_map_receive(struct fos_client *client, const struct fos_map_reply *reply, struct fos_mapping *mapping) {
    *mapping = (struct fos_mapping){0};
    uint64_t bytes = reply->bytes;
    if (bytes == 0 || bytes % FOS_PAGE_BYTES != 0 || bytes > FOS_MAP_BYTES_MAX) return -EPROTO;
    struct fos_map_packet packet;
    int fd = -1, result;
    for (;;) {
        result = fos_packet_receive(client, &packet, &fd);
        if (result != 0) return result;
        if (packet.token == reply->token) break;
        system_close(fd);
    }
    struct stat status;
    long seals = fos_system(SYS_fcntl, fd, F_GET_SEALS, 0, 0, 0, 0);
    long address = -EPROTO;
    int writable = 0;
    if (seals >= 0 && (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW) &&
        fos_system(SYS_fstat, fd, (long)&status, 0, 0, 0, 0) == 0 && (uint64_t)status.st_size == bytes + FOS_PAGE_BYTES) {
        // All of it at once: the file is hot, and a fault for each page would cost more.
        writable = (fos_system(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0) & O_ACCMODE) == O_RDWR;
        address = fos_system(SYS_mmap, 0, (long)(bytes + FOS_PAGE_BYTES), writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    }
    system_close(fd);
    if (address < 0 && address > -4096) return (int)address;
    mapping->data = (const uint8_t *)address;
    mapping->bytes = bytes;
    mapping->writable = (uint32_t)writable;
    mapping->control = (const struct fos_map_control *)(mapping->data + bytes);
    return 0;
}

void fos_map_release(struct fos_mapping *mapping) {
    if (mapping->data != NULL) fos_system(SYS_munmap, (long)mapping->data, (long)(mapping->bytes + FOS_PAGE_BYTES), 0, 0, 0, 0);
    *mapping = (struct fos_mapping){0};
}

// General registers alone, and no call of a function that might be somebody else's.
static void copy_bytes(void *to, const void *from, uint64_t count) {
#if defined(__x86_64__)
    __asm__ __volatile__("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
#else
    memcpy(to, from, count);
#endif
}

long fos_map_read(const struct fos_mapping *mapping, uint64_t offset, void *buffer, uint64_t count, int64_t now) {
    const struct fos_map_control *control = mapping->control;
    if (control == NULL || fos_load_relaxed_u32(&control->ended) != 0) return -ESTALE;
    uint32_t grant = fos_load_acquire_u32(&control->grant);
    int is_due = __atomic_load_n(&control->read_until, __ATOMIC_RELAXED) <= now;
    if (grant == 0 || (is_due && !mapping->writable)) return -EAGAIN;
    uint64_t size = fos_load_relaxed_u64(&control->size);
    if (offset >= size) count = 0;
    else if (count > size - offset) count = size - offset;
    if (count > 0 && (offset >= mapping->bytes || count > mapping->bytes - offset)) return -EAGAIN;
    if (count > 0) copy_bytes(buffer, mapping->data + offset, count);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (fos_load_relaxed_u32(&control->grant) != grant) return -EAGAIN;
    if (is_due && count > 0) fos_store_relaxed_u64(&((struct fos_map_control *)control)->accessed, (uint64_t)now * 1000000000u);
    return (long)count;
}

long fos_map_write(const struct fos_mapping *mapping, uint64_t offset, const void *buffer, uint64_t count, uint64_t now) {
    if (mapping->control == NULL || fos_load_relaxed_u32(&mapping->control->ended) != 0) return -ESTALE;
    if (!mapping->writable) return -EAGAIN;
    struct fos_map_control *control = (struct fos_map_control *)mapping->control;
    uint32_t grant = fos_load_acquire_u32(&control->grant);
    if (grant == 0 || fos_load_relaxed_u32(&control->writing) == 0) return -EAGAIN;
    uint64_t size = fos_load_relaxed_u64(&control->size);
    if (size > mapping->bytes) size = mapping->bytes;
    if (offset >= size || count > size - offset) return -EAGAIN;
    copy_bytes((uint8_t *)mapping->data + offset, buffer, count);
    if (__atomic_load_n(&control->read_until, __ATOMIC_RELAXED) != 0) __atomic_store_n(&control->read_until, 0, __ATOMIC_RELAXED);
    if (fos_load_relaxed_u64(&control->written) != now) __atomic_store_n(&control->written, now, __ATOMIC_RELEASE);
    // The owner takes the grant away and then looks at the time: either it sees this one, or its taking is seen here.
    fos_fence();
    return fos_load_relaxed_u32(&control->grant) == grant && fos_load_relaxed_u32(&control->writing) != 0 ? (long)count : -EAGAIN;
}
