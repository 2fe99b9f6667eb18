// Where a CPU stops that cannot go on and has no Rust to say so. Addresses are by ADR, not ADRP: an image that is not
// loaded at a multiple of 4 KiB is refused here too. The cause stays in x0 and at `refusal_cause`; with
// earlycon=semihosting the debugger prints it and ends the run. Usable with the MMU on and off: addresses are relative,
// nothing but `refusal_cause` is written, no stack is used.

// reg = run-time address of refusal_cause, which lies in the data: in a large image further than ADR reaches. Clobbers
// \other.
.macro CAUSE_ADDRESS reg, other
    adr \reg, refusal_cause_distance
    ldrsw \other, [\reg]
    add \reg, \reg, \other
.endm

// In: x0 cause (src/refusal.rs). Does not return. MMU: any.
ROUTINE refuse, .text.boot
.if {EARLYCON_SEMIHOSTING}
    CAUSE_ADDRESS x1, x2
    str x0, [x1]                // a debugger may look when the run ends below
    mov x4, x0
    adr x2, refusal_messages
    ldr w3, [x2, x0, lsl #2]    // offset of the message from the list
    add x1, x2, w3, sxtw
    mov x0, #4                  // SYS_WRITE0
    hlt #0xf000
    adr x1, refusal_exit
    mov x0, #0x20               // SYS_EXIT_EXTENDED
    hlt #0xf000
    mov x0, x4
.endif
    b park_refused
END_ROUTINE refuse

// Where every refusal ends that nobody can be told of. In: x0 cause. Does not return. MMU: any.
ROUTINE park_refused, .text.boot
    CAUSE_ADDRESS x1, x2
    str x0, [x1]
    .global refused
refused:
    wfe
    b refused
END_ROUTINE park_refused

// Stops for \cause, or for the cause there is already: without a debugger, telling one of the first refusal is an
// exception itself. Clobbers x9, x10.
.macro REFUSE_ONCE cause
    CAUSE_ADDRESS x9, x10
    ldr x0, [x9]
    cbnz x0, park_refused
    mov x0, #\cause
    str x0, [x9]
    b say_syndrome
.endm

// An exception with M=0: no stack, no Rust.
ROUTINE exception_before_mmu, .text.boot
    REFUSE_ONCE {CAUSE_EXCEPTION_BEFORE_MMU}
END_ROUTINE exception_before_mmu

// An exception inside the exception path: whatever that path needs is broken, so nothing of it is used again.
ROUTINE exception_in_exception, .text.boot
    REFUSE_ONCE {CAUSE_EXCEPTION_IN_EXCEPTION}
END_ROUTINE exception_in_exception

// In: x0 cause. With earlycon=semihosting prints ESR_EL2, ELR_EL2 and FAR_EL2, one hex digit a call; they stay in x9,
// x10 and x11 for a debugger. Clobbers x1-x8, x12-x14.
ROUTINE say_syndrome, .text.boot
    mrs x9, esr_el2
    mrs x10, elr_el2
    mrs x11, far_el2
.if {EARLYCON_SEMIHOSTING}
    mov x12, x0
    adr x14, syndrome_digits
    mov x8, #3
.Lnext_register:
    mov x13, #60
.Lnext_digit:
    lsr x2, x9, x13
    and x2, x2, #0xf
    add x1, x14, x2             // SYS_WRITEC takes the address of the character
    mov x0, #3
    hlt #0xf000
    subs x13, x13, #4
    b.ge .Lnext_digit
    add x1, x14, #16            // a space
    mov x0, #3
    hlt #0xf000
    mov x9, x10
    mov x10, x11
    subs x8, x8, #1
    b.ne .Lnext_register
    mov x0, x12
    mrs x9, esr_el2
    mrs x10, elr_el2
    mrs x11, far_el2
.endif
    b refuse
END_ROUTINE say_syndrome

    .section .text.boot.refusal_messages, "a", %progbits
    .balign 8
    BEFORE_MMU refusal_exit
refusal_exit:
    .quad 0x20026, {EXIT_REFUSED}           // ADP_Stopped_ApplicationExit, status
refusal_cause_distance:
    .long refusal_cause - .
refusal_messages:
    .long .Lnothing - refusal_messages
    .long .Lel1 - refusal_messages
    .long .Lmmu_on - refusal_messages
    .long .Le2h - refusal_messages
    .long .Lgranule - refusal_messages
    .long .Lparange - refusal_messages
    .long .Lmisaligned_image - refusal_messages
    .long .Ltoo_high_image - refusal_messages
    .long .Lexception_before_mmu - refusal_messages
    .long .Lexception_in_exception - refusal_messages
.Lnothing:
    .asciz "breakwater: refused: no cause\n"
.Lel1:
    .asciz "breakwater: refused: entered at EL1; a hypervisor starts at EL2 (or EL3)\n"
.Lmmu_on:
    .asciz "breakwater: refused: entered with the MMU on, in a map that is not flat; the boot protocol wants it off\n"
.Le2h:
    .asciz "breakwater: refused: HCR_EL2.E2H is stuck at 1 (no FEAT_E2H0); the EL2&0 regime is not supported\n"
.Lgranule:
    .asciz "breakwater: refused: this CPU has no 4 KiB translation granule at stage 1\n"
.Lparange:
    .asciz "breakwater: refused: this CPU's physical address range is smaller than the boot CPU's\n"
.Lmisaligned_image:
    .asciz "breakwater: refused: the image is not loaded at a multiple of 4 KiB\n"
.Ltoo_high_image:
    .asciz "breakwater: refused: the image ends above {IDENTITY_LIMIT_GIB} GiB, where the map of the hypervisor begins: no room for its identity page\n"
.Lexception_before_mmu:
    .asciz "(ESR ELR FAR) breakwater: exception before the MMU was on\n"
.Lexception_in_exception:
    .asciz "(ESR ELR FAR) breakwater: exception inside the exception path\n"
syndrome_digits:
    .ascii "0123456789abcdef "

    .section .data.refusal_cause, "aw", %progbits
    .balign 8
    .global refusal_cause
refusal_cause:
    .quad 0
