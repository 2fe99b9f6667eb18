//! Worlds: a machine as it stands at the start, and the alphabet of what may happen in it.
//!
//! The worlds, each of which can express some of the rules.
//!
//! Addresses in all of them: the root, a table of level 2, at 1000; a table of level 3 for 200000 and up at 2000; a
//! spare one at 3000; frames of data at 80000000 and up. Tables are stored to through addresses that no walk
//! translates, and instructions without a fetch have such addresses too, so that neither is a use of the mappings
//! that are judged. A letter's physical address is fixed, whatever a history maps: that it contradicts the tables is
//! not asked for (`Obligations::trusting_addresses`).

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
        let mut setup = records(&format!("feature all strict-switch\n{setup}"));
        // A table is written down as zeroes, and then what stands in it: the last word for an address counts.
        let mut last = std::collections::HashSet::new();
        setup.reverse();
        setup.retain(|record| !matches!(record, Record::Word { pa, .. } if !last.insert(*pa)));
        setup.reverse();
        Self { name, setup, alphabet: records(&alphabet) }
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

/// `word` lines of zeros for the slots of a table but `except`: of memory that is not declared, a walk may read anything.
pub(crate) fn zeros(table: u64, except: &[u64]) -> String {
    let slots = (0..512).map(|index| table + 8 * index).filter(|slot| !except.contains(slot));
    slots.map(|slot| format!("word {slot:x} 0\n")).collect()
}

/// Root, table and two leaves: a page of code at 200000, a page of data at 201000.
pub(crate) fn two_leaves() -> String {
    let tables = zeros(0x1000, &[0x1000, 0x1008]) + &zeros(0x2000, &[0x2000, 0x2008]) + &zeros(0x3000, &[]);
    "word 1000 0\n".to_owned() + &tables + "word 1008 2003\nword 2000 800007c3\nword 2008 40000081000743\n"
}

/// The page at 6000 maps to itself, read-only and executable, under the roots at 1000 and 4000: code that turns the MMU on or off runs there.
pub(crate) fn identity() -> String {
    zeros(0x7000, &[0x7030]) + "word 1000 7003\nword 4000 7003\nword 7030 67c3\n"
}

