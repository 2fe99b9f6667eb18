// Code that is right, and that a judge of habits would object to. There is no fault here: each image is good.

.set UART,         0x09000000
.set CHILD_VA,     0x40600000           // level 2 slot 3

.ifdef good_sound
start:
    enable  root
    b       exit
.endif

// A descriptor whose store nobody completed is overwritten by a CPU that does all there is to do.
.ifdef good_superseded_store
start:
    enable  root
    start_second
    await   1
    adr     x10, pages + 8
    constant x12, PAGE_OPERAND
    str     xzr, [x10]
    dsb     ish
    tlbi    vae2is, x12
    dsb     ish                         // neither descriptor is left anywhere
    isb
    b       exit
secondary:
    enable  root
    adr     x10, pages + 8
    constant x11, (FRAME + RW)
    str     x11, [x10]
    tell    1
    b       park
.endif

// One CPU fills a table and links it by barriers that reach no further than itself.
.ifdef good_local_barriers_behind_many_stores
start:
    enable  root
    adr     x9, child
    mov     x10, #512
.Lclear:
    str     xzr, [x9], #8
    subs    x10, x10, #1
    b.ne    .Lclear
    adr     x9, child
    constant x11, (FRAME + RW)
    str     x11, [x9]
    dsb     nshst                       // the table before its link
    adr     x10, level_2 + 8 * 3
    orr     x9, x9, #TABLE
    str     x9, [x10]
    dsb     nshst
    isb
    constant x9, CHILD_VA
    str     xzr, [x9]
    b       exit
.endif

// With the MMU off a device is written, whose registers no cache holds.
.ifdef good_device_store_with_the_mmu_off
start:
    enable  root
    constant x9, UART
    mov     w10, #'\n'
    dsb     sy
    constant x0, PAUSED
    msr     sctlr_el2, x0
    isb
    str     w10, [x9]
    dsb     sy
    back_on
    b       exit
.endif

// A live entry changes while the MMU is off, as in firmware that has one CPU: its line is clean before, dropped after.
.ifdef good_live_entry_replaced_with_the_mmu_off
start:
    enable  root
    constant x9, PAGE_VA
    str     xzr, [x9]
    adr     x10, pages + 8
    constant x11, (OTHER_FRAME + RW)
    dc      civac, x10
    dsb     sy
    isb
    constant x0, PAUSED
    msr     sctlr_el2, x0
    isb
    str     x11, [x10]
    dmb     sy
    dc      ivac, x10
    dsb     sy
    back_on
    str     xzr, [x9]
    b       exit
.endif

// MMU and caches go off together, over lines that are dirty and that nobody touches meanwhile.
.ifdef good_caches_off_and_on
start:
    enable  root
    adr     x9, data
    str     x9, [x9]
    dsb     sy
    isb
    constant x0, OFF
    msr     sctlr_el2, x0
    isb
    back_on
    ldr     x10, [x9]
    b       exit
.endif

// The MMU goes on before the caches: walks then read past them, and lines matter from C = 1 on.
.ifdef good_walks_past_the_caches
start:
    adr     x10, pages
    dc      ivac, x10                   // no dirty line may be evicted over what is written
    dsb     sy
    constant x11, (FRAME + RW)
    str     x11, [x10, #8]
    dsb     sy
    adr     x0, vectors
    msr     vbar_el2, x0
    controls root
    isb                                 // the new regime before the invalidation
    tlbi    alle2
    dsb     nsh                         // nothing of before reset is left
    isb
    constant x0, (OFF + M)
    msr     sctlr_el2, x0
    isb
    dc      ivac, x10                   // no stale line may hide it once C is 1
    dsb     sy
    constant x0, ON
    msr     sctlr_el2, x0
    isb
    constant x9, PAGE_VA
    str     xzr, [x9]
    b       exit
.endif

// The CPU that invalidates learns of the break by a flag and a branch, which no recording shows: in doubt, and no fault.
.ifdef good_invalidated_behind_a_flag
start:
    enable  root
    start_second
    constant x9, PAGE_VA
    str     xzr, [x9]
    adr     x10, pages + 8
    str     xzr, [x10]
    dsb     ish                         // the invalid descriptor is seen before anybody's TLBI relies on it
    tell    1
    await   2
    isb
    constant x11, (OTHER_FRAME + RW)
    str     x11, [x10]
    dsb     ish
    isb
    str     xzr, [x9]
    b       exit
secondary:
    enable  root
    constant x12, PAGE_OPERAND
    await   1
    tlbi    vae2is, x12
    dsb     ish                         // no CPU can use the old descriptor any more
    isb
    tell    2
    b       park
.endif

small_tables
.ifdef good_live_entry_replaced_with_the_mmu_off
    entry   1, FRAME + RW
.endif
.ifdef good_invalidated_behind_a_flag
    entry   1, FRAME + RW
.endif
table child
flags_page
