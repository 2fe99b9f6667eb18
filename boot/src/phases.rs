//! Boot on the target, phase by phase: what [`breakwater::bringup`] does, with this machine's registers, memory, console and CPUs.
//!
//! Every refusal goes through [`refuse`]: one line, a cause, nothing half done that anyone could trip over.

#![forbid(unsafe_code)]

mod handover;
mod secondaries;

pub use handover::{Console, Handover};

use crate::el2::{self, Cpus, El2, FirmwareTree, Known, Room, Start, Status, power};
use crate::{console, line};
use breakwater::acpi;
use breakwater::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};
use breakwater::audit::{Audit, Declared, Scratch};
use breakwater::bbm::{Live, Tables};
use breakwater::bringup::{self, Bringup};
use breakwater::command_line::{self, Lossy, Options};
use breakwater::device_tree::{self, HEADER_BYTES, Platform};
use breakwater::features::CpuFeatures;
use breakwater::layout;
use breakwater::ledger::{Ledger, Reading};
use breakwater::memory_map::Limits;
use breakwater::refusal::Cause;
use breakwater::regions::directmap::Directmap;
use breakwater::regions::{Failure, RegionMap, Space, frametable, slots};
use breakwater::report::{Described, Leaves, Report};
use breakwater::starting;
use breakwater::uart::Uart;
use breakwater::uefi::{self, Compared};
use core::fmt::Display;
use secondaries::{Count, Secondaries};
use spin::Mutex;

/// Boots: from the first tables, which assembly has put in force, to audited runtime tables on every CPU.
#[must_use]
#[inline(never)] // xtask lets this function alone, by its name, refer to what it frees
pub fn boot(start: Start) -> Handover {
    let mut boot = Boot::with_runtime_tables(start);
    let mut machine = el2::platform().lock();
    let firmware = el2::firmware::memory_map().unwrap_or_else(|error| refuse(Cause::Memory, error));
    let (tree, machine) = boot.read_device_tree(firmware, &mut machine);
    let tree = tree.bytes();
    let described = if acpi::bundle_size(tree).is_some() { Described::Acpi } else { Described::DeviceTree };
    let mut room = [0; el2::firmware::OPTIONS_CHARACTERS];
    let options = read_command_line(el2::firmware::command_line(&mut room).unwrap_or(machine.command_line(tree)));
    boot.map_console(&machine, described);
    boot.close("device tree");

    let cpus = Count::of(&machine, options);
    let directmap = boot.map_memory(&machine, options, cpus);
    let cpus = secondaries::start(&mut boot, &machine, options, cpus);
    boot.free_what_only_boot_needed(directmap, cpus.identity_stays);
    let audit = boot.audit(&machine);
    boot.report(&machine, (tree, described), firmware, &cpus, &audit);
    if audit.mismatches != 0 || audit.writable_executable != 0 {
        el2::leave(options.exit, Status::AuditFailed);
    }
    let tree = if described == Described::DeviceTree { tree } else { &[] };
    boot.into_handover(tree, firmware, options, &cpus)
}

/// The machine while it boots.
struct Boot {
    start: Start,
    bringup: Bringup<El2>,
    tables: Tables<El2, Live>,
    regions: spin::MutexGuard<'static, RegionMap>,
    ledger: Ledger,
    cpu: CpuFeatures,
}

impl Boot {
    /// Builds the runtime root and puts it in force: from here on, changes to the tables are fills, and single breaks at the end.
    fn with_runtime_tables(start: Start) -> Self {
        let mut ledger = Ledger::new();
        let mut bringup = start.bring_up();
        ledger.close("first tables", reading(&start, &bringup));

        let mut next = bringup.build().unwrap_or_else(|failure| refuse(Cause::Mapping, failure));
        if let Some(page) = el2::earlycon_page() {
            bringup.add(&mut next, page).unwrap_or_else(|failure| refuse(Cause::Mapping, failure));
        }
        ledger.close("runtime tables", reading(&start, &bringup));
        let tables = bringup.switch(next);
        ledger.close("root switch", reading(&start, &bringup));

        let cpu =
            CpuFeatures::decode(&el2::id_registers()).unwrap_or_else(|unsupported| refuse(Cause::Cpu, unsupported));
        bringup.note_cpu(cpu.errata, cpu.output_bits);
        el2::cpu::note_boot_cpu(cpu);
        let mut regions = el2::regions().lock();
        bringup.image().declare(&mut regions).unwrap_or_else(|failure| refuse(Cause::Mapping, failure));
        if let Some(page) = el2::earlycon_page() {
            regions.declare(page).unwrap_or_else(|page| mapping(Failure::TooMany { name: page.name }));
        }
        Self { start, bringup, tables, regions, ledger, cpu }
    }

