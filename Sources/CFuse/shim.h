// libfuse3's low-level API (Debian 12: 3.14), and the kernel's own protocol header for flags that 3.14 does not name.
#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#endif
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
