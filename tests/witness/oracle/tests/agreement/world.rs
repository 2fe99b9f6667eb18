//! Worlds: a machine as it stands at the start, and the alphabet of what may happen in it.

use breakwater_trace::text::parse;
use breakwater_trace::{HEADER, Record};

/// A small machine whose every history, up to some length, both engines must judge alike.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) setup: Vec<Record>,
    /// What may happen, each as it stands in a trace.
    pub(crate) alphabet: Vec<Record>,
}

/// Reads the records of a text, one a line.
pub(crate) fn records(text: &str) -> Vec<Record> {
    let parsed = text.lines().map(|line| parse(1, line).unwrap_or_else(|error| panic!("{line}: {error}")));
    parsed.flatten().collect()
}

impl World {
    /// A world from two texts. An event is `CPU PC EVENT...`: the ordinal of the instruction is filled in.
    pub(crate) fn new(name: &'static str, setup: &str, events: &str) -> Self {
        let numbered = |line: &str| {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with("end") {
                return line.to_owned();
            }
            line.split_once(' ').map_or(String::new(), |(cpu, event)| format!("{cpu} 9 {event}"))
        };
        let alphabet = events.lines().map(numbered).collect::<Vec<_>>().join("\n");
        Self { name, setup: records(setup), alphabet: records(&alphabet) }
    }

    /// The trace of a history, for a person: without the zeros that fill the tables.
    pub(crate) fn trace(&self, history: &[usize]) -> String {
        let shown = self.setup.iter().filter(|record| !matches!(record, Record::Word { value: 0, .. }));
        let events = history.iter().map(|&event| &self.alphabet[event]);
        let lines = shown.chain(events).map(|record| record.to_string() + "\n");
        format!("{HEADER}\n# {}; the rest of its tables is zero\n{}", self.name, lines.collect::<String>())
    }
}

/// MMU and caches on, WXN, as `found` on a CPU: 4 KiB pages, 30-bit addresses, so that the root is a table of level 2.
pub(crate) fn on(cpu: u32, root: u64) -> String {
    format!(
        "{cpu} 1 0 start 2\n{cpu} 1 0 found hcr_el2 80000000\n{cpu} 1 0 found mair_el2 4404ff\n\
         {cpu} 1 0 found tcr_el2 80853522\n{cpu} 1 0 found ttbr0_el2 {root:x}\n{cpu} 1 0 found sctlr_el2 30cd183d\n"
    )
}

/// A PE out of reset with its MMU off, whose controls are written as they are found.
pub(crate) fn off(cpu: u32, root: u64) -> String {
    let control = |index, name: &str, value: u64| {
        format!("{cpu} 1 0 found {name} {value:x}\n{cpu} {index} 0 msr {name} {value:x}\n")
    };
    let found = format!("{cpu} 1 0 start 2\n{cpu} 1 0 found sctlr_el2 30cd183c\n");
    let written = [("hcr_el2", 0x8000_0000), ("mair_el2", 0x4404ff), ("tcr_el2", 0x8085_3522), ("ttbr0_el2", root)];
    let written: String = (2..).zip(written).map(|(index, (name, value))| control(index, name, value)).collect();
    let (declared, events): (Vec<&str>, Vec<&str>) = written.lines().partition(|line| line.contains(" found "));
    format!("{found}{}\n{}\n{cpu} 6 0 isb\n", declared.join("\n"), events.join("\n"))
}

/// ... and its TLBs cleared.
pub(crate) fn cleared(cpu: u32) -> String {
    format!("{cpu} 7 0 tlbi alle2 0\n{cpu} 8 0 dsb nsh\n{cpu} 9 0 isb\n")
}
