//! What was found: times on this machine, and what was counted on the target. `counts` reads what the target said, and
//! `phases` what of it is about boots; `print` makes the tables, `plot` the picture, and `growth` the part of it that
//! shows boots.

mod counts;
mod growth;
mod phases;
mod plot;
mod print;
#[cfg(test)]
mod tests;

use anyhow::Result;
use breakwater_bench::rounds::{Measured, RUNNERS, Row};
use serde::Serialize;
use std::path::Path;

pub(crate) use counts::Target;

/// Both parts, or one.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Times on this machine.
    pub(crate) host: Option<Host>,
    /// Counts on the target.
    pub(crate) target: Option<Target>,
}

/// Times on this machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Host {
    rounds: u32,
    candidates: Vec<Candidate>,
    requests: Vec<Measured>,
}

/// Who was asked.
#[derive(Debug, Clone, Serialize)]
struct Candidate {
    name: &'static str,
    note: &'static str,
}

impl Report {
    /// The tables.
    pub(crate) fn text(&self) -> String {
        print::text(self)
    }

    /// Draws the picture into `file`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn draw(&self, file: &Path) -> Result<()> {
        plot::draw(self, file)
    }
}

impl Host {
    /// What `rounds` rounds of each request took everyone.
    pub(crate) fn new(rounds: u32, requests: Vec<Measured>) -> Self {
        let candidates = RUNNERS.iter().map(|runner| Candidate { name: runner.name, note: runner.note }).collect();
        Self { rounds, candidates, requests }
    }
}

/// The row of the candidate of that name.
fn row<'a>(request: &'a Measured, candidate: &str) -> Option<&'a Row> {
    request.rows.iter().find(|row| row.candidate == candidate)
}
