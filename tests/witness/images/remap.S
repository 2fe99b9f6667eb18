// A page moves to another frame while a second CPU uses it: break, invalidate, make.

.balign 4096
start:
    enable  root
    start_second
    await   1
    constant x9, PAGE_VA
    adr     x10, pages + 8
    constant x11, (OTHER_FRAME + RW)
    only    bad_type_changed_in_place, constant x11, (FRAME + DEVICE)
    constant x12, PAGE_OPERAND
    only    bad_operand_not_shifted, lsl x12, x12, #12
    str     xzr, [x9]                   // the page is in use
break:
    unless  bad_changed_in_place, unless bad_type_changed_in_place, str xzr, [x10]
    only    bad_changed_in_place, str x11, [x10]
    only    bad_type_changed_in_place, str x11, [x10]
use_broken:
    only    bad_used_while_broken, str xzr, [x9]
    // The invalid descriptor is seen by every walk before the TLBI relies on it.
    unless  bad_no_dsb_before_tlbi, unless bad_dmb_before_tlbi, dsb ishst
    only    bad_dmb_before_tlbi, dmb ish
invalidate:
.ifdef bad_local_tlbi
    tlbi    vae2, x12
.else
.ifdef bad_tlbi_of_another_regime
    tlbi    vmalle1is
.else
    unless  bad_no_tlbi, tlbi vae2is, x12
.endif
.endif
    // No CPU can use the old descriptor any more.
.ifdef bad_store_dsb_after_tlbi
    dsb     ishst
.else
.ifdef bad_local_tlbi_behind_broadcast
    tlbi    vae2, x12
    dsb     nsh
.else
.ifdef bad_local_dsb_after_tlbi
    dsb     nsh
.else
    unless  bad_no_dsb_after_tlbi, dsb ish
.endif
.endif
.endif
make:
.ifdef bad_low_half_first
    str     w11, [x10]
    lsr     x13, x11, #32
high_half:
    str     w13, [x10, #4]
.else
    str     x11, [x10]
.endif
    unless  bad_no_dsb_after_make, dsb ish // the new descriptor is seen by every walk
    unless  bad_no_isb_after_make, isb
use:
    str     xzr, [x9]
    tell    2
    await   3
finish:
    b       exit

secondary:
    enable  root
    constant x9, PAGE_VA
    str     xzr, [x9]
    tell    1
    await   2
    unless  bad_no_isb_elsewhere, isb
use_elsewhere:
    str     xzr, [x9]
    tell    3
    b       park

small_tables
    entry   1, FRAME + RW
flags_page
