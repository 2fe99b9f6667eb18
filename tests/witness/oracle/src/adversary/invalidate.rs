//! TLBI and the DSB that completes it.
//!
//! A TLBI takes effect at some point between the two. When it is issued, what it names is doomed, except what a walk could bring back
//! without anything that the same TLBI dooms. Whatever becomes derivable again before the DSB loses its doom; the DSB removes the rest.

use crate::maintenance::{Invalidation, Ordering, Reach};

use super::Adversary;
use super::class::{Class, ISSUED, MOST_CLASSES, Scope};
use super::element::{Element, Latent, Trail};
use super::entry::{Held, Translation};
use super::permission::{Permission, Permissions};

impl Adversary {
    /// `at` issues a TLBI.
    pub(super) fn issue(&mut self, at: usize, invalidation: &Invalidation) {
        let Invalidation { reach, without_xs, is_range, .. } = *invalidation;
        let issuer = self.elements[at].pe;
        if let Err(place) = self.elements[at].unfinished.binary_search(&(reach, without_xs)) {
            self.elements[at].unfinished.insert(place, (reach, without_xs));
        }
        if reach != Reach::Own {
            self.repeat(issuer, reach);
        }
        let page = self.elements[at].regime().map_or(4096, |regime| regime.format.granule.page_bytes());
        let Some(scope) = Scope::of(invalidation, page) else { return };
        if self.classes.len() >= MOST_CLASSES {
            self.merge_classes();
        }
        if self.classes.len() >= MOST_CLASSES {
            return;
        }
        let class = Class { issuer, reach, without_xs, is_range, phase: 0, scopes: vec![scope] };
        let issued = class.clone();
        if self.classes.last().is_none_or(|last| *last < class) {
            self.classes.push(class);
        } else {
            let mut next: Vec<_> = std::mem::take(&mut self.classes).into_iter().map(Some).collect();
            next.push(Some(class));
            self.renumber(next);
        }
        let Some(place) = self.classes.iter().position(|class| *class == issued) else { return };
        for target in 0..self.elements.len() {
            if self.classes[place].reaches(&self.elements[target]) {
                let is_own = target == at;
                self.walk(target, |walker| walker.doom(1 << place, &scope, is_own));
            }
        }
        if !self.permissions.has(Permission::RetainUntilDsb) {
            self.remove(issuer, 1 << place);
        }
        self.drop_idle_classes();
    }

    /// A DSB of `at`.
    pub(super) fn complete(&mut self, at: usize, barrier: &Ordering) {
        let issuer = self.elements[at].pe;
        if barrier.is_full() {
            let stays =
                |(reach, without_xs): &(Reach, bool)| *reach > barrier.reach || (barrier.without_xs && !without_xs);
            if !self.elements[at].unfinished.iter().all(stays) {
                self.elements[at].unfinished.retain(stays);
            }
            let bits = self.completed(issuer, barrier);
            self.remove(issuer, bits);
            self.half_complete(issuer, barrier);
            self.drop_idle_classes();
        }
    }

