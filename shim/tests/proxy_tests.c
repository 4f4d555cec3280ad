// Tests of the message proxy library against a scripted instance.
//
// Each test is a function; a failed CHECK prints its place and ends the run with status 1.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "../proxy/proxy.h"
#include "mock_instance.h"

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #condition); \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

enum { FILE_SERVER = 5, OP_RETRY = 900, OP_FULL, OP_DENIED, OP_SILENT, OP_SLOW, OP_STRANGE };

// The script of all tests: a name fleet that knows /sys/file, and servers that misbehave by operation.
static int script(struct mock_instance *mock, int channel, const struct fos_message *request, struct fos_message *reply) {
    (void)channel;
    if (request->operation == FOS_OP_NAME_LOOKUP) {
        struct fos_name_request question;
        memcpy(&question, request + 1, sizeof question);
        const char *name = (const char *)(request + 1) + sizeof question;
        if (request->destination == 1) {  // this name server has moved; the second one answers
            reply->status = FOS_TRANSPORT_STALE;
            return 1;
        }
        if (question.name_length != 9 || memcmp(name, "/sys/file", 9) != 0) {
            reply->status = -ENOENT;
            return 1;
        }
        mock->counter++;
        struct fos_name_reply *answer = fos_payload(reply);
        *answer = (struct fos_name_reply){.members = 2, .version = mock->counter};
        struct fos_name_member *members = (struct fos_name_member *)(answer + 1);
        members[0] = (struct fos_name_member){.mailbox = 4, .epoch = 1, .alive = 0};
        members[1] = (struct fos_name_member){.mailbox = FILE_SERVER, .epoch = mock->file_epoch, .alive = 1};
        reply->length = sizeof *answer + 2 * sizeof *members;
        return 1;
    }
    if (request->destination == FILE_SERVER && request->epoch != mock->file_epoch) {
        reply->status = FOS_TRANSPORT_STALE;
        return 1;
    }
    switch (request->operation) {
    case OP_RETRY:
    case OP_FULL:
        if (++mock->counter % 8 != 0) reply->status = request->operation == OP_RETRY ? FOS_TRANSPORT_RETRY : FOS_TRANSPORT_FULL;
        break;
    case OP_DENIED: reply->status = FOS_TRANSPORT_DENIED; break;
    case OP_SILENT: return 0;
    case OP_SLOW: usleep(2000); break;
    case OP_STRANGE: reply->length = 5000; break;
    default: reply->status = -ENOSYS; break;
    case FOS_OP_LEASE_ACK:
    case FOS_OP_PING:
        reply->length = request->length;
        memcpy(fos_payload(reply), request + 1, request->length);
        break;
    }
    return 1;
}

static void begin(struct mock_instance *mock, struct fos_client *client, uint32_t channels, int cpu) {
    mock_start(mock, channels, cpu, script);
    mock_run(mock);
    CHECK(fos_client_attach(client, mock->client_socket, channels, 0) == 0);
}
static void end(struct mock_instance *mock, struct fos_client *client) {
    fos_client_disconnect(client);
    mock_stop(mock);
}

static int ping(struct fos_client *client, int channel, uint64_t value) {
    struct fos_message *request = fos_request(client, channel, FOS_OP_PING, 0);
    memcpy(fos_payload(request), &value, sizeof value);
    request->length = sizeof value;
    int status = fos_call_mailbox(client, channel, FILE_SERVER, 7);
    if (status == 0) CHECK(memcmp(fos_payload_const(fos_reply(client, channel)), &value, sizeof value) == 0);
    return status;
}

static void test_round_trips(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 4, -1);
    CHECK(client.channels == 4 && client.cores == 1 && client.client == 3);
    int channel = fos_channel_acquire(&client);
    CHECK(channel == 0);
    for (uint64_t i = 0; i < 20000; i++) CHECK(ping(&client, channel, i) == 0);
    CHECK(mock.served == 20000);
    fos_request(&client, channel, 999, 0);
    CHECK(fos_call_mailbox(&client, channel, FILE_SERVER, 7) == -ENOSYS);
    CHECK(fos_post(&client, channel, 1u << 16, 0) == -EINVAL);
    CHECK(fos_post(&client, 4, FILE_SERVER, 7) == -EINVAL);
    CHECK(fos_client_alive(&client));
    end(&mock, &client);
}

