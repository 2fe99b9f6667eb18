// A CPU fills in, with its MMU off, a table that another CPU walks through its caches. It comes back, and both use the page.

start:
    enable  root
    start_second
    await   1
    adr     x10, pages + 8
    constant x11, (FRAME + RW)
    unless  bad_line_of_a_table_in_use_before, dc ivac, x10 // no dirty line may be evicted over what is written
    dsb     sy
    isb
    constant x0, PAUSED
    msr     sctlr_el2, x0
    isb
fill:
    str     x11, [x10]
    dmb     sy                          // the store before the invalidation
    unless  bad_line_of_a_table_in_use_after, dc ivac, x10 // no stale line may hide it from the other CPU
    dsb     sy
    back_on
    constant x9, PAGE_VA
    str     xzr, [x9]
    tell    2
    await   3
    b       exit

secondary:
    enable  root
    tell    1
    await   2
    isb
    constant x9, PAGE_VA
    str     xzr, [x9]
    tell    3
    b       park

small_tables
flags_page
