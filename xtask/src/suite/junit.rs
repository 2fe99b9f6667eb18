//! Results as JUnit XML, one suite for each first part of a name.

use super::runner::Done;
use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the file.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(done: &[Done], file: &Path) -> Result<()> {
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
        suites.entry(suite).or_insert_with(|| TestSuite::new(suite.to_owned())).add_test_case(case);
    }
    let mut report = Report::new("breakwater");
    report.add_test_suites(suites.into_values());
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn good_failures_and_suites_are_counted() {
        let done = |name: &str, outcome| Done { name: name.to_owned(), took: Duration::from_millis(5), outcome };
        let report =
            report(&[done("host/a", Ok(())), done("boot/b", Err("no <report>".to_owned())), done("boot/c", Ok(()))]);
        assert_eq!((report.tests, report.failures, report.test_suites.len()), (3, 1, 2));
    }
}