// The core parks after every request: no wake may be lost.
static void test_parking_core(void) {
    struct mock_instance mock;
    struct fos_client client;
    mock_start(&mock, 1, -1, script);
    mock.spin = 1;
    mock_run(&mock);
    CHECK(fos_client_attach(&client, mock.client_socket, 1, 0) == 0);
    for (int spins = 0; spins < 2; spins++) {
        client.spin_ns = spins ? 50000 : 0;
        for (uint64_t i = 0; i < 3000; i++) {
            uint64_t start = fos_clock();
            CHECK(ping(&client, 0, i) == 0);
            CHECK(fos_clock() - start < 400000000);  // the mock's sleep ends by itself after 500 ms
        }
    }
    CHECK(mock.parks > 0);
    end(&mock, &client);
}

// Client and core on one CPU: the client must park at once, or each call costs a time slice.
static void test_same_cpu(void) {
    cpu_set_t before, one;
    sched_getaffinity(0, sizeof before, &before);
    int cpu = sched_getcpu();
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 1, cpu);
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    mock.spin = 10;
    CHECK(ping(&client, 0, 1) == 0);
    // The core is told with the request itself: a wake may put the client aside before it says anything else.
    fos_request(&client, 0, FOS_OP_PING, 0);
    CHECK(fos_post(&client, 0, FILE_SERVER, 7) == 0);
    CHECK(client.channel[0].client_parked == 2 || client.channel[0].reply.sequence == client.state[0].sequence);
    CHECK(client.state[0].shared >= 2);
    CHECK(fos_wait(&client, 0, UINT64_MAX) == 1);
    client.timed = 1;
    // A spin this long, were there one, would end by the scheduler's tick at the soonest.
    client.spin_ns = client.state[0].spin_ns = 20000000;
    uint64_t least = UINT64_MAX;
    struct fos_call_times times;
    for (int i = 0; i < 50; i++) {
        fos_request(&client, 0, FOS_OP_PING, 0);
        CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 7) == 0);
        fos_call_timing(&client, 0, &times);
        if (times.returned - times.built < least) least = times.returned - times.built;
    }
    CHECK(least < 500000);
    CHECK(times.built != 0 && times.built <= times.resolved && times.resolved <= times.posted && times.posted <= times.replied && times.replied <= times.returned);
    end(&mock, &client);
    sched_setaffinity(0, sizeof before, &before);
}

static void test_transport_outcomes(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 2, -1);
    for (int i = 0; i < 20; i++) {
        fos_request(&client, 0, i & 1 ? OP_FULL : OP_RETRY, 0);
        CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 7) == 0);
    }
    CHECK(mock.counter == 160);
    fos_request(&client, 0, OP_DENIED, 0);
    CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 7) == -EPERM);
    fos_request(&client, 0, OP_STRANGE, 0);
    CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 7) == -EPROTO);
    fos_request(&client, 0, FOS_OP_PING, 0);
    CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 6) == -ESTALE);
    // Many in flight, polled; a request that is to be sent again does not block the poll.
    for (int channel = 0; channel < 2; channel++) {
        fos_request(&client, channel, OP_RETRY, 0);
        CHECK(fos_post(&client, channel, FILE_SERVER, 7) == 0);
        CHECK(fos_post(&client, channel, FILE_SERVER, 7) == -EBUSY);
    }
    for (int done = 0; done != 3;) {
        for (int channel = 0; channel < 2; channel++) {
            if (done & 1 << channel) continue;
            int result = fos_poll(&client, channel);
            CHECK(result >= 0);
            if (result == 1) done |= 1 << channel;
        }
    }
    end(&mock, &client);
}

