//! Which flights there are: a few that every kind is in, and many.
//!
//! What must hold: each has a name of its own, and half of the many or more go by another loader than QEMU's own.

use super::{Board, Flight, Loader};
use crate::firmware::Way;
use crate::image::Earlycon;
use crate::machine::Machine;
use clap::ValueEnum;
use std::collections::BTreeSet;

/// The CPU models that the image is booted on. DC ZVA of the a64fx zeroes 256 bytes, that of the others 64.
pub(crate) const CPUS: [&str; 10] = [
    "a64fx",
    "cortex-a53",
    "cortex-a57",
    "cortex-a72",
    "cortex-a76",
    "neoverse-n1",
    "neoverse-n2",
    "neoverse-v1",
    "cortex-a710",
    "max",
];
/// Load addresses, each with the memory that it needs.
pub(crate) const ADDRESSES: [(u64, &str); 7] = [
    (0x4060_0000, "2G"),   // 2 MiB-aligned
    (0x4081_0000, "2G"),   // 64 KiB-aligned
    (0x4008_1000, "2G"),   // 4 KiB-aligned
    (0x4000_1000, "2G"),   // QEMU's first
    (0x403f_f000, "2G"),   // across 2 MiB
    (0x7fff_f000, "2G"),   // across 1 GiB
    (0x1_4000_3000, "6G"), // above 4 GiB
];
const GICS: [&str; 2] = ["2", "3"];
const SMPS: [u32; 3] = [1, 4, 8];
/// Features that a machine or its CPUs have or lack, which boot must find out.
const FEATURES: [(&str, &str); 8] = [
    ("max", "mte=on"),
    ("max", "secure=on"),
    ("max,lpa2=off", "its=off"),
    ("max,pauth=off,sve=off", "iommu=smmuv3"),
    ("cortex-a57,pmu=off", "secure=on"),
    ("cortex-a76", "its=off"),
    ("neoverse-n1", "iommu=smmuv3"),
    ("neoverse-v1,sve=off", "secure=on"),
];

/// A flight on `virt`.
fn of(loader: Loader, cpu: &str, gic: &str, smp: u32) -> Flight {
    let machine = Machine { cpu: cpu.to_owned(), gic: gic.to_owned(), smp, ..Machine::default() };
    Flight { loader, machine, ..Flight::default() }
}

impl Flight {
    fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.machine.memory);
        self
    }

    fn with(mut self, option: &str) -> Self {
        self.machine.options.push(option.to_owned());
        self
    }
}

/// The loaders besides QEMU's own, each with an option that it takes; firmware that has both with a tree and with ACPI.
/// UEFI's shell is left out: it counts down five seconds, and gives the image what GRUB gives it.
fn loaders() -> Vec<(Loader, Option<&'static str>)> {
    let all = Loader::value_variants().iter().copied();
    let options = |loader| match loader {
        Loader::Kernel | Loader::Firmware(Way::Shell) => vec![],
        Loader::Firmware(Way::Uefi | Way::Esp | Way::Linux | Way::Chainloader) => vec![None, Some("acpi=off")],
        // It describes the module in the tree that UEFI has.
        Loader::Firmware(Way::Xen) => vec![Some("acpi=off")],
        _ => vec![None],
    };
    all.flat_map(|loader| options(loader).into_iter().map(move |option| (loader, option))).collect()
}

fn by((loader, option): (Loader, Option<&str>), cpu: &str, gic: &str, smp: u32) -> Flight {
    let flight = of(loader, cpu, gic, smp);
    option.map_or(flight.clone(), |option| flight.with(option))
}

/// Each loader but QEMU's own.
pub(crate) fn each_loader() -> Vec<Flight> {
    loaders().into_iter().map(|loader| by(loader, "cortex-a57", "3", 4)).collect()
}

/// Each board but the one that is another build.
pub(crate) fn each_board() -> Vec<Flight> {
    let boards = Board::value_variants()
        .iter()
        .filter(|board| **board != Board::Virt && board.earlycon() == Earlycon::default());
    let flight = |board: &Board| {
        let machine = Machine { smp: board.most_cpus().unwrap_or(4), ..Machine::default() };
        Flight { board: *board, machine, ..Flight::default() }
    };
    boards.map(flight).collect()
}

/// Each load address, by `loader`.
pub(crate) fn each_address(loader: Loader, cpu: &str, gic: &str, smp: u32) -> Vec<Flight> {
    // Without a loader of QEMU's there is a shim, in the second MiB.
    let is_free = |address: &u64| loader == Loader::Kernel || *address >= 0x4030_0000;
    let addresses = ADDRESSES.into_iter().filter(|(address, _)| is_free(address));
    let flight = |(address, memory)| Flight { load_address: Some(address), ..of(loader, cpu, gic, smp).memory(memory) };
    addresses.map(flight).collect()
}

/// Each kind once.
pub(crate) fn quick() -> Vec<Flight> {
    let kernel = |cpu, gic, smp| of(Loader::Kernel, cpu, gic, smp);
    let mut flights: Vec<Flight> = CPUS.iter().map(|cpu| kernel(cpu, "3", 4)).collect();
    flights.extend(GICS.iter().flat_map(|gic| [1, 2, 4, 8].map(|smp| kernel("cortex-a57", gic, smp))));
    flights.extend(["256M", "8G"].map(|memory| kernel("cortex-a57", "3", 4).memory(memory)));
    let mut two_banks = kernel("cortex-a57", "3", 4);
    two_banks.machine.numa = true;
    flights.push(two_banks);
    flights.extend(FEATURES.iter().take(4).map(|(cpu, option)| kernel(cpu, "3", 4).with(option)));
    flights.extend(each_address(Loader::Kernel, "cortex-a57", "3", 4));
    flights.extend([1, 2, 3].map(|seed| Flight { layout_seed: Some(seed), ..Flight::default() }));
    flights.extend(each_loader().into_iter().chain(each_board()));
    once(flights)
}

