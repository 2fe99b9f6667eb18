// UEFI starts this image with MMU and caches on; it turns them off, reads the firmware's system table and stores below
// the firmware's stack. Lines beside an image may be dirty when it is entered: UEFI promises nothing of them.

.set application, 0x1000
pe_header:
    .ascii  "PE\0\0"
    .short  0xaa64                      // AArch64
    .short  1                           // sections
    .long   0, 0, 0
    .short  sections - optional_header
    .short  0x206                       // debug stripped, executable, line numbers stripped
optional_header:
    .short  0x20b                       // PE32+
    .short  0
    .long   0x1000, 0, 0                // code, data
    .long   start - head
    .long   0x2000                      // base of code
    .quad   0                           // image base
    .long   0x1000, 0x1000              // section and file alignment
    .quad   0, 0
    .long   image_end_exclusive - head
    .long   0x2000                      // header bytes
    .long   0
    .short  10, 0x100                   // an EFI application, whose sections are not writable and executable
    .quad   0, 0, 0, 0
    .long   0, 6
    .quad   0, 0, 0, 0, 0, 0
sections:
    .ascii  ".text\0\0\0"
    .long   0x1000, 0x2000, 0x1000, 0x2000
    .long   0, 0, 0
    .long   0x60000020                  // code, readable, executable

    .org    head + 0x2000
// x1 the system table, sp the firmware's stack. MMU state: on, then off.
start:
    msr     daifset, #0xf               // the firmware's handlers are not meant for what follows
    mov     x19, x1
    sub     x20, sp, #64
    and     x20, x20, #~63              // a line that the firmware's calls have left dirty
    str     x1, [x20]
    adr     x2, head
    adr     x3, image_end_exclusive
.Lclean:
    dc      civac, x2                   // the code below, which is fetched past the caches
    add     x2, x2, #64
    cmp     x2, x3
    b.lo    .Lclean
    unless  bad_lines_beside_the_image, dc cvac, x19
    unless  bad_lines_beside_the_image, dc civac, x20 // no dirty line may be evicted over what is written
    dsb     sy                          // all of it is done before anything looks past the caches
    mrs     x2, sctlr_el2
    constant x3, (1 << 12 | 1 << 2 | 1)
    bic     x2, x2, x3
    isb
    msr     sctlr_el2, x2
    isb
    ic      iallu
    dsb     nsh
    isb
read:
    ldr     x2, [x19]                   // the signature
    constant x3, 0x5453595320494249     // "IBI SYST"
    cmp     x2, x3
    b.ne    failed
store:
    str     xzr, [x20]
    dsb     sy
    b       exit

    .org    head + 0x3000
image_end_exclusive:
