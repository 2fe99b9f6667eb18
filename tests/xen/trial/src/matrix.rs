//! The boots that both Xens are put through.
//!
//! Why it exists: tables that fit one machine prove little, so number and kind of CPUs, interrupt controller, size and
//! shape of memory, loader and configuration of Xen each vary. What must hold: a row varies in what its name says, and
//! in nothing else; each row ends with its domain's own line.

use breakwater_witness::machine::Machine;

use crate::boot::{Case, Way, counted};
use crate::build::{FLAVOURS, Flavour};

/// A boot of both Xens.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name on the command line and in tables.
    pub name: String,
    /// How Xen is configured.
    pub flavour: Flavour,
    /// The boot.
    pub case: Case,
}

/// CPU models beside the usual one, cortex-a57.
const MODELS: [&str; 4] = ["cortex-a53", "cortex-a76", "neoverse-n1", "max"];

/// All rows, the plain one first.
#[must_use]
pub fn rows() -> Vec<Row> {
    let [plain, configured @ ..] = FLAVOURS;
    let row = |name: &str, case: Case| Row { name: name.to_owned(), flavour: plain, case };
    let machine = |machine: Machine| Case { machine: Machine { smp: 1, ..machine }, ..Case::default() };
    let smp = |smp: u32| Case { machine: Machine { smp, ..counted() }, ..Case::default() };
    let gic2 = |case: Case| Case { machine: Machine { gic: "2".to_owned(), ..case.machine }, ..case };
    let memory = |memory: &str| machine(Machine { memory: memory.to_owned(), ..counted() });
    let by = |way: Way| Case { way, ..Case::default() };
    let mut rows = vec![
        row("plain", Case::default()),
        row("smp4", smp(4)),
        row("smp8", smp(8)),
        row("gic2", gic2(smp(1))),
        row("gic2-smp4", gic2(smp(4))),
    ];
    rows.extend(MODELS.map(|cpu| row(cpu, machine(Machine { cpu: cpu.to_owned(), ..counted() }))));
    rows.extend([
        row("512m", Case { dom0_memory: "128M", ..memory("512M") }),
        row("6g", Case { dom0_memory: "1G", ..memory("6G") }),
        row("banks", Case { way: Way::Banks, ..memory("6G") }),
        row("uefi", by(Way::Uefi)),
        row("grub", by(Way::Grub)),
        row("dom0less", by(Way::Dom0less)),
    ]);
    rows.extend(configured.map(|flavour| Row { flavour, ..row(flavour.name, smp(4)) }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn good_each_row_has_a_name_of_its_own() {
        let rows = rows();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len());
        assert_eq!(rows[0].name, "plain");
    }

    #[test]
    fn good_the_rows_are_what_was_promised() {
        let rows = rows();
        let has = |what: &dyn Fn(&Row) -> bool| rows.iter().any(what);
        for smp in [1, 4, 8] {
            assert!(has(&|row| row.case.machine.smp == smp), "{smp} CPUs");
        }
        for gic in ["2", "3"] {
            assert!(has(&|row| row.case.machine.gic == gic), "GIC {gic}");
        }
        for cpu in ["cortex-a53", "cortex-a57", "cortex-a76", "neoverse-n1", "max"] {
            assert!(has(&|row| row.case.machine.cpu == cpu), "{cpu}");
        }
        for memory in ["512M", "2G", "6G"] {
            assert!(has(&|row| row.case.machine.memory == memory), "{memory}");
        }
        for way in [Way::Kernel, Way::Banks, Way::Dom0less, Way::Uefi, Way::Grub] {
            assert!(has(&|row| row.case.way == way), "{way:?}");
        }
        assert!(FLAVOURS.iter().all(|flavour| has(&|row| row.flavour == *flavour)));
    }
}
