// The wire: every message, ring, handshake and limit that crosses a protection boundary in fos.
//
// Role: the one definition that the C message proxy, the shim, and the Swift servers all include.
// Rules: fixed-width integers only; no implicit padding; every size and offset asserted here at compile time;
// operation numbers are append-only; a client whose version or layout hash differs is refused at connect.
#ifndef FOS_WIRE_H
#define FOS_WIRE_H

#include <fos/limits.h>
#include <fos/atomic.h>
#include <fos/message.h>
#include <fos/operations.h>
#include <fos/shard.h>
#include <fos/channel.h>
#include <fos/delegation.h>
#include <fos/handshake.h>
#include <fos/file.h>
#include <fos/file_peer.h>
#include <fos/entry.h>
#include <fos/map.h>
#include <fos/memory.h>
#include <fos/name.h>
#include <fos/privilege.h>
#include <fos/statistics.h>
#include <fos/fleet.h>
#include <fos/sites.h>
#include <fos/tally.h>
#include <fos/calltrace.h>
#include <fos/operation_names.h>

#endif
