#include <fos/wire.h>
