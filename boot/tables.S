// The first tables: the image in 4 KiB pages with its final rights, and one identity page. Never an RWX mapping: each
// leaf is W^X by itself, without leaning on WXN. They are written once, with the MMU off, and never edited while live;
// the root switch retires them.
//
// Their zeros are in the file: the boot protocol has the loaded file clean to the point of coherency, so that memory and
// caches agree on a line that nobody stores to. Only the lines that get a descriptor are maintained.

.macro FIRST_TABLE name
    .section .tables.\name, "aw", %progbits
    .balign 4096
    .type first_\name, %object
    .global first_\name
first_\name:
    .skip 4096
    .size first_\name, 4096
.endm

    FIRST_TABLE root
    FIRST_TABLE image_l1
    FIRST_TABLE image_l2
    FIRST_TABLE identity_l1
    FIRST_TABLE identity_l2
    FIRST_TABLE identity_l3
.if {EARLYCON_UART}
    FIRST_TABLE fixmap_l3
.endif

// In: x19, x23, x24, x25. Out: goes on in enable_first_mmu with x26. Clobbers x0-x10, x30. MMU: off.
//
// RULES.md, LineBefore, LineAfter and LineCleaned: lines that a loader left in the data cache are invalidated before the
// stores (a dirty one could be evicted over them) and after (a stale clean one could hide them). Never cleaned: that
// would push stale data over what is written here.
ROUTINE build_first_tables, .init.text.boot
    mrs x9, ctr_el0
    ubfx x9, x9, #16, #4        // DminLine: log2 of words
    mov x10, #4
    lsl x9, x10, x9             // bytes in the smallest data-cache line
    bl invalidate_first_lines
    dsb sy                      // no line of a descriptor is cached before the first store to it
    COUNT_DSB

    bl map_image_first
    bl map_identity_first
.if {EARLYCON_UART}
    bl map_earlycon_first
.endif

    dmb sy                      // the stores above are before the maintenance below, in memory order
    bl invalidate_first_lines
    dsb sy                      // no stale line hides a descriptor from the walker, which reads through the caches
    COUNT_DSB
    b enable_first_mmu
END_ROUTINE build_first_tables

// x0 = address of slot \index of \table. Clobbers x1. \index is a number or a register.
.macro SLOT table, index
    mov x1, \index
    ADDRESS_OF x0, \table
    add x0, x0, x1, lsl #3
.endm