static void test_names(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 2, -1);
    struct fos_name_member members[8];
    CHECK(fos_lookup(&client, 0, "/sys/absent", members, 8, 0) == -ENOENT);
    CHECK(fos_lookup(&client, 0, "", members, 8, 0) == -EINVAL);
    CHECK(fos_lookup(&client, 0, "/sys/file", members, 8, 0) == 2);
    CHECK(members[1].mailbox == FILE_SERVER && members[1].epoch == 7);
    CHECK(fos_lookup(&client, 0, "/sys/file", members, 1, 0) == 1);
    CHECK(mock.counter == 1);  // the second came from the cache
    // Nobody owns the slot yet: the best living member takes it.
    struct fos_message *request = fos_request(&client, 0, FOS_OP_PING, 77);
    memcpy(fos_payload(request), "payload", 8);
    request->length = 8;
    CHECK(fos_call(&client, 0) == 0);
    CHECK(client.channel[0].request.destination == FILE_SERVER);
    for (int slot = 0; slot < FOS_SLOTS; slot++) mock.board->slot_owner[slot] = FILE_SERVER;
    // The epoch changes: the request is refused, the name is looked up, the same request is sent again.
    mock.file_epoch = 8;
    request = fos_request(&client, 0, FOS_OP_PING, 78);
    memcpy(fos_payload(request), "PAYLOAD", 8);
    request->length = 8;
    CHECK(fos_call(&client, 0) == 0);
    CHECK(memcmp(fos_payload_const(fos_reply(&client, 0)), "PAYLOAD", 8) == 0);
    CHECK(mock.counter == 2);
    uint32_t served = mock.served;
    fos_request(&client, 0, FOS_OP_PING, 79);
    CHECK(fos_call(&client, 0) == 0 && mock.served == served + 1);
    CHECK(fos_owner(&client, 79) == FILE_SERVER);
    mock.board->slot_owner[79] = 9u << 16;  // a core that does not exist
    CHECK(fos_owner(&client, 79) == FOS_MAILBOX_NONE);
    mock.file_epoch = 9;
    fos_request(&client, 0, FOS_OP_PING, 0);
    CHECK(fos_call_name(&client, 0, "/sys/file") == 0);
    end(&mock, &client);
}

// The welcome names the file servers: their clients ask nobody, until one of them refuses.
static void test_welcome_names(void) {
    struct mock_instance mock;
    struct fos_client client;
    mock_start(&mock, 2, -1, script);
    for (int slot = 0; slot < FOS_SLOTS; slot++) mock.board->slot_owner[slot] = FILE_SERVER;
    // One is of a core that does not exist, and the count is wrong.
    mock.welcome.files = (struct fos_file_servers){.count = 900, .mailbox = {4, FILE_SERVER, 9u << 16}, .epoch = {1, 7, 1}};
    mock_run(&mock);
    CHECK(fos_client_attach(&client, mock.client_socket, 2, 0) == 0);
    struct fos_client_kept kept;
    fos_client_keep(&client, 0, &kept);
    CHECK(kept.files.count > 1 && kept.files.count <= FOS_FILE_SERVERS_TOLD);
    CHECK(kept.files.mailbox[1] == FILE_SERVER && kept.files.epoch[1] == 7);
    fos_request(&client, 0, FOS_OP_PING, 77);
    CHECK(fos_call(&client, 0) == 0 && mock.counter == 0 && mock.served == 1);
    mock.file_epoch = 8;
    fos_request(&client, 0, FOS_OP_PING, 78);
    CHECK(fos_call(&client, 0) == 0 && mock.counter == 1);
    end(&mock, &client);
}

