// Operands of TLBIs: a level hint, and a range. FEAT_TTL and FEAT_TLBIRANGE.

.arch_extension tlb-rmi

.set TTL,          44                   // bits 47:44
.set PAGE_OF_4K,   0x7
.set BLOCK_OF_4K,  0x6
.set PAGE_OF_64K,  0xf
.set RANGE_OF_4K,  1 << 46              // TG
.set RANGE_OF_64K, 3 << 46
.set FOUR_PAGES,   1 << 39              // NUM, with SCALE 0: twice NUM + 1
.set TWO_PAGES,    0

start:
    enable  root
    adr     x10, pages
    // Page 1 becomes read-only.
    constant x11, (FRAME + 0x1000 + RO)
    constant x12, (PAGE_OPERAND + (PAGE_OF_4K << TTL))
    only    bad_level_hint, constant x12, (PAGE_OPERAND + (BLOCK_OF_4K << TTL))
    only    bad_hint_of_another_granule, constant x12, (PAGE_OPERAND + (PAGE_OF_64K << TTL))
    only    bad_operand_with_low_bits, constant x12, (PAGE_VA + (PAGE_OF_4K << TTL))
protect:
    str     x11, [x10, #8]
    dsb     ishst                       // the new rights are seen before the TLBI relies on it
invalidate:
.ifdef bad_outer_tlbi_and_inner_dsb
    tlbi    vale2os, x12
.else
    tlbi    vale2is, x12
.endif
    dsb     ish                         // no CPU can use the old rights any more
    isb
    // So do pages 4 to 7.
    constant x12, (PAGE_OPERAND + 3 + RANGE_OF_4K + FOUR_PAGES)
    only    bad_range_too_short, constant x12, (PAGE_OPERAND + 3 + RANGE_OF_4K + TWO_PAGES)
    only    bad_range_of_another_granule, constant x12, (PAGE_OPERAND + 3 + RANGE_OF_64K + FOUR_PAGES)
    constant x11, (FRAME + 0x4000 + RO)
    mov     x13, #4
protect_range:
    str     x11, [x10, x13, lsl #3]
    add     x11, x11, #0x1000
    add     x13, x13, #1
    cmp     x13, #8
    b.ne    protect_range
    dsb     ishst                       // the new rights are seen before the TLBI relies on it
invalidate_range:
    tlbi    rvale2is, x12
    dsb     ish                         // no CPU can use the old rights any more
    isb
    b       exit

small_tables
    entry   1, FRAME + 0x1000 + RW
    entry   4, FRAME + 0x4000 + RW
    entry   5, FRAME + 0x5000 + RW
    entry   6, FRAME + 0x6000 + RW
    entry   7, FRAME + 0x7000 + RW
flags_page
