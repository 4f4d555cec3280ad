// What Swift cannot call directly of Linux, in one place: futexes, pinning, sealed memfds, socket identity, and the
// report of a crashed server.
//
// Rule: functions return 0 or a result >= 0, or a negative errno; none of them allocates, none keeps state but crash.h.
#ifndef FOS_CPLATFORM_H
#define FOS_CPLATFORM_H

#include <cplatform/crash.h>
#include <cplatform/frames.h>
#include <cplatform/memory.h>
#include <cplatform/segment.h>
#include <cplatform/socket.h>
#include <cplatform/thread.h>
#include <cplatform/zero.h>

#endif
