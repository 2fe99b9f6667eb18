/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What of Xen's arch/arm/mm.c is Breakwater's, in Xen's words. A function with
 * a name of Xen's takes that one's place and says the same to its callers; one
 * called bw_* is what the edits of Xen's tree call. The core's own, which they
 * ask, stand in asm/breakwater.h. The edits put this file beside mm.c.
 *
 * The core is called on one CPU at a time: bw_lock.
 */
#include <xen/errno.h>
#include <xen/init.h>
#include <xen/lib.h>
#include <xen/libfdt/libfdt.h>
#include <xen/mm.h>
#include <xen/pfn.h>
#include <xen/sizes.h>
#include <xen/spinlock.h>

#include <asm/breakwater.h>
#include <asm/page.h>
#include <asm/setup.h>
#include <asm/smp.h>

extern uint64_t init_ttbr;

static DEFINE_SPINLOCK(bw_lock);

/* What the core asks of Xen. */

void bw_xen_puts(const char *text, unsigned long bytes)
{
    printk("%.*s", (int)bytes, text);
}

void noreturn bw_xen_panic(void)
{
    panic("Breakwater cannot go on\n");
}

/* A frame for a table, which the directmap shows; 0 where there is none. */
paddr_t bw_xen_frame(void)
{
    struct page_info *page;

    if ( system_state == SYS_STATE_early_boot )
        return mfn_to_maddr(alloc_boot_pages(1, 1));

    page = alloc_domheap_page(NULL, 0);

    return page ? page_to_maddr(page) : 0;
}

/* Such a frame comes back: no table any more. The boot allocator's may, too. */
void bw_xen_frame_back(paddr_t frame)
{
    if ( system_state == SYS_STATE_early_boot )
        init_boot_pages(frame, frame + PAGE_SIZE);
    else
        init_domheap_pages(frame, frame + PAGE_SIZE);
}

/* Boot. */

void __init setup_pagetables(unsigned long boot_phys_offset)
{
    bw_setup(boot_phys_offset);
}

static int __init map_fdt(paddr_t fdt, unsigned long from, unsigned long to)
{
    paddr_t start = fdt & PAGE_MASK;

    return map_pages_to_xen(BOOT_FDT_VIRT_START + from,
                            maddr_to_mfn(start + from), PFN_DOWN(to - from),
                            PAGE_HYPERVISOR_RO);
}

/* The pages of the tree, and no other: what lies around it is not ours. */
void *__init early_fdt_map(paddr_t fdt_paddr)
{
    unsigned long offset = fdt_paddr & ~PAGE_MASK, end;
    void *fdt = (void *)(BOOT_FDT_VIRT_START + offset);

    if ( !fdt_paddr || !IS_ALIGNED(fdt_paddr, MIN_FDT_ALIGN) )
        return NULL;

    /* Eight bytes of the header say what it is and how long. */
    if ( map_fdt(fdt_paddr, 0, PAGE_SIZE) )
        panic("Cannot map the device tree\n");

    if ( fdt_magic(fdt) != FDT_MAGIC || fdt_totalsize(fdt) > MAX_FDT_SIZE )
        return NULL;

    end = ROUNDUP(offset + fdt_totalsize(fdt), PAGE_SIZE);
    if ( end > PAGE_SIZE && map_fdt(fdt_paddr, PAGE_SIZE, end) )
        panic("Cannot map the rest of the device tree\n");

    return fdt;
}

/* setup_directmap_mappings asks for a bank of RAM in its place. */
int __init bw_map_ram(unsigned long virt, mfn_t mfn, unsigned long nr_mfns,
                      unsigned int flags)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_directmap(virt, mfn_to_maddr(mfn), pfn_to_paddr(nr_mfns));
    spin_unlock(&bw_lock);

    return rc;
}

/* setup_frametable_mappings: all RAM is shown, whatever frame may be a table. */
void __init bw_ram_is_mapped(void)
{
    spin_lock(&bw_lock);
    bw_directmap_is_whole();
    spin_unlock(&bw_lock);
}

/*
 * free_init_memory: the init sections go, and their frames are RAM, shown by
 * the directmap. Whoever still runs there faults; nothing is written for that.
 */
int bw_drop_init(paddr_t pa)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_free_init((vaddr_t)maddr_to_virt(pa));
    spin_unlock(&bw_lock);
    invalidate_icache();

    return rc;
}

/* Other CPUs. */

int init_secondary_pagetables(int cpu)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_admit();
    init_ttbr = bw_root();
    spin_unlock(&bw_lock);

    /* The CPU reads it with its MMU off. */
    clean_dcache(init_ttbr);

    return rc;
}

/* The CPU runs at its link address: nobody is in the identity page. */
void bw_cpu_is_up(void)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_admitted();
    spin_unlock(&bw_lock);
    if ( rc )
        panic("Cannot unmap the identity page (rc = %d)\n", rc);
}

void mmu_init_secondary_cpu(void)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_join();
    spin_unlock(&bw_lock);
    if ( rc )
        stop_cpu();
}

/* Xen's text, written through vmap: alternatives and livepatches. */

void bw_patch_xen(mfn_t mfn, unsigned long count)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_begin_patching(mfn_x(mfn), count);
    spin_unlock(&bw_lock);
    BUG_ON(rc);
}

void bw_xen_is_patched(void)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_end_patching();
    spin_unlock(&bw_lock);
    BUG_ON(rc);
}

/* What is mapped from here on is Xen's for good. */
void bw_boot_is_over(void)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_audit();
    spin_unlock(&bw_lock);
    /* Less than 0: more is mapped than the core remembers. It has said so. */
    if ( rc > 0 )
        panic("The page tables are not what was asked for\n");
}

/* Requests. */

static int update(unsigned long virt, mfn_t mfn, unsigned long nr_mfns,
                  unsigned int flags)
{
    int rc;

    spin_lock(&bw_lock);
    rc = bw_update(virt, mfn_x(mfn), nr_mfns, flags);
    spin_unlock(&bw_lock);

    return rc;
}

int map_pages_to_xen(unsigned long virt, mfn_t mfn, unsigned long nr_mfns,
                     unsigned int flags)
{
    return update(virt, mfn, nr_mfns, flags);
}

int populate_pt_range(unsigned long virt, unsigned long nr_mfns)
{
    return update(virt, INVALID_MFN, nr_mfns, _PAGE_POPULATE);
}

int destroy_xen_mappings(unsigned long s, unsigned long e)
{
    return update(s, INVALID_MFN, PFN_DOWN(e - s), 0);
}

int modify_xen_mappings(unsigned long s, unsigned long e, unsigned int flags)
{
    return update(s, INVALID_MFN, PFN_DOWN(e - s), flags);
}

/* For whoever explains a fault. */
void dump_hyp_walk(vaddr_t addr)
{
    bw_walk(addr);
}