/// Many: what is quick, and each loader on each kind of machine.
pub(crate) fn full() -> Vec<Flight> {
    let mut flights = quick();
    let seeded = |seed, flight| Flight { layout_seed: Some(seed), ..flight };
    for (gic, smp) in GICS.iter().flat_map(|gic| SMPS.map(|smp| (*gic, smp))) {
        for cpu in CPUS {
            let kernel = of(Loader::Kernel, cpu, gic, smp);
            flights.extend(["256M", "2G", "8G"].map(|memory| kernel.clone().memory(memory)));
            let cheap = [(Loader::Raw, None), (Loader::Firmware(Way::Bootefi), None)];
            flights
                .extend(cheap.iter().flat_map(|way| ["1G", "6G"].map(|memory| by(*way, cpu, gic, smp).memory(memory))));
            let uefi = [None, Some("acpi=off")].map(|option| by((Loader::Firmware(Way::Uefi), option), cpu, gic, smp));
            flights.extend(uefi);
        }
        for cpu in ["cortex-a53", "max"] {
            flights.extend(loaders().into_iter().map(|way| by(way, cpu, gic, smp)));
            flights.extend(each_address(Loader::Raw, cpu, gic, smp));
            flights.extend(each_address(Loader::Kernel, cpu, gic, smp));
        }
        for (cpu, option) in FEATURES {
            // Without QEMU's own loader somebody must have been at EL3, to offer PSCI.
            let others = [Loader::Raw, Loader::Firmware(Way::Uefi)];
            let others = others.into_iter().filter(|_| option != "secure=on");
            let some = [Loader::Kernel].into_iter().chain(others);
            flights.extend(some.map(|loader| of(loader, cpu, gic, smp).with(option)));
        }
    }
    for seed in 1..=250 {
        let kernel = of(Loader::Kernel, "cortex-a57", "3", if seed % 2 == 0 { 4 } else { 8 });
        flights.push(seeded(seed, kernel));
        // Another loader by turns; those that take long less often.
        let ways = [Loader::Raw, Loader::Firmware(Way::Bootefi), Loader::Raw, Loader::Firmware(Way::Uefi)];
        flights.push(seeded(seed, of(ways[seed as usize % 4], "cortex-a57", "3", 4)));
        if seed % 25 == 0 {
            flights.extend(loaders().into_iter().map(|way| seeded(seed, by(way, "cortex-a57", "3", 4))));
        }
        if seed % 10 == 0 {
            flights.extend(each_board().into_iter().map(|board| seeded(seed, board)));
        }
    }
    for board in each_board() {
        flights.extend(board.variants());
    }
    once(flights)
}

impl Flight {
    /// The CPUs and memory that its board may have besides.
    fn variants(&self) -> Vec<Self> {
        let sizes = self.board.memory_gib().map_or(vec![], |gib| vec![*gib.start(), *gib.end()]);
        let fewer = self.board.fewest_cpus().unwrap_or(1)..self.machine.smp;
        let fewer = fewer.map(|smp| Self { machine: Machine { smp, ..self.machine.clone() }, ..self.clone() });
        fewer.chain(sizes.into_iter().map(|gib| self.clone().memory(&format!("{gib}G")))).collect()
    }
}

/// Each of them once, in this order.
fn once(flights: Vec<Flight>) -> Vec<Flight> {
    let mut seen = BTreeSet::new();
    flights.into_iter().filter(|flight| seen.insert(flight.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_there_are_many_and_most_go_by_another_loader_or_board() {
        let (quick, full) = (quick(), full());
        let plain = full.iter().filter(|flight| flight.board == Board::Virt && flight.loader == Loader::Kernel).count();
        assert!(full.len() >= 1500 && 2 * plain <= full.len(), "{plain} of {}", full.len());
        let names = |flights: &[Flight]| flights.iter().map(Flight::name).collect::<BTreeSet<_>>();
        assert!(names(&full).is_superset(&names(&quick)) && names(&full).len() == full.len());
        for (loader, option) in loaders().into_iter().chain([(Loader::Kernel, None)]) {
            for (gic, smp) in GICS.iter().flat_map(|gic| SMPS.map(|smp| (gic, smp))) {
                let is_it = |flight: &&Flight| {
                    let Machine { gic: its_gic, smp: its_smp, options, .. } = &flight.machine;
                    flight.board == Board::Virt
                        && (flight.loader, its_gic.as_str(), *its_smp) == (loader, *gic, smp)
                        && options.iter().map(String::as_str).eq(option)
                };
                assert!(full.iter().any(|flight| is_it(&flight)), "{loader:?} {option:?}, GIC {gic}, {smp} CPUs");
            }
        }
    }

    #[test]
    fn good_each_can_be_asked_for() {
        for flight in full() {
            let of_its_own = |id: &str| {
                id == "smp" && flight.board != Board::Virt || id == "memory" && flight.machine.memory != "2G"
            };
            // Boards with a tree of Debian's would fetch it.
            if matches!(flight.board, Board::Virt | Board::XlnxVersalVirt) {
                flight.settled(of_its_own).unwrap_or_else(|error| panic!("{}: {error}", flight.name()));
            }
        }
    }
}
