// An instance of one core in C, for tests of the proxy alone: it answers from a script instead of from servers.
//
// Protocol: the core's side of fos/channel.h and fos/handshake.h, with one client. The script is a function that the
// core thread calls with each request; it fills the reply and says whether to send it.
#ifndef FOS_MOCK_INSTANCE_H
#define FOS_MOCK_INSTANCE_H

#include <fos/wire.h>

struct mock_instance;
// Returns 1 to answer with `reply`, 0 to leave the request unanswered.
typedef int (*mock_script)(struct mock_instance *, int channel, const struct fos_message *request, struct fos_message *reply);

struct mock_instance {
    int client_socket, server_socket;  // a socketpair; the client's end goes to fos_client_attach
    int segment_fd, board_fd;
    uint8_t *segment;
    struct fos_segment_header *header;
    struct fos_bell *bell;
    struct fos_notice_control *notice_control;
    struct fos_notice_ring *notice_ring;
    struct fos_channel *channel;
    struct fos_board *board;  // writable
    size_t segment_bytes;
    uint32_t channels;
    uint32_t spin;            // looks at the bells before the core parks
    mock_script script;
    uint32_t stop, served, parks;
    unsigned long thread;
    // What the script keeps.
    uint32_t counter, file_epoch;
    // What the welcome says; a test may falsify it before it attaches.
    struct fos_welcome welcome;
};

// Makes segment, board and socketpair, and readies the welcome. cpu: CPU of the core thread, -1 = any.
void mock_start(struct mock_instance *mock, uint32_t channels, int cpu, mock_script script);
// Answers one hello in a thread of its own and then runs the core until mock_stop.
void mock_run(struct mock_instance *mock);
void mock_stop(struct mock_instance *mock);
void mock_notify(struct mock_instance *mock, const struct fos_notice *notice);

#endif
