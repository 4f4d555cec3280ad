// What the parts of the hostile-client helper share.
#ifndef HOSTILE_CLIENT_H
#define HOSTILE_CLIENT_H

#include <stdint.h>
#include <sys/types.h>
#include <fos_proxy.h>

// Exit statuses, read by the test.
enum { EXIT_OK = 0, EXIT_VIOLATION = 1, EXIT_USAGE = 2, EXIT_GONE = 3 };

struct random {
    uint64_t state;
};
// xorshift64*: every choice of a run follows from its seed.
static inline uint64_t draw(struct random *random) {
    uint64_t x = random->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * UINT64_C(2685821657736338717);
}
static inline uint64_t below(struct random *random, uint64_t bound) { return draw(random) % bound; }
static inline int chance(struct random *random, unsigned percent) { return below(random, 100) < percent; }
// A number of the kinds that break things: small, near a power of two, at the ends, or anything.
uint64_t odd_number(struct random *random);
void fill(struct random *random, void *bytes, size_t length);

uint64_t clock_ns(void);
// Prints the seed with the message and ends the process with EXIT_VIOLATION.
_Noreturn void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Called by violation() before the process ends; may be NULL.
extern void (*at_violation)(void);

extern uint64_t run_seed;
extern uid_t instance_uid;
extern const char *instance_name;

// 1 if this process runs as the instance's own user or root: what it asks is then not an attack but an order.
int is_entitled(void);

// Attacks until the deadline (monotonic ns). Returns an exit status.
int run_hostile(struct random *random, uint64_t deadline);
// Works on files and checks every result against a model.
int run_steady(struct random *random, uint64_t deadline);
// Holds many connections open and says nothing on them.
int run_idle(uint64_t deadline);
// frames.c: uses the memory fleet and checks every page; or holds memory until it is killed.
int run_frames(struct random *random, uint64_t deadline);
int run_hold(struct random *random, uint64_t deadline);
// hello.c: one attack on the handshake. The instance may refuse or close.
void attack_handshake(struct random *random);
// memory.c: tries to change the size, the seals or the protection of what the instance shares; all must fail.
void attack_memory(struct random *random, struct fos_client *client);
// request.c: writes one more or less plausible request into a channel and rings for it.
void attack_request(struct random *random, struct fos_client *client, int channel, uint64_t directory);

#endif
