// Privilege service messages: operations 200 to 299. Who may send to which mailbox, who may register which names.
#ifndef FOS_PRIVILEGE_H
#define FOS_PRIVILEGE_H

#include <stdint.h>
#include <fos/limits.h>
#include <fos/message.h>

enum fos_privilege_action { FOS_PRIVILEGE_SEND = 1, FOS_PRIVILEGE_REGISTER = 2, FOS_PRIVILEGE_CONNECT = 3, FOS_PRIVILEGE_ADMIN = 4 };

struct fos_privilege_question {  // CHECK; a name follows for REGISTER. Reply: fos_privilege_answer
    uint32_t action;             // enum fos_privilege_action
    uint32_t subject_kind;       // enum fos_sender_kind
    uint32_t uid;
    uint32_t rights;             // enum fos_right
    fos_mailbox mailbox;         // SEND
    uint32_t name_length;
};
struct fos_privilege_answer { uint32_t allowed, epoch; };  // cached read-only by the asking microkernel until the epoch is invalidated

struct fos_privilege_rule {      // SET (ADMIN only): adds or replaces; then every core is told, and only then SET is answered
    uint32_t action;
    uint32_t subject_kind;
    uint32_t uid;                // UINT32_MAX = any
    uint32_t allow;              // 1 allow, 0 deny; the last matching rule wins
    fos_mailbox mailbox;         // SEND: FOS_MAILBOX_NONE = any
    uint32_t prefix_length;      // REGISTER: the name prefix that follows
};
struct fos_privilege_invalidate { uint32_t epoch, reserved; };  // to each microkernel; empty reply acknowledges

#endif