struct watcher {
    const struct fos_channel *channel;
    uint32_t stop, backward;
};
static void *watch(void *context) {
    struct watcher *watcher = context;
    uint32_t last = 0;
    while (!fos_load_relaxed_u32(&watcher->stop)) {
        uint32_t now = fos_load_acquire_u32(&watcher->channel->request.sequence);
        if (now < last) watcher->backward++;
        last = now;
    }
    return NULL;
}
// A core may take whatever new sequence it sees in a request's header: none may ever come back, not even while a
// refused request is sent again after a look-up on the same channel; and while a request is built none may change.
static void test_watched_sequence(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 1, -1);
    for (int slot = 0; slot < FOS_SLOTS; slot++) mock.board->slot_owner[slot] = FILE_SERVER;
    struct watcher watcher = {.channel = &client.channel[0]};
    pthread_t thread;
    pthread_create(&thread, NULL, watch, &watcher);
    for (int i = 0; i < 6000; i++) {
        if (i % 50 == 0) mock.file_epoch++;
        fos_request(&client, 0, FOS_OP_PING, 7);
        CHECK(fos_call(&client, 0) == 0);
    }
    fos_store_relaxed_u32(&watcher.stop, 1);
    pthread_join(thread, NULL);
    CHECK(watcher.backward == 0);
    struct fos_channel before = client.channel[0];
    struct fos_message *request = fos_request(&client, 0, FOS_OP_PING, 8);
    memcpy(fos_payload(request), "payload", 8);
    request->length = 8;
    CHECK(memcmp(&before, &client.channel[0], sizeof before) == 0);
    // A look-up for the destination leaves the request as it was built.
    fos_mailbox destination;
    uint32_t epoch;
    CHECK(fos_resolve_owner(&client, 0, 1, &destination, &epoch) == 0);
    CHECK(request->operation == FOS_OP_PING && request->inode == 8 && memcmp(fos_payload(request), "payload", 8) == 0);
    CHECK(fos_call(&client, 0) == 0);
    CHECK(memcmp(fos_payload_const(fos_reply(&client, 0)), "payload", 8) == 0);
    end(&mock, &client);
}

static void test_channels(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 70, -1);
    for (int i = 0; i < 70; i++) CHECK(fos_channel_acquire(&client) == i);
    CHECK(fos_channel_acquire(&client) == -EAGAIN);
    fos_channel_release(&client, 66);
    CHECK(fos_channel_acquire(&client) == 66);
    // A request that is never answered in time: the channel is not handed out until it is.
    fos_request(&client, 3, OP_SILENT, 0);
    CHECK(fos_post(&client, 3, FILE_SERVER, 7) == 0);
    CHECK(fos_wait(&client, 3, 3000000) == -ETIMEDOUT);
    fos_channel_release(&client, 3);
    CHECK(fos_channel_acquire(&client) == -EAGAIN);
    fos_store_release_u32(&client.channel[3].reply.sequence, client.state[3].sequence);
    fos_store_release_u32(&client.channel[3].reply_sequence, client.state[3].sequence);
    CHECK(fos_channel_acquire(&client) == 3);
    CHECK(ping(&client, 3, 5) == 0);
    end(&mock, &client);
}

// Replies that are always late make the channel spin less; early ones more again.
static void test_adaptation(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 1, -1);
    for (int i = 0; i < 100; i++) {
        fos_request(&client, 0, OP_SLOW, 0);
        CHECK(fos_call_mailbox(&client, 0, FILE_SERVER, 7) == 0);
    }
    CHECK(client.state[0].spin_ns < FOS_SPIN_DEFAULT_NS);
    end(&mock, &client);
}

static void await_sleep(const struct mock_instance *mock) {
    do usleep(2000); while (fos_load_acquire_u32(&mock->board->core[0].parked) == 0);
}

