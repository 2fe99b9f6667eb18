//! The points at which software claims that nothing is owed.

use super::cause::{Lack, Missing, Origin, Remedy};
use super::debt::{Debt, Detour, Key};
use super::holder::{Pes, bit, first};
use super::report::UnplacedViolation;
use super::{Obligations, Rule};
use crate::descriptor::Descriptor;
use crate::regime::{Control, Controls};

impl Obligations {
    /// `pe` claims that nothing is owed, by anybody, but the context synchronisations of other PEs.
    pub(super) fn settled(&mut self, pe: u32) {
        self.judge_open(bit(pe));
        self.judge_runs_at_rest();
        self.judge_left_roots(bit(pe));
        if self.walking & bit(pe) != 0 {
            self.judge_owed(pe);
        }
        self.judge_owed_elsewhere(pe);
        self.judge_unsynchronised(pe);
    }

    fn judge_unsynchronised(&mut self, pe: u32) {
        let state = &self.pes[pe as usize];
        // Two writes that cancel each other are two writes: either may be in force.
        let differs = state.between.iter().any(|written| *written != state.now);
        if differs && (state.now.mmu_on() || state.between.iter().any(Controls::mmu_on)) {
            let write = state.last_write.0;
            let finding = UnplacedViolation::of(Rule::ControlSync).by(write).mend(Remedy::after(Lack::Isb, write));
            self.report.add(finding, || "ISB after the last write of a control register".into());
        }
    }

    /// The machine stops.
    pub(super) fn end(&mut self) {
        self.judge_open(self.walking);
        self.judge_runs_at_rest();
        self.judge_left_roots(self.walking);
        for pe in 0..self.pes.len() as u32 {
            self.report.at.pe = pe;
            if self.walking & bit(pe) != 0 {
                self.judge_owed(pe);
            }
            let state = &self.pes[pe as usize];
            if let Some(shot) = state.unfinished.farthest() {
                let missing = shot.wanting();
                let finding = UnplacedViolation::of(Rule::UnfinishedTlbi).by(shot.at.0).mend(missing.remedy);
                self.report.add(finding, || missing.says);
            }
            self.judge_unsynchronised(pe);
        }
        self.judge_aliases();
    }

    /// Every debt that is a violation when nothing may be owed; context synchronisations are asked of `synced` alone.
    fn judge_open(&mut self, synced: Pes) {
        let mut found = Vec::new();
        for (key, debt) in self.debts.iter() {
            found.extend(self.open(key, debt, synced));
        }
        for pe in (0..self.pes.len() as u32).filter(|pe| synced & bit(*pe) != 0) {
            if let Some(((_, va), _, _, origin)) = self.debts.own_lags(pe).find(|lag| self.is_filled(*lag)) {
                let finding = UnplacedViolation::of(Rule::FillSync).va(va).by(origin.since);
                found.push((finding, own_isb(pe, origin)));
            }
        }
        found.sort_by_key(|(finding, _)| (finding.va, finding.rule));
        self.add_all(found);
    }

    /// Notes what was found, with what is wanting.
    pub(super) fn add_all(&mut self, found: Vec<(UnplacedViolation, Missing)>) {
        for (finding, missing) in found {
            self.report.add(finding.mend(missing.remedy), || missing.says);
        }
    }

    /// Whether what was filled in is still there: what is invalid again, or has its access flag clear, was filled for nobody.
    fn is_filled(&self, ((level, _), slot, context, _): (Key, u64, usize, Origin)) -> bool {
        let format = self.contexts.get(context).map(|context| context.regime.format);
        let word = self.memory.read(slot);
        format.zip(word).is_none_or(|(format, word)| format.may_be_cached(format.decode(word, level)))
    }

    fn open(&self, (level, va): Key, debt: &Debt, synced: Pes) -> Option<(UnplacedViolation, Missing)> {
        let context = self.contexts.get(debt.context)?;
        let format = context.regime.format;
        let finding = |rule| {
            let finding = UnplacedViolation::of(rule).va(va).pa(debt.slot).by(debt.since());
            finding.old(debt.word).read_as(level, format)
        };
        let visible = self.seen((level, va), debt);
        if debt.is_fill() {
            if visible != 0 {
                return Some((finding(debt.detour.map_or(Rule::NotVisible, Detour::rule)), debt.unseen()));
            }
            let storer = debt.unsynced & synced & bit(debt.storer);
            return (storer != 0).then(|| (finding(Rule::FillSync), own_isb(debt.storer, debt.origin.0)));
        }
        let pes = (debt.holder.held() & self.walking) | visible;
        if pes != 0 {
            let rule = match debt.said {
                _ if debt.holder.wants_repeat(pes) => Rule::RepeatTlbi,
                _ if debt.visible & visible == 0 && visible != 0 => debt.detour.map_or(Rule::StaleLeaf, Detour::rule),
                Descriptor::Table(_) => Rule::StaleTable,
                _ => Rule::StaleLeaf,
            };
            return Some((finding(rule), debt.missing(pes, visible)));
        }
        let latent = debt.latent & synced & self.walking;
        let missing = || Missing {
            remedy: Remedy::after(Lack::Isb, debt.origin.0.done),
            says: format!("ISB by PE {} after the DSB that completed its TLBI", first(latent)),
        };
        (latent != 0).then(|| (finding(Rule::CompletionSync), missing()))
    }

