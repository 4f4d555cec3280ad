// Compiles the wire headers on their own, so that an assertion in them fails here first.
#include <fos/wire.h>