// A sleeping core is woken ahead of a request when requests have followed such moments before, and not otherwise.
static void test_waking_ahead(void) {
    struct mock_instance mock;
    struct fos_client client;
    mock_start(&mock, 1, -1, script);
    mock.spin = 1;
    mock_run(&mock);
    CHECK(fos_client_attach(&client, mock.client_socket, 1, 0) == 0);
    const struct fos_channel_state *state = &client.state[0];
    fos_expect_request(&client, 0);
    CHECK(state->noticed_at == 0 && ping(&client, 0, 1) == 0);  // nothing was sent before
    // Too late for a wake to have been of use.
    await_sleep(&mock);
    fos_expect_request(&client, 0);
    usleep(1000);
    CHECK(state->noticed_at != 0 && ping(&client, 0, 2) == 0 && state->noticed_at == 0 && state->foresight == 0);
    for (int round = 0; round < 1000 && state->foresight < 3; round++) {
        await_sleep(&mock);
        fos_expect_request(&client, 0);
        for (uint64_t start = fos_clock(); fos_clock() - start < 20000;) continue;
        CHECK(ping(&client, 0, 3) == 0);
    }
    CHECK(state->foresight == 3);
    await_sleep(&mock);
    uint64_t start = fos_clock(), parks = fos_load_relaxed_u32(&mock.parks);
    fos_expect_request(&client, 0);
    while (fos_load_relaxed_u32(&mock.parks) == parks) CHECK(fos_clock() - start < 400000000);  // it sleeps for 500 ms by itself
    end(&mock, &client);
}

struct caller {
    struct fos_client *client;
    uint64_t seed;
};
static void *call_much(void *context) {
    struct caller *caller = context;
    for (int round = 0; round < 50; round++) {
        int channel = fos_channel_acquire(caller->client);
        CHECK(channel >= 0);
        for (int i = 0; i < 40; i++) CHECK(ping(caller->client, channel, caller->seed++) == 0);
        fos_channel_release(caller->client, channel);
    }
    return NULL;
}
static void test_threads(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 8, -1);
    pthread_t threads[8];
    struct caller callers[8];
    for (int i = 0; i < 8; i++) {
        callers[i] = (struct caller){&client, (uint64_t)i << 32};
        pthread_create(&threads[i], NULL, call_much, &callers[i]);
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    CHECK(mock.served == 16000);
    end(&mock, &client);
}

static void *notify_slowly(void *context) {
    struct mock_instance *mock = context;
    for (uint64_t i = 0; i < 100; i++) {
        struct fos_notice notice = {.kind = FOS_NOTICE_ENTRY, .inode = i, .name_length = i == 50 ? 9999 : 3, .cookie = i, .reply_to = FILE_SERVER, .want_ack = 1};
        memcpy(notice.name, "abc", 3);
        mock_notify(mock, &notice);
        if (i % 10 == 0) usleep(1000);
    }
    return NULL;
}
static void test_notices(void) {
    struct mock_instance mock;
    struct fos_client client;
    begin(&mock, &client, 1, -1);
    struct fos_notice notice;
    CHECK(fos_notice_take(&client, &notice, 1000000) == 0);
    pthread_t thread;
    pthread_create(&thread, NULL, notify_slowly, &mock);
    for (uint64_t i = 0; i < 100; i++) {
        CHECK(fos_notice_take(&client, &notice, UINT64_MAX) == 1);
        CHECK(notice.inode == i && notice.name_length <= FOS_NAME_BYTES_MAX && notice.name[notice.name_length] == 0);
        CHECK(fos_notice_acknowledge(&client, 0, &notice) == 0);
    }
    pthread_join(thread, NULL);
    CHECK(mock.notice_ring->tail == 100 && mock.served >= 100);
    close(mock.server_socket);
    mock.server_socket = -1;
    CHECK(fos_notice_take(&client, &notice, UINT64_MAX) == -ENOTCONN);
    end(&mock, &client);
}

