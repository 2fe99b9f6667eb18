//! What must be true of every answer.

use super::super::bench::{Ask, Bench};
use super::super::judged::format;
use super::super::picture::{Hanging, Odd, Pages, Picture, Standing};
use breakwater::addr::Level;
use breakwater::bbm::Live;
use breakwater::change::Why;
use breakwater::geometry::{Geometry, Slot};
use breakwater::mapper::{Cost, Error};

/// How a request must be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Granted,
    /// An empty table stands where a leaf could: both answers are right.
    Either,
    Occupied,
    NotMapped(u64),
    Broken(u64),
    Foreign(u64),
}

/// What was before a request.
pub(super) struct Before {
    picture: Picture,
    pages: Pages,
}

impl Before {
    pub(super) fn of<G: Geometry>(bench: &Bench<G, Live>) -> Self {
        let picture = bench.picture();
        let pages = picture.pages::<G>();
        Self { picture, pages }
    }

    fn odd_in<G: Geometry>(&self, start: u64, bytes: u64) -> Option<Odd> {
        let span = |odd: &Odd| format::<G>().span(odd.level);
        self.picture.odd.iter().copied().find(|odd| odd.virt < start + bytes && start < odd.virt + span(odd))
    }

    fn answer<G: Geometry>(&self, ask: &Ask) -> Answer {
        let (start, bytes) = (ask.span().start().raw(), ask.span().bytes());
        let odd = self.odd_in::<G>(start, bytes);
        match *ask {
            Ask::Map(_) => {
                let empty = self.picture.tables.iter().any(|table| table.used == 0);
                match (odd, self.pages.is_free(start, bytes)) {
                    (None, true) if empty => Answer::Either,
                    (None, true) => Answer::Granted,
                    _ => Answer::Occupied,
                }
            }
            Ask::Populate(_, deepest) => {
                let in_the_way = |virt, level| {
                    level < deepest as i8 && virt < start + bytes && start < virt + format::<G>().span(level)
                };
                let leaf = self.picture.leaves.iter().any(|leaf| in_the_way(leaf.virt, leaf.level));
                let odd = self.picture.odd.iter().any(|odd| in_the_way(odd.virt, odd.level));
                if leaf || odd { Answer::Occupied } else { Answer::Granted }
            }
            _ => {
                let is_clear = matches!(ask, Ask::Clear(_));
                let hole = self.pages.first_hole(start, bytes).filter(|_| !is_clear);
                match (odd.map(|odd| (odd.virt.max(start), odd.broken)), hole) {
                    (Some((at, broken)), hole) if hole.is_none_or(|hole| at <= hole) => {
                        if broken {
                            Answer::Broken(at)
                        } else {
                            Answer::Foreign(at)
                        }
                    }
                    (_, Some(hole)) => Answer::NotMapped(hole),
                    _ => Answer::Granted,
                }
            }
        }
    }

    /// Whether `answer` is right, and the tables with it.
    pub(super) fn check<G: Geometry>(
        &self,
        bench: &Bench<G, Live>,
        ask: &Ask,
        answer: Result<Cost, Error>,
    ) -> Result<(), String> {
        let expected = self.answer::<G>(ask);
        let at = |slot: Slot, virt: u64| slot.span().contains(breakwater::addr::VirtAddr::at(virt));
        let is_right = match (expected, answer) {
            (Answer::Granted | Answer::Either, Ok(_)) => true,
            (Answer::Occupied | Answer::Either, Err(Error::Occupied { .. })) => true,
            (Answer::Granted | Answer::Either, Err(Error::OutOfFrames { needed, available })) => {
                needed > available && available == bench.frames.available()
            }
            (Answer::NotMapped(virt), Err(Error::NotMapped { slot })) => at(slot, virt),
            (Answer::Broken(virt), Err(Error::Refused { slot, why: Why::InvalidationOwed, .. })) => at(slot, virt),
            (Answer::Foreign(virt), Err(Error::Refused { slot, why: Why::Foreign, .. })) => at(slot, virt),
            _ => false,
        };
        if !is_right {
            return Err(format!("{answer:x?} is the answer where {expected:x?} was expected"));
        }
        if answer.is_ok() { self.check_tables::<G>(&bench.picture(), ask) } else { Ok(()) }
    }

