//! What is left of a test run: where its time went (by stage, by group of cases, and the longest cases), and its results
//! as JUnit XML.

pub(crate) use super::runner::Done;
use crate::ui;
use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many of the longest cases are named.
const LONGEST: usize = 10;

/// A run's stages, of which some go side by side.
pub(super) struct Clock {
    began: Instant,
    stages: Mutex<Vec<(&'static str, Duration)>>,
}

impl Clock {
    /// Starts.
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), stages: Mutex::default() }
    }

    /// The stage `name`, which began at `began`, is over.
    pub(super) fn took(&self, name: &'static str, began: Instant) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push((name, began.elapsed()));
    }

    /// Does the `work` of the stage `name`.
    pub(super) fn during<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.took(name, began);
        result
    }

    /// Tells where the time went.
    pub(super) fn tell(&self, done: &[Done]) {
        for line in groups(done) {
            ui::step("Spent", &line);
        }
        let longest = longest(done).into_iter().map(|(name, took)| format!("{name} {}", seconds(took)));
        ui::step("Longest", &longest.collect::<Vec<_>>().join(", "));
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let stages: Vec<String> = stages.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
        let all = seconds(self.began.elapsed());
        ui::step(
            "Finished",
            &if stages.is_empty() { format!("in {all}") } else { format!("in {all}: {}", stages.join(", ")) },
        );
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}

/// A line for each first part of the cases' names, with the groups of host tests by package. Two cases run at a time: sums are of cases.
fn groups(done: &[Done]) -> Vec<String> {
    let mut groups: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
    for one in done {
        let mut parts = one.name.match_indices('/').map(|(at, _)| at);
        let end = if one.name.starts_with("host/") { parts.nth(1) } else { parts.next() };
        let group = groups.entry(&one.name[..end.unwrap_or(one.name.len())]).or_default();
        *group = (group.0 + 1, group.1 + one.took);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
    let told = groups.iter().map(|(name, (count, took))| format!("{:>6} {name} ({count})", seconds(*took)));
    told.collect()
}

/// The cases that took longest; of the tests on the host the programs, because their tests run side by side.
fn longest(done: &[Done]) -> Vec<(&str, Duration)> {
    let mut cases: BTreeMap<&str, Duration> = BTreeMap::new();
    for one in done {
        let end = one.name.match_indices('/').map(|(at, _)| at).nth(2).filter(|_| one.name.starts_with("host/"));
        *cases.entry(&one.name[..end.unwrap_or(one.name.len())]).or_default() += one.took;
    }
    let mut cases: Vec<_> = cases.into_iter().collect();
    cases.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    cases.truncate(LONGEST);
    cases
}

/// Writes the results to `file` as JUnit XML, one suite for each first part of a name.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_junit(done: &[Done], file: &Path) -> Result<()> {
    let xml = report(done).to_string().context("cannot write JUnit XML")?;
    std::fs::write(file, xml).with_context(|| format!("cannot write {}", file.display()))
}

fn report(done: &[Done]) -> Report {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for one in done {
        let (suite, name) = one.name.split_once('/').unwrap_or(("other", one.name.as_str()));
        let status = match &one.outcome {
            Ok(()) => TestCaseStatus::success(),
            Err(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why.clone());
                status
            }
        };
        let mut case = TestCase::new(name.to_owned(), status);
        case.set_time(one.took);
        if !one.log.is_empty() {
            case.set_system_out(one.log.clone());
        }
        suites.entry(suite).or_insert_with(|| TestSuite::new(suite.to_owned())).add_test_case(case);
    }
    let mut report = Report::new("breakwater");
    report.add_test_suites(suites.into_values());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_groups_and_longest_come_longest_first() {
        let done = |name: &str, took| Done {
            name: name.to_owned(),
            took: Duration::from_secs(took),
            outcome: Ok(()),
            log: String::new(),
        };
        let done = [
            done("host/core/manager/a::b", 3),
            done("host/core/manager/a::c", 4),
            done("host/core/shadow/a/b", 1),
            done("fact/one", 5),
            done("fact/two", 6),
        ];
        assert_eq!(groups(&done), ["  11 s fact (2)", "   8 s host/core (3)"]);
        let longest = longest(&done).into_iter().map(|(name, took)| (name, took.as_secs()));
        let wanted = [("host/core/manager", 7), ("fact/two", 6), ("fact/one", 5), ("host/core/shadow", 1)];
        assert_eq!(longest.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn good_failures_and_suites_are_counted() {
        let took = Duration::from_millis(5);
        let done = |name: &str, outcome| Done { name: name.to_owned(), took, outcome, log: "said\0so".to_owned() };
        let report =
            report(&[done("host/a", Ok(())), done("boot/b", Err("no <report>".to_owned())), done("boot/c", Ok(()))]);
        assert_eq!((report.tests, report.failures, report.test_suites.len()), (3, 1, 2));
        assert_eq!(report.to_string().expect("XML").matches("<system-out>saidso</system-out>").count(), 3);
    }
}
