// A first table is written with the caches off, and firmware is called.

start:
    adr     x9, pages
    constant x11, (FRAME + RW)
    unless  bad_line_not_invalidated_before, dc ivac, x9 // no dirty line may be evicted over what is written
    dsb     sy
build:
    str     x11, [x9, #8]
    unless  bad_invalidated_before_the_store, dmb sy // the store before the invalidation
.ifdef bad_line_cleaned
    dc      cvac, x9
.endif
    unless  bad_line_not_invalidated_after, dc ivac, x9 // no stale line may hide it
    dsb     sy
    constant x12, OTHER_FRAME
zero:
    only    bad_zeroed_by_dc_zva, dc zva, x12
    unless  bad_zeroed_by_dc_zva, str xzr, [x12]
    unless  bad_call_before_dsb, dsb sy // the store is complete before firmware may look
    constant x0, PSCI_VERSION
call:
    smc     #0
    enable  root, turn_on
    constant x9, PAGE_VA
    str     xzr, [x9]
    b       exit

small_tables
flags_page
