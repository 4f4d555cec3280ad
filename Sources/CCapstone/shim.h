// capstone, the disassembler, as Debian has it.
#include <capstone/capstone.h>
