//! All debts, found by the place they are owed for.
//!
//! Each barrier concerns few debts, so every PE has a list of the places at which it owes something; a TLBI looks its places up.

use std::hash::{Hash, Hasher};

use super::cause::{At, Evidence, Origin};
use super::debt::{Debt, Key};
use super::fast::{FastMap, digest};
use super::holder::{Pes, bit};
use crate::descriptor::Descriptor;
use crate::maintenance::{Ordering, Reach};

/// PEs that have not synchronised context since a place changed, all else being done.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Lag {
    /// Since it was filled.
    pub(super) fill: Pes,
    /// Of those, the ones that filled it themselves.
    own: Pes,
    /// Where the descriptor stands that was filled in last.
    filled: u64,
    /// Who filled it in, and how that came about.
    pub(super) filler: Evidence<(u32, Origin)>,
    /// Since a mapping was gone.
    gone: Vec<Gone>,
}

/// A mapping that is gone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Gone {
    /// What it was.
    pub(super) said: Descriptor,
    /// Who has not synchronised context since.
    pes: Pes,
    /// Who took it away, and how that came about.
    pub(super) by: Evidence<(u32, Origin)>,
}

impl Lag {
    /// Who may still run on instructions fetched through a mapping that was here.
    fn fetch(&self) -> Pes {
        self.gone.iter().fold(0, |all, gone| all | gone.pes)
    }

    /// The mappings that were here, and through which `pe` may still run on fetched instructions.
    pub(super) fn fetched(&self, pe: u32) -> impl Iterator<Item = &Gone> {
        self.gone.iter().filter(move |gone| gone.pes & bit(pe) != 0)
    }

    fn is_over(&self) -> bool {
        self.fill == 0 && self.gone.is_empty()
    }

    fn synchronise(&mut self, pe: u32) {
        self.fill &= !bit(pe);
        self.own &= !bit(pe);
        self.gone.iter_mut().for_each(|gone| gone.pes &= !bit(pe));
        self.gone.retain(|gone| gone.pes != 0);
    }
}

/// A place in the tables of one context.
type Spot = (Key, usize);

/// The debts.
#[derive(Clone, Debug, Default)]
pub(super) struct Debts {
    map: FastMap<Key, Vec<Debt>>,
    /// Places by level, -1 first.
    counts: [usize; 5],
    lagging: FastMap<Spot, Lag>,
    /// Places at which a PE may have something to do at its next barrier; follows from the debts.
    watched: Vec<Vec<Key>>,
    /// Places at which a PE lags; follows from the lags.
    lagged: Vec<Vec<Spot>>,
}

impl PartialEq for Debts {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map && self.lagging == other.lagging
    }
}

impl Eq for Debts {}

impl Hash for Debts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        digest(&self.map).hash(state);
        digest(&self.lagging).hash(state);
    }
}

fn list<T>(lists: &mut Vec<Vec<T>>, pe: u32) -> &mut Vec<T> {
    let pe = pe as usize;
    if lists.len() <= pe {
        lists.resize_with(pe + 1, Vec::new);
    }
    &mut lists[pe]
}

fn each(mut pes: Pes) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let pe = pes.trailing_zeros();
        pes &= pes.wrapping_sub(1);
        (pe < 128).then_some(pe)
    })
}

