// The client's name cache: symbolic mailbox names and their members, asked of the name fleet.
//
// The fixed point is the welcome: it names the name fleet's own mailboxes, and the file servers that own slots. Everything else
// is looked up with NAME_LOOKUP. All is kept with its epochs until a receiver refuses one as stale. Entry 0 always belongs to the file
// fleet, which every file call needs.
// Many threads read, few write: the cache is guarded by a sequence count (odd while a writer is at it). Nobody waits
// on it: a reader that meets a writer asks the fleet itself, a writer that meets another does not store.
#define _GNU_SOURCE
#include <string.h>
#include "proxy.h"

static size_t bounded_length(const char *name) {
    size_t length = 0;
    while (length <= FOS_SERVICE_NAME_BYTES_MAX && name[length] != 0) length++;
    return length;
}

static int entry_is(const struct fos_name_entry *entry, const char *name, size_t length) {
    return entry->name_length == length && memcmp(entry->name, name, length) == 0;
}

static int is_used(const struct fos_client *client, uint32_t entry) { return fos_load_relaxed_u32(&client->names_used) >> entry & 1; }

// Entry of a name, or of its future: a free one, else one chosen by hash.
static uint32_t place(const struct fos_client *client, const char *name, size_t length) {
    static const char files[] = FOS_FILE_FLEET;
    if (length == sizeof files - 1 && memcmp(name, files, length) == 0) return 0;
    uint32_t empty = 0, hash = 2166136261u;
    for (uint32_t i = 1; i < FOS_PROXY_NAMES; i++) {
        if (!is_used(client, i)) empty = empty == 0 ? i : empty;
        else if (entry_is(&client->names[i], name, length)) return i;
    }
    for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    return empty != 0 ? empty : 1 + hash % (FOS_PROXY_NAMES - 1);
}

static void store(struct fos_client *client, const char *name, size_t length, const struct fos_name_member *members, uint32_t count, uint64_t version) {
    uint32_t sequence = fos_load_relaxed_u32(&client->names_lock);
    if ((sequence & 1) != 0 || !fos_compare_exchange_u32(&client->names_lock, sequence, sequence + 1)) return;
    fos_fence();
    uint32_t at = place(client, name, length), bit = UINT32_C(1) << at;
    struct fos_name_entry *entry = &client->names[at];
    if (count == 0) {
        if (is_used(client, at) && entry_is(entry, name, length)) fos_store_relaxed_u32(&client->names_used, client->names_used & ~bit);
    } else {
        entry->member_count = count;
        entry->version = version;
        memcpy(entry->name, name, length);
        entry->name[length] = 0;
        entry->name_length = (uint32_t)length;
        memcpy(entry->members, members, count * sizeof *members);
        fos_store_relaxed_u32(&client->names_used, client->names_used | bit);
    }
    fos_store_release_u32(&client->names_lock, sequence + 2);
}

