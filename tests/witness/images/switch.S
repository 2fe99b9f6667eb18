// From one root to another, with the MMU off in between; the two disagree about one page.

start:
    enable  root
    constant x9, PAGE_VA
    adr     x10, data
    adr     x1, second_root
    constant x2, PAUSED
    only    bad_caches_off_in_the_window, constant x2, OFF
    constant x3, ON
    str     xzr, [x9]
    unless  bad_stores_before_the_window, dsb ish // complete before accesses are not cached
    isb
off:
    unless  bad_switched_with_mmu_on, msr sctlr_el2, x2
    unless  bad_no_isb_after_mmu_off, isb // no walk of the old root may begin after this
invalidate:
.ifdef bad_one_page_invalidated
    constant x4, PAGE_OPERAND
    tlbi    vae2, x4
.else
    unless  bad_old_root_not_invalidated, tlbi alle2
.endif
    unless  bad_invalidation_not_awaited, dsb nsh // nothing of the old root is left
    isb
.ifdef bad_store_in_the_window
in_the_window:
    str     xzr, [x10]
.endif
name_root:
    msr     ttbr0_el2, x1
    unless  bad_root_and_m_together, isb
on:
    msr     sctlr_el2, x3
    isb
use:
    str     xzr, [x9]
finish:
    b       exit

small_tables
    entry   1, FRAME + RW
table second_root
    entry   1, second_level_2 + TABLE
table second_level_2
    entry   0, second_level_3 + TABLE
    entry   2, second_pages + TABLE
table second_level_3
    image_pages
table second_pages
    entry   1, OTHER_FRAME + RW
flags_page
