//! The judge: what the architecture says of each step, written from its rules and sharing no code with the manager.
//!
//! It sees the steps alone and keeps its own picture of memory, so a step that is kept from it is as if the manager had forgotten it.
//! What it does not follow, because the manager never does it, it reports: unlinking a live table, contiguous runs.

use super::bits::{self, EXECUTE_NEVER, OUTPUT, READ_ONLY, is_table, is_valid, slot_bytes};
use super::event::{Dsb, Event};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What PEs get wrong, as far as it changes what is owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flaws {
    /// A broadcast TLBI is complete only after another and its DSB.
    pub(crate) repeat_tlbi: bool,
    /// No valid descriptor may become another valid one.
    pub(crate) always_break: bool,
    /// An executable one may not become an execute-never one without a break.
    pub(crate) break_for_execute_never: bool,
    /// ISB before SCTLR_EL2.M goes to 0.
    pub(crate) isb_before_mmu_off: bool,
}

/// How far a slot is from being safe to make: RDDMVT, step by step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Stored: a walk may still see what was there.
    Stored,
    /// No walk sees what was there, but a TLB may hold it.
    Visible,
    /// A TLBI that covers it was issued.
    Invalidating { broadcast: bool },
    /// It was completed, and must be repeated.
    RepeatOwed,
    /// The repetition was issued.
    Repeating,
    /// Complete, but this PE has not synchronised its context (RBLDZX).
    Complete,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    virt: u64,
    level: u8,
    stage: Stage,
}

/// What fills owe: IWZCBG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fills {
    Settled,
    Stored,
    Visible,
}

/// What a table is to the judge.
#[derive(Clone, Debug, Default)]
struct Table {
    words: HashMap<usize, u64>,
    /// Level and first address, when a walk from the root in force can reach it.
    place: Option<(u8, u64)>,
    linked: bool,
}

