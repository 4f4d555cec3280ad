// The calls side, before it knows any call: wants nothing, so every call passes.
#include "shim.h"

const uint8_t fos_calls_wanted[FOS_SYSTEM_CALLS];

int fos_calls_start(char *const *environment) {
    (void)environment;
    return 0;
}
long fos_calls_handle(struct fos_call *call) {
    (void)call;
    return FOS_PASS;
}
void fos_calls_before_fork(int shares_memory) { (void)shares_memory; }
void fos_calls_after_fork(int child) { (void)child; }
void fos_calls_before_exec(void) {}
void fos_calls_after_failed_exec(void) {}
void fos_calls_thread_end(void) {}
void fos_calls_process_end(void) {}
void fos_calls_give_up(void) {}
