//! The adversary: hardware that does whatever the architecture permits, and proves a sequence unsound by doing it.
//!
//! Why: rules can be misread; what caches hold is plain. So this engine has no rule table. It keeps **may-sets**: per PE every leaf
//! entry, table entry and descriptor by physical address that may be held now, the controls that may be in force or cached, faults that
//! may have been seen, translations that instructions may still use, and what data-cache lines may hide. Each event changes the sets, and
//! the walks that may happen close them. Harm is found by looking: two entries of one address that exclude each other, an entry that
//! memory does not say where nothing may be stale, a fetch from Device memory, a read behind a dirty line.
//!
//! What must hold: the sets never lack anything that hardware may hold, and after a completed invalidation nothing that it may not.
//! States compare equal when their futures are equal; lines of the trace and harms found are no part of that. What it refuses: CPUs beyond
//! 127 are not followed.

mod access;
mod class;
mod controls;
mod doom;
mod element;
mod entry;
mod harm;
mod invalidate;
mod judge;
mod lines;
mod memory;
mod path;
mod permission;
mod roots;
mod shared;
mod walk;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use breakwater_trace::{End, Event, MemoryKind, Record, Step};

use crate::level::Levels;
use crate::maintenance::{Invalidation, Ordering, Reach, stored_words};
use crate::params::{Features, Params};
use crate::regime::Control;

use class::Class;
use element::{Element, Neighbour};
use entry::{Exclusion, Held};
use harm::UnplacedHarm;

use lines::Lines;
use memory::Memory;
use permission::Permissions;
use shared::Shared;
use walk::{Walker, overlapping};

pub use entry::Translation;
pub use harm::{Harm, HarmKind, What};
pub use permission::Permission;

/// Beyond, a trace has said enough.
const MOST_HARMS: usize = 1000;
/// PE sets are 128 bits wide.
const MOST_ELEMENTS: u32 = 128;

/// What the machine is, declared before the first step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct World {
    params: Params,
    ram: Vec<(u64, u64)>,
    no_map: Vec<(u64, u64)>,
}

/// A descriptor that was broken, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Broken {
    slot: u64,
    storer: u32,
}

/// A machine whose caches hold whatever they may.
#[derive(Clone, Debug)]
pub struct Adversary {
    permissions: Permissions,
    world: Arc<World>,
    memory: Shared<Memory>,
    lines: Shared<Lines>,
    elements: Vec<Shared<Element>>,
    classes: Vec<Class>,
    broken: Vec<Broken>,
    /// PEs whose data caches were on at some time, whatever has become of them.
    filled: Vec<u32>,
    line: u64,
    harms: Vec<Harm>,
}

impl PartialEq for Adversary {
    fn eq(&self, other: &Self) -> bool {
        self.elements == other.elements
            && self.memory == other.memory
            && self.classes == other.classes
            && self.broken == other.broken
            && self.lines == other.lines
            && self.filled == other.filled
            && self.permissions == other.permissions
            && (Arc::ptr_eq(&self.world, &other.world) || self.world == other.world)
    }
}

impl Eq for Adversary {}

impl Hash for Adversary {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.memory.hash(state);
        self.elements.hash(state);
        self.classes.hash(state);
        self.broken.hash(state);
        self.lines.hash(state);
    }
}

impl Default for Adversary {
    fn default() -> Self {
        Self::new()
    }
}

impl Adversary {
    /// Hardware that uses every permission.
    #[must_use]
    pub fn new() -> Self {
        Self {
            permissions: Permissions::EVERY,
            world: Arc::default(),
            memory: Shared::new(Memory::default()),
            lines: Shared::new(Lines::new()),
            elements: Vec::new(),
            classes: Vec::new(),
            broken: Vec::new(),
            filled: Vec::new(),
            line: 0,
            harms: Vec::new(),
        }
    }

    /// Hardware that makes no use of `permission`.
    #[must_use]
    pub fn without(permission: Permission) -> Self {
        Self { permissions: Permissions::EVERY.without(permission), ..Self::new() }
    }

    /// ... and without another.
    #[must_use]
    pub fn and_without(mut self, permission: Permission) -> Self {
        self.permissions = self.permissions.without(permission);
        self
    }

    /// Every harm so far; one of a kind per PE and address.
    #[must_use]
    pub fn harms(&self) -> &[Harm] {
        &self.harms
    }

    /// What the TLB of `pe` may hold for `va`.
    #[must_use]
    pub fn holds(&self, pe: u32, va: u64) -> Vec<Translation> {
        let element = self.elements.iter().find(|element| element.pe == pe);
        element.map_or_else(Vec::new, |element| overlapping(&element.leaves, va, va))
    }