// Invalidates the lines that get a descriptor, to the point of coherency. In: x9, x19, x24. Keeps x9-x11, x19-x28.
// Clobbers x0-x2, x7, x30. MMU: off.
ROUTINE invalidate_first_lines, .init.text.boot
    mov x7, x30
    ADDRESS_OF x0, first_root
    add x1, x0, #({IMAGE_L0_SLOT} * 8 + 8)      // the identity page's slot is below the image's
    bl invalidate_lines
    SLOT first_image_l1, #{IMAGE_L1_SLOT}
    dc ivac, x0
    ADDRESS_OF x1, first_image_l3_end_exclusive
    ADDRESS_OF x0, first_image_l3
    sub x2, x1, x0
    SLOT first_image_l2, #{IMAGE_L2_SLOT}
    add x1, x0, x2, lsr #9      // 8 bytes for each level 3 table
    bl invalidate_lines
    adr x2, .Lfirst_map_end - 16
    ldrsw x1, [x2, #4]          // where the last section ends, from there
    add x1, x1, x2
    sub x1, x1, x19
    ADDRESS_OF x0, first_image_l3
    add x1, x0, x1, lsr #9      // 8 bytes for each page
    bl invalidate_lines
    ubfx x2, x24, #30, #9
    SLOT first_identity_l1, x2
    dc ivac, x0
    ubfx x2, x24, #21, #9
    SLOT first_identity_l2, x2
    dc ivac, x0
    ubfx x2, x24, #12, #9
    SLOT first_identity_l3, x2
    dc ivac, x0
.if {EARLYCON_UART}
    SLOT first_image_l2, #{FIXMAP_L2_SLOT}
    dc ivac, x0
    SLOT first_fixmap_l3, #{EARLYCON_L3_SLOT}
    dc ivac, x0
.endif
    ret x7
END_ROUTINE invalidate_first_lines

// In: x0 start, x1 end exclusive, x9 bytes in a line. Clobbers x0, x2. MMU: off.
ROUTINE invalidate_lines, .init.text.boot
    sub x2, x9, #1
    bic x0, x0, x2
.Linvalidate_line:
    dc ivac, x0
    add x0, x0, x9
    cmp x0, x1
    b.lo .Linvalidate_line
    ret
END_ROUTINE invalidate_lines

// Stores a table descriptor: slot \index of \table := \next. Clobbers x0, x1. \index is a number or a register.
.macro LINK table, index, next
    ADDRESS_OF x1, \next
    orr x1, x1, #{TABLE_BITS}
    ADDRESS_OF x0, \table
    str x1, [x0, \index, lsl #3]
    add x27, x27, #1
.endm

// In: x19. Out: x26 and the image's path from it. Keeps x9-x11, x19-x25. Clobbers x0-x7. MMU: off.
ROUTINE map_image_first, .init.text.boot
    ADDRESS_OF x26, first_root
    mov x2, #{IMAGE_L0_SLOT}
    LINK first_root, x2, first_image_l1
    mov x2, #{IMAGE_L1_SLOT}
    LINK first_image_l1, x2, first_image_l2
    mov x2, #{IMAGE_L2_SLOT}
    LINK first_image_l2, x2, first_image_l3
    ADDRESS_OF x7, first_image_l3_end_exclusive
.Llink_image_l3:                // one level 3 table for each 2 MiB that the image may have: linker.ld
    add x1, x1, #4096
    sub x3, x1, #{TABLE_BITS}
    cmp x3, x7
    b.hs .Llinked_image_l3
    add x2, x2, #1
    str x1, [x0, x2, lsl #3]
    add x27, x27, #1
    b .Llink_image_l3
.Llinked_image_l3:

    ADDRESS_OF x7, first_image_l3
    adr x6, .Lfirst_map
    adr x5, .Lfirst_map_end
.Lmap_section:
    ldrsw x0, [x6]              // where the section starts and ends, from here
    ldrsw x1, [x6, #4]
    ldr x2, [x6, #8]            // its attributes
    add x0, x0, x6
    add x1, x1, x6
    add x6, x6, #16
    sub x3, x0, x19             // offset in the image, which starts on a level 3 table's first slot
    add x4, x7, x3, lsr #9      // 8 bytes for each 4096
    sub x3, x1, x0
    add x27, x27, x3, lsr #12
    add x0, x0, x2
    add x1, x1, x2
    tbz x3, #12, .Lmap_pairs    // an odd page first, then by pairs: nothing walks these tables yet
    str x0, [x4], #8
    add x0, x0, #4096
.Lmap_pairs:
    cmp x0, x1
    b.hs .Lmapped_section
    tbz x3, #13, .Lmap_four     // an odd pair first, then two at a time
    add x3, x0, #4096
    stp x0, x3, [x4], #16
    add x0, x0, #8192
    cmp x0, x1
    b.hs .Lmapped_section
.Lmap_four:
    add x3, x0, #4096
    stp x0, x3, [x4], #16
    add x0, x0, #8192
    add x3, x3, #8192
    stp x0, x3, [x4], #16
    add x0, x0, #8192
    cmp x0, x1
    b.lo .Lmap_four
.Lmapped_section:
    cmp x6, x5
    b.lo .Lmap_section
    ret

// A row of the map that whoever assembles this file names as the macro FIRST_MAP: whole pages of the image, one of its
// level 3 tables after the other, never with rights that are both W and X.
.macro FIRST_SECTION start, end_exclusive, attributes
    .long \start - (. - 0)
    .long \end_exclusive - (. - 4)
    .quad \attributes
.endm
    .balign 8
.Lfirst_map:
    FIRST_MAP
.Lfirst_map_end:
END_ROUTINE map_image_first

// In: x24. Out: the identity page's path from the root. Keeps x9-x11, x19-x26. Clobbers x0-x3. MMU: off.
ROUTINE map_identity_first, .init.text.boot
    ubfx x2, x24, #39, #9
    LINK first_root, x2, first_identity_l1
    ubfx x2, x24, #30, #9
    LINK first_identity_l1, x2, first_identity_l2
    ubfx x2, x24, #21, #9
    LINK first_identity_l2, x2, first_identity_l3
    ubfx x2, x24, #12, #9
    ADDRESS_OF x0, first_identity_l3
    CONSTANT64 x1, {LEAF_RX}
    add x1, x1, x24
    str x1, [x0, x2, lsl #3]
    add x27, x27, #1
    ret
END_ROUTINE map_identity_first

.if {EARLYCON_UART}
// The page of the UART that the image was built to speak on. In: x19, and the image's path from the root. Keeps x9-x11,
// x19-x26. Clobbers x0-x2. MMU: off.
ROUTINE map_earlycon_first, .init.text.boot
    mov x2, #{FIXMAP_L2_SLOT}
    LINK first_image_l2, x2, first_fixmap_l3
    ADDRESS_OF x0, first_fixmap_l3
    CONSTANT x1, {EARLYCON_ADDRESS}
    and x1, x1, #~0xfff
    CONSTANT64 x2, {LEAF_REGISTERS}
    orr x1, x1, x2
    str x1, [x0, #({EARLYCON_L3_SLOT} * 8)]
    add x27, x27, #1
    ret
END_ROUTINE map_earlycon_first
.endif