static void test_instance_ends(void) {
    for (int way = 0; way < 2; way++) {
        struct mock_instance mock;
        struct fos_client client;
        begin(&mock, &client, 2, -1);
        fos_request(&client, 0, OP_SILENT, 0);
        CHECK(fos_post(&client, 0, FILE_SERVER, 7) == 0);
        CHECK(fos_wait(&client, 0, 1000000) == -ETIMEDOUT);
        if (way == 0) {
            mock.board->down = 1;
        } else {
            close(mock.server_socket);
            mock.server_socket = -1;
        }
        CHECK(fos_wait(&client, 0, UINT64_MAX) == -ENOTCONN);
        CHECK(!fos_client_alive(&client));
        CHECK(ping(&client, 1, 1) == -ENOTCONN);
        CHECK(fos_channel_acquire(&client) == -ENOTCONN);
        end(&mock, &client);
    }
}

// Every falsehood in the welcome or the segment header is refused, and nothing leaks.
static void test_bad_welcome(void) {
    for (int bad = 0; bad < 14; bad++) {
        struct mock_instance mock;
        struct fos_client client;
        mock_start(&mock, 2, -1, script);
        int expected = -EPROTO;
        switch (bad) {
        case 0: mock.welcome.magic++; break;
        case 1: mock.welcome.version++; break;
        case 2: mock.welcome.layout_hash++; break;
        case 3: mock.welcome.segment_bytes += 4096; break;
        case 4: mock.welcome.board_bytes -= 8; break;
        case 5: mock.welcome.status = -EACCES, expected = -EACCES; break;
        case 6: mock.header->bells_offset = mock.header->bytes; break;
        case 7: mock.header->channels_offset += 8; break;
        case 8: mock.header->bulk_offset += 4096; break;
        case 9: mock.header->cores = 0; break;
        case 10: mock.header->channels = FOS_CHANNELS_MAX + 1; break;
        case 11: mock.header->notices_offset = UINT64_MAX - 63; break;
        case 12: mock.board->cores = 2; break;
        case 13: mock.welcome.status = 12, expected = -EPROTO; break;
        }
        mock_run(&mock);
        int before = open("/dev/null", O_RDONLY);
        close(before);
        CHECK(fos_client_attach(&client, mock.client_socket, 2, 0) == expected);
        int after = open("/dev/null", O_RDONLY);
        close(after);
        CHECK(after <= before);
        mock_stop(&mock);
    }
    // Memory that could be truncated under us is refused.
    struct mock_instance mock;
    struct fos_client client;
    mock_start(&mock, 1, -1, script);
    int plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(ftruncate(plain, (off_t)mock.welcome.segment_bytes) == 0);
    close(mock.segment_fd);
    mock.segment_fd = plain;
    mock_run(&mock);
    CHECK(fos_client_attach(&client, mock.client_socket, 1, 0) == -EPROTO);
    mock_stop(&mock);
}

static void test_connect(void) {
    struct fos_client client;
    char name[200];
    snprintf(name, sizeof name, "proxy-test-%d", getpid());
    CHECK(fos_client_connect(&client, getuid(), name, 1, 0) == -ECONNREFUSED);
    // However it fails, what is left is a client that is gone, and no rubbish.
    memset(&client, 0xaa, sizeof client);
    CHECK(fos_client_connect(&client, getuid(), "", 1, 0) == -EINVAL);
    CHECK(client.segment == NULL && client.state == NULL && client.channels == 0 && !fos_client_alive(&client));
    fos_client_disconnect(&client);
    memset(name, 'x', 150);
    name[150] = 0;
    CHECK(fos_client_connect(&client, getuid(), name, 1, 0) == -ENAMETOOLONG);
    if (getuid() == 0) return;  // root may stand in for any user
    // Somebody else's listener at another user's address.
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "fos/%u/proxy-test-%d", getuid() + 1, getpid());
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) == 0 && listen(listener, 1) == 0);
    snprintf(name, sizeof name, "proxy-test-%d", getpid());
    CHECK(fos_client_connect(&client, getuid() + 1, name, 1, 0) == -EACCES);
    close(listener);
}

