// Contiguous runs of 16 pages: one moves, by break, invalidate, make; another loses a right in place, entry by entry.

.set NEW_RUN,      0x40640000
.set RUN_VA,       0x40400000           // entries 0 to 15
.set SECOND_RUN,   0x40620000           // entries 16 to 31
.set THIRD_RUN,    0x40660000           // entries 32 to 47
.set RUN,          16

// Stores \word in entry 0 of the run at x10, and what follows it by \step in each next; \at is the store.
//   Clobbers x11, x13.
.macro store_run at, word, step, count=RUN
    constant x11, (\word)
    mov     x13, #0
\at:
    str     x11, [x10, x13, lsl #3]
    add     x11, x11, #\step
    add     x13, x13, #1
    cmp     x13, #\count
    b.ne    \at
.endm

// Invalidates \count pages from \va on.
//   Clobbers x12, x13.
.macro invalidate_run va, count=RUN
    constant x12, ((\va) >> 12)
    mov     x13, #\count
.Linvalidate_\@:
    tlbi    vae2is, x12
    add     x12, x12, #1
    subs    x13, x13, #1
    b.ne    .Linvalidate_\@
.endm

start:
    enable  root
    adr     x10, pages
    unless  bad_bit_cleared_in_place, store_run break, 0, 0
    only    bad_bit_cleared_in_place, store_run break, FRAME + RW, 0x1000
    dsb     ishst                       // the invalid entries are seen before the TLBIs rely on it
    unless  bad_run_invalidated_once, invalidate_run RUN_VA
    only    bad_run_invalidated_once, invalidate_run RUN_VA, 1
    dsb     ish                         // no CPU can use any part of the old run any more
.ifndef bad_bit_cleared_in_place
.ifdef bad_run_not_aligned
    store_run make, NEW_RUN + 0x1000 + RW + CONTIGUOUS, 0x1000
.else
    store_run make, NEW_RUN + RW + CONTIGUOUS, 0x1000
.endif
.endif
    dsb     ish                         // the new run is seen by every walk
    isb
    constant x9, RUN_VA
    str     xzr, [x9]
    // The second run.
    adr     x10, pages + 8 * RUN
    unless  bad_run_protected_in_part, store_run protect, SECOND_RUN + RO + CONTIGUOUS, 0x1000
    only    bad_run_protected_in_part, store_run protect, SECOND_RUN + RO + CONTIGUOUS, 0x1000, 15
    dsb     ishst                       // the new rights are seen before the TLBIs rely on it
    unless  bad_one_tlbi_for_the_rights, invalidate_run RUN_VA + RUN * 0x1000
    only    bad_one_tlbi_for_the_rights, invalidate_run RUN_VA + RUN * 0x1000, 1
    dsb     ish                         // no CPU can use the old rights any more
    isb
    // A third, entry by entry where nothing was.
    add     x10, x10, #8 * RUN
    store_run fill, THIRD_RUN + RW + CONTIGUOUS, 0x1000, 15
    constant x11, (THIRD_RUN + 0xf000 + RW + CONTIGUOUS)
    only    bad_entry_without_the_bit, constant x11, (THIRD_RUN + 0xf000 + RW)
fill_last:
    str     x11, [x10, #8 * 15]
    dsb     ishst
    isb
    b       exit

.macro run_entries word
    .set    run_word, \word
.rept RUN
    .quad   run_word
    .set    run_word, run_word + 0x1000
.endr
.endm

small_tables
    run_entries FRAME + RW + CONTIGUOUS
    run_entries SECOND_RUN + RW + CONTIGUOUS
flags_page
