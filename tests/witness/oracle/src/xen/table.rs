//! How many boots conflict: for each policy and each page offset of the image.

use core::fmt;

use breakwater_trace::Record;

use crate::policy::{Crash, Policy, replay};

use super::PAGES;

/// Boots tried, and how many crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Boots {
    crashed: u32,
    tried: u32,
}

/// The table of one story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoryTable {
    title: String,
    seeds: u64,
    /// In the order of [`Policy::ALL`].
    rows: Vec<Row>,
}

/// What became of one policy's boots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Row {
    /// By page offset.
    boots: Vec<(u16, Boots)>,
    /// The first that crashed.
    first: Option<(u16, Crash)>,
}

/// The table of one story whose `records` are known for each of the 512 page offsets; random policies boot `seeds`
/// times at each.
///
/// # Panics
/// `records` does.
#[must_use]
pub fn table(title: &str, seeds: u64, records: impl Fn(u16) -> Vec<Record> + Sync) -> StoryTable {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u16;
    let per_thread = PAGES.div_ceil(threads);
    let part = |first: u16| {
        let mut part = StoryTable::new(title, seeds);
        (first..PAGES.min(first + per_thread)).for_each(|offset| part.add(offset, &records(offset)));
        part
    };
    let mut table = StoryTable::new(title, seeds);
    std::thread::scope(|scope| {
        let firsts = (0..PAGES).step_by(per_thread.into());
        let parts: Vec<_> = firsts.map(|first| scope.spawn(move || part(first))).collect();
        for part in parts {
            let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            table.rows.iter_mut().zip(part.rows).for_each(|(row, more)| row.extend(more));
        }
    });
    table
}

/// The seed of a boot: other page offsets have other luck.
const fn seed_of(page_offset: u16, boot: u64) -> u64 {
    boot << 9 | page_offset as u64
}

impl StoryTable {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str, seeds: u64) -> Self {
        Self { title: title.to_owned(), seeds, rows: vec![Row::default(); Policy::ALL.len()] }
    }

    /// Boots `records` on every policy, as the boot of an image at `page_offset`.
    pub fn add(&mut self, page_offset: u16, records: &[Record]) {
        for (policy, row) in Policy::ALL.iter().zip(&mut self.rows) {
            let tried = if policy.is_random() { self.seeds.max(1) } else { 1 };
            let crashes = (0..tried).filter_map(|boot| replay(*policy, seed_of(page_offset, boot), records));
            let crashes: Vec<_> = crashes.collect();
            row.boots.push((page_offset, Boots { crashed: crashes.len() as u32, tried: tried as u32 }));
            row.first = row.first.take().or_else(|| Some((page_offset, crashes.into_iter().next()?)));
        }
    }

    /// For how many page offsets some boot of `policy` crashes.
    #[must_use]
    pub fn offsets_that_crash(&self, policy: Policy) -> usize {
        let row = self.row(policy);
        row.iter().filter(|(_, boots)| boots.crashed > 0).count()
    }

    /// How many boots of `policy` crashed, of how many.
    #[must_use]
    pub fn boots_that_crash(&self, policy: Policy) -> (u32, u32) {
        self.row(policy).iter().fold((0, 0), |sum, (_, boots)| (sum.0 + boots.crashed, sum.1 + boots.tried))
    }

    fn row(&self, policy: Policy) -> &[(u16, Boots)] {
        let place = Policy::ALL.iter().position(|other| *other == policy);
        place.and_then(|place| self.rows.get(place)).map_or(&[], |row| row.boots.as_slice())
    }

    /// One line for each page offset: crashed boots of those tried, a column for each policy.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = format!("{}\n  page", self.title);
        Policy::ALL.iter().for_each(|policy| text += &format!("  {:>13}", policy.name()));
        for (place, (offset, _)) in self.row(Policy::ALL[0]).iter().enumerate() {
            text += &format!("\n{offset:6}");
            for row in &self.rows {
                let Boots { crashed, tried } = row.boots[place].1;
                text += &format!("  {:>13}", format!("{crashed}/{tried}"));
            }
        }
        text
    }
}

impl Row {
    fn extend(&mut self, more: Self) {
        self.boots.extend(more.boots);
        self.first = self.first.take().or(more.first);
    }
}

/// Neighbouring offsets at which as many boots crashed, as one: first, last, and the boots.
fn runs(row: &[(u16, Boots)]) -> Vec<(u16, u16, Boots)> {
    let mut runs: Vec<(u16, u16, Boots)> = Vec::new();
    for &(offset, boots) in row {
        match runs.last_mut() {
            Some((_, last, same)) if *same == boots && *last + 1 == offset => *last = offset,
            _ => runs.push((offset, offset, boots)),
        }
    }
    runs
}

/// The first of a row's crashing stretches; the rest are in [`StoryTable::details`].
const SHOWN: usize = 6;

impl fmt::Display for StoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for (policy, Row { first, .. }) in Policy::ALL.iter().zip(&self.rows) {
            let (row, (crashed, tried)) = (self.row(*policy), self.boots_that_crash(*policy));
            let offsets = self.offsets_that_crash(*policy);
            let name = policy.name();
            write!(f, "  {name:13} {offsets:3} of {} page offsets, {crashed} of {tried} boots", row.len())?;
            let crashing: Vec<_> = runs(row).into_iter().filter(|run| run.2.crashed > 0).collect();
            for (place, (first, last, boots)) in crashing.iter().take(SHOWN).enumerate() {
                let pages = if first == last { first.to_string() } else { format!("{first}-{last}") };
                write!(f, "{} {pages} ({}/{})", if place == 0 { ": page" } else { "," }, boots.crashed, boots.tried)?;
            }
            let more = crashing.len().saturating_sub(SHOWN);
            if more > 0 {
                write!(f, " and {more} more stretches")?;
            }
            if let Some((offset, crash)) = first {
                write!(f, "\n    the first: page {offset}, {crash}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_equal_neighbours_are_told_as_one() {
        let boots = |crashed| Boots { crashed, tried: 8 };
        let row = [(0, boots(1)), (1, boots(1)), (2, boots(8)), (4, boots(8))];
        assert_eq!(runs(&row), [(0, 1, boots(1)), (2, 2, boots(8)), (4, 4, boots(8))]);
    }

    #[test]
    fn good_every_policy_has_a_row_and_random_ones_a_boot_for_each_seed() {
        let mut table = StoryTable::new("nothing happens", 5);
        table.add(3, &[]);
        assert_eq!(table.boots_that_crash(Policy::Eager), (0, 5));
        assert_eq!(table.boots_that_crash(Policy::Lazy), (0, 1));
        let text = table.to_string();
        assert!(Policy::ALL.iter().all(|policy| text.contains(policy.name())), "{text}");
        let details = table.details();
        let row = details.lines().last().expect("a row").split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["3", "0/5", "0/1", "0/1", "0/1", "0/5"]);
    }
}
