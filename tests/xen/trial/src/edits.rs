//! What our variant of Xen changes in its sources.
//!
//! Why it exists: the repository holds no text of Xen, so what is taken out is named and what is put in is ours. What
//! must hold: the list is applied in order, and each edit matches as often as it says, or the build ends with its name.

use crate::edit::{
    Edit, add_file, append, cut_function, cut_label, cut_lines, insert_after, insert_before, replace_line,
    replace_lines, replace_token,
};
use crate::library;
use breakwater::addr::VirtSpan;
use breakwater::layout;

const HEAD: &str = "xen/arch/arm/arm64/head.S";
const MM: &str = "xen/arch/arm/mm.c";
const CONFIG: &str = "xen/arch/arm/include/asm/config.h";
const SCRIPT: &str = "xen/arch/arm/xen.lds.S";
/// What c/breakwater.h declares, for a file of Xen's.
const HEADER: &str = "#include <asm/breakwater.h>\n";
/// Xen's numbers of pages.
const PFN: &str = "#include <xen/pfn.h>\n";
const SMPBOOT: &str = "xen/arch/arm/smpboot.c";

/// Functions of mm.c that c/breakwater.c or the core has, or that only those called.
const REPLACED: [&str; 24] = [
    "build_assertions",
    "dump_hyp_walk",
    "mfn_to_xen_entry",
    "pte_of_xenaddr",
    "early_fdt_map",
    "xen_pt_enforce_wnx",
    "clear_table",
    "setup_pagetables",
    "clear_boot_pagetables",
    "mmu_init_secondary_cpu",
    "xen_map_table",
    "xen_unmap_table",
    "create_xen_table",
    "xen_pt_next_level",
    "xen_pt_check_entry",
    "xen_pt_update_entry",
    "xen_pt_mapping_level",
    "xen_pt_check_contig",
    "xen_pt_update",
    "map_pages_to_xen",
    "populate_pt_range",
    "destroy_xen_mappings",
    "modify_xen_mappings",
    "init_secondary_pagetables",
];
/// That of them of which arm32 has its own.
const TWICE: &str = "init_secondary_pagetables";

/// The edits, in their order.
#[must_use]
pub fn all() -> Vec<Edit> {
    [layout(), script(), head(), mm(), cpus(), declarations(), library()].concat()
}

/// The map of newer Xen, which the core has: L0 slot 20, so that no identity page can fall into it.
fn layout() -> Vec<Edit> {
    let at = |name: &'static str, span: VirtSpan| {
        let address = span.start().raw();
        replace_line(CONFIG, &["#define", name, "vaddr_t"], format!("#define {name} _AT(vaddr_t, {address:#x})\n"))
    };
    let of_gib = |name: &'static str, span: VirtSpan| {
        let address = span.start().raw();
        replace_line(CONFIG, &["#define", name, "GB"], format!("#define {name} _AT(vaddr_t, {address:#x})\n"))
    };
    let fixmap = layout::FIXMAP.start().raw();
    vec![
        at("XEN_VIRT_START", layout::IMAGE),
        replace_line(
            CONFIG,
            &["#define", "FIXMAP_ADDR", "PAGE_SIZE"],
            format!("#define FIXMAP_ADDR(n) (_AT(vaddr_t, {fixmap:#x}) + (n) * PAGE_SIZE)\n"),
        ),
        at("BOOT_FDT_VIRT_START", layout::DEVICE_TREE),
        at("LIVEPATCH_VMAP_START", layout::LIVEPATCH),
        of_gib("VMAP_VIRT_START", layout::VMAP),
        of_gib("FRAMETABLE_VIRT_START", layout::FRAMETABLE),
    ]
}

