// Exception vectors, the same for every CPU and usable before the MMU. Each CPU takes exceptions on a stack of its own,
// whose top stands in SP_EL0: switching to it needs no register and no memory, so that a stack overflow is reported
// like any other fault. The exception path takes no lock and never returns.
//
// Faults of two instructions are no error and return: those of `guarded_load` and `guarded_store` that found nothing
// mapped, or nothing that may be written. That way uses no memory and no stack, so it holds whatever the stack, the
// tables or the exception stack are.
//
// TPIDR_EL0 and TPIDRRO_EL0 are scratch here: no EL0 exists while this image runs.

.macro VECTOR number
    .org vectors + \number * 0x80
    msr tpidr_el0, x0
    mov x0, #\number
    b vector_common
.endm

// The usual vector. An expected fault of a guarded access goes back behind it with x0 FAR_EL2 and x1 ESR_EL2;
// everything else is reported. Expected is, at a level from 0 to 3, a translation fault of either, and a permission
// fault of the store. The interrupted flags are in SPSR_EL2.
.macro VECTOR_OF_THIS_EL number
    .org vectors + \number * 0x80
    msr tpidr_el0, x0
    msr tpidrro_el0, x1
    mrs x0, esr_el2
    ubfx x1, x0, #26, #6
    cmp x1, #0x25               // EC: data abort from this EL
    b.ne .Lreported
    ubfx x0, x0, #2, #7         // CM, S1PTW, WnR, and what kind of fault
    ADDRESS_OF x1, guarded_load_access
    cmp x0, #0x01               // read, translation fault
    b.eq .Lguarded
    ADDRESS_OF x1, guarded_store_access
    cmp x0, #0x11               // write, translation fault
    b.eq .Lguarded
    cmp x0, #0x13               // write, permission fault
    b.ne .Lreported
.Lguarded:
    mrs x0, elr_el2
    cmp x0, x1
    b.ne .Lreported             // of some other instruction
    add x0, x0, #4
    msr elr_el2, x0
    mrs x1, esr_el2
    mrs x0, far_el2
    eret
.Lreported:
    mrs x1, tpidrro_el0
    mov x0, #\number
    b vector_common
.endm

    .section .text.boot.vectors, "ax", %progbits
    .balign 0x800
    .type vectors, %function
    .global vectors
    BEFORE_MMU vectors
vectors:
    VECTOR 0                    // from SP_EL0: an exception inside the exception path
    VECTOR 1
    VECTOR 2
    VECTOR 3
    VECTOR_OF_THIS_EL 4         // from this EL: the usual kind
    VECTOR 5
    VECTOR 6
    VECTOR 7
    VECTOR 8                    // from a lower EL: nothing runs there
    VECTOR 9
    VECTOR 10
    VECTOR 11
    VECTOR 12
    VECTOR 13
    VECTOR 14
    VECTOR 15
    .balign 0x80
    .size vectors, . - vectors

// In: x0 vector number, TPIDR_EL0 the interrupted x0. MMU: any.
ROUTINE vector_common, .text.boot
    msr tpidrro_el0, x1
    cmp x0, #4
    b.lo exception_in_exception
    mrs x1, sctlr_el2
    tbz x1, #{SCTLR_M_BIT}, .Lbefore_mmu    // TBZ reaches 32 KiB; where a layout seed puts the routine is further
    msr spsel, #0               // this CPU's exception stack
    sub sp, sp, #{EXCEPTION_FRAME_BYTES}    // ExceptionFrame (boot/src/el2/exception.rs)
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x19, [sp, #144]
    stp x20, x21, [sp, #160]
    stp x22, x23, [sp, #176]
    stp x24, x25, [sp, #192]
    stp x26, x27, [sp, #208]
    stp x28, x29, [sp, #224]
    mrs x2, tpidr_el0
    mrs x3, tpidrro_el0
    stp x2, x3, [sp]            // the interrupted x0 and x1
    mrs x2, elr_el2
    stp x30, x2, [sp, #240]
    mrs x2, spsr_el2
    mrs x3, esr_el2
    stp x2, x3, [sp, #256]
    mrs x2, far_el2
    msr spsel, #1
    mov x3, sp                  // the interrupted stack pointer
    msr spsel, #0
    stp x2, x3, [sp, #272]
    mov x1, sp
    mov x29, #0
    bl breakwater_exception     // x0 vector number, x1 frame
    brk #0                      // breakwater_exception does not return
.Lbefore_mmu:
    b exception_before_mmu
END_ROUTINE vector_common

// Loads 64 bits, or says why not (boot/src/el2/guarded.rs).
// In: x0 address. Out: x0 the value and x1 0; or, after an expected fault, x0 FAR_EL2 and x1 ESR_EL2, which is never 0.
// Keeps: everything else. MMU: on.
ROUTINE guarded_load, .text.boot
    mov x1, #0
guarded_load_access:            // what the vector compares ELR_EL2 with
    ldr x0, [x0]
    ret
END_ROUTINE guarded_load

// Stores 64 bits, or says why not.
// In: x0 address, x1 value. Out: x1 0; or, after an expected fault, x0 FAR_EL2 and x1 ESR_EL2, which is never 0.
// Keeps: everything else but x2. MMU: on.
ROUTINE guarded_store, .text.boot
    mov x2, x1
    mov x1, #0
guarded_store_access:
    str x2, [x0]
    ret
END_ROUTINE guarded_store
