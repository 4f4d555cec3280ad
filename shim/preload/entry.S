# Where trampolines arrive: one system call of the program, with its registers as at the `syscall` instruction.
#
# In:   rax number; rdi rsi rdx r10 r8 r9 arguments; rcx address of the `syscall` instruction (a system call destroys rcx
#       and r11, so both are free). The stack is the program's: 128 bytes below rsp may be in use (red zone), and it may be a
#       small alternate one, so only what is needed is pushed.
# Out:  not wanted, or FOS_PASS: jumps to the `syscall` with every register as it was, and the kernel takes over there.
#       Answered: continues behind it with the result in rax and all else as it was.
# Unwinding (pthread_cancel, exceptions, debuggers) sees a frame whose caller stands at the `syscall`: hence the
# "signal frame", which keeps unwinders from looking one byte before.
        .text
        .globl  fos_entry
        .hidden fos_entry
        .type   fos_entry, @function
        .balign 64
fos_entry:
        .cfi_startproc simple
        .cfi_signal_frame
        .cfi_def_cfa rsp, 0
        .cfi_register rip, rcx
        cmp     $512, %rax                      # FOS_SYSTEM_CALLS
        jae     1f
        lea     fos_hooks(%rip), %r11
        cmpb    $0, (%r11, %rax)
        jne     2f
1:      jmp     *%rcx

2:      lea     -128(%rsp), %rsp                # the red zone
        .cfi_def_cfa rsp, 128
        push    %rbp
        .cfi_def_cfa rsp, 136
        .cfi_offset rbp, -136
        mov     %rsp, %rbp
        .cfi_def_cfa_register rbp
        push    %rcx                            # struct fos_call, from its end
        .cfi_offset rip, -144
        push    %r9
        push    %r8
        push    %r10
        push    %rdx
        push    %rsi
        push    %rdi
        push    %rax
        mov     %rsp, %rdi
        and     $-16, %rsp
        cld
        call    fos_dispatch
        lea     -64(%rbp), %rsp
        mov     $0x8000000000000000, %r11       # FOS_PASS
        cmp     %r11, %rax
        je      3f
        add     $8, %rsp
        addq    $2, 48(%rsp)                    # behind the `syscall`
        jmp     4f
3:      pop     %rax
4:      pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %r10
        pop     %r8
        pop     %r9
        pop     %rcx
        .cfi_register rip, rcx
        pop     %rbp
        .cfi_def_cfa rsp, 128
        .cfi_restore rbp
        lea     128(%rsp), %rsp
        .cfi_def_cfa rsp, 0
        jmp     *%rcx
        .cfi_endproc
        .size   fos_entry, . - fos_entry

# long fos_on_stack(struct fos_call *call, void *top): fos_answer_call(call) on another stack (stacks.c).
        .globl  fos_on_stack
        .hidden fos_on_stack
        .type   fos_on_stack, @function
        .balign 16
fos_on_stack:
        .cfi_startproc
        push    %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov     %rsp, %rbp
        .cfi_def_cfa_register rbp
        mov     %rsi, %rsp
        call    fos_answer_call
        mov     %rbp, %rsp
        pop     %rbp
        .cfi_def_cfa rsp, 8
        ret
        .cfi_endproc
        .size   fos_on_stack, . - fos_on_stack

# Room for trampolines, filled by redirect.c: slots of 32 bytes,
#       0   the address of the `syscall` that this slot serves
#       8   the window, moved here; lea to rcx; jmp fos_entry; at most 24 bytes
# In this library, not in memory of their own, so that unwinding finds what follows: a thread interrupted anywhere in a slot
# is as good as at its `syscall`, whose address is the slot's first word. The windows leave the stack alone.
        .section .fos_trampolines, "aw", @nobits
        .globl  fos_trampolines
        .hidden fos_trampolines
        .balign 4096
fos_trampolines:
        .cfi_startproc simple
        .cfi_signal_frame
        .cfi_def_cfa rsp, 0
        # DW_CFA_expression, rip: where the caller's rip is saved, DW_OP_breg16 0, DW_OP_const1s -32, DW_OP_and.
        .cfi_escape 0x10, 16, 5, 0x80, 0, 0x09, 0xe0, 0x1a
        .skip   49152                           # FOS_TRAMPOLINES of them
        .cfi_endproc
        .size   fos_trampolines, . - fos_trampolines
        .section .note.GNU-stack, "", @progbits