    fn space(&mut self) -> Space<'_, El2> {
        self.bringup.space(&mut self.tables, &mut self.regions)
    }

    fn close(&mut self, name: &'static str) {
        self.ledger.close(name, reading(&self.start, &self.bringup));
    }

    /// Maps the device tree, first the pages of its header, then the rest, and reads it.
    fn read_device_tree<'m>(
        &mut self,
        firmware: Option<uefi::Map<'_>>,
        machine: &'m mut Platform,
    ) -> (FirmwareTree, Known<'m>) {
        let address = self.start.device_tree();
        device_tree::check_address(address).unwrap_or_else(|error| refuse(Cause::DeviceTree, error));
        let start = self.reachable(address);
        let span = |bytes| {
            PhysSpan::of(start, bytes)
                .filter(|span| span.fits(ADDRESS_BITS))
                .unwrap_or_else(|| refuse(Cause::DeviceTree, "the device tree ends above 48 bits"))
        };
        let header = span(HEADER_BYTES as u64);
        slots::map_device_tree(&mut self.space(), header, None).unwrap_or_else(mapping);
        let virt = slots::device_tree_address(start);
        let head = FirmwareTree::at(virt, HEADER_BYTES).bytes();
        let of_acpi = acpi::bundle_size(head);
        let size = of_acpi.map_or_else(|| device_tree::header_size(head), Ok);
        let size = size.unwrap_or_else(|error| refuse(Cause::DeviceTree, error));
        slots::map_device_tree(&mut self.space(), span(size.into()), Some(header)).unwrap_or_else(mapping);
        let tree = FirmwareTree::at(virt, size as usize);
        let machine = match of_acpi {
            Some(_) => tree.read_acpi(start, firmware, machine).unwrap_or_else(|error| refuse(Cause::Acpi, error)),
            None => tree.read(start, firmware, machine).unwrap_or_else(|error| refuse(Cause::DeviceTree, error)),
        };
        if starting::psci(machine.psci, self.start.entry_level()).is_ok() {
            power::allow();
        }
        (tree, machine)
    }

    /// `address` as a physical address that this CPU can output.
    fn reachable(&self, address: u64) -> PhysAddr {
        PhysAddr::new(address).filter(|start| start.raw() >> self.cpu.output_bits == 0).unwrap_or_else(|| {
            refuse(Cause::DeviceTree, format_args!("the device tree at {address:#x} is beyond this CPU's addresses"))
        })
    }

    /// Says all that is printed on the machine's console from here on, and once more what was printed so far, unless it
    /// is the UART that has said it.
    fn map_console(&mut self, machine: &Platform, described: Described) {
        refuse_earlycon_in_ram(machine);
        match machine.console {
            Some(found) => match Uart::of(found.kind, found.registers, found.reg_shift, found.reg_io_width) {
                Some(uart) if el2::is_earlycon(uart, found.registers) => {}
                Some(uart) => {
                    let registers = slots::map_console(&mut self.space(), found.registers).unwrap_or_else(mapping);
                    el2::use_uart(uart, registers);
                }
                None => line!("breakwater: warning: no driver for the console at {}", found.registers),
            },
            None => line!("breakwater: warning: the {described} names no console"),
        }
        if !console::is_known() && cfg!(feature = "earlycon-semihosting") {
            console::install(el2::say_to_debugger);
        }
    }

    /// Maps RAM, the frametable, and the tables that later mappings on demand will use.
    fn map_memory(&mut self, machine: &Known<'_>, options: Options, cpus: Count) -> Directmap {
        let image = self.start.image();
        let limits = Limits { directmap_bytes: layout::DIRECTMAP.bytes(), phys_bits: self.cpu.output_bits.into() };
        let base = machine.memory.check(image, limits).unwrap_or_else(|error| refuse(Cause::Memory, error)).start();
        let directmap = Directmap::new(base);
        // Frames outside the image enter the supply only once they are mapped, so they may be promised as reached now.
        let el2 = self.bringup.machine_mut();
        el2.reach_by(el2.phys_to_virt().with_directmap(base));
        let ram = self.start.claim_ram(machine);
        directmap.map(&mut self.space(), ram).unwrap_or_else(mapping);
        self.close("directmap");
        frametable::map(&mut self.space(), &machine.memory, base).unwrap_or_else(mapping);
        self.close("frametable");
        let livepatch = options.livepatch && el2::settings().livepatch != 0;
        slots::populate_vmap(&mut self.space(), cpus.started, livepatch).unwrap_or_else(mapping);
        self.close("vmap, livepatch");
        directmap
    }

    fn free_what_only_boot_needed(&mut self, directmap: Directmap, identity_stays: bool) {
        let Self { bringup, tables, regions, .. } = &mut *self;
        if identity_stays {
            el2::footing::keep_identity(self.start.identity());
        } else {
            bringup.drop_identity(tables, regions).unwrap_or_else(mapping);
        }
        self.close("identity page");
        let init_end = self.start.physical(self.start.map().init).end_exclusive();
        let Self { bringup, tables, regions, .. } = &mut *self;
        let el2 = bringup.machine_mut();
        el2.reach_by(el2.phys_to_virt().without_init(init_end));
        bringup.free_init(tables, regions, directmap).unwrap_or_else(mapping);
        self.close("free init");
        self.bringup.seal(&mut self.tables, &mut self.regions).unwrap_or_else(mapping);
        self.close("seal");
    }

    fn audit(&mut self, machine: &Platform) -> Audit {
        let phys_to_virt = self.bringup.protocol().machine().phys_to_virt();
        let count = self.bringup.audit_runs(&self.regions);
        let mut runs =
            Room::take(self.bringup.frames_mut(), "audit", count, |_| Scratch::EMPTY).unwrap_or_else(mapping);
        let (root, memory) = (self.tables.root(), &machine.memory);
        let audit = bringup::audit(root, &phys_to_virt, &self.regions, memory, runs.things());
        runs.give_back(self.bringup.frames_mut());
        self.close("audit");
        audit
    }

    fn report(
        &mut self,
        machine: &Platform,
        (tree, described): (&'static [u8], Described),
        firmware: Option<uefi::Map<'_>>,
        cpus: &Secondaries,
        audit: &Audit,
    ) {
        let tree_ram = (described == Described::DeviceTree).then_some(&machine.tree_ram);
        let common = el2::cpu::common().unwrap_or(self.cpu);
        let start = PhysAddr::new(self.start.device_tree()).unwrap_or(PhysAddr::at(0));
        let (image, regions) = (self.start.image(), &*self.regions);
        let mapper = self.bringup.mapper(&mut self.tables);
        let leaves = |region: &Declared| Leaves::of(&mapper, region);
        let report = Report {
            image,
            entry_level: self.start.entry_level(),
            entry_sctlr: self.start.entry_sctlr(),
            described,
            device_tree: PhysSpan::of(start, tree.len() as u64).unwrap_or(image),
            cpu: &common,
            cpus: cpus.lines(),
            present: cpus.count.present,
            wanted: cpus.count.wanted,
            firmware: if power::is_available() { "PSCI by SMC" } else { "no PSCI" },
            identity_stays: cpus.identity_stays,
            ram: &machine.memory.banks,
            uefi: firmware.map(|map| Compared { map, tree: tree_ram }),
            free_frames: mapper.free_frames(),
            ledger: &self.ledger,
            regions,
            audit,
        };
        console::print(format_args!("{}", report.text(&leaves)));
        console::print(format_args!("{}", report.json(&leaves)));
    }

    fn into_handover(
        self,
        tree: &'static [u8],
        firmware: Option<uefi::Map<'static>>,
        options: Options,
        cpus: &Secondaries,
    ) -> Handover {
        let (editor, frames) = self.bringup.finish(self.tables);
        Handover {
            tables: Mutex::new(editor),
            frames: Mutex::new(frames),
            regions: el2::regions(),
            on_demand: el2::on_demand(),
            device_tree: tree,
            firmware,
            console: Console { is_known: console::is_known() },
            cpus: Cpus::new(cpus.online()),
            exit: options.exit,
        }
    }
}

