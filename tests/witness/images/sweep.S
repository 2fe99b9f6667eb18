// A first table is written with the caches off, between two sweeps of the caches by set and way.

start:
    adr     x9, pages
    constant x11, (FRAME + RW)
    bl      sweep                       // no dirty line may be evicted over what is written
build:
    str     x11, [x9, #8]
    dmb     sy                          // the store before the invalidation
    bl      sweep                       // no stale line may hide it
    enable  root, turn_on
    constant x9, PAGE_VA
    str     xzr, [x9]
    b       exit

// Invalidates the data and unified caches of this CPU down to the point of coherency.
//   Clobbers x0 to x8, x12, x13. MMU state: off.
sweep:
    mrs     x0, clidr_el1
    ubfx    x1, x0, #24, #3             // levels to the point of coherency
    mov     x2, #0                      // the level less 1
.Llevel:
    cmp     x2, x1
    b.hs    .Lswept
    add     x3, x2, x2, lsl #1
    lsr     x3, x0, x3
    and     x3, x3, #7
    cmp     x3, #2                      // 0 nothing, 1 instructions alone
    b.lo    .Lnext
    lsl     x4, x2, #1
    msr     csselr_el1, x4
    isb                                 // the selection before the read
    mrs     x5, ccsidr_el1
    and     x6, x5, #7
    add     x6, x6, #4                  // log2 of the bytes of a line
    ubfx    x7, x5, #13, #15            // the last set
    ubfx    x5, x5, #3, #10             // the last way
    clz     w8, w5                      // ways stand from bit 31 down
.Lset:
    mov     w12, w5
.Lway:
    lsl     w13, w12, w8
    orr     w13, w13, w4
    lsl     w3, w7, w6
    orr     w13, w13, w3
    unless  bad_swept_by_cleaning, dc isw, x13
    only    bad_swept_by_cleaning, dc cisw, x13
    subs    w12, w12, #1
    unless  bad_way_left_out, b.ge .Lway
    only    bad_way_left_out, b.gt .Lway
    subs    w7, w7, #1
    unless  bad_set_left_out, b.ge .Lset
    only    bad_set_left_out, b.gt .Lset
.Lnext:
    add     x2, x2, #1
    b       .Llevel
.Lswept:
    unless  bad_sweep_not_finished, dsb sy
    ret

small_tables
flags_page
