//! What was found. The host's part is what `breakwater-bench` prints.

use serde::{Deserialize, Serialize};

/// Both parts, or one.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Times on this machine.
    pub(crate) host: Option<Host>,
    /// Counts on the target.
    pub(crate) target: Option<Target>,
}

/// Times on this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) rounds: u32,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) requests: Vec<Request>,
}

/// Who was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) note: String,
}

/// What was asked, and what it took everyone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Requests timed in a round.
    pub(crate) requests: u64,
    /// Leaves that they concern.
    pub(crate) leaves: u64,
    pub(crate) rows: Vec<Row>,
}

/// What it took one candidate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) candidate: String,
    pub(crate) refused: Option<String>,
    /// A leaf.
    pub(crate) nanoseconds: Option<Spread>,
    pub(crate) ours_over_this: Option<Spread>,
    pub(crate) this_over_limit: Option<Spread>,
    /// Of a round.
    pub(crate) maintenance: Option<Maintenance>,
}

/// Quartiles and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
    pub(crate) greatest: f64,
}

/// Barriers and TLBIs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    pub(crate) tlbis: u64,
    pub(crate) dsbs: u64,
    pub(crate) isbs: u64,
}

impl Request {
    /// The row of the candidate of that name.
    pub(crate) fn row(&self, candidate: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.candidate == candidate)
    }
}

/// Counts on the target.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    /// Counts name their compiler.
    pub(crate) compiler: String,
    pub(crate) qemu: String,
    pub(crate) cpu: String,
    /// Boots with each number of CPUs; all said the same.
    pub(crate) boots: u32,
    pub(crate) runs: Vec<Run>,
}

/// With so many CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Run {
    pub(crate) cpus: u32,
    pub(crate) requests: Vec<Cost>,
}

/// What one request cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cost {
    pub(crate) name: String,
    pub(crate) instructions: u64,
    pub(crate) stores: u64,
    pub(crate) tlbis: u64,
    pub(crate) dsbs: u64,
    pub(crate) isbs: u64,
    /// Taken from the supply; negative when they came back.
    pub(crate) frames: i64,
}
