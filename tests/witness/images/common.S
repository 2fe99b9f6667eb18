// What every image begins with: the header, the way out, vectors, names and macros. The image's own code follows at 0x4008_1000.
//
// An image is what xtask makes of this file and one of the others, with the image's name defined in front: `.set bad_no_tlbi, 1`.
// `unless` and `only` are all that tells a faulty image from its twin.
//
// Memory, each at its physical address unless an image says otherwise:
//
//   0x4008_0000  this file, R-X
//   0x4008_1000  the image's code, two pages, R-X
//   0x4008_3000  its tables, flags and data, RW-
//   0x4060_0000  frames that hold nothing
//
// Walks have 39-bit input addresses and begin at level 1. The tables are part of the image, complete before the first instruction.

.set IMAGE,        0x40080000
.set FRAME,        0x40600000           // plain memory, mapped nowhere but where an image says so
.set OTHER_FRAME,  0x40601000
.set PAGE_VA,      0x40401000           // page 1 of the table that level 2 slot 2 leads to
.set PAGE_OPERAND, PAGE_VA >> 12

.set TABLE,        0x3
.set RX,           0x783                // page, Normal, read-only, executable
.set RO,           0x40000000000783     // page, Normal, read-only
.set RW,           0x40000000000703     // page, Normal, writable
.set RW_BLOCK,     0x40000000000701
.set DEVICE,       0x40000000000707     // page, Device, writable
.set UNCACHED,     0x4000000000070b     // page, Non-cacheable, writable
.set OUTER,        0x40000000000603     // page, Normal, writable, Outer Shareable
.set CONTIGUOUS,   1 << 52
.set NEVER,        1 << 54              // XN

.set MAIR,         0x4404ff             // 0 Normal write-back, 1 Device, 2 Non-cacheable
.set TCR,          0x80803519
.set OFF,          0x30cd0838           // SCTLR_EL2: WXN, no M, C or I
.set ON,           0x30cd183d           // with M, C and I
.set PAUSED,       0x30cd183c           // with C and I
.set M,            1
.set WXN,          1 << 19

.set CPU_ON,       0xc4000003
.set PSCI_VERSION, 0x84000000

// The instruction is there unless this is the image \fault. It may be another `unless`.
.macro unless fault, instruction:vararg
.ifndef \fault
    \instruction
.endif
.endm

// The instruction is there only in the image \fault.
.macro only fault, instruction:vararg
.ifdef \fault
    \instruction
.endif
.endm

// Any 64-bit value, by four instructions whatever it is: twins keep their addresses.
.macro constant register, value
    movz    \register, #((\value) & 0xffff)
    movk    \register, #(((\value) >> 16) & 0xffff), lsl #16
    movk    \register, #(((\value) >> 32) & 0xffff), lsl #32
    movk    \register, #(((\value) >> 48) & 0xffff), lsl #48
.endm

// TCR2_EL2, where there is one: its reset value is unknown.
//   Clobbers x0.
.macro no_indirection
    mrs     x0, s3_0_c0_c7_3            // ID_AA64MMFR3_EL1
    tst     x0, #0xf
    b.eq    .Lno_tcr2_\@
    msr     s3_4_c2_c0_3, xzr
.Lno_tcr2_\@:
.endm

// The control registers, in force at the next ISB.
//   Clobbers x0.
.macro controls tables
    no_indirection
    constant x0, MAIR
    msr     mair_el2, x0
    constant x0, TCR
    msr     tcr_el2, x0
    adr     x0, \tables
    msr     ttbr0_el2, x0
    constant x0, OFF
    msr     sctlr_el2, x0
.endm

// Turns the MMU on over the tables at \tables, by the instruction that \at names, if anything.
//   Clobbers x0. MMU state: off before, on after.
.macro enable tables, at
    adr     x0, vectors
    msr     vbar_el2, x0
    controls \tables
    isb                                 // the new regime before the invalidation
    tlbi    alle2
    dsb     nsh                         // nothing of before reset is left
    isb
    constant x0, ON
.ifnb \at
\at:
.endif
    msr     sctlr_el2, x0
    isb
.endm

// Turns the MMU on again, with caches.
//   Clobbers x0. MMU state: off before, on after.
.macro back_on
    tlbi    alle2
    dsb     nsh                         // nothing of before is left
    isb
    constant x0, ON
    msr     sctlr_el2, x0
    isb
.endm

// Lets CPU 1 go, at `secondary`.
//   Clobbers x0 to x3.
.macro start_second
    constant x0, CPU_ON
    mov     x1, #1
    adr     x2, secondary
    mov     x3, #0
    smc     #0
    cbnz    x0, failed
.endm

// Tells the other CPU that step \step is done; everything stored before is seen by whoever sees that.
//   Clobbers x0, x1. MMU state: on.
.macro tell step
    mov     x0, #\step
    adr     x1, flag
    stlr    x0, [x1]
.endm

// Waits until the other CPU has done step \step.
//   Clobbers x0, x1. MMU state: on.
.macro await step
    adr     x1, flag
.Lawait_\@:
    ldar    x0, [x1]
    cmp     x0, #\step
    b.ne    .Lawait_\@
.endm

// Begins what is written, past the pages of code.
.macro writable
    .org    head + 0x3000
.endm

// Begins a table. `entry` puts descriptors in, in ascending order; what has none is invalid.
.macro table name
    end_table
\name:
    .set    table_base, \name
.endm

.macro entry index, value
    .org    table_base + 8 * (\index)
    .quad   \value
.endm

// The image itself, page by page, in the level 3 table of 0x4000_0000.
.macro image_pages
    entry   0x80, IMAGE + RX
    entry   0x81, IMAGE + 0x1000 + RX
    entry   0x82, IMAGE + 0x2000 + RX
    .set    page_number, 0x83
    .rept   17
    .quad   0x40000000 + page_number * 0x1000 + RW
    .set    page_number, page_number + 1
    .endr
.endm

// The tables that most images have: the image, and a level 3 table for PAGE_VA and its neighbours, whose entries follow.
.macro small_tables
    writable
table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
    entry   2, pages + TABLE
table level_3
    image_pages
table pages
.endm

// The end of the page of the last table, if there is one: a table without an entry takes a page as well.
.macro end_table
    .balign 4096, 0                     // not with instructions, which would be descriptors
.ifdef table_base
    .org    table_base + 0x1000
.endif
.endm

// A page for flags and data, the last of the image.
.macro flags_page
    end_table
flag:
    .quad   0
    .balign 64
data:
    .quad   0
    .balign 4096
image_end_exclusive:
.endm

    .weak   application                 // where the PE header is, of an image that is a UEFI application too
head:
    add     x13, x18, #0x16             // "MZ", and of no effect
    b       start
    .quad   0x80000                     // text offset: QEMU loads at 0x4008_0000
    .quad   image_end_exclusive - head
    .quad   0xa                         // little-endian, 4 KiB pages, anywhere
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   application

// Ends the machine: semihosting, with status 0 or 1.
exit:
    adr     x1, .Lsuccess
    b       .Lreport
failed:
    adr     x1, .Lfailure
.Lreport:
    mov     w0, #0x18                   // SYS_EXIT
    hlt     #0xf000
    b       .

.balign 8
.Lsuccess:
    .quad   0x20026, 0                  // ADP_Stopped_ApplicationExit
.Lfailure:
    .quad   0x20026, 1

// The end of a CPU that has nothing more to do.
park:
    wfi
    b       park

.balign 2048
vectors:
.rept 16
    b       failed
    .balign 128
.endr