/// Two PEs, one table entry, two leaves below it. Its histories are explored to the end.
pub(crate) fn small() -> World {
    World::new(
        "small",
        &(two_leaves() + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000001008 1008 0              # the table entry: break
0 0 store 8 ffff000000001008 1008 2003           # ... the table
0 0 store 8 ffff000000001008 1008 40000090000741 # ... a block
0 0 store 8 ffff000000002000 2000 0              # the first leaf: break
0 0 store 8 ffff000000002000 2000 800007c3       # ... a page of code
0 0 store 8 ffff000000002000 2000 400000800007c3 # ... the same, not executable
0 0 store 8 ffff000000002000 2000 820007c3       # ... another page of code
0 0 store 8 ffff000000002008 2008 0              # the second leaf: break
0 0 dsb ishld
0 0 dsb ishst
0 0 dsb ish
0 0 dmb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi vale2is 200
0 0 tlbi vae2 200
0 0 tlbi alle2is 0
0 0 tlbi vmalle1is 0                            # of another regime
0 0 load 8 200000 80000000 0
0 0 load 8 201000 81000000 0
0 0 settled
0 0 give 2000 4096
0 0 take 2000 4096
1 0 isb
1 200000 fetch 1
1 0 settled",
    )
}

/// The same machine under other features and errata, with fewer events.
pub(crate) fn featured(name: &'static str, features: &str) -> World {
    World::new(
        name,
        &(features.to_owned() + &two_leaves() + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000001008 1008 0
0 0 store 8 ffff000000001008 1008 2003
0 0 store 8 ffff000000001008 1008 40000080000741
0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 800007c3
0 0 store 8 ffff000000002000 2000 400000800007c3
0 0 store 8 ffff000000002000 2000 400000800003c3 # AF = 0
0 0 store 8 ffff000000002000 2000 820007c3
0 0 dsb ishst
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi vale2is 700000000200 # with TTL for level 3
0 0 tlbi rvae2is 400000000200 # a range
0 0 tlbi vae2 200
0 0 tlbi alle2is 0
0 0 dsb nsh
0 0 settled
1 0 isb
1 200000 fetch 1",
    )
}

/// A table that is filled, ordered before its link by a DMB or a store-release or not, and linked, by one PE or the other, below a table
/// that is there or is new.
pub(crate) fn ordered() -> World {
    let tables = zeros(0x1000, &[0x1008]) + &zeros(0x2000, &[0x2000]) + &zeros(0x3000, &[0x3000]);
    let contents = "word 1008 2003\nword 2000 800007c3\nword 3000 800007c3\n";
    World::new(
        "ordered",
        &(tables + contents + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000003000 3000 0
0 0 store 8 ffff000000003000 3000 820007c3
0 0 store 8 ffff000000001010 1010 3003
0 0 store 8 ffff000000001010 1010 3003 release
0 0 store 8 ffff000000001010 1010 0
0 0 store 8 ffff000000001008 1008 0
0 0 store 8 ffff000000001008 1008 2003
0 0 store 8 ffff000000002000 2000 820007c3
0 0 dmb ishst
0 0 dmb ishld
0 0 dsb nsh
0 0 dsb ish
0 0 isb
0 0 tlbi alle2is 0
0 0 load 8 400000 82000000 0
0 0 settled
1 0 store 8 ffff000000001010 1010 3003
1 0 store 8 ffff000000003000 3000 830007c3
1 0 dmb ish
1 0 dsb ish
1 400000 fetch 1
1 0 settled",
    )
}

/// A table replaced by another of the same contents.
pub(crate) fn replaced() -> World {
    let tables = zeros(0x1000, &[0x1008]) + &zeros(0x2000, &[0x2000]) + &zeros(0x3000, &[0x3000]);
    let contents = "word 1008 2003\nword 2000 800007c3\nword 3000 800007c3\n";
    World::new(
        "replaced",
        &(tables + contents + &on(0, 0x1000)),
        "0 0 store 8 ffff000000001008 1008 3003
0 0 store 8 ffff000000001008 1008 2003
0 0 store 8 ffff000000001008 1008 0
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi alle2is 0
0 0 load 8 200000 80000000 0
0 0 settled",
    )
}

/// A run of contiguous pages, two of them mapped.
pub(crate) fn contiguous(name: &'static str, features: &str) -> World {
    let tables = zeros(0x1000, &[0x1008]) + &zeros(0x2000, &[0x2000, 0x2008]);
    let run = "word 1008 2003\nword 2000 50000080000743\nword 2008 50000080001743\n";
    World::new(
        name,
        &(features.to_owned() + &tables + run + &on(0, 0x1000)),
        "0 0 store 8 ffff000000002000 2000 0
0 0 store 8 ffff000000002000 2000 50000080000743
0 0 store 8 ffff000000002000 2000 40000080000743 # without the bit
0 0 store 8 ffff000000002000 2000 500000800007c3 # read-only
0 0 store 8 ffff000000002008 2008 0
0 0 store 8 ffff000000002008 2008 50000080001743
0 0 store 8 ffff000000002008 2008 40000080001743
0 0 store 8 ffff000000002010 2010 50000084002743 # another output
0 0 dsb ish
0 0 isb
0 0 tlbi vae2 200
0 0 tlbi vae2 201
0 0 tlbi alle2 0
0 0 load 8 200000 80000000 0
0 0 settled",
    )
}

/// Frames that come and go, a table that is built and linked, and a link that is taken away.
pub(crate) fn frames(name: &'static str, features: &str) -> World {
    World::new(
        name,
        &(features.to_owned() + &two_leaves() + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000001010 1010 3003          # link the spare table
0 0 store 8 ffff000000001010 1010 8003          # link what nobody has filled
0 0 store 8 ffff000000001010 1010 0
0 0 store 8 ffff000000003000 3000 40000083000743
0 0 store 8 ffff000000003000 3000 0
0 0 store 8 ffff000000001008 1008 0
0 0 store 8 ffff000000001008 1008 4000000000002003 # APTable
0 0 store 8 ffff000000001008 1008 2003
0 0 store 8 ffff000000002000 2000 0
0 0 dsb ishst
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi vae2is 201
0 0 tlbi vae2is 400
0 0 tlbi vale2is 400
0 0 give 2000 4096
0 0 take 2000 4096
0 0 give 3000 4096
0 0 take 80000000 4096
0 0 give 80000000 4096
0 0 settled
end exit",
    )
}

/// What must hold of the tables as they are: rights, types, aliases, where memory is.
pub(crate) fn mappings() -> World {
    let setup =
        "memory 80000000 90000000 ram\nmemory 88000000 88001000 no-map\n".to_owned() + &two_leaves() + &on(0, 0x1000);
    World::new(
        "mappings",
        &setup,
        "0 0 store 8 ffff000000002010 2010 82000743       # writable and executable
0 0 store 8 ffff000000002010 2010 820007c3       # code
0 0 store 8 ffff000000002010 2010 40000080000743 # writable alias of the code
0 0 store 8 ffff000000002010 2010 40000009000747 # a device, execute-never
0 0 store 8 ffff000000002010 2010 90007c7        # a device, executable
0 0 store 8 ffff000000002010 2010 4000008100074b # a non-cacheable alias of the data
0 0 store 8 ffff000000002010 2010 40000081000543 # an alias of another shareability
0 0 store 8 ffff000000002010 2010 40000070000743 # beyond RAM
0 0 store 8 ffff000000002010 2010 40000088000743 # no-map
0 0 store 8 ffff000000002010 2010 0
0 0 store 8 ffff000000001010 1010 1000000000003003 # a table with XNTable
0 0 store 8 ffff000000001010 1010 3003
0 0 store 8 ffff000000003000 3000 82000743
0 0 dsb ish
0 0 isb
0 0 tlbi alle2is 0
0 0 settled
end exit",
    )
}

/// Two PEs with their MMUs on, and one that executes what the other has changed.
pub(crate) fn fetched() -> World {
    World::new(
        "fetched",
        &(two_leaves() + &on(0, 0x1000) + &on(1, 0x1000)),
        "0 0 store 8 ffff000000002000 2000 400000800007c3 # not executable
0 0 dsb ishst
0 0 dsb ish
0 0 tlbi vae2is 200
1 0 isb
1 200000 fetch 1",
    )
}

/// Two PEs, one of which goes up to EL3, down to EL1 and back: what it does there counts, what it uses there does not.
pub(crate) fn levels() -> World {
    let others = |cpu| format!("{cpu} 1 0 found sctlr_el1 30d0198d\n{cpu} 1 0 found sctlr_el3 30c5183d\n");
    World::new(
        "levels",
        &(two_leaves() + &on(0, 0x1000) + &others(0) + &on(1, 0x1000) + &others(1)),
        "0 0 eret
0 0 eret 1
0 0 msr spsr_el2 3c9
0 0 exception 0 0 0
0 0 exception 0 0 0 3
0 0 store 8 ffff000000001008 1008 0              # the table entry: break
0 0 store 8 ffff000000002000 2000 0              # a leaf: break
0 0 store 8 ffff000000002000 2000 400000800007c3 # ... a page that is not executable
0 0 store 8 ffff000000002000 2000 820007c3       # ... another page of code
0 0 dsb ish
0 0 isb
0 0 tlbi vae2is 200
0 0 tlbi alle2 0
0 0 load 8 201000 81000000 0
0 200000 fetch 1
0 0 settled
1 0 isb
1 200000 fetch 1",
    )
}