    /// Bits of the classes that a DSB completes.
    fn completed(&self, issuer: u32, barrier: &Ordering) -> u32 {
        let repeats = self.repeats();
        let done = |class: &Class| {
            class.is_completed_by(issuer, barrier) && (!class.is_broadcast() || !repeats || class.phase == 2)
        };
        let classes = self.classes.iter().enumerate().filter(|(_, class)| done(class));
        classes.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    fn repeats(&self) -> bool {
        self.permissions.has(Permission::LoseBroadcast) && self.world.params.any(|features| features.repeat_tlbi)
    }

    /// Broadcast TLBIs of `issuer` that `barrier` covers: what an affected core needs besides is another one.
    fn half_complete(&mut self, issuer: u32, barrier: &Ordering) {
        let is_first = |class: &Class| class.is_broadcast() && class.phase == 0;
        self.advance(|class| is_first(class) && class.is_completed_by(issuer, barrier), |class| class.phase = 1);
    }

    /// `issuer` issues another broadcast TLBI, which reaches so far: a DSB has to cover both.
    fn repeat(&mut self, issuer: u32, reach: Reach) {
        let is_half = |class: &Class| class.issuer == issuer && class.phase == 1;
        self.advance(is_half, |class| (class.phase, class.reach) = (2, class.reach.max(reach)));
    }

    fn advance(&mut self, moves: impl Fn(&Class) -> bool, change: impl Fn(&mut Class)) {
        if !self.repeats() || !self.classes.iter().any(&moves) {
            return;
        }
        let mut classes = std::mem::take(&mut self.classes);
        classes.iter_mut().filter(|class| moves(class)).for_each(change);
        self.renumber(classes.into_iter().map(Some).collect());
    }

    /// Removes what is doomed by any of `bits`, and the classes.
    fn remove(&mut self, issuer: u32, bits: u32) {
        if bits == 0 {
            return;
        }
        let (permissions, classes) = (self.permissions, &self.classes);
        for element in self.elements.iter_mut().filter(|element| element.doomed_by() & bits != 0) {
            element.remove(bits, issuer, permissions, classes);
        }
        let classes = std::mem::take(&mut self.classes).into_iter().enumerate();
        self.renumber(classes.map(|(bit, class)| (bits >> bit & 1 == 0).then_some(class)).collect());
    }

    /// Classes that doom nothing are as good as complete.
    fn drop_idle_classes(&mut self) {
        if self.classes.is_empty() {
            return;
        }
        let used = self.elements.iter().fold(0, |all, element| all | element.doomed_by());
        if used == 0 {
            self.classes.clear();
            return;
        }
        let sources = self.elements.iter().fold(0, |all, element| all | element.sources_doomed_by());
        let is_spent = |bit: usize, class: &Class| sources >> bit & 1 == 0 && !class.scopes.is_empty();
        let mut classes = self.classes.iter().enumerate();
        if classes.any(|(bit, class)| used >> bit & 1 == 0 || is_spent(bit, class)) {
            let classes = std::mem::take(&mut self.classes).into_iter().enumerate();
            let named = classes.map(|(bit, mut class)| {
                if is_spent(bit, &class) {
                    class.scopes.clear();
                }
                (used >> bit & 1 != 0).then_some(class)
            });
            self.renumber(named.collect());
        }
    }

    /// So many TLBIs that those of one DSB are no longer told apart.
    fn merge_classes(&mut self) {
        let classes = std::mem::take(&mut self.classes);
        let mut merged = classes.clone();
        for class in &mut merged {
            let key = class.key();
            for other in classes.iter().filter(|other| other.key() == key) {
                class.absorb(other);
            }
        }
        self.renumber(merged.into_iter().map(Some).collect());
    }

    /// Puts the classes in order, equal ones together; `next` is by old bit.
    fn renumber(&mut self, next: Vec<Option<Class>>) {
        let mut sorted: Vec<(usize, Class)> =
            next.into_iter().enumerate().filter_map(|(bit, class)| class.map(|class| (bit, class))).collect();
        sorted.sort_by(|(_, one), (_, other)| one.cmp(other));
        let mut names = [None; MOST_CLASSES + 1];
        for (bit, class) in sorted {
            if self.classes.last() != Some(&class) {
                self.classes.push(class);
            }
            names[bit] = Some(self.classes.len() - 1);
        }
        let renamed = |doom: u32| {
            let bits = (0..MOST_CLASSES).filter(|bit| doom >> bit & 1 != 0);
            bits.filter_map(|bit| names[bit]).fold(0, |all, name| all | 1 << name)
        };
        if names.iter().enumerate().any(|(bit, name)| name.is_some_and(|name| name != bit)) {
            let doomed = self.elements.iter_mut().filter(|element| element.doomed_by() != 0);
            doomed.for_each(|element| element.rename(renamed));
        }
    }
}

impl Element {
    fn remove(&mut self, bits: u32, issuer: u32, permissions: Permissions, classes: &[Class]) {
        let gone = |doom: u32| doom & bits != 0;
        let by_accesses = self.pe == issuer && !self.features.ets2 && permissions.has(Permission::RetainUntilIsb);
        let controls = self.cached_controls.len();
        let retains = by_accesses && self.walks();
        let lost = self.cached_controls.iter().filter(|held| retains && gone(held.doom));
        self.latent_mairs.extend(lost.map(|held| held.what.mair()));
        self.latent_mairs.sort_unstable();
        self.latent_mairs.dedup();
        self.cached_controls.retain(|held| !gone(held.doom));
        if self.garbage.is_some_and(gone) || self.cached_controls.len() != controls {
            self.is_settling = true;
        }
        self.garbage = self.garbage.filter(|doom| !gone(*doom));
        if self.walked.iter().any(|held| gone(held.doom)) {
            self.walked.retain(|held| !gone(held.doom));
        }
        self.cached_words.retain(|held| !gone(held.doom));
        let stays = self.walks() && (by_accesses || permissions.has(Permission::PrefetchedFetch));
        let tables = self.tables.len();
        self.lose_roots(gone, by_accesses);
        self.lose_tables(bits, classes);
        self.is_completing |= by_accesses && self.walks() && self.tables.len() != tables;
        let latent = &mut self.latent;
        self.leaves.retain(|held| {
            let latent_now = Latent { what: held.what, by_accesses };
            if stays
                && gone(held.doom)
                && let Err(at) = latent.binary_search(&latent_now)
            {
                latent.insert(at, latent_now);
            }
            !gone(held.doom)
        });
        self.lose_trails();
    }