/// Room for the sections of the core, and the bounds that it asks for.
fn script() -> Vec<Edit> {
    vec![
        insert_after(SCRIPT, &["*(.text.header)"], "       *(.idmap.text.*)\n       bw_idmap_end_exclusive = .;\n"),
        // Sections of Rust's functions are named so whatever Xen's compiler does.
        cut_lines(SCRIPT, &["CONFIG_CC_SPLIT_SECTIONS"], &["#endif"]),
        insert_after(SCRIPT, &["*(.text)"], "       *(.text.*)\n"),
        insert_after(SCRIPT, &["*(.init.text)"], "       *(.init.text.*)\n"),
        // In the file, for their zeros (boot/tables.S).
        insert_after(
            SCRIPT,
            &["*(.data.page_aligned)"],
            "       . = ALIGN(PAGE_SIZE);
       *(.tables.*)
       first_image_l3 = .;
       . += PAGE_SIZE;
       first_image_l3_end_exclusive = .;
",
        ),
        insert_after(
            SCRIPT,
            &["__bss_end", "="],
            "       . = ALIGN(PAGE_SIZE);
       bw_pool_start = .;
       *(.pool.*)
       bw_pool_end_exclusive = .;
",
        ),
        append(
            SCRIPT,
            "bw_text_end_exclusive = ALIGN(_etext, PAGE_SIZE);
bw_init_text_end_exclusive = ALIGN(_einittext, PAGE_SIZE);
bw_image_end_exclusive = ALIGN(_end, PAGE_SIZE);
ASSERT(bw_text_end_exclusive == _srodata, \"nothing lies between text and rodata\")
ASSERT(ALIGN(_erodata, PAGE_SIZE) == __ro_after_init_start, \"nothing lies between rodata and data\")
ASSERT(bw_idmap_end_exclusive - _start <= PAGE_SIZE, \"what runs while M changes is in the image's first page\")
ASSERT(bw_image_end_exclusive - _start <= 0x200000, \"the first tables map 2 MiB\")
",
        ),
    ]
}

fn head() -> Vec<Edit> {
    let paging = |from: &'static str| replace_lines(HEAD, &["bl", "create_page_tables"], &["br", "x0"], from);
    vec![
        paging("        b     bw_primary\n").in_function("real_start"),
        replace_line(HEAD, &["primary_switched:"], "GLOBAL(primary_switched)\n"),
        cut_lines(HEAD, &["bl", "remove_identity_mapping"], &["bl", "setup_fixmap"]),
        replace_line(HEAD, &["bl", "zero_bss"], ""),
        paging("        b     bw_secondary\n").in_function("init_secondary"),
        replace_line(HEAD, &["secondary_switched:"], "GLOBAL(secondary_switched)\n"),
        cut_lines(HEAD, &["ldr", "init_ttbr"], &["isb"]).in_function("init_secondary"),
        cut_lines(HEAD, &["tlbi", "alle2"], &["isb"]).in_function("init_secondary"),
        cut_label(HEAD, "zero_bss"),
        cut_label(HEAD, "create_page_tables"),
        cut_label(HEAD, "enable_mmu"),
        cut_label(HEAD, "remove_identity_mapping"),
        cut_label(HEAD, "setup_fixmap"),
        cut_label(HEAD, "switch_ttbr"),
    ]
}

fn mm() -> Vec<Edit> {
    let cut = |name: &'static str| {
        let once = cut_function(MM, name);
        if name == TWICE { vec![once.clone().nth(1, 2), once] } else { vec![once] }
    };
    let tables = ["boot_pgtable", "boot_first", "boot_first_id", "boot_second_id", "boot_third_id", "boot_second"];
    let tables = tables.into_iter().chain(["boot_third", "xen_first", "xen_second", "xen_fixmap", "xen_xenmap"]);
    let table = |name: &'static str| replace_line(MM, &["(", name, ")", ";"], "");
    let mut edits: Vec<Edit> = REPLACED.into_iter().flat_map(cut).chain(tables.map(table)).collect();
    let (ram, init) = ("setup_directmap_mappings", "free_init_memory");
    edits.extend([
        insert_after(MM, &["#include", "asm", "setup.h"], HEADER),
        // arm32's.
        cut_function(MM, ram).nth(1, 2),
        replace_token(MM, &["rc", "=", "map_pages_to_xen"], "map_pages_to_xen", "bw_map_ram").in_function(ram),
        insert_before(MM, &["frametable_base_pdx", "="], "    bw_ram_is_mapped();\n")
            .in_function("setup_frametable_mappings"),
        replace_line(MM, &["uint32_t", "insn", ";"], "").in_function(init),
        replace_line(MM, &["unsigned", "int", "i", ",", "nr"], "").in_function(init),
        replace_line(MM, &["uint32_t", "*", "p", ";"], "").in_function(init),
        replace_lines(
            MM,
            &["rc", "=", "modify_xen_mappings"],
            &["__init_end", ")", ";"],
            "    rc = bw_drop_init(pa);\n",
        )
        .in_function(init),
        cut_lines(MM, &["invalidate_icache_local"], &["__init_end", ")", ";"]).in_function(init),
        replace_line(MM, &["static", "DEFINE_PAGE_TABLE", "xen_pgtable"], ""),
        replace_line(MM, &["static", "paddr_t", "phys_offset"], ""),
        replace_line(MM, &["extern", "switch_ttbr"], ""),
        replace_line(MM, &["DEFINE_SPINLOCK", "xen_pt_lock"], ""),
        replace_line("xen/arch/arm/Kconfig", &["select", "HAS_PMAP"], ""),
    ]);
    edits
}

fn cpus() -> Vec<Edit> {
    vec![
        insert_after(SMPBOOT, &["#include", "asm", "psci"], HEADER),
        // Before what it has counts for all.
        replace_line(SMPBOOT, &["mmu_init_secondary_cpu"], ""),
        insert_before(SMPBOOT, &["update_system_features"], "    mmu_init_secondary_cpu();\n")
            .in_function("start_secondary"),
        insert_before(SMPBOOT, &["return", "0", ";"], "    bw_cpu_is_up();\n\n").in_function("__cpu_up"),
    ]
}

/// Who writes Xen's text says so, and init ends with the audit.
fn declarations() -> Vec<Edit> {
    let (alternative, livepatch, setup) =
        ("xen/arch/arm/alternative.c", "xen/arch/arm/livepatch.c", "xen/arch/arm/setup.c");
    let vectors = "xen/arch/arm/cpuerrata.c";
    vec![
        insert_after(alternative, &["#include", "asm", "page.h"], format!("{HEADER}{PFN}")),
        // What is declared is Xen's image and no frame behind it, and so is what is mapped.
        replace_line(alternative, &["xen_order", "=", "get_order_from_bytes"], ""),
        insert_before(alternative, &["xenmap", "=", "__vmap"], "    bw_patch_xen(xen_mfn, PFN_UP(xen_size));\n"),
        replace_token(alternative, &["xenmap", "=", "__vmap"], "1U << xen_order", "PFN_UP(xen_size)"),
        insert_after(alternative, &["vunmap", "xenmap"], "    bw_xen_is_patched();\n"),
        insert_after(vectors, &["#include", "asm", "psci.h"], HEADER),
        insert_before(
            vectors,
            &["dst_remapped", "=", "__vmap"],
            "    bw_patch_xen(dst_mfn, 1UL << get_order_from_bytes(VECTOR_TABLE_SIZE));\n",
        ),
        replace_line(
            vectors,
            &["return", "false"],
            "    {\n        bw_xen_is_patched();\n        return false;\n    }\n",
        )
        .in_function("copy_hyp_vect_bpi"),
        insert_after(vectors, &["vunmap", "dst_remapped"], "    bw_xen_is_patched();\n"),
        insert_after(livepatch, &["#include", "asm", "livepatch.h"], format!("{HEADER}{PFN}")),
        insert_before(
            livepatch,
            &["vmap_of_xen_text", "=", "__vmap"],
            "    bw_patch_xen(text_mfn, PFN_UP(_etext - _start));\n",
        ),
        replace_token(livepatch, &["vmap_of_xen_text", "=", "__vmap"], "1U << text_order", "PFN_UP(_etext - _start)"),
        insert_before(livepatch, &["printk", "XENLOG_ERR", "LIVEPATCH"], "        bw_xen_is_patched();\n")
            .in_function("arch_livepatch_quiesce"),
        replace_line(
            livepatch,
            &["vunmap", "vmap_of_xen_text"],
            "    {\n        vunmap(vmap_of_xen_text);\n        bw_xen_is_patched();\n    }\n",
        ),
        insert_after(setup, &["#include", "asm", "platform.h"], HEADER),
        insert_before(setup, &["startup_cpu_idle_loop", "(", ")", ";"], "    bw_boot_is_over();\n\n")
            .in_function("init_done"),
    ]
}

fn library() -> Vec<Edit> {
    vec![
        add_file("xen/arch/arm/breakwater.c", include_str!("../../c/breakwater.c")),
        add_file("xen/arch/arm/include/asm/breakwater.h", library::HEADER),
        insert_after("xen/arch/arm/Makefile", &["obj-y", "+=", "mm.o"], "obj-y += breakwater.o\n"),
        insert_after("xen/Makefile", &["ALL_LIBS-y", ":="], "ALL_LIBS-y += $(BREAKWATER_LIB)\n"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_no_function_is_cut_twice() {
        let mut names = REPLACED.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REPLACED.len());
        assert!(names.contains(&TWICE));
    }
}
