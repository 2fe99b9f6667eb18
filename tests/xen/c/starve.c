/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * How a request ends for which there are too few frames, at each point of it:
 * for the trial alone, in stock Xen and in ours alike. The trial's edits let
 * whoever takes a frame for a table ask starved() first.
 */
#include <xen/errno.h>
#include <xen/init.h>
#include <xen/lib.h>
#include <xen/mm.h>
#include <xen/pfn.h>

#include <asm/page.h>

/* What is mapped, and where: one try each 512 GiB, in L0 slots that are free. */
#define PAGES  ((unsigned long)PFN_DOWN(MB(128)))
#define AREA   SLOT0(30)
/* Tables of that: one each of levels 1 and 2, and 64 of level 3. */
#define TABLES 66

/* Frames that are left; negative: as many as there are. */
static int left = -1;

bool starved(void)
{
    if ( left < 0 )
        return false;

    if ( left == 0 )
        return true;

    left--;

    return false;
}

static bool is_mapped(vaddr_t virt)
{
    asm volatile ( "at s1e2r, %0" : : "r" (virt) );
    isb();

    return !(READ_SYSREG64(PAR_EL1) & 1);
}

static int __init starve(void)
{
    mfn_t mfn = _mfn(max_page - PAGES);
    unsigned int frames;

    /* Whoever has frames of its own has none after this. */
    if ( populate_pt_range(AREA - SLOT0(1), PAGES) )
        return -ENOMEM;

    for ( frames = 0; frames <= TABLES; frames++ )
    {
        vaddr_t area = AREA + frames * SLOT0(1);
        unsigned long page, mapped = 0;
        int rc;

        left = frames;
        rc = map_pages_to_xen(area, mfn, PAGES, PAGE_HYPERVISOR_RW);
        left = -1;

        for ( page = 0; page < PAGES; page++ )
            mapped += is_mapped(area + page * PAGE_SIZE);

        printk("starved: %u frames, rc %d, %lu of %lu pages mapped\n",
               frames, rc, mapped, PAGES);
        destroy_xen_mappings(area, area + PAGES * PAGE_SIZE);
    }

    return 0;
}
__initcall(starve);
