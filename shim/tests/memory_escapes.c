// Memory that outlives its mapping: what the kernel still reads or writes after a program has unmapped, overwritten or
// forked. Served frames must not be given back, or to anybody else, while it does.
//
// Role: `memory_escapes NAME` does one such thing and prints what it saw. The integration tests run it plainly and under
// `fos run --memory`, and compare. Beside it, other served programs spoil every frame that comes free.
// Each case fills memory, hands it to the kernel, lets go of the mapping, makes the process use new memory, and looks at
// what arrives. "not here" with status 77: this kernel refuses the call.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 4 << 20, PIPE_BYTES = 64 << 10 };

static void fail(const char *what) {
    fprintf(stderr, "memory_escapes: %s: %s\n", what, strerror(errno));
    exit(1);
}
static void not_here(const char *what) {
    printf("not here: %s\n", what);
    exit(77);
}

static unsigned char *fresh(unsigned char fill) {
    unsigned char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    for (int i = 0; i < BYTES; i++)
        if (memory[i]) {
            printf("byte %d of new memory is not zero\n", i);
            exit(1);
        }
    if (fill) memset(memory, fill, BYTES);
    return memory;
}

// Uses memory, as much as was let go of and more, so that frames which came free too early are written to.
static void use_memory(void) {
    for (int round = 0; round < 8; round++) {
        unsigned char *memory = fresh(0xee);
        if (munmap(memory, BYTES)) fail("munmap");
    }
    usleep(20000);
    unsigned char *memory = fresh(0xdd);
    munmap(memory, BYTES);
}

static void report(const char *what, const unsigned char *bytes, size_t count) {
    size_t same = 1;
    while (same < count && bytes[same] == bytes[0]) same++;
    printf("%s: %zu bytes, the first %zu are %02x\n", what, count, same, bytes[0]);
}

static void read_all(int descriptor, unsigned char *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t got = read(descriptor, bytes + done, count - done);
        if (got <= 0) fail("read");
        done += (size_t)got;
    }
}

// Pages in a pipe, which vmsplice puts there without copying.
static void pipe_pages(unsigned flags) {
    int ends[2];
    if (pipe(ends)) fail("pipe");
    unsigned char *first = fresh(0x11); // Served before the call is seen.
    unsigned char *memory = fresh(0x22);
    struct iovec vector = {memory, PIPE_BYTES};
    ssize_t moved = vmsplice(ends[1], &vector, 1, flags);
    if (moved != PIPE_BYTES) fail("vmsplice");
    if (munmap(memory, BYTES)) fail("munmap");
    use_memory();
    static unsigned char out[PIPE_BYTES];
    read_all(ends[0], out, sizeof out);
    report("pipe", out, sizeof out);
    report("other", first, BYTES);
}
static void vmsplice_kept(void) { pipe_pages(0); }
static void vmsplice_gift(void) { pipe_pages(SPLICE_F_GIFT); }

// Bytes that a socket sends from the program's own pages.
static void zero_copy(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (void *)&address, sizeof address) || listen(listener, 1)) fail("listen");
    if (getsockname(listener, (void *)&address, &length)) fail("getsockname");
    int client = socket(AF_INET, SOCK_STREAM, 0);
    unsigned char *memory = fresh(0x33);
    if (setsockopt(client, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one)) not_here("SO_ZEROCOPY");
    if (connect(client, (void *)&address, sizeof address)) fail("connect");
    int server = accept(listener, NULL, NULL);
    if (server < 0) fail("accept");
    ssize_t sent = send(client, memory, PIPE_BYTES, MSG_ZEROCOPY);
    if (sent < 0) fail("send");
    munmap(memory, BYTES);
    use_memory();
    static unsigned char out[PIPE_BYTES];
    read_all(server, out, (size_t)sent);
    report("socket", out, (size_t)sent);
}

static int data_file(void) {
    char name[] = "/tmp/memory_escapes.XXXXXX";
    int file = mkstemp(name);
    if (file < 0) fail("mkstemp");
    unlink(name);
    unsigned char *memory = fresh(0x44);
    if (pwrite(file, memory, PIPE_BYTES, 0) != PIPE_BYTES) fail("pwrite");
    munmap(memory, BYTES);
    return file;
}

// A read by Linux's asynchronous I/O into memory that was served before.
static void linux_aio(void) {
    int file = data_file();
    unsigned char *memory = fresh(0x55);
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 8, &context)) not_here("io_setup");
    struct iocb block = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (unsigned)file, .aio_buf = (uintptr_t)memory,
                         .aio_nbytes = PIPE_BYTES};
    struct iocb *blocks[] = {&block};
    if (syscall(SYS_io_submit, context, 1, blocks) != 1) fail("io_submit");
    struct io_event event;
    if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1) fail("io_getevents");
    report("read", memory, PIPE_BYTES);
    report("beyond", memory + PIPE_BYTES, BYTES - PIPE_BYTES);
    syscall(SYS_io_destroy, context);
}

