// Addresses inside the shared structs of the wire, as Swift cannot take them, and copying out of shared memory.
#ifndef FOS_CPLATFORM_SEGMENT_H
#define FOS_CPLATFORM_SEGMENT_H

#include <fos/wire.h>
#include <string.h>

static inline uint32_t *fos_channel_client_parked(struct fos_channel *c) { return &c->client_parked; }
static inline uint32_t *fos_channel_reply_sequence(struct fos_channel *c) { return &c->reply_sequence; }
static inline struct fos_request_times *fos_channel_times(struct fos_channel *c) { return &c->times; }
static inline struct fos_message *fos_channel_request(struct fos_channel *c) { return &c->request; }
static inline struct fos_message *fos_channel_reply(struct fos_channel *c) { return &c->reply; }
static inline uint32_t *fos_channel_destination(struct fos_channel *c) { return &c->request.destination; }
static inline uint64_t *fos_bell_bits(struct fos_bell *b) { return b->bits; }
static inline uint32_t *fos_notice_control_bell(struct fos_notice_control *c) { return &c->notice_bell; }
static inline uint32_t *fos_notice_control_parked(struct fos_notice_control *c) { return &c->notice_parked; }
static inline uint32_t *fos_notice_ring_head(struct fos_notice_ring *r) { return &r->head; }
static inline uint32_t *fos_notice_ring_tail(struct fos_notice_ring *r) { return &r->tail; }
static inline struct fos_notice *fos_notice_ring_slot(struct fos_notice_ring *r, uint32_t number) {
    return &r->slots[number % FOS_NOTICES];
}
static inline struct fos_board_core *fos_board_core_at(struct fos_board *b, uint32_t core) { return &b->core[core]; }
static inline uint32_t *fos_board_parked(struct fos_board *b, uint32_t core) { return &b->core[core].parked; }
static inline uint64_t *fos_board_beats(struct fos_board *b, uint32_t core) { return &b->core[core].beats; }
static inline uint32_t *fos_board_down(struct fos_board *b) { return &b->down; }
static inline uint32_t *fos_board_slot_epoch(struct fos_board *b) { return &b->slot_epoch; }
static inline struct fos_shard_table *fos_board_sharded(struct fos_board *b) { return &b->sharded; }
static inline uint32_t *fos_board_slot_owner(struct fos_board *b, uint32_t slot) { return &b->slot_owner[slot % FOS_SLOTS]; }
static inline uint32_t *fos_board_inode_epoch(struct fos_board *b, uint64_t inode) { return &b->inode_epoch[fos_inode_epoch_index(inode)]; }
static inline uint8_t *fos_letter_payload(struct fos_letter *l) { return l->payload; }
static inline struct fos_message *fos_letter_message(struct fos_letter *l) { return &l->message; }
static inline struct fos_envelope *fos_letter_envelope(struct fos_letter *l) { return &l->envelope; }
static inline fos_mailbox *fos_welcome_name_server(struct fos_welcome *w, uint32_t i) { return &w->name_server[i % 4]; }
static inline uint32_t *fos_welcome_name_server_epoch(struct fos_welcome *w, uint32_t i) { return &w->name_server_epoch[i % 4]; }
// Adds a file server that is not among them yet. 0: there is no room for more.
static inline int fos_file_servers_add(struct fos_file_servers *s, fos_mailbox mailbox, uint32_t epoch) {
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->mailbox[i] == mailbox) return 1;
    }
    if (s->count == FOS_FILE_SERVERS_TOLD) return 0;
    s->mailbox[s->count] = mailbox;
    s->epoch[s->count++] = epoch;
    return 1;
}

// Copies bytes that a peer may be changing. The barrier keeps the compiler from reading the source a second time
// where the program reads the copy: what is validated is what is used.
static inline void fos_copy_from_shared(void *to, const void *from, size_t count) {
    memcpy(to, from, count);
    __asm__ __volatile__("" ::: "memory");
}

// The magics, which Swift does not import as macros.
static inline uint64_t fos_wire_segment_magic(void) { return FOS_SEGMENT_MAGIC; }
static inline uint64_t fos_wire_board_magic(void) { return FOS_BOARD_MAGIC; }
static inline uint64_t fos_wire_hello_magic(void) { return FOS_HELLO_MAGIC; }

static inline uint32_t *fos_message_sequence(struct fos_message *m) { return &m->sequence; }

static inline int fos_compare_exchange_u64(uint64_t *word, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline uint32_t fos_exchange_u32(uint32_t *word, uint32_t value) { return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL); }

#endif