/// Where a root switch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Window {
    /// M is 1, and its context is synchronised.
    On,
    /// M went to 1 and no ISB has followed.
    JustOn,
    /// M went to 0 and no ISB has followed: walks may go on.
    JustOff,
    /// M is 0. What became of ALLE2 and of the write to TTBR0_EL2.
    Off { invalidation: Invalidation, root: Option<u64>, root_synchronised: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Invalidation {
    Owed,
    Issued,
    Complete,
    Synchronised,
}

/// The judge. See the module.
#[derive(Debug)]
pub(crate) struct Judge {
    tables: HashMap<u64, Table>,
    /// Frames with stores that no DSB has followed.
    unseen: HashSet<u64>,
    root: u64,
    shared: bool,
    pub(crate) flaws: Flaws,
    debts: BTreeMap<u64, Debt>,
    fills: Fills,
    window: Window,
    last: Option<Event>,
    pub(crate) violations: Vec<String>,
}

impl Judge {
    /// A machine whose MMU is on, with an empty root at `root` that one PE uses.
    pub(crate) fn new(root: u64) -> Self {
        let first = Table { place: Some((0, 0)), linked: true, ..Table::default() };
        Self {
            tables: HashMap::from([(root, first)]),
            unseen: HashSet::new(),
            root,
            shared: false,
            flaws: Flaws::default(),
            debts: BTreeMap::new(),
            fills: Fills::Settled,
            window: Window::On,
            last: None,
            violations: Vec::new(),
        }
    }

    /// From here on other PEs use the tables.
    pub(crate) fn share(&mut self) {
        self.shared = true;
    }

    /// Puts a descriptor into memory as if it had always been there.
    pub(crate) fn plant(&mut self, address: u64, value: u64) {
        let table = self.tables.get_mut(&(address & OUTPUT)).expect("planted in a table");
        table.words.insert((address & 0xfff) as usize / 8, value);
    }

    /// The root in force.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    pub(crate) fn step(&mut self, event: Event) {
        match event {
            Event::Store { address, level, value } => self.store(address, level, value),
            Event::Zero { frame } => self.zero(frame),
            Event::Dsb(kind) => self.dsb(kind),
            Event::Isb => self.isb(),
            Event::TlbiAll { broadcast } => self.tlbi(broadcast, |_| true),
            Event::TlbiLeafVa { broadcast, operand } => self.tlbi_by_va(broadcast, operand),
            Event::MmuOff => self.mmu_off(),
            Event::Ttbr { root } => self.ttbr(root),
            Event::MmuOn => self.mmu_on(),
        }
        self.last = Some(event);
    }

    /// What must hold when a request returns: nothing is owed.
    pub(crate) fn end_of_request(&mut self) {
        let debts: Vec<Debt> = self.debts.values().copied().collect();
        for debt in debts {
            self.complain(format!("owed at the end: {debt:x?}"));
        }
        if self.fills != Fills::Settled {
            self.complain(format!("a fill is {:?} at the end: DSB, then ISB", self.fills));
        }
        if self.window != Window::On {
            self.complain(format!("the root switch is unfinished: {:?}", self.window));
        }
    }

    fn complain(&mut self, what: String) {
        self.violations.push(what);
    }

    fn no_data_access_in_window(&mut self) {
        if !matches!(self.window, Window::On | Window::JustOn) {
            self.complain("data access with the MMU off".into());
        }
    }

    fn store(&mut self, address: u64, level: u8, value: u64) {
        self.no_data_access_in_window();
        let frame = address & OUTPUT;
        let index = (address & 0xfff) as usize / 8;
        let Some(table) = self.tables.get_mut(&frame) else {
            return self.complain(format!("store to {address:#x}, where no table is"));
        };
        let old = table.words.insert(index, value).unwrap_or(0);
        let place = table.place;
        self.unseen.insert(frame);
        if is_valid(value) {
            for what in bits::faults(level, value) {
                self.complain(format!("{value:#x} at {address:#x}: {what}"));
            }
        }
        match place {
            Some((actual, _)) if actual != level => {
                self.complain(format!("a level {actual} table at {frame:#x} is edited as one of level {level}"));
            }
            Some((_, base)) => {
                let virt = base + index as u64 * slot_bytes(level);
                self.live_store(address, Debt { virt, level, stage: Stage::Stored }, old, value);
            }
            None if is_valid(value) && is_table(value, level) => self.link(value & OUTPUT),
            None => {}
        }
    }

    fn link(&mut self, child: u64) {
        match self.tables.get_mut(&child) {
            None => self.complain(format!("{child:#x} is linked but was never zeroed")),
            Some(table) if table.linked => self.complain(format!("{child:#x} is linked twice")),
            Some(table) => table.linked = true,
        }
    }

    /// A store to a slot that a walk may read at any moment.
    fn live_store(&mut self, address: u64, debt: Debt, old: u64, value: u64) {
        let level = debt.level;
        match (is_valid(old), is_valid(value)) {
            _ if old == value => {}
            (false, false) => {}
            (false, true) => self.make(address, debt, value),
            (true, false) if is_table(old, level) => self.complain(format!("a live table is unlinked at {address:#x}")),
            (true, false) => drop(self.debts.insert(address, debt)),
            (true, true) => {
                if is_table(old, level) || is_table(value, level) || !self.may_change_in_place(old, value) {
                    self.complain(format!("{old:#x} became {value:#x} at {address:#x} without a break"));
                }
                self.debts.insert(address, debt);
            }
        }
    }

    fn make(&mut self, address: u64, Debt { virt, level, .. }: Debt, value: u64) {
        if let Some(owed) = self.debts.get(&address) {
            self.complain(format!("{value:#x} made at {address:#x} while this is owed: {owed:x?}"));
        }
        self.fills = Fills::Stored;
        if is_table(value, level) {
            self.link(value & OUTPUT);
            self.come_alive(value & OUTPUT, level + 1, virt);
        }
    }

    /// RJVXRH: rights alone may change in place, each way.
    fn may_change_in_place(&self, old: u64, value: u64) -> bool {
        let loses_execution = old & EXECUTE_NEVER == 0 && value & EXECUTE_NEVER != 0;
        (old ^ value) & !(READ_ONLY | EXECUTE_NEVER) == 0
            && !self.flaws.always_break
            && !(self.flaws.break_for_execute_never && loses_execution)
    }

    /// A walk may now read the table at `frame` and all below it.
    fn come_alive(&mut self, frame: u64, level: u8, base: u64) {
        if self.unseen.contains(&frame) {
            self.complain(format!("the contents of {frame:#x} are not visible before the link to it"));
        }
        let Some(table) = self.tables.get_mut(&frame) else { return };
        if table.place.replace((level, base)).is_some() {
            return self.complain(format!("{frame:#x} is reached in two ways"));
        }
        let words: Vec<_> = table.words.iter().map(|(&index, &word)| (index as u64, word)).collect();
        for (index, word) in words.into_iter().filter(|&(_, word)| is_valid(word) && is_table(word, level)) {
            self.come_alive(word & OUTPUT, level + 1, base + index * slot_bytes(level));
        }
    }

    fn zero(&mut self, frame: u64) {
        self.no_data_access_in_window();
        if self.tables.get(&frame).is_some_and(|table| table.linked) {
            self.complain(format!("{frame:#x} is zeroed while a table links to it"));
        }
        self.tables.insert(frame, Table::default());
        self.unseen.insert(frame);
    }

    fn dsb(&mut self, kind: Dsb) {
        let reaches_all_users = !self.shared || kind != Dsb::Nsh;
        for debt in self.debts.values_mut() {
            debt.stage = match debt.stage {
                Stage::Stored if reaches_all_users => Stage::Visible,
                Stage::Invalidating { broadcast } if completes(kind, broadcast) => {
                    if broadcast && self.flaws.repeat_tlbi { Stage::RepeatOwed } else { Stage::Complete }
                }
                Stage::Repeating if completes(kind, true) => Stage::Complete,
                stage => stage,
            };
        }
        if reaches_all_users {
            self.unseen.clear();
            if self.fills == Fills::Stored {
                self.fills = Fills::Visible;
            }
        }
        if let Window::Off { invalidation, .. } = &mut self.window
            && *invalidation == Invalidation::Issued
            && completes(kind, false)
        {
            *invalidation = Invalidation::Complete;
        }
    }

    fn isb(&mut self) {
        self.debts.retain(|_, debt| debt.stage != Stage::Complete);
        if self.fills == Fills::Visible {
            self.fills = Fills::Settled;
        }
        match &mut self.window {
            Window::On => {}
            Window::JustOn => self.window = Window::On,
            Window::JustOff => {
                self.window = Window::Off { invalidation: Invalidation::Owed, root: None, root_synchronised: false };
            }
            Window::Off { invalidation, root, root_synchronised } => {
                *root_synchronised = root.is_some();
                if *invalidation == Invalidation::Complete {
                    *invalidation = Invalidation::Synchronised;
                }
            }
        }
    }

    /// RSQXYZ, RXKMMX: the operand is applied as it is, mistakes included.
    fn tlbi_by_va(&mut self, broadcast: bool, operand: u64) {
        if operand >> 48 != 0 {
            self.complain(format!("TLBI operand {operand:#x} with RES0 bits set"));
        }
        let virt = (operand & ((1 << 44) - 1)) << 12;
        let hint = (operand >> 44) & 0xf;
        // 0 is any level; 01xx is the 4 KiB granule with the level in the low bits; the others are of other granules.
        let hits_level = move |level: u8| hint == 0 || hint == 4 | u64::from(level);
        self.tlbi(broadcast, move |debt| {
            let covered = debt.virt <= virt && virt - debt.virt < slot_bytes(debt.level);
            covered && hits_level(debt.level)
        });
    }

    fn tlbi(&mut self, broadcast: bool, covers: impl Fn(&Debt) -> bool) {
        let reaches_all_users = broadcast || !self.shared;
        for debt in self.debts.values_mut() {
            debt.stage = match debt.stage {
                Stage::Visible if reaches_all_users && covers(debt) => Stage::Invalidating { broadcast },
                Stage::RepeatOwed if broadcast => Stage::Repeating,
                stage => stage,
            };
        }
        let everything = Debt { virt: u64::MAX, level: 0, stage: Stage::Stored };
        if let Window::Off { invalidation, .. } = &mut self.window
            && covers(&everything)
        {
            *invalidation = Invalidation::Issued;
        }
    }

    fn mmu_off(&mut self) {
        if self.shared {
            self.complain("the root is switched while other PEs use the tables".into());
        }
        if !self.unseen.is_empty() {
            self.complain("the MMU goes off before stores are visible".into());
        }
        if self.flaws.isb_before_mmu_off && self.last != Some(Event::Isb) {
            self.complain("the MMU goes off without the ISB that Falkor needs (E1041)".into());
        }
        if self.window != Window::On {
            self.complain("the MMU goes off twice, or before it was on".into());
        }
        self.window = Window::JustOff;
    }

    fn ttbr(&mut self, new: u64) {
        match &mut self.window {
            Window::Off { root, root_synchronised, .. } => (*root, *root_synchronised) = (Some(new), false),
            _ => self.complain("TTBR0_EL2 is written while walks may go on".into()),
        }
    }

    fn mmu_on(&mut self) {
        let window = std::mem::replace(&mut self.window, Window::JustOn);
        let Window::Off { invalidation: Invalidation::Synchronised, root: Some(root), root_synchronised: true } =
            window
        else {
            return self.complain(format!("the MMU goes on too early: {window:?}"));
        };
        for table in self.tables.values_mut().filter(|table| table.place.is_some()) {
            (table.place, table.linked) = (None, false);
        }
        self.link(root);
        self.come_alive(root, 0, 0);
        self.root = root;
    }
}

/// RSPVBD, RPSMWS: which barrier completes a TLBI. A store-only one never does.
fn completes(kind: Dsb, broadcast: bool) -> bool {
    match kind {
        Dsb::IshSt => false,
        Dsb::Ish => true,
        Dsb::Nsh => !broadcast,
    }
}
