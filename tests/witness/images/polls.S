// A CPU waits by a loop of ISB and load, a million turns: what it repeats must not fill the recording. None of those ISBs makes up for the
// one that is owed after another CPU's fill.

start:
    enable  root
    start_second
    constant x9, 1000000
    adr     x1, flag
.Lturn:
    isb                                 // before the fill
    ldr     x0, [x1]
    subs    x9, x9, #1
    b.ne    .Lturn
    tell    1
    await   2
    unless  bad_isbs_before_the_fill_only, isb
    constant x9, PAGE_VA
use:
    str     xzr, [x9]
    b       exit

secondary:
    enable  root
    await   1
    constant x10, FRAME + RW
    adr     x9, pages
fill:
    str     x10, [x9, #8]
    dsb     ish                         // the entry is visible to walks before CPU 0 hears of it
    isb
    tell    2
    b       park

small_tables
flags_page