static void test_mount_table(void) {
    static const char table[] =
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /home/a/scratch rw,nosuid,nodev shared:7 - fuse.fos fos:scratch rw,user_id=1000,group_id=1000\n"
        "31 22 0:41 / /mnt/with\\040space rw - fuse.fos fos:my\\134name rw,allow_other,user_id=0,group_id=0\n"
        "32 30 0:42 / /home/a/scratch/inner rw - tmpfs tmpfs rw\n"
        "33 22 0:43 /sub /bound rw - fuse.fos fos:scratch rw,user_id=1000\n"
        "34 22 0:44 / /peer rw - fuse.bindfs bindfs rw,user_id=1000\n"
        "35 22 0:45 / /nouser rw - fuse.fos fos:x rw,xuser_id=3\n"
        "36 22 0:46 / /twice rw - fuse.fos fos:one rw,user_id=1\n"
        "37 36 0:47 / /twice rw - fuse.fos fos:two rw,user_id=2\n"
        "broken line\n"
        "38 22 0:48 / /last rw - fuse.fos fos:last rw,user_id=4294967295\n";
    char path[] = "/tmp/fos-mount-table-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    // A line longer than any buffer comes first.
    for (int i = 0; i < 3000; i++) CHECK(write(fd, "garbage ", 8) == 8);
    CHECK(write(fd, "\n", 1) == 1);
    CHECK(write(fd, table, sizeof table - 1) == (ssize_t)sizeof table - 1);
    close(fd);
    static const struct {
        const char *path;
        int result;
        uid_t uid;
        const char *name, *mount_point;
    } cases[] = {
        {"/home/a/scratch", 0, 1000, "scratch", "/home/a/scratch"},
        {"/home/a/scratch/x/y", 0, 1000, "scratch", "/home/a/scratch"},
        {"/home/a/scratchy", -ENOENT, 0, "", ""},
        {"/home/a/scratch/inner/file", -ENOENT, 0, "", ""},
        {"/home/a/scratch/inner2", 0, 1000, "scratch", "/home/a/scratch"},
        {"/mnt/with space/f", 0, 0, "my\\name", "/mnt/with space"},
        {"/bound/f", -ENOENT, 0, "", ""},
        {"/peer", -ENOENT, 0, "", ""},
        {"/nouser", -ENOENT, 0, "", ""},
        {"/twice", 0, 2, "two", "/twice"},
        {"/last", 0, UINT32_MAX, "last", "/last"},
        {"/", -ENOENT, 0, "", ""},
        {"relative", -EINVAL, 0, "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uid_t uid = 0;
        char name[64] = "", mount_point[64] = "";
        CHECK(fos_find_mount_in(path, cases[i].path, &uid, name, sizeof name, mount_point, sizeof mount_point) == cases[i].result);
        if (cases[i].result != 0) continue;
        CHECK(uid == cases[i].uid && strcmp(name, cases[i].name) == 0 && strcmp(mount_point, cases[i].mount_point) == 0);
    }
    uid_t uid;
    char name[4], mount_point[64];
    CHECK(fos_find_mount_in(path, "/last", &uid, name, sizeof name, mount_point, sizeof mount_point) == -ENAMETOOLONG);
    unlink(path);
    CHECK(fos_find_mount("/proc", &uid, name, sizeof name, mount_point, sizeof mount_point) == -ENOENT);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"round trips", test_round_trips}, {"parking core", test_parking_core}, {"same CPU", test_same_cpu},
        {"transport outcomes", test_transport_outcomes}, {"names", test_names}, {"names of the welcome", test_welcome_names}, {"watched sequence", test_watched_sequence}, {"channels", test_channels},
        {"adaptation", test_adaptation}, {"waking ahead", test_waking_ahead}, {"threads", test_threads}, {"notices", test_notices},
        {"instance ends", test_instance_ends}, {"bad welcome", test_bad_welcome}, {"connect", test_connect},
        {"mount table", test_mount_table},
    };
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        uint64_t start = fos_clock();
        tests[i].run();
        printf("ok %s (%.1f ms)\n", tests[i].name, (double)(fos_clock() - start) / 1e6);
        fflush(stdout);
    }
    return 0;
}