    /// What a root that is not walked any more has left in TLBs.
    fn judge_left_roots(&mut self, synced: Pes) {
        for context in self.contexts.iter() {
            // What is written last is what it will walk, though until its ISB it may walk what was before. A PE that reads the same root in
            // another way owes the invalidation for the control that it changed.
            let stays = |pe: u32| {
                let regime = self.regime(pe, &self.pes[pe as usize].next);
                regime.is_some_and(|regime| regime.root == context.regime.root)
            };
            let holding = context.reach.held() & self.walking;
            let left = (0..self.pes.len() as u32).filter(|pe| holding & bit(*pe) != 0 && !stays(*pe));
            let left = left.fold(0, |pes, pe| pes | bit(pe));
            let wrote = |pes: Pes| self.pes[first(pes) as usize].wrote(Control::Ttbr0);
            let latent = context.latent & synced & self.walking;
            if left == 0 && latent != 0 {
                let finding = UnplacedViolation::of(Rule::CompletionSync).pa(context.regime.root);
                let dsb = context.done.0;
                let finding = finding.by(wrote(latent).unwrap_or(dsb)).mend(Remedy::after(Lack::Isb, dsb));
                self.report.add(finding, || "ISB after the DSB that completed ALLE2".into());
            }
            if left != 0 {
                let write = wrote(left).unwrap_or(self.report.at);
                let finding = UnplacedViolation::of(Rule::StaleTable).va(0).pa(context.regime.root).by(write);
                let missing = match context.reach.on_its_way() & left {
                    0 => Missing {
                        remedy: Remedy::after(Lack::Tlbi, write),
                        says: format!("TLBI ALLE2 that reaches PE {}, after it left this root", first(left)),
                    },
                    _ => context.reach.wanting(),
                };
                self.report.add(finding.mend(missing.remedy).unmeant(context.unmeant.0), || missing.says);
            }
        }
    }

    pub(super) fn take(&mut self, pa: u64, bytes: u64) {
        self.judge_frames(pa, bytes);
    }

    pub(super) fn give(&mut self, pa: u64, bytes: u64) {
        self.judge_frames(pa, bytes);
    }

    /// RBKKRB, RTJQVP: nothing stale leads to these bytes or walks through them, and no table in use is among them.
    fn judge_frames(&mut self, pa: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (from, to) = (pa, pa.saturating_add(bytes - 1));
        if let Some(place) = self.frames.in_use(from, to) {
            let finding = UnplacedViolation::of(Rule::FrameInUse).va(place.va).pa(place.base);
            self.report.add(finding, || "unlinking of the table before its frame is given back".into());
        }
        let meets = |first: u64, span: u64| first <= to && first.saturating_add(span - 1) >= from;
        let mut found = Vec::new();
        for (key, debt) in self.debts.iter().filter(|(_, debt)| !debt.is_fill()) {
            let Some(context) = self.contexts.get(debt.context) else { continue };
            let format = context.regime.format;
            let led = match debt.said {
                Descriptor::Leaf(leaf) => meets(leaf.output, format.span(key.0)),
                Descriptor::Table(table) => meets(table.next, 8 * format.entries(key.0 + 1)),
                Descriptor::Invalid => false,
            };
            let seen = self.seen(key, debt);
            let held = debt.holder.held() & self.walking;
            let pes = held | seen;
            // RRVJDB: what a TLB holds may be its walk, indexed by the address alone.
            let through = held != 0 && debt.way().any(|table| meets(table, format.granule.page_bytes()));
            if pes != 0 && (led || through) {
                let finding = UnplacedViolation::of(Rule::FrameReuse).va(key.1).pa(pa).by(debt.since());
                found.push((finding.old(debt.word).read_as(key.0, format), debt.missing(pes, seen)));
            }
        }
        found.sort_by_key(|(finding, _)| finding.va);
        self.add_all(found);
    }
}

/// The ISB that `pe` itself owes for what it changed.
pub(super) fn own_isb(pe: u32, origin: Origin) -> Missing {
    let says = format!("ISB by PE {pe} after the DSB that completes its change");
    Missing { remedy: Remedy::after(Lack::Isb, origin.done), says }
}
