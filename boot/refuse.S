// Where a CPU stops that cannot go on and has no Rust to say so. Addresses are by ADR, not ADRP: an image that is not
// loaded at a multiple of 4 KiB is refused here too. The cause stays in x0 and at `refusal_cause`; with
// earlycon=semihosting the debugger prints it and ends the run, and with a UART as early console it is said there.
// Usable with the MMU on and off: addresses are relative, nothing but `refusal_cause` is written, no stack is used.

// reg = run-time address of refusal_cause, which lies in the data: in a large image further than ADR reaches. Clobbers
// \other.
.macro CAUSE_ADDRESS reg, other
    adr \reg, refusal_cause_distance
    ldrsw \other, [\reg]
    add \reg, \reg, \other
.endm

// Says a text that ends with a zero byte, to whoever the image was built to speak to. In: x1 the text. Clobbers x0-x7,
// x15-x18, x30.
.macro SAY
.if {EARLYCON_SEMIHOSTING}
    mov x0, #4                  // SYS_WRITE0
    hlt #0xf000
.endif
.if {EARLYCON_UART}
    bl say_on_uart
.endif
.endm

// In: x0 cause (src/refusal.rs). Does not return. MMU: any.
ROUTINE refuse, .text.boot
.if {EARLYCON_SEMIHOSTING} + {EARLYCON_UART}
    CAUSE_ADDRESS x1, x2
    str x0, [x1]                // a debugger may look when the run ends below
    mov x12, x0
    adr x2, refusal_messages
    ldr w3, [x2, x0, lsl #2]    // offset of the message from the list
    add x1, x2, w3, sxtw
    SAY
.endif
.if {EARLYCON_SEMIHOSTING}
    adr x1, refusal_exit
    mov x0, #0x20               // SYS_EXIT_EXTENDED
    hlt #0xf000
.endif
.if {EARLYCON_SEMIHOSTING} + {EARLYCON_UART}
    mov x0, x12
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

// In: x0 cause. With an early console says ESR_EL2, ELR_EL2 and FAR_EL2, one hex digit a call; they stay in x9, x10 and
// x11 for a debugger. Clobbers x1-x8, x12-x18, x30.
ROUTINE say_syndrome, .text.boot
    mrs x9, esr_el2
    mrs x10, elr_el2
    mrs x11, far_el2
.if {EARLYCON_SEMIHOSTING} + {EARLYCON_UART}
    mov x12, x0
    adr x14, syndrome_digits
    mov x8, #3
.Lnext_register:
    mov x13, #60
.Lnext_digit:
    lsr x2, x9, x13
    and x2, x2, #0xf
    add x1, x14, x2, lsl #1
    SAY
    subs x13, x13, #4
    b.ge .Lnext_digit
    add x1, x14, #32            // a space
    SAY
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

.if {EARLYCON_UART}
// Says a text on the UART that the image was built to speak on, wherever that is reached: with the MMU off where it is,
// with the MMU on where the tables in force map it, in our place for it or flat. Elsewhere it says nothing, and so it
// does on a UART that has stopped. In: x1 the text, which ends with a zero byte. Clobbers x2-x7, x15-x18. MMU: any.
ROUTINE say_on_uart, .text.boot
    CONSTANT x2, {EARLYCON_ADDRESS}
    mrs x3, CurrentEL
    cmp x3, #(2 << 2)
    b.eq .Lsays_at_el2
    b.hi .Lsays_at_el3
    mrs x3, sctlr_el1
    b .Lsays_at_other
.Lsays_at_el3:
    mrs x3, sctlr_el3
.Lsays_at_other:
    tbnz x3, #{SCTLR_M_BIT}, .Lsaid     // whose tables they are is not known
    b .Lnext_byte
.Lsays_at_el2:
    mrs x3, sctlr_el2
    tbz x3, #{SCTLR_M_BIT}, .Lnext_byte
    CONSTANT x3, {EARLYCON_VIRT}
    at s1e2w, x3
    isb                         // PAR_EL1 is of this address
    mrs x4, par_el1
    tbnz x4, #0, .Lmapped_flat  // F: not mapped
    eor x4, x4, x2
    ubfx x4, x4, #12, #40       // PA
    cbnz x4, .Lmapped_flat
    mov x2, x3
    b .Lnext_byte
.Lmapped_flat:
    at s1e2w, x2
    isb                         // PAR_EL1 is of this address
    mrs x4, par_el1
    tbnz x4, #0, .Lsaid
    eor x4, x4, x2
    ubfx x4, x4, #12, #40
    cbnz x4, .Lsaid

.Lnext_byte:
    ldrb w15, [x1], #1
    cbz w15, .Lsaid
    adr x3, earlycon_steps      // src/uart.rs, Step
.Lnext_step:
    ldp w4, w5, [x3], #8        // what, where
    ldp w6, w7, [x3], #8        // mask, value
    cbz w4, .Lnext_byte
    add x5, x2, w5, uxtw
    mov w16, w7
    tbnz w4, #{STEP_STORE_BIT}, .Lstore_step
    mov w16, w15
    tbnz w4, #{STEP_BYTE_BIT}, .Lstore_step
    mov w17, #{EARLYCON_LOOKS}
.Llook:
    tbnz w4, #{STEP_OCTET_BIT}, .Lload_octet
    tbnz w4, #{STEP_HALF_BIT}, .Lload_half
    ldr w16, [x5]
    b .Lloaded
.Lload_octet:
    ldrb w16, [x5]
    b .Lloaded
.Lload_half:
    ldrh w16, [x5]
.Lloaded:
    and w18, w16, w6
    cmp w18, w7
    b.eq .Lnext_step
    tbz w4, #{STEP_WAIT_BIT}, .Lset_bits
    subs w17, w17, #1
    b.ne .Llook
    b .Lsaid
.Lset_bits:
    bic w16, w16, w6
    orr w16, w16, w7
.Lstore_step:
    tbnz w4, #{STEP_OCTET_BIT}, .Lstore_octet
    tbnz w4, #{STEP_HALF_BIT}, .Lstore_half
    str w16, [x5]
    b .Lnext_step
.Lstore_octet:
    strb w16, [x5]
    b .Lnext_step
.Lstore_half:
    strh w16, [x5]
    b .Lnext_step
.Lsaid:
    ret
END_ROUTINE say_on_uart
.endif

// A line, as a terminal wants it.
.macro MESSAGE text:vararg
    .ascii \text
.if {EARLYCON_UART}
    .ascii "\r"
.endif
    .asciz "\n"
.endm

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
    MESSAGE "breakwater: refused: no cause"
.Lel1:
    MESSAGE "breakwater: refused: entered at EL1; a hypervisor starts at EL2 (or EL3)"
.Lmmu_on:
    MESSAGE "breakwater: refused: entered with the MMU on, in a map that is not flat; the boot protocol wants it off"
.Le2h:
    MESSAGE "breakwater: refused: HCR_EL2.E2H is stuck at 1 (no FEAT_E2H0); the EL2&0 regime is not supported"
.Lgranule:
    MESSAGE "breakwater: refused: this CPU has no 4 KiB translation granule at stage 1"
.Lparange:
    MESSAGE "breakwater: refused: this CPU's physical address range is smaller than the boot CPU's"
.Lmisaligned_image:
    MESSAGE "breakwater: refused: the image is not loaded at a multiple of 4 KiB"
.Ltoo_high_image:
    MESSAGE "breakwater: refused: the image ends above {IDENTITY_LIMIT_GIB} GiB, where the map of the hypervisor begins: no room for its identity page"
.Lexception_before_mmu:
    MESSAGE "(ESR ELR FAR) breakwater: exception before the MMU was on"
.Lexception_in_exception:
    MESSAGE "(ESR ELR FAR) breakwater: exception inside the exception path"
syndrome_digits:
    .asciz "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f", " "

    .section .data.refusal_cause, "aw", %progbits
    .balign 8
    .global refusal_cause
refusal_cause:
    .quad 0
