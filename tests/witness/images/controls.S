// Control registers change while the MMU is on.

.set MAIR_LATER,   MAIR + 0xff000000    // one more index
.set TCR_LATER,    TCR + (1 << 20)      // TBI: the top byte is no address

start:
    enable  root
    constant x1, MAIR_LATER
    constant x2, TCR_LATER
    constant x3, ON
    only    bad_wxn_dropped, bic x3, x3, #WXN
name_types:
    unless  bad_mair_after_the_invalidation, msr mair_el2, x1
    msr     tcr_el2, x2
    unless  bad_invalidated_before_the_isb, isb // the new values before the invalidation
invalidate:
    unless  bad_controls_not_invalidated, tlbi alle2
    unless  bad_controls_and_dsb_of_stores, dsb nsh // nothing is cached with the old values any more
    only    bad_controls_and_dsb_of_stores, dsb nshst
    isb
.ifdef bad_mair_after_the_invalidation
name_types_late:
    msr     mair_el2, x1
    isb
.endif
change:
    msr     sctlr_el2, x3
    isb
    constant x9, PAGE_VA
    str     xzr, [x9]
    b       exit

small_tables
    entry   1, FRAME + RW
flags_page
