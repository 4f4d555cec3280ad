// hwloc, the portable hardware locality library, as Debian has it.
#include <hwloc.h>
