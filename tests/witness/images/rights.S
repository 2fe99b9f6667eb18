// Rights of a page change in place, and a page of code moves while a second CPU uses it.

.set CODE_VA, 0x40402000                // page 2

routine:
    mov     x2, #1
    ret

start:
    enable  root
    start_second
    await   1
    constant x9, PAGE_VA
    adr     x10, pages + 8
    constant x11, (FRAME + RW)
    constant x12, PAGE_OPERAND
    // From read-only to writable: an entry that has raised a fault may be cached all the same.
    only    bad_tlbi_before_change, tlbi vale2is, x12
relax:
    str     x11, [x10]
    dsb     ishst                       // the new rights are seen before the TLBI relies on it
    unless  bad_no_tlbi_after_relaxing, unless bad_tlbi_before_change, tlbi vale2is, x12
invalidated:
    dsb     ish                         // no CPU can use the old rights any more
    unless  bad_no_isb_after_completion, isb
use:
    str     xzr, [x9]
    // The code moves, by break, invalidate, make.
    constant x11, (IMAGE + 0x2000 + RX)
    add     x12, x12, #1
    str     xzr, [x10, #8]
    dsb     ishst                       // the invalid descriptor is seen before the TLBI relies on it
    tlbi    vae2is, x12
    dsb     ish                         // no CPU can use the old code any more
make:
    str     x11, [x10, #8]
    dsb     ish                         // the new code is seen by every walk
    isb
    tell    2
    await   3
finish:
    b       exit

secondary:
    enable  root
    constant x9, CODE_VA
    blr     x9
    tell    1
    await   2
    unless  bad_no_isb_before_new_code, isb
    blr     x9
    cmp     x2, #2
    b.ne    failed
    tell    3
    b       park

.balign 4096
routine_moved:
    mov     x2, #2
    ret

small_tables
    entry   1, FRAME + RO
    entry   2, IMAGE + 0x1000 + RX
flags_page
