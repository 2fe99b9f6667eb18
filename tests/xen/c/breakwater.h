/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The core's C interface: tests/xen/src/c.rs says what each function does. */
#ifndef __ARM_BREAKWATER_H__
#define __ARM_BREAKWATER_H__

#include <xen/mm-frame.h>
#include <xen/types.h>

void bw_setup(uint64_t offset);
uint64_t bw_root(void);
int bw_directmap(uint64_t virt, uint64_t phys, uint64_t bytes);
void bw_directmap_is_whole(void);
int bw_update(uint64_t virt, uint64_t mfn, uint64_t count, uint32_t flags);
int bw_free_init(uint64_t directmap);
int bw_admit(void);
int bw_admitted(void);
int bw_join(void);
int bw_begin_patching(uint64_t mfn, uint64_t count);
int bw_end_patching(void);
int bw_audit(void);
void bw_walk(uint64_t virt);

/* Of breakwater.c, for Xen's other files. */
int bw_map_ram(unsigned long virt, mfn_t mfn, unsigned long nr_mfns,
               unsigned int flags);
void bw_ram_is_mapped(void);
int bw_drop_init(paddr_t pa);
void bw_cpu_is_up(void);
void bw_patch_xen(mfn_t mfn, unsigned long count);
void bw_xen_is_patched(void);
void bw_boot_is_over(void);

#endif