    /// The next record, of this line of the trace.
    pub fn step(&mut self, line: u64, record: &Record) {
        self.line = line;
        match record {
            Record::Word { pa, value } => {
                self.memory.set(*pa, *value);
                self.elements.iter_mut().for_each(|element| element.suspect_everything());
            }
            Record::Memory { start, end_exclusive, kind } => {
                let world = Arc::make_mut(&mut self.world);
                let regions = match kind {
                    // A store to flash is marked as a device's, and changes nothing here.
                    MemoryKind::Ram | MemoryKind::Flash => &mut world.ram,
                    MemoryKind::NoMap => &mut world.no_map,
                };
                regions.push((*start, *end_exclusive));
            }
            Record::Feature { cpu, feature } => {
                Arc::make_mut(&mut self.world).params.set(*cpu, *feature);
                self.apply_features();
            }
            Record::Step(step) if step.cpu < MOST_ELEMENTS => self.step_element(step),
            Record::End(End::Exit) => self.judge_end(),
            Record::Step(_) | Record::Count { .. } | Record::End(_) => {}
        }
    }

    fn features_of(&self, pe: u32) -> Features {
        let params = &self.world.params;
        let bbm_always = params.any(|features| features.bbm_always);
        let bbm_for_xn = params.any(|features| features.bbm_for_xn);
        Features { bbm_always, bbm_for_xn, ..*params.of(pe) }
    }

    fn apply_features(&mut self) {
        let params = &self.world.params;
        let sizes = [16, 32, 64, 128, 256, 512, 1024, 2048];
        let smallest = sizes.into_iter().find(|bytes| params.any(|features| features.line_bytes == *bytes));
        self.lines.set_bytes(smallest.unwrap_or(64));
        for at in 0..self.elements.len() {
            let features = self.features_of(self.elements[at].pe);
            self.elements[at].set_features(features);
        }
    }

    fn element_of(&mut self, pe: u32) -> usize {
        match self.elements.binary_search_by_key(&pe, |element| element.pe) {
            Ok(at) => at,
            Err(at) => {
                self.elements.insert(at, Shared::new(self.out_of_reset(pe)));
                at
            }
        }
    }

    fn out_of_reset(&self, pe: u32) -> Element {
        Element::new(pe, self.features_of(pe), self.permissions.has(Permission::ResetGarbage))
    }

    fn step_element(&mut self, step: &Step) {
        let at = self.element_of(step.cpu);
        match step.event {
            Event::Start { exception_level } => {
                if !self.elements[at].is_new {
                    let zeroed_block = self.elements[at].zeroed_block;
                    self.elements[at] = Shared::new(self.out_of_reset(step.cpu));
                    self.elements[at].zeroed_block = zeroed_block;
                }
                self.elements[at].levels = Levels::start(exception_level);
                return;
            }
            Event::Found { register, value } => return self.elements[at].find(register, value),
            _ => self.activate(),
        }
        self.note_neighbour(at, &step.event);
        if matches!(step.event, Event::Msr { .. } | Event::Maintain { .. })
            && self.elements[at].levels.heeds(&step.event)
        {
            self.elements[at].levels.follow(step.pc, &step.event);
        }
        if self.lines.is_round_over() && is_after_rounds(&step.event) {
            self.end_rounds();
        }
        self.apply(at, step);
        self.fill_caches(at);
        let forgets_leaves = !self.permissions.has(Permission::CacheLeaf);
        let forgets_tables = !self.permissions.has(Permission::CacheTable);
        if forgets_leaves || forgets_tables {
            for at in 0..self.elements.len() {
                self.walk(at, |walker| walker.forget(forgets_leaves, forgets_tables));
            }
        }
    }

    /// PEs that were found translating begin to walk.
    fn activate(&mut self) {
        for at in 0..self.elements.len() {
            if self.elements[at].is_new {
                self.elements[at].is_new = false;
                self.elements[at].was_on = self.elements[at].is_on();
                let begun = self.elements[at].begun();
                self.read_root_otherwise(at);
                self.walk(at, |walker| walker.explore_roots(&begun));
            }
        }
    }

    fn apply(&mut self, at: usize, step: &Step) {
        match step.event {
            Event::Store(access) => {
                self.use_for_access(at, &access);
                if !access.device {
                    stored_words(&access).for_each(|word| self.store(at, word, access.release));
                }
            }
            Event::Load(access) => {
                self.use_for_access(at, &access);
                self.load(at, &access);
            }
            Event::Msr { register, value } => self.write_control(at, register, value, step.pc),
            Event::Maintain { operation, operand } if operation.invalidates_el2() => {
                let element = &self.elements[at];
                let format = element.regime().map_or_else(controls::fallback_format, |regime| regime.format);
                if let Some(tlbi) = Invalidation::decode(operation, operand, &format, &element.features) {
                    self.issue(at, &tlbi);
                }
            }
            Event::Maintain { operation, operand } => self.maintain_data(at, operation, operand),
            Event::Dsb(barrier) => self.data_barrier(at, &Ordering::of(barrier)),
            Event::Dmb(barrier) => self.memory_barrier(at, &Ordering::of(barrier)),
            Event::Isb => self.synchronise(at),
            Event::Eret { .. } | Event::Exception { .. } => self.change_level(at, step),
            Event::Settled => self.judge_settled(at),
            Event::Give { pa, bytes } | Event::Take { pa, bytes } => self.judge_frames(at, pa, bytes),
            Event::Fetch { .. } => self.use_for_fetch(at, step.pc),
            Event::Call { .. } if self.elements[at].levels.is_el2() => self.call(at),
            // Caches hold what they hold, whoever is entered.
            Event::Start { .. }
            | Event::Found { .. }
            | Event::Mrs { .. }
            | Event::Call { .. }
            | Event::Enter { .. } => {}
        }
    }

