// Between Xen's head.S and boot/tables.S, boot/mmu.S: what head.S keeps in registers, and where it goes on.

// Xen's image in pages with final rights: what tables.S maps. The bounds are of Xen's linker script,
// as trial/src/edits.rs changes it.
.macro FIRST_MAP
    FIRST_SECTION _start, bw_text_end_exclusive, {LEAF_RX}
    FIRST_SECTION bw_text_end_exclusive, __ro_after_init_start, {LEAF_RO}
    FIRST_SECTION __ro_after_init_start, __init_begin, {LEAF_RW}
    FIRST_SECTION __init_begin, bw_init_text_end_exclusive, {LEAF_RX}
    FIRST_SECTION bw_init_text_end_exclusive, bw_image_end_exclusive, {LEAF_RW}
.endm

// From real_start of head.S, once its cpu_init has set TCR_EL2. In: x19 physical address of the image. Out: goes on in
// build_first_tables with the registers that macros.S names. Keeps x19-x22, and x26, which head.S and tables.S use for
// different things, in x14; x23 head.S sets anew. MMU: off.
ROUTINE bw_primary, .init.text.boot
    CONSTANT x0, {IDENTITY_LIMIT}
    cmp x19, x0
    b.hs .Ltoo_high
    mov x14, x26
    mrs x23, tcr_el2
    mov x24, x19                // the identity page is the image's first
    CONSTANT x25, {SCTLR_OFF}   // WXN already set
    mov x27, #0
    mov x28, #0
    b build_first_tables
.Ltoo_high:                     // the identity page would fall into Xen's own map
    wfe
    b .Ltoo_high
END_ROUTINE bw_primary

// First code at the link address: zeroes .bss, unless UEFI has (x26 of head.S), and goes back to head.S. Clobbers x0,
// x1. MMU: on.
ROUTINE start_on_link_address, .init.text.boot
    mov x26, x14
    cbnz x26, .Lbss_is_zero
    ADDRESS_OF x0, __bss_start
    ADDRESS_OF x1, __bss_end
.Lzero_bss:
    .rept 8
    stp xzr, xzr, [x0], #16     // what follows the end starts on a page of its own: nothing is lost beyond it
    .endr
    cmp x0, x1
    b.lo .Lzero_bss
.Lbss_is_zero:
    b primary_switched
END_ROUTINE start_on_link_address

// From init_secondary of head.S, once its cpu_init has set TCR_EL2: straight into the runtime tables. In: x20 physical
// address - link address. Out: secondary_switched of head.S. Loads with the MMU off only `init_ttbr`, which was cleaned
// to the point of coherency. Clobbers x0, x1, x25. MMU: off, then on.
ROUTINE bw_secondary, .idmap.text
    CONSTANT64 x0, {MAIR}
    msr mair_el2, x0
    ADDRESS_OF x1, init_ttbr
    ldr x1, [x1]
    msr ttbr0_el2, x1
    CONSTANT x0, {SCTLR_OFF}
    msr sctlr_el2, x0           // WXN while M is still 0
    isb                         // the writes are in force before the invalidation
    tlbi alle2                  // broadcasts reached this PE, but its reset state is unknown (RXQBCL)
    dsb nsh                     // the invalidation is complete on this PE
    isb                         // ... and nothing prefetched under the old state survives
    CONSTANT x25, {SCTLR_ON}    // M, C and I together
    ADDRESS_OF x0, secondary_switched
    sub x0, x0, x20
    b enable_mmu
END_ROUTINE bw_secondary

    .section .pool.frames, "aw", %nobits
    .balign 4096
    .skip {POOL_BYTES}