    fn check_tables<G: Geometry>(&self, now: &Picture, ask: &Ask) -> Result<(), String> {
        let (pages, wanted) = (now.pages::<G>(), ask.applied::<G>(self.pages.clone()));
        if pages != wanted {
            return Err(format!("the tables map {pages:x?}, not {wanted:x?}"));
        }
        if now.odd != self.picture.odd {
            return Err(format!("not the manager's: {:x?}, before: {:x?}", now.odd, self.picture.odd));
        }
        let (start, bytes) = (ask.span().start().raw(), ask.span().bytes());
        let stays = |leaf: &Standing| !touched::<G>(leaf, start, bytes);
        if let Some(gone) =
            self.picture.leaves.iter().filter(|leaf| stays(leaf)).find(|leaf| now.leaf_at(leaf.virt) != Some(**leaf))
        {
            return Err(format!("{gone:x?} was none of the request's business"));
        }
        let kept = |table: &&Hanging| table.kept;
        let still = |table: &Hanging| {
            now.tables.iter().any(|now| (now.virt, now.level, now.kept) == (table.virt, table.level, true))
        };
        if let Some(gone) = self.picture.tables.iter().filter(kept).find(|table| !still(table)) {
            return Err(format!("{gone:x?} was to stay"));
        }
        let was_empty = |table: &Hanging| {
            self.picture.tables.iter().any(|old| (old.virt, old.level, old.used) == (table.virt, table.level, 0))
        };
        let left = |table: &&Hanging| table.used == 0 && !table.kept && table.level > G::ROOT as i8;
        if let Some(empty) = now.tables.iter().filter(left).find(|table| !was_empty(table)) {
            return Err(format!("{empty:x?} is left"));
        }
        match *ask {
            Ask::Split(_, largest) => check_split(now, start, bytes, largest),
            Ask::Merge(_, largest, contiguous) => check_merged::<G>(now, &pages, (start, bytes), largest, contiguous),
            Ask::Populate(_, deepest) => check_populated::<G>(now, start, bytes, deepest),
            _ => Ok(()),
        }
    }
}

/// Whether a leaf, or the run that it is of, has to do with the span.
fn touched<G: Geometry>(leaf: &Standing, start: u64, bytes: u64) -> bool {
    let format = format::<G>();
    let slots = if leaf.contiguous { format.run_entries(leaf.level) } else { 1 };
    let whole = slots * format.span(leaf.level);
    let from = leaf.virt & !(whole - 1);
    from < start + bytes && start < from + whole
}

fn check_split(now: &Picture, start: u64, bytes: u64, largest: Level) -> Result<(), String> {
    match now.leaves_in(start, bytes).iter().find(|leaf| leaf.level < largest as i8 || leaf.contiguous) {
        Some(leaf) => Err(format!("{leaf:x?} is not split")),
        None => Ok(()),
    }
}

fn check_populated<G: Geometry>(now: &Picture, start: u64, bytes: u64, deepest: Level) -> Result<(), String> {
    let slot = format::<G>().span(deepest as i8 - 1);
    let mut virt = start & !(slot - 1);
    while virt < start + bytes {
        if !now.tables.iter().any(|table| (table.virt, table.level, table.kept) == (virt, deepest as i8, true)) {
            return Err(format!("no table that stays at {virt:#x}"));
        }
        virt += slot;
    }
    Ok(())
}

/// Whether what could be merged is.
fn check_merged<G: Geometry>(
    now: &Picture,
    pages: &Pages,
    (start, bytes): (u64, u64),
    largest: Level,
    contiguous: bool,
) -> Result<(), String> {
    let format = format::<G>();
    let within = |virt: u64, size: u64| virt >= start && virt + size <= start + bytes;
    for table in now.tables.iter().filter(|table| table.level > G::ROOT as i8) {
        let (level, size) = (table.level - 1, format.span(table.level - 1));
        let inside =
            |other: &Hanging| other.virt >= table.virt && other.virt < table.virt + size && other.level >= table.level;
        let stays = now.tables.iter().any(|other| other.kept && inside(other));
        let could = level >= largest as i8 && format.has_blocks(level) && within(table.virt, size) && !stays;
        if could && pages.is_one_leaf(table.virt, size) {
            return Err(format!("{table:x?} could be a block"));
        }
    }
    for leaf in now.leaves.iter().filter(|leaf| contiguous && !leaf.contiguous) {
        let size = format.run_entries(leaf.level) * format.span(leaf.level);
        let has_runs = level_of(leaf.level).is_some_and(|level| G::run_slots(level) > 1);
        // The first of what could be a run speaks for all.
        if !has_runs || !leaf.virt.is_multiple_of(size) || !within(leaf.virt, size) {
            continue;
        }
        let beside = now.leaves_in(leaf.virt, size);
        let alike = beside.len() as u64 == format.run_entries(leaf.level)
            && beside.iter().all(|other| other.level == leaf.level);
        if alike && pages.is_one_leaf(leaf.virt, size) {
            return Err(format!("{leaf:x?} could begin a contiguous run"));
        }
    }
    Ok(())
}

fn level_of(level: i8) -> Option<Level> {
    [Level::L0, Level::L1, Level::L2, Level::L3].into_iter().find(|&other| other as i8 == level)
}
