// EL2 hands over to EL1 and back. What EL1 accesses is not translated by EL2's tables; what it stores into them counts.

.set VECTOR_VA, 0x40402200              // page 2, the vector of what is taken from EL2 itself
.set EL1_OFF,   0x30d00800              // SCTLR_EL1: neither M nor C nor I
.set EL1_ON,    0x30d0198d              // with M, C and I

// Goes on at \to, at EL1.
//   Clobbers x0. MMU state: EL1's own.
.macro descend to
    adr     x0, \to
    msr     elr_el2, x0
    mov     x0, #0x3c5                  // EL1h, everything masked
    msr     spsr_el2, x0
    eret
.endm

// Goes on at \to, at EL2, by an exception.
//   Clobbers x20.
.macro ascend to
    adr     x20, \to
    hvc     #0
.endm

start:
    enable  root
    adr     x0, ways_back
    msr     vbar_el2, x0
    mov     x0, #(1 << 31)              // EL1 is AArch64
    msr     hcr_el2, x0
    constant x0, EL1_OFF
    msr     sctlr_el1, x0
    isb
    constant x9, PAGE_VA
    adr     x10, pages + 8
    constant x11, (OTHER_FRAME + RW)
    constant x12, PAGE_OPERAND
    ldr     x14, [x9]
    // While EL2's page is broken, EL1 uses that address, and one that EL2 never maps: with its MMU off they are
    // physical.
break:
    str     xzr, [x10]
    dsb     ishst                       // the invalid descriptor is seen before the TLBI relies on it
    unless  bad_used_at_el2, descend below_with_mmu_off
    only    bad_used_at_el2, isb
use_broken:
    only    bad_used_at_el2, str xzr, [x9]
below_with_mmu_off:
    constant x13, FRAME
    unless  bad_used_at_el2, ldr x14, [x9]
    unless  bad_used_at_el2, str x14, [x13]
    unless  bad_used_at_el2, ascend back_from_mmu_off
back_from_mmu_off:
    tlbi    vae2is, x12
    dsb     ish                         // nothing can use the old page any more
    str     x11, [x10]
    dsb     ish                         // the new page is seen by every walk
    isb
    str     xzr, [x9]
    // EL1 has its own regime, over the same tables, and moves the page; EL2 invalidates its own entries for it.
    adr     x0, root
    msr     ttbr0_el1, x0
    constant x0, (TCR & 0xffff | 1 << 23)   // nothing above: EPD1
    msr     tcr_el1, x0
    constant x0, MAIR
    msr     mair_el1, x0
    isb
    tlbi    alle1
    dsb     nsh
    constant x0, EL1_ON
    msr     sctlr_el1, x0
    constant x11, (FRAME + RW)
    descend below
below:
    only    bad_changed_at_el1, b make
    str     xzr, [x10]
    ascend  above
above:
    dsb     ishst                       // EL1's store is seen before the TLBI relies on it
    unless  bad_no_tlbi_for_el1, tlbi vae2is, x12
    tlbi    alle1is                     // and for EL1's own regime
    dsb     ish
    descend make
make:
    str     x11, [x10]
    dsb     ish
    ascend  used
used:
    str     xzr, [x9]
    // The vectors get a page of code. The exception is the context synchronisation that its vector needs.
    constant x0, (VECTOR_VA & ~0x7ff)
    unless  bad_vector_without_exception, msr vbar_el2, x0
    isb
    constant x11, (IMAGE + 0x2000 + RX)
fill:
    str     x11, [x10, #8]
    dsb     ish                         // the code is seen by every walk
    adr     x20, exit
    constant x0, VECTOR_VA
    unless  bad_vector_without_exception, svc #0
    only    bad_vector_without_exception, br x0

.balign 4096
ways_back:
.rept 16
    br      x20
    .balign 128
.endr

small_tables
    entry   1, FRAME + RW
flags_page
