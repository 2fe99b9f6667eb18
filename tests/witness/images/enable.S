// The first enable, register by register.

.set E2H,          1 << 34
.set MAIR_WITH_RESERVED, MAIR | 6 << 24 // 3 is no encoding
.set RESERVED,     RW | 3 << 2

start:
    adr     x0, vectors
    msr     vbar_el2, x0
    no_indirection
    constant x2, ON
    adr     x3, root
    mrs     x4, hcr_el2
    constant x5, E2H
    orr     x5, x5, x4
    constant x0, MAIR
    only    bad_type_reserved, movk x0, MAIR_WITH_RESERVED >> 16, lsl 16
name_types:
    unless  bad_mair_late, unless bad_mair_never_written, msr mair_el2, x0
    only    bad_host_regime, msr hcr_el2, x5
    constant x1, TCR
    msr     tcr_el2, x1
    only    bad_root_with_asid, movk x3, 1, lsl 48
name_root:
    unless  bad_root_named_with_m, msr ttbr0_el2, x3
    constant x1, OFF
    only    bad_wxn_with_m, bic x1, x1, #WXN
    msr     sctlr_el2, x1
    unless  bad_invalidated_before_isb, isb // the new regime before the invalidation
invalidate:
    unless  bad_tlb_not_invalidated, tlbi alle2
    unless  bad_invalidation_not_finished, dsb nsh // nothing of before reset is left
    isb
.ifdef bad_mair_late
name_types_late:
    msr     mair_el2, x0
    isb
.endif
.ifdef bad_host_tried_late
    msr     hcr_el2, x5
    isb
name_host_late:
    msr     hcr_el2, x4
    isb
.endif
    constant x9, PAGE_VA
.ifdef bad_root_named_with_m
name_root_late:
    msr     ttbr0_el2, x3
.endif
turn_on:
    msr     sctlr_el2, x2
use_early:
    only    bad_used_before_isb, str xzr, [x9]
    isb
    str     xzr, [x9]
    b       exit

small_tables
.ifdef bad_type_reserved
    entry   1, FRAME + RESERVED
.else
    entry   1, FRAME + RW
.endif
flags_page