/// It would be mapped as a device and as memory.
fn refuse_earlycon_in_ram(machine: &Platform) {
    let page = el2::earlycon_page().and_then(|page| PhysSpan::of(page.output?, page.virt.bytes()));
    if let Some((page, bank)) = page.and_then(|page| Some((page, machine.memory.banks.overlap(page)?))) {
        refuse(Cause::Memory, format_args!("the early console's page {page} lies in the RAM bank {bank}"));
    }
}

fn read_command_line(text: &[u8]) -> Options {
    let options = command_line::parse(text, |word| {
        line!("breakwater: warning: unknown option {} ignored", Lossy(word));
    })
    .unwrap_or_else(|error| refuse(Cause::CommandLine, error));
    el2::entry::set_exit(options.exit);
    options
}

fn reading(start: &Start, bringup: &Bringup<El2>) -> Reading {
    let mut counts = bringup.protocol().counts();
    counts.stores += start.stores();
    counts.maintenance.tlbis += start.maintenance().tlbis;
    counts.maintenance.dsbs += start.maintenance().dsbs;
    counts.maintenance.isbs += start.maintenance().isbs;
    Reading { counts, frames: bringup.frames().taken(), instructions: el2::instructions_retired() }
}

fn mapping<T>(failure: Failure) -> T {
    refuse(Cause::Mapping, failure)
}

/// Says one line and stops, for `cause`.
fn refuse(cause: Cause, reason: impl Display) -> ! {
    line!("breakwater: refused: {reason}");
    el2::say_what_is_kept();
    el2::leave_refused(el2::entry::wanted_exit(), cause)
}