// A buffer that io_uring has registered stays the process's memory, unmapped or not: what is written to it by a later read
// must not reach anybody else.
static void uring(void) {
    int file = data_file();
    unsigned char *memory = fresh(0x66);
    struct io_uring_params parameters = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    if (ring < 0) not_here("io_uring_setup");
    struct iovec vector = {memory, PIPE_BYTES};
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &vector, 1)) not_here("io_uring_register");
    unsigned char *queue = mmap(NULL, parameters.sq_off.array + parameters.sq_entries * 4u, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries = mmap(NULL, parameters.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (queue == MAP_FAILED || entries == MAP_FAILED) fail("mmap of the ring");
    unsigned *places = (unsigned *)(queue + parameters.sq_off.array), *tail = (unsigned *)(queue + parameters.sq_off.tail);
    places[0] = places[1] = 0;
    entries[0] = (struct io_uring_sqe){.opcode = IORING_OP_READ_FIXED, .fd = file, .addr = (uintptr_t)memory, .len = PIPE_BYTES};
    __atomic_store_n(tail, 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) fail("io_uring_enter");
    report("read", memory, PIPE_BYTES);
    report("beyond", memory + PIPE_BYTES, BYTES - PIPE_BYTES);
    // The registered pages are written to once more, when the mapping is long gone.
    munmap(memory, BYTES);
    use_memory();
    __atomic_store_n(tail, 2, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 2, IORING_ENTER_GETEVENTS, NULL, 0) != 1) fail("io_uring_enter");
    use_memory();
    close(ring);
    use_memory();
    puts("new memory is zeros");
}

static int faults;
static volatile int handled;
static void *handle_faults(void *page) {
    struct uffd_msg message;
    while (read(faults, &message, sizeof message) == sizeof message) {
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(uint64_t)4095, .src = (uintptr_t)page, .len = 4096};
        handled++;
        if (ioctl(faults, UFFDIO_COPY, &copy)) fail("UFFDIO_COPY");
    }
    return NULL;
}
// A program that handles its own faults must get them: new memory is not there before it is touched.
static void own_faults(void) {
    unsigned char *before = fresh(0x77);
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (faults < 0) not_here("userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    if (ioctl(faults, UFFDIO_API, &api)) fail("UFFDIO_API");
    unsigned char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)memory, BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(faults, UFFDIO_REGISTER, &range)) fail("UFFDIO_REGISTER");
    static unsigned char page[4096] __attribute__((aligned(4096)));
    memset(page, 0x78, sizeof page);
    pthread_t thread;
    if (pthread_create(&thread, NULL, handle_faults, page)) fail("pthread_create");
    unsigned sum = 0;
    for (int i = 0; i < BYTES; i += 64 << 10) sum += memory[i];
    printf("faults: %d, sum %u\n", handled, sum);
    report("before", before, BYTES);
}

// Sparse reservations: little of them is ever touched, and no more than that is taken.
static void sparse(void) {
    size_t huge = (size_t)64 << 30;
    unsigned char *memory = mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("mmap of 64 GiB");
    for (size_t at = 0; at < huge; at += huge / 16) memory[at] = 1;
    unsigned char *late = mmap(NULL, huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (late == MAP_FAILED || mprotect(late + huge / 2, BYTES, PROT_READ | PROT_WRITE)) fail("mprotect");
    memset(late + huge / 2, 2, BYTES);
    report("opened", late + huge / 2, BYTES);
    printf("touched: %d %d\n", memory[0], memory[1]);
    munmap(memory, huge);
    munmap(late, huge);
}

// A guard page stops the program, wherever the memory is from.
static void guard(void) {
    unsigned char *memory = fresh(0x79);
    if (mprotect(memory + BYTES / 2, 4096, PROT_NONE)) fail("mprotect");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        memory[BYTES / 2] = 1;
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("child: signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    memory[BYTES / 2 - 1] = 1;
    memory[BYTES / 2 + 4096] = 1;
    report("below", memory, BYTES / 2 - 1);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {{"vmsplice", vmsplice_kept}, {"vmsplice-gift", vmsplice_gift}, {"zero-copy", zero_copy}, {"aio", linux_aio},
             {"io_uring", uring},         {"userfaultfd", own_faults},      {"sparse", sparse},       {"guard", guard}};

int main(int count, char **arguments) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (count == 1) puts(cases[i].name);
        else if (strcmp(arguments[1], cases[i].name) == 0) return cases[i].run(), 0;
    }
    return count == 1 ? 0 : 2;
}