// Copies a cached entry's members. Returns how many, 0 if it is not cached or being written.
static uint32_t cached(const struct fos_client *client, const char *name, size_t length, struct fos_name_member *members, uint32_t room) {
    uint32_t sequence = fos_load_acquire_u32(&client->names_lock);
    if (sequence & 1) return 0;
    uint32_t at = place(client, name, length), count = 0;
    const struct fos_name_entry *entry = &client->names[at];
    if (is_used(client, at) && entry_is(entry, name, length)) {
        count = entry->member_count < FOS_PROXY_MEMBERS ? entry->member_count : FOS_PROXY_MEMBERS;
        if (count > room) count = room;
        memcpy(members, entry->members, count * sizeof *members);
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return fos_load_relaxed_u32(&client->names_lock) == sequence ? count : 0;
}

int fos_cached_epoch(const struct fos_client *client, fos_mailbox mailbox, uint32_t *epoch) {
    const struct fos_name_entry *files = &client->names[0];
    uint32_t sequence = fos_load_acquire_u32(&client->names_lock);
    if ((sequence & 1) != 0 || !is_used(client, 0)) return 0;
    uint32_t count = fos_load_relaxed_u32(&files->member_count);
    for (uint32_t i = 0; i < count && i < FOS_PROXY_MEMBERS; i++) {
        if (fos_load_relaxed_u32(&files->members[i].mailbox) != mailbox) continue;
        *epoch = fos_load_relaxed_u32(&files->members[i].epoch);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return fos_load_relaxed_u32(&client->names_lock) == sequence;
    }
    return 0;
}

// The fos core nearest to this thread, so that the name fleet can order members by distance: CPUs with near numbers
// share caches and packages on every machine we know of, and an error only costs distance.
static uint32_t nearest_core(const struct fos_client *client) {
    int here = sched_getcpu();
    uint32_t best = 0;
    int32_t least = INT32_MAX;
    for (uint32_t core = 0; core < client->cores; core++) {
        int32_t cpu = fos_board_cpu(client->board, core);
        int32_t away = cpu > here ? cpu - here : here - cpu;
        if (cpu >= 0 && away < least) {
            least = away;
            best = core;
        }
    }
    return best;
}

void fos_names_begin(struct fos_client *client, const struct fos_file_servers *files) {
    struct fos_name_member members[FOS_FILE_SERVERS_TOLD];
    uint32_t count = 0;
    for (uint32_t i = 0; i < files->count && i < FOS_FILE_SERVERS_TOLD; i++) {
        if (!fos_destination_valid(client, files->mailbox[i])) continue;
        members[count++] = (struct fos_name_member){.mailbox = files->mailbox[i], .epoch = files->epoch[i], .core = files->mailbox[i] >> 16, .alive = 1};
    }
    if (count > 0) store(client, FOS_FILE_FLEET, sizeof FOS_FILE_FLEET - 1, members, count, 0);
}

void fos_names_keep(const struct fos_client *client, struct fos_file_servers *files) {
    struct fos_name_member members[FOS_FILE_SERVERS_TOLD];
    files->count = cached(client, FOS_FILE_FLEET, sizeof FOS_FILE_FLEET - 1, members, FOS_FILE_SERVERS_TOLD);
    for (uint32_t i = 0; i < files->count; i++) {
        files->mailbox[i] = members[i].mailbox;
        files->epoch[i] = members[i].epoch;
    }
}

// Asks the name fleet: the server that has the name, if the client knows all of them; any other forwards. Returns the count of
// members stored, or -errno.
static int ask(struct fos_client *client, int channel, const char *name, size_t length, struct fos_name_member members[FOS_LOOKUP_MEMBERS_MAX]) {
    int result = -EHOSTUNREACH;
    uint32_t first = client->name_servers > 0 ? fos_name_place(fos_name_hash((const uint8_t *)name, length), client->name_servers) : 0;
    for (uint32_t attempt = 0; attempt < client->name_servers; attempt++) {
        uint32_t server = (first + attempt) % client->name_servers;
        struct fos_message *request = fos_request(client, channel, FOS_OP_NAME_LOOKUP, 0);
        struct fos_name_request *question = fos_payload(request);
        memset(question, 0, sizeof *question);
        question->name_length = (uint32_t)length;
        question->from_core = nearest_core(client);
        memcpy(question + 1, name, length);
        request->length = (uint32_t)(sizeof *question + length);
        result = fos_call_mailbox(client, channel, client->name_server[server], client->name_server_epoch[server]);
        if (result != -ESTALE) break;  // a name server that is gone: another one knows
    }
    if (result == -ENOENT) store(client, name, length, NULL, 0, 0);
    if (result < 0) return result;
    const struct fos_message *reply = fos_reply(client, channel);
    struct fos_name_reply answer;
    if (reply->length < sizeof answer) return -EPROTO;
    memcpy(&answer, fos_payload_const(reply), sizeof answer);
    if (answer.members > FOS_LOOKUP_MEMBERS_MAX || answer.members > (reply->length - sizeof answer) / sizeof *members) return -EPROTO;
    const uint8_t *from = (const uint8_t *)fos_payload_const(reply) + sizeof answer;
    uint32_t count = 0;
    for (uint32_t i = 0; i < answer.members; i++) {
        memcpy(&members[count], from + i * sizeof *members, sizeof *members);
        if (fos_destination_valid(client, members[count].mailbox)) count++;
    }
    if (count == 0) return -ENOENT;
    store(client, name, length, members, count, answer.version);
    return (int)count;
}

int fos_lookup(struct fos_client *client, int channel, const char *name, struct fos_name_member *members, int room, int refresh) {
    size_t length = bounded_length(name);
    if (length == 0 || length > FOS_SERVICE_NAME_BYTES_MAX) return -EINVAL;
    if (room < 0) return -EINVAL;
    if (!refresh) {
        uint32_t count = cached(client, name, length, members, (uint32_t)room);
        if (count > 0) return (int)count;
    }
    struct fos_name_member found[FOS_LOOKUP_MEMBERS_MAX];
    int count = ask(client, channel, name, length, found);
    if (count < 0) return count;
    if (count > room) count = room;
    memcpy(members, found, (size_t)count * sizeof *members);
    return count;
}

// A look-up in the middle of a call: the request that waits in the channel is put back afterwards.
static int lookup_keeping_request(struct fos_client *client, int channel, const char *name, struct fos_name_member *members, int room, int refresh) {
    _Alignas(struct fos_message) uint8_t saved[FOS_MESSAGE_BYTES];
    fos_note_sent(client, channel);
    struct fos_call_times times = client->state[channel].times;
    struct fos_message *request = fos_draft(client, channel);
    memcpy(saved, request, sizeof saved);
    int count = fos_lookup(client, channel, name, members, room, refresh);
    memcpy(request, saved, sizeof saved);
    client->state[channel].times = times;
    return count;
}

fos_mailbox fos_owner(const struct fos_client *client, uint64_t inode) {
    fos_mailbox owner = fos_load_relaxed_u32(&client->board->slot_owner[inode % FOS_SLOTS]);
    return fos_destination_valid(client, owner) ? owner : FOS_MAILBOX_NONE;
}

int fos_resolve_owner(struct fos_client *client, int channel, int refresh, fos_mailbox *destination, uint32_t *epoch) {
    // A name of a sharded directory goes straight to the owner of its shard.
    const struct fos_message *request = &client->state[channel].request;
    fos_mailbox owner = fos_owner(
        client, fos_request_slot(&client->board->sharded, request->operation, request->inode, fos_payload_const(request), request->length));
    if (!refresh && owner != FOS_MAILBOX_NONE && fos_cached_epoch(client, owner, epoch)) {
        *destination = owner;
        return 0;
    }
    // The fleet is unknown, has changed, or its table names a member that the cache does not hold. The last can stay
    // so (a reply holds 32 members): then any member takes the request and forwards it.
    uint32_t slot_epoch = fos_load_acquire_u32(&client->board->slot_epoch);
    if (slot_epoch != fos_load_relaxed_u32(&client->slot_epoch_seen)) refresh = 1;
    struct fos_name_member members[FOS_LOOKUP_MEMBERS_MAX];
    int count = lookup_keeping_request(client, channel, FOS_FILE_FLEET, members, FOS_LOOKUP_MEMBERS_MAX, refresh);
    if (count < 0) return count == -ENOENT ? -EHOSTUNREACH : count;
    fos_store_relaxed_u32(&client->slot_epoch_seen, slot_epoch);
    int best = -1;
    for (int i = 0; i < count; i++) {
        if (members[i].mailbox == owner) {
            best = i;
            break;
        }
        if (best < 0 && members[i].alive) best = i;
    }
    if (best < 0) best = 0;
    *destination = members[best].mailbox;
    *epoch = members[best].epoch;
    return 0;
}

int fos_post_name(struct fos_client *client, int channel, const char *name) {
    if (!fos_channel_valid(client, channel)) return -EINVAL;
    struct fos_name_member members[FOS_LOOKUP_MEMBERS_MAX];
    int count = lookup_keeping_request(client, channel, name, members, FOS_LOOKUP_MEMBERS_MAX, 0);
    if (count < 0) return count;
    int best = 0;
    while (best < count - 1 && !members[best].alive) best++;
    return fos_post(client, channel, members[best].mailbox, members[best].epoch);
}

int fos_call_name(struct fos_client *client, int channel, const char *name) {
    if (!fos_channel_valid(client, channel)) return -EINVAL;
    for (int refresh = 0;; refresh++) {
        struct fos_name_member members[FOS_LOOKUP_MEMBERS_MAX];
        int count = lookup_keeping_request(client, channel, name, members, FOS_LOOKUP_MEMBERS_MAX, refresh);
        if (count < 0) return count;
        int best = 0;
        while (best < count - 1 && !members[best].alive) best++;
        int result = fos_call_mailbox(client, channel, members[best].mailbox, members[best].epoch);
        if (result != -ESTALE || refresh == 3) return result;
    }
}
