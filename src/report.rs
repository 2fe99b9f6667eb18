//! The boot report: what a person reads, and the same facts as one line of JSON.

#![forbid(unsafe_code)]

use crate::addr::{Level, PhysAddr, PhysSpan, VirtSpan};
use crate::audit::{Audit, Declared};
use crate::features::CpuFeatures;
use crate::layout;
use crate::ledger::{Ledger, Phase};
use crate::machine::Machine;
use crate::mapper::Mapper;
use crate::memory_map::{MAX_BANKS, SpanList};
use crate::regions::RegionMap;
use crate::uefi::Compared;
use core::fmt::{self, Write};

/// One CPU, as the report shows it.
#[derive(Clone, Copy, Debug)]
pub struct CpuLine {
    /// Its affinity, as PSCI and the device tree name it.
    pub affinity: u64,
    /// What became of it.
    pub outcome: &'static str,
    /// Whether it runs.
    pub online: bool,
}

/// Who describes the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Described {
    /// A device tree.
    DeviceTree,
    /// ACPI's tables, and UEFI's memory map.
    Acpi,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DeviceTree => "device tree",
            Self::Acpi => "ACPI",
        })
    }
}

/// Leaves of a region, by level: 4 KiB pages, 2 MiB and 1 GiB blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaves {
    /// 4 KiB.
    pub pages: u64,
    /// 2 MiB.
    pub blocks_2m: u64,
    /// 1 GiB.
    pub blocks_1g: u64,
    /// Of these, leaves that are of contiguous runs, in the same order.
    pub contiguous: [u64; 3],
}

impl Leaves {
    /// Counts the leaves that translate `region` now.
    #[must_use]
    pub fn of<M: Machine, S>(mapper: &Mapper<'_, M, S>, region: &Declared) -> Self {
        let mut leaves = Self::default();
        let mut virt = region.virt.start();
        while virt < region.virt.end_exclusive() {
            let Some((level, leaf)) = mapper.query(virt) else { break };
            let Self { pages, blocks_2m, blocks_1g, contiguous: [of_pages, of_2m, of_1g] } = &mut leaves;
            let (count, contiguous) = match level {
                Level::L1 => (blocks_1g, of_1g),
                Level::L2 => (blocks_2m, of_2m),
                _ => (pages, of_pages),
            };
            *count += 1;
            *contiguous += u64::from(leaf.contiguous());
            let Some(next) = virt.align_down(level.slot_bytes()).checked_add(level.slot_bytes()) else { break };
            virt = next;
        }
        leaves
    }
}

/// Everything the report says.
#[derive(Debug)]
pub struct Report<'a> {
    /// Where the image is.
    pub image: PhysSpan,
    /// Exception level of entry.
    pub entry_level: u8,
    /// SCTLR_EL2 at entry; 0 when entered at EL3.
    pub entry_sctlr: u64,
    /// Who describes the machine.
    pub described: Described,
    /// Where the device tree is, or the copy of ACPI's tables.
    pub device_tree: PhysSpan,
    /// What all CPUs that run have in common.
    pub cpu: &'a CpuFeatures,
    /// CPUs that the device tree names, the boot CPU first, as far as this image notes them.
    pub cpus: &'a [CpuLine],
    /// How many CPUs there are.
    pub present: usize,
    /// How many of them the command line lets run.
    pub wanted: usize,
    /// Who starts and stops CPUs.
    pub firmware: &'static str,
    /// Whether the identity page had to stay, and why.
    pub identity_stays: bool,
    /// RAM.
    pub ram: &'a SpanList<MAX_BANKS>,
    /// What UEFI says of memory, if it started the image.
    pub uefi: Option<Compared<'a>>,
    /// Frames left.
    pub free_frames: u64,
    /// The phases.
    pub ledger: &'a Ledger,
    /// The regions.
    pub regions: &'a RegionMap,
    /// What the audit found.
    pub audit: &'a Audit,
}

