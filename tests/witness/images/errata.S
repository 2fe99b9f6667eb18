// What errata ask for: around HCR_EL2, of broadcast TLBIs, of taking execution away, of cleaning, and before the MMU goes off.

.set CODE_VA,      0x40402000           // page 2

routine:
    ret

start:
    mrs     x4, hcr_el2
    unless  bad_no_dsb_before_hcr, dsb sy // AC04_CPU_23
write_hcr:
    msr     hcr_el2, x4
    unless  bad_no_isb_after_hcr, isb   // AC04_CPU_23
read_back:
    mrs     x4, hcr_el2
    enable  root
    constant x9, CODE_VA
    blr     x9
    // The page is not for execution any more.
    adr     x10, pages + 16
    constant x11, (IMAGE + 0x1000 + RO)
    constant x12, (CODE_VA >> 12)
withdraw:
    unless  bad_withdrawn_in_place, str xzr, [x10] // 2645198
    only    bad_withdrawn_in_place, str x11, [x10]
    dsb     ishst                       // the invalid descriptor is seen before the TLBI relies on it
    tlbi    vae2is, x12
    dsb     ish
    unless  bad_tlbi_not_repeated, tlbi vae2is, x12 // 1286807
    unless  bad_tlbi_not_repeated, dsb ish
make:
    str     x11, [x10]
    dsb     ish                         // the new descriptor is seen by every walk
    isb
    // A word for afterwards, and the MMU off for good.
    adr     x9, data
store:
    str     x9, [x9]
    only    bad_cleaned_only, dc cvac, x9
    unless  bad_cleaned_only, dc civac, x9 // 819472
    dsb     sy
    constant x2, PAUSED
    unless  bad_no_isb_before_mmu_off, isb // E1041
off:
    msr     sctlr_el2, x2
    isb
load:
    ldr     x10, [x9]
    cbz     x10, failed
    b       exit

small_tables
    entry   2, IMAGE + 0x1000 + RX
flags_page