    fn lose_roots(&mut self, gone: impl Fn(u32) -> bool, by_accesses: bool) {
        let lost = self.former_roots.iter().filter(|held| gone(held.doom) && by_accesses).map(|held| held.what.table);
        self.latent_roots.extend(lost);
        self.latent_roots.sort_unstable();
        self.former_roots.retain(|held| !gone(held.doom));
    }

    /// The tables that were walked for leaves which stay, and were not named themselves, are still those of their walks.
    fn lose_tables(&mut self, bits: u32, classes: &[Class]) {
        let gone = |doom: u32| doom & bits != 0;
        let is_named = |leaf: &Translation, doom: u32| {
            let mut classes = classes.iter().enumerate().filter(|(bit, _)| (bits & doom) >> bit & 1 != 0);
            classes.any(|(_, class)| class.names_leaf(leaf))
        };
        for Held { what: table, doom } in self.tables.iter().filter(|held| gone(held.doom)) {
            let stays = |leaf: &&Held<Translation>| !gone(leaf.doom) && !is_named(&leaf.what, *doom);
            for leaf in self.leaves.iter().filter(stays).filter(|leaf| leaf.what.level > table.level) {
                let trail = Trail { shift: leaf.what.shift, va: leaf.what.va, table: table.next };
                if table.va <= trail.va
                    && trail.va <= table.last()
                    && let Err(at) = self.trails.binary_search(&trail)
                {
                    self.trails.insert(at, trail);
                }
            }
        }
        if self.tables.iter().any(|held| gone(held.doom)) {
            self.tables.retain(|held| !gone(held.doom));
        }
    }

    /// A trail stays as long as a leaf that it led to.
    fn lose_trails(&mut self) {
        let leaves = &self.leaves;
        self.trails.retain(|trail| {
            let at = leaves.partition_point(|held| (held.what.shift, held.what.va) < (trail.shift, trail.va));
            leaves.get(at).is_some_and(|held| (held.what.shift, held.what.va) == (trail.shift, trail.va))
        });
    }

    /// Bits that stand in the doom of something that leaves are derived from.
    fn sources_doomed_by(&self) -> u32 {
        let tables = self.tables.iter().fold(0, |all, held| all | held.doom);
        let roots = self.former_roots.iter().fold(tables, |all, held| all | held.doom);
        let walked = self.walked.iter().fold(roots, |all, held| all | held.doom);
        self.cached_words.iter().fold(walked, |all, held| all | held.doom)
    }

    /// The TLBI is issued: what it dooms is doomed by `bit`.
    pub(super) fn name_issued(&mut self, bit: u32) {
        let named = |doom: u32| if doom & ISSUED == 0 { doom } else { doom & !ISSUED | bit };
        if self.doomed_by() & ISSUED != 0 {
            self.rename(named);
        }
    }
}