impl Report<'_> {
    /// CPUs that run.
    #[must_use]
    pub fn online(&self) -> usize {
        self.cpus.iter().filter(|cpu| cpu.online).count()
    }

    /// The readable report. `leaves` counts a region's leaves.
    pub fn text(&self, leaves: &dyn Fn(&Declared) -> Leaves) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write_text(f, leaves))
    }

    /// The same facts as one line, `BOOT-REPORT {json}`.
    pub fn json(&self, leaves: &dyn Fn(&Declared) -> Leaves) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write_json(f, leaves))
    }

    /// Bytes mapped in `area`.
    fn mapped(&self, area: VirtSpan) -> u64 {
        self.regions.iter().filter(|region| area.covers(region.virt)).map(|region| region.virt.bytes()).sum()
    }

    fn write_text(&self, out: &mut impl Write, leaves: impl Fn(&Declared) -> Leaves) -> fmt::Result {
        self.write_machine(out)?;
        if let Some(uefi) = self.uefi {
            self.write_uefi(out, uefi)?;
        }
        writeln!(out, "\nareas")?;
        for (name, span) in layout::AREAS {
            writeln!(
                out,
                "  {name:<22} {span} {:>12} MiB  {} KiB mapped",
                span.bytes() >> 20,
                self.mapped(span) >> 10
            )?;
        }
        writeln!(out, "\nregions")?;
        writeln!(out, "  {:<22} {:<32} {:<15} {:>12}  rights, leaves", "name", "virtual", "physical", "size")?;
        for region in self.regions.iter() {
            write_region(out, region, leaves(region))?;
        }
        writeln!(out, "\nphases")?;
        writeln!(
            out,
            "  {:<22} {:>7} {:>6} {:>6} {:>6} {:>7} {:>13}",
            "name", "stores", "TLBIs", "DSBs", "ISBs", "frames", "instructions"
        )?;
        for phase in self.ledger.phases().chain([&self.ledger.total()]) {
            write_phase(out, phase)?;
        }
        let audit = self.audit;
        writeln!(
            out,
            "\naudit: {} pages, {} mismatches, {} writable and executable",
            audit.pages, audit.mismatches, audit.writable_executable
        )?;
        match &audit.first {
            Some(finding) => writeln!(out, "  first: {finding}"),
            None => Ok(()),
        }
    }

    fn write_machine(&self, out: &mut impl Write) -> fmt::Result {
        writeln!(out, "breakwater: booted at {} (entered at EL{})", self.image, self.entry_level)?;
        let on = |bit: u32| if self.entry_sctlr >> bit & 1 == 1 { "on" } else { "off" };
        writeln!(out, "  at entry     MMU {}, data cache {}, instruction cache {}", on(0), on(2), on(12))?;
        writeln!(out, "  {:<12} {}", self.described, self.device_tree)?;
        writeln!(out, "  RAM          {} MiB, {} frames free", self.ram.bytes() >> 20, self.free_frames)?;
        let cpu = self.cpu;
        writeln!(out, "  CPU          MIDR {:#010x}, {}-bit physical addresses", cpu.midr, cpu.physical_bits)?;
        writeln!(out, "  features     {} (BBM level {})", cpu.features, cpu.bbm_level)?;
        writeln!(out, "  errata       {}", cpu.errata)?;
        writeln!(out, "  firmware     {}", self.firmware)?;
        write!(out, "  CPUs online  {} of {}", self.online(), self.present)?;
        for (index, line) in self.cpus.iter().enumerate().filter(|(_, line)| !line.online) {
            write!(out, "; CPU {index} (affinity {:#x}) {}", line.affinity, line.outcome)?;
        }
        if let Some(more) = self.present.checked_sub(self.cpus.len()).filter(|more| *more > 0) {
            write!(out, "; {more} more than this image can note")?;
        }
        writeln!(out)?;
        if self.identity_stays {
            writeln!(out, "  identity page stays mapped: a CPU may still arrive through it")?;
        }
        Ok(())
    }

    /// What the firmware keeps, and where the device tree says other things of memory than UEFI does.
    fn write_uefi(&self, out: &mut impl Write, uefi: Compared<'_>) -> fmt::Result {
        writeln!(out, "\nmemory by UEFI's map")?;
        for (kept, in_tree) in uefi.kept() {
            let differs = if in_tree { ", RAM by the device tree" } else { "" };
            writeln!(out, "  {} {:>8} KiB  {}{differs}", kept.span, kept.span.bytes() >> 10, kept.kind())?;
        }
        for span in uefi.tree_alone() {
            writeln!(
                out,
                "  {span} {:>8} KiB  not named, RAM by the device tree alone: left alone",
                span.bytes() >> 10
            )?;
        }
        for span in uefi.uefi_alone(self.ram) {
            writeln!(out, "  {span} {:>8} KiB  RAM, not named by the device tree", span.bytes() >> 10)?;
        }
        Ok(())
    }

    fn write_uefi_json(&self, out: &mut impl Write, uefi: Compared<'_>) -> fmt::Result {
        write!(out, "\"uefi\":{{\"kept\":[")?;
        for (index, (kept, in_tree)) in uefi.kept().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let (span, kind) = (Span(kept.span), kept.kind());
            write!(out, "{separator}{{\"span\":{span},\"kind\":\"{kind}\",\"ram_by_tree\":{in_tree}}}")?;
        }
        write!(out, "],\"tree_alone\":[")?;
        write_spans(out, uefi.tree_alone())?;
        write!(out, "],\"uefi_alone\":[")?;
        write_spans(out, uefi.uefi_alone(self.ram))?;
        write!(out, "]}},")
    }

    fn write_json(&self, out: &mut impl Write, leaves: impl Fn(&Declared) -> Leaves) -> fmt::Result {
        let cpu = self.cpu;
        write!(out, "BOOT-REPORT {{\"version\":1,\"image\":{},", Span(self.image))?;
        write!(out, "\"entry_level\":{},\"entry_sctlr\":{},", self.entry_level, self.entry_sctlr)?;
        write!(out, "\"described_by\":\"{}\",\"device_tree\":{},", self.described, Span(self.device_tree))?;
        write!(out, "\"cpu\":{{\"midr\":{},\"physical_bits\":{},", cpu.midr, cpu.physical_bits)?;
        write!(out, "\"features\":\"{}\",\"bbm_level\":{},", cpu.features, cpu.bbm_level)?;
        write!(out, "\"errata\":\"{}\"}},\"firmware\":\"{}\",", cpu.errata, self.firmware)?;
        let (online, present, wanted) = (self.online(), self.present, self.wanted);
        write!(out, "\"cpus\":{{\"online\":{online},\"present\":{present},\"wanted\":{wanted}}},")?;
        write!(out, "\"identity_stays\":{},", self.identity_stays)?;
        write!(out, "\"ram_bytes\":{},\"free_frames\":{},", self.ram.bytes(), self.free_frames)?;
        if let Some(uefi) = self.uefi {
            self.write_uefi_json(out, uefi)?;
        }
        write!(out, "\"areas\":[")?;
        for (index, (name, span)) in layout::AREAS.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let (va, bytes, mapped) = (span.start().raw(), span.bytes(), self.mapped(span));
            write!(out, "{separator}{{\"name\":\"{name}\",\"va\":{va},\"bytes\":{bytes},\"mapped\":{mapped}}}")?;
        }
        write!(out, "],\"regions\":[")?;
        for (index, region) in self.regions.iter().enumerate() {
            write_region_json(out, index, region, leaves(region))?;
        }
        write!(out, "],\"phases\":[")?;
        for (index, phase) in self.ledger.phases().enumerate() {
            write!(out, "{}", if index == 0 { "" } else { "," })?;
            write_phase_json(out, phase)?;
        }
        write!(out, "],\"total\":")?;
        write_phase_json(out, &self.ledger.total())?;
        let audit = self.audit;
        writeln!(
            out,
            ",\"audit\":{{\"pages\":{},\"mismatches\":{},\"writable_executable\":{}}}}}",
            audit.pages, audit.mismatches, audit.writable_executable
        )
    }
}