    /// Errata ask what stands next to an instruction.
    fn note_neighbour(&mut self, at: usize, event: &Event) {
        let features = &self.elements[at].features;
        if !features.isb_before_mmu_off && !features.hcr_barriers {
            return;
        }
        let next = match event {
            Event::Fetch { .. } | Event::Settled | Event::Enter { .. } | Event::Give { .. } | Event::Take { .. } => {
                return;
            }
            Event::Isb => Neighbour::Isb,
            Event::Dsb(barrier) if Ordering::of(*barrier).is_full() => Neighbour::Dsb,
            // The write itself looks at what stands before it.
            Event::Msr { .. } if self.elements[at].neighbour != Neighbour::HcrWrite => return,
            _ => Neighbour::Other,
        };
        let before = std::mem::replace(&mut self.elements[at].neighbour, next);
        if before == Neighbour::HcrWrite && next != Neighbour::Isb {
            self.harm(at, HarmKind::Erratum, None, "no ISB directly after a write of HCR_EL2");
        }
    }

    fn data_barrier(&mut self, at: usize, barrier: &Ordering) {
        let pe = self.elements[at].pe;
        self.line_barrier(at, barrier, true);
        if barrier.stores && !self.memory.is_settled() {
            let certain = self.memory.complete_stores(pe, barrier.reach);
            if !self.permissions.has(Permission::SeeStoreBeforeDsb) {
                self.see_stores(&certain);
            }
        }
        if barrier.stores && barrier.reach != Reach::Own && self.elements[at].is_storing {
            self.elements[at].is_storing = false;
        }
        if barrier.stores && barrier.reach >= Reach::Outer && self.elements[at].is_storing_past {
            self.elements[at].is_storing_past = false;
        }
        self.complete(at, barrier);
    }

    fn memory_barrier(&mut self, at: usize, barrier: &Ordering) {
        self.line_barrier(at, barrier, false);
        if barrier.stores && barrier.reach >= Reach::Inner && !self.memory.is_settled() {
            self.memory.order_stores(self.elements[at].pe);
        }
    }

    fn line_barrier(&mut self, at: usize, barrier: &Ordering, is_dsb: bool) {
        if self.lines.wait_for_barrier() {
            for (pa, way) in self.lines.barrier(self.elements[at].pe, barrier, is_dsb) {
                self.memory.reveal(pa, way);
            }
        }
    }

    /// Hardware that waits for the DSB sees what it made certain.
    fn see_stores(&mut self, slots: &[u64]) {
        for at in 0..self.elements.len() {
            self.walk(at, |walker| {
                for slot in slots {
                    for (context, regime) in walker.element.contexts_of(*slot) {
                        walker.derive_all(&context, &regime, *slot);
                    }
                }
            });
        }
    }

    fn harm(&mut self, at: usize, kind: HarmKind, va: Option<u64>, what: impl Into<What>) {
        let pe = self.elements[at].pe;
        let is_known = self.harms.iter().any(|harm| harm.kind == kind && harm.pe == pe && harm.va == va);
        if !is_known && self.harms.len() < MOST_HARMS {
            self.harms.push(Harm { kind, line: self.line, pe, va, what: what.into() });
        }
    }

    /// Lets the PE walk, and looks at what that brought.
    fn walk<T>(&mut self, at: usize, walks: impl FnOnce(&mut Walker<'_>) -> T) -> T {
        let (mut findings, mut fresh) = (Vec::new(), Vec::new());
        let element = &mut self.elements[at];
        let exclusion = Exclusion::of(&element.features, self.permissions.has(Permission::MixRights));
        let mut walker = Walker {
            memory: &self.memory,
            lines: &self.lines,
            classes: &self.classes,
            permissions: self.permissions,
            exclusion,
            element,
            findings: &mut findings,
            fresh: &mut fresh,
            is_linked: false,
        };
        let result = walks(&mut walker);
        for UnplacedHarm { kind, va, what } in findings {
            self.harm(at, kind, va, what);
        }
        if fresh.len() > 1 {
            fresh.sort_unstable();
            fresh.dedup();
        }
        for leaf in fresh {
            self.speculate(at, &leaf);
        }
        result
    }
}

/// Whether a round through the caches is over with `event`: it does not consist of such.
fn is_after_rounds(event: &Event) -> bool {
    let goes_on = match event {
        Event::Msr { register, .. } => Control::of(*register).is_none(),
        Event::Maintain { operation, .. } => !operation.zeroes(),
        event => matches!(event, Event::Fetch { .. } | Event::Mrs { .. } | Event::Isb | Event::Dsb(_) | Event::Dmb(_)),
    };
    !goes_on
}