impl Debts {
    /// Whether no use and no change can meet a debt.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty() && self.lagging.is_empty()
    }

    /// Whether `pe` has nothing to do at a barrier.
    pub(super) fn is_idle(&self, pe: u32) -> bool {
        let watched = self.watched.get(pe as usize).is_some_and(|keys| !keys.is_empty());
        !watched && self.lagged.get(pe as usize).is_none_or(Vec::is_empty)
    }

    /// Whether no debt but lags is there.
    pub(super) fn none_open(&self) -> bool {
        self.map.is_empty()
    }

    /// Places with debts at `level`.
    pub(super) const fn count(&self, level: i8) -> usize {
        self.counts[(level + 1) as usize % 5]
    }

    /// Places with debts.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn at(&self, key: Key) -> &[Debt] {
        if self.count(key.0) == 0 {
            return &[];
        }
        self.map.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The lags at `key`, of each of so many contexts.
    pub(super) fn lags(&self, key: Key, contexts: usize) -> impl Iterator<Item = &Lag> {
        let contexts = if self.lagging.is_empty() { 0 } else { contexts };
        (0..contexts).filter_map(move |context| self.lagging.get(&(key, context)))
    }

    /// Whether a lag of `context` is at `key`.
    pub(super) fn lags_at(&self, key: Key, context: usize) -> bool {
        self.lagging.contains_key(&(key, context))
    }

    /// Whether any store went where walks do not look.
    pub(super) fn any_detour(&self) -> bool {
        self.map.values().flatten().any(|debt| debt.detour.is_some())
    }

    /// What was gone from `key` is there again in `context`, where `again` says so: whoever runs on it runs on what memory says.
    pub(super) fn returns(&mut self, key: Key, context: usize, again: impl Fn(Descriptor) -> bool) {
        self.change_lag((key, context), |lag| lag.gone.retain(|gone| !again(gone.said)));
    }

    /// What was filled in at `key` of `context` is gone.
    pub(super) fn unfill(&mut self, key: Key, context: usize) {
        self.change_lag((key, context), |lag| (lag.fill, lag.own) = (0, 0));
    }

    fn change_lag(&mut self, spot: Spot, change: impl FnOnce(&mut Lag)) {
        let Some(lag) = self.lagging.get_mut(&spot) else { return };
        change(lag);
        if lag.is_over() {
            self.lagging.remove(&spot);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Debt)> {
        self.map.iter().flat_map(|(key, debts)| debts.iter().map(|debt| (*key, debt)))
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.map.keys().copied().collect()
    }

    /// `pe`'s own fills that it has not synchronised: where, the descriptor's physical address, the context it is read
    /// in, and how it came about.
    pub(super) fn own_lags(&self, pe: u32) -> impl Iterator<Item = (Key, u64, usize, Origin)> {
        let spots = self.lagged.get(pe as usize).into_iter().flatten();
        let own = move |spot: &Spot| self.lagging.get(spot).filter(|lag| lag.own & bit(pe) != 0);
        spots.filter_map(move |spot| own(spot).map(|lag| (spot.0, lag.filled, spot.1, lag.filler.0.1)))
    }

    /// The descriptor in `slot`, at `key`, is stored to again.
    pub(super) fn go_on(&mut self, key: Key, slot: u64) {
        let debts = self.map.get_mut(&key).into_iter().flatten();
        debts.filter(|debt| debt.slot == slot).for_each(|debt| debt.origin.0.goes_on = true);
    }

    /// A debt arises; one for the same descriptor arises anew.
    pub(super) fn owe(&mut self, key: Key, debt: Debt) {
        for pe in each(debt.unsynced | bit(debt.storer)) {
            list(&mut self.watched, pe).push(key);
        }
        let debts = self.map.entry(key).or_default();
        if debts.is_empty() {
            self.counts[(key.0 + 1) as usize % 5] += 1;
        }
        let same = |old: &Debt| {
            let there = (old.context, old.slot, old.way) == (debt.context, debt.slot, debt.way);
            there && (old.said, old.storer) == (debt.said, debt.storer)
        };
        // The last one to be stored stands last.
        match debts.iter().position(same) {
            Some(index) => {
                let mut old = debts.remove(index);
                old.word = debt.word;
                old.visible |= debt.visible;
                (old.origin, old.in_place) = (debt.origin, debt.in_place);
                old.detour = old.detour.or(debt.detour);
                old.unsynced |= debt.unsynced;
                old.holder.join(&debt.holder);
                debts.push(old);
            }
            None => debts.push(debt),
        }
    }

    /// Where the last store to a descriptor is `pe`'s and visible, what other PEs stored there before is superseded: nobody sees what that replaced.
    fn supersede(&mut self, pe: u32, seen_by: Pes) {
        for key in self.watched.get(pe as usize).into_iter().flatten() {
            let Some(debts) = self.map.get_mut(key).filter(|debts| debts.len() > 1) else { continue };
            for index in 0..debts.len() {
                let (earlier, later) = debts.split_at_mut(index + 1);
                let Some(debt) = earlier.last_mut().filter(|debt| debt.storer != pe && debt.visible != 0) else {
                    continue;
                };
                let there = (debt.context, debt.slot);
                let is_over_it =
                    |last: &Debt| last.storer == pe && (last.context, last.slot) == there && last.visible != 0;
                if later.iter().any(is_over_it) {
                    debt.visible &= !seen_by;
                }
            }
        }
    }

    /// Lets `change` act on each debt at `key`, then drops what is over; returns the table descriptors that are.
    pub(super) fn change(&mut self, key: Key, mut change: impl FnMut(&mut Debt) -> bool) -> Vec<Debt> {
        let Some(debts) = self.map.get_mut(&key) else { return Vec::new() };
        let mut over = Vec::new();
        let mut index = 0;
        while index < debts.len() {
            let keep = change(&mut debts[index]);
            if keep && !debts[index].is_over() {
                index += 1;
                continue;
            }
            over.push((keep, debts.remove(index)));
        }
        if debts.is_empty() {
            self.map.remove(&key);
            self.counts[(key.0 + 1) as usize % 5] -= 1;
        }
        for (kept, debt) in &over {
            if *kept && debt.unsynced != 0 {
                self.lag_behind(key, debt);
            }
        }
        over.retain(|(_, debt)| matches!(debt.said, Descriptor::Table(_)));
        over.into_iter().map(|(_, debt)| debt).collect()
    }

    fn lag_behind(&mut self, key: Key, debt: &Debt) {
        let spot = (key, debt.context);
        let lag = self.lagging.entry(spot).or_default();
        let fresh = debt.unsynced & !(lag.fill | lag.fetch());
        let by = Evidence((debt.storer, debt.origin.0));
        if debt.is_fill() {
            lag.fill |= debt.unsynced;
            lag.own |= debt.unsynced & bit(debt.storer);
            (lag.filled, lag.filler) = (debt.slot, by);
        } else {
            match lag.gone.iter_mut().find(|gone| gone.said == debt.said) {
                Some(gone) => (gone.pes, gone.by) = (gone.pes | debt.unsynced, by),
                None => lag.gone.push(Gone { said: debt.said, pes: debt.unsynced, by }),
            }
        }
        for pe in each(fresh) {
            list(&mut self.lagged, pe).push(spot);
        }
    }

    /// `pe` is to be asked about `key` at its next barriers.
    pub(super) fn watch(&mut self, pe: u32, key: Key) {
        list(&mut self.watched, pe).push(key);
    }

    fn at_barrier(&mut self, pe: u32, mut change: impl FnMut(&mut Debt)) -> Vec<(Key, Debt)> {
        let mut keys = std::mem::take(list(&mut self.watched, pe));
        let mut over = Vec::new();
        keys.retain(|key| {
            let mut concerned = false;
            let tables = self.change(*key, |debt| {
                change(debt);
                concerned |= debt.concerns(pe);
                true
            });
            over.extend(tables.into_iter().map(|debt| (*key, debt)));
            concerned
        });
        if keys.len() > 32 && keys.len() > 2 * self.map.len() {
            keys.sort_unstable();
            keys.dedup();
        }
        list(&mut self.watched, pe).append(&mut keys);
        over
    }

    /// A PE executes a DSB; `latent` without FEAT_ETS2. Returns the table descriptors that nobody can walk through any
    /// more.
    pub(super) fn dsb(
        &mut self,
        at: At,
        ordering: &Ordering,
        seen_by: Pes,
        repeats: bool,
        latent: bool,
    ) -> Vec<(Key, Debt)> {
        let pe = at.pe;
        if ordering.stores {
            self.supersede(pe, seen_by);
        }
        self.at_barrier(pe, |debt| {
            if ordering.stores && debt.storer == pe && debt.visible & seen_by != 0 {
                debt.visible &= !seen_by;
                debt.origin.0.done = at;
            }
            if ordering.stores && debt.origin.0.goes_on && at.pe == debt.storer {
                (debt.origin.0.done, debt.origin.0.goes_on) = (at, false);
            }
            if debt.holder.awaits(pe) {
                let gone = debt.holder.complete(pe, ordering, repeats);
                debt.latent |= if latent { gone & bit(pe) } else { 0 };
                debt.origin.0.done = at;
            }
        })
    }

    /// `pe` synchronises its context.
    pub(super) fn synchronise(&mut self, pe: u32) -> Vec<(Key, Debt)> {
        let over = self.at_barrier(pe, |debt| {
            if debt.gone_for(pe) {
                debt.unsynced &= !bit(pe);
                debt.latent &= !bit(pe);
            }
        });
        for spot in std::mem::take(list(&mut self.lagged, pe)) {
            self.change_lag(spot, |lag| lag.synchronise(pe));
        }
        over
    }

    /// `pe` issues a broadcast TLBI: the second round, where one is owed.
    pub(super) fn repeat(&mut self, pe: u32, reach: Reach) {
        for key in self.watched.get(pe as usize).into_iter().flatten() {
            if let Some(debts) = self.map.get_mut(key) {
                debts.iter_mut().for_each(|debt| debt.holder.repeat(pe, reach));
            }
        }
    }
}