struct Span(PhysSpan);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"start\":{},\"bytes\":{}}}", self.0.start().raw(), self.0.bytes())
    }
}

fn write_spans(out: &mut impl Write, spans: impl Iterator<Item = PhysSpan>) -> fmt::Result {
    for (index, span) in spans.enumerate() {
        write!(out, "{}{}", if index == 0 { "" } else { "," }, Span(span))?;
    }
    Ok(())
}

fn write_region(out: &mut impl Write, region: &Declared, leaves: Leaves) -> fmt::Result {
    let Declared { name, virt, output, attributes } = region;
    let output = output.unwrap_or(PhysAddr::at(0));
    let kib = virt.bytes() >> 10;
    write!(out, "  {name:<22} {virt} {output} {kib:>8} KiB  {attributes}")?;
    let counts = [(leaves.pages, "4K"), (leaves.blocks_2m, "2M"), (leaves.blocks_1g, "1G")];
    for ((count, unit), contiguous) in counts.into_iter().zip(leaves.contiguous) {
        if count > 0 {
            write!(out, ", {count} x {unit}")?;
        }
        if contiguous > 0 {
            write!(out, " ({contiguous} contiguous)")?;
        }
    }
    writeln!(out)
}

fn write_region_json(out: &mut impl Write, index: usize, region: &Declared, leaves: Leaves) -> fmt::Result {
    let Declared { name, virt, output, attributes } = region;
    let separator = if index == 0 { "" } else { "," };
    let output = output.unwrap_or(PhysAddr::at(0)).raw();
    write!(
        out,
        "{separator}{{\"name\":\"{name}\",\"va\":{},\"pa\":{output},\"bytes\":{},\"rights\":\"{}\",\"memory\":\"{attributes}\",",
        virt.start().raw(),
        virt.bytes(),
        attributes.rights()
    )?;
    write!(out, "\"pages\":{},\"blocks_2m\":{},\"blocks_1g\":{},", leaves.pages, leaves.blocks_2m, leaves.blocks_1g)?;
    let [pages, blocks_2m, blocks_1g] = leaves.contiguous;
    write!(out, "\"contiguous\":{{\"pages\":{pages},\"blocks_2m\":{blocks_2m},\"blocks_1g\":{blocks_1g}}}}}")
}

fn write_phase(out: &mut impl Write, phase: &Phase) -> fmt::Result {
    let Phase { name, counts, frames, instructions } = phase;
    let maintenance = counts.maintenance;
    write!(
        out,
        "  {name:<22} {:>7} {:>6} {:>6} {:>6} {frames:>7} ",
        counts.stores, maintenance.tlbis, maintenance.dsbs, maintenance.isbs
    )?;
    match instructions {
        Some(instructions) => writeln!(out, "{instructions:>13}"),
        None => writeln!(out, "{:>13}", "not counted"),
    }
}

fn write_phase_json(out: &mut impl Write, phase: &Phase) -> fmt::Result {
    let Phase { name, counts, frames, instructions } = phase;
    let maintenance = counts.maintenance;
    write!(
        out,
        "{{\"name\":\"{name}\",\"stores\":{},\"tlbis\":{},\"dsbs\":{},\"isbs\":{},\"frames\":{frames},\"instructions\":",
        counts.stores, maintenance.tlbis, maintenance.dsbs, maintenance.isbs
    )?;
    match instructions {
        Some(instructions) => write!(out, "{instructions}}}"),
        None => write!(out, "null}}"),
    }
}
