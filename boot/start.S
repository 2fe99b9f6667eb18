// What runs first at the link address.

// First code at the link address. Registers go on from macros.S. Zeroes the rest of .bss, which no one has used yet,
// and calls Rust with the boot record. MMU: on.
ROUTINE start_on_link_address, .init.text.boot
    ADDRESS_OF x0, vectors
    msr vbar_el2, x0
    ADDRESS_OF x0, _boot_exception_stack_end_exclusive
    msr sp_el0, x0              // SP_EL0 is where this CPU takes its exceptions: vectors.S
    ADDRESS_OF x0, _boot_stack_end_exclusive
    mov sp, x0
    isb                         // the vectors' new address is in force
    COUNT_ISB

    ADDRESS_OF x0, _bss_start
    ADDRESS_OF x1, _bss_end_exclusive
    cmp x0, x1
    b.hs .Lbss_is_zero
.Lzero_bss:
    stp xzr, xzr, [x0], #16     // linker.ld keeps both ends on multiples of 64
    stp xzr, xzr, [x0], #16
    stp xzr, xzr, [x0], #16
    stp xzr, xzr, [x0], #16
    cmp x0, x1
    b.lo .Lzero_bss
.Lbss_is_zero:
    sub sp, sp, #64             // BootRecord (boot/src/el2/entry.rs)
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x27, x28, [sp, #32]
    stp x26, x24, [sp, #48]
    mov x0, sp
    mov x29, #0
    mov x30, #0
    bl breakwater_start
    brk #0                      // breakwater_start does not return
END_ROUTINE start_on_link_address

// What the image is made of, with final rights: what tables.S maps. Between these spans are the guard pages of the
// stacks: never mapped.
.macro FIRST_MAP
    FIRST_SECTION _text_start, _text_end_exclusive, {LEAF_RX}
    FIRST_SECTION _rodata_start, _rodata_end_exclusive, {LEAF_RO}
    FIRST_SECTION _data_start, _data_end_exclusive, {LEAF_RW}
    FIRST_SECTION _boot_stack_start, _boot_stack_end_exclusive, {LEAF_RW}
    FIRST_SECTION _boot_exception_stack_start, _boot_exception_stack_end_exclusive, {LEAF_RW}
.endm
