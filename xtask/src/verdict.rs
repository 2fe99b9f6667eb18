//! Judging a boot. Success is an exit status of 0 **and** a report whose audit found nothing; each failure has a line and an exit
//! status of its own.

use crate::child::Finished;
use serde_json::Value;
use std::fmt;

/// How a boot failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hang,
    Panic,
    Exception,
    Refused,
    NoReport,
    BadReport,
    Audit,
    Status,
    TooMuchOutput,
    Offline,
}

impl Kind {
    /// The exit status of `cargo xtask boot`; 1 and 2 are xtask's own errors and a wrong command line.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Hang => 10,
            Self::Panic => 11,
            Self::Exception => 12,
            Self::Refused => 13,
            Self::NoReport => 14,
            Self::BadReport => 15,
            Self::Audit => 16,
            Self::Status => 17,
            Self::TooMuchOutput => 18,
            Self::Offline => 19,
        }
    }
}

/// A failed boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) line: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failure {}

/// The report of a boot that succeeded.
///
/// # Errors
/// The boot failed; the worst that was seen is what counts.
pub(crate) fn judge(finished: &Finished) -> Result<Value, Failure> {
    let failure = |kind, line: String| Err(Failure { kind, line });
    let text = finished.everything();
    let line_with = |marker: &str| text.lines().find(|line| line.contains(marker)).map(|line| line.trim().to_owned());
    if let Some(line) = line_with("breakwater: panic") {
        return failure(Kind::Panic, format!("panic: {line}"));
    }
    if let Some(line) = line_with("breakwater: exception") {
        return failure(Kind::Exception, format!("exception: {line}"));
    }
    if let Some(line) = line_with("breakwater: refused") {
        return failure(Kind::Refused, line);
    }
    if finished.too_much {
        return failure(
            Kind::TooMuchOutput,
            "output: the guest wrote more than any boot does, and was stopped".to_owned(),
        );
    }
    if finished.marked {
        // It was not told to end.
        return audited(finished);
    }
    if finished.timed_out {
        return failure(Kind::Hang, format!("hang: no end within {:.1} s", finished.took.as_secs_f64()));
    }
    if finished.status != Some(0) {
        let said = finished.messages.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
        let status = finished.status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
        return failure(Kind::Status, format!("exit: QEMU ended with {status}{said}"));
    }
    audited(finished)
}

/// `report`, if every CPU is online that the command line lets run.
///
/// # Errors
/// One is not.
pub(crate) fn complete(report: Value) -> Result<Value, Failure> {
    let count = |name: &str| report.pointer(&format!("/cpus/{name}")).and_then(Value::as_u64);
    let (Some(online), Some(wanted), Some(present)) = (count("online"), count("wanted"), count("present")) else {
        let line = "report: cpus.online, .wanted or .present is missing".to_owned();
        return Err(Failure { kind: Kind::BadReport, line });
    };
    if online < wanted {
        let off = wanted - online;
        let line = format!("CPUs: {online} of {present} are online, and {off} more should be: the report says why not");
        return Err(Failure { kind: Kind::Offline, line });
    }
    Ok(report)
}

/// The report on a serial line.
///
/// # Errors
/// There is none, or it is not JSON.
pub(crate) fn report(serial: &str) -> Result<Value, Failure> {
    let failure = |kind, line: String| Failure { kind, line };
    let json = serial.lines().find_map(|line| line.strip_prefix("BOOT-REPORT "));
    let json = json.ok_or_else(|| {
        failure(Kind::NoReport, "report: the boot ended with status 0 but without a BOOT-REPORT line".to_owned())
    })?;
    serde_json::from_str(json)
        .map_err(|error| failure(Kind::BadReport, format!("report: the BOOT-REPORT line is not JSON: {error}")))
}

/// The report on the serial line, if its audit found nothing.
///
/// # Errors
/// There is none, or it did.
pub(crate) fn audited(finished: &Finished) -> Result<Value, Failure> {
    let failure = |kind, line: String| Err(Failure { kind, line });
    let report = report(&finished.serial)?;
    let count = |name: &str| report.pointer(&format!("/audit/{name}")).and_then(Value::as_u64);
    let (Some(pages), Some(mismatches), Some(both)) =
        (count("pages"), count("mismatches"), count("writable_executable"))
    else {
        return failure(
            Kind::BadReport,
            "report: audit.pages, .mismatches or .writable_executable is missing".to_owned(),
        );
    };
    if pages == 0 || mismatches != 0 || both != 0 {
        let line = format!("audit: {pages} pages, {mismatches} mismatches, {both} writable and executable");
        return failure(Kind::Audit, line);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "hello\nBOOT-REPORT {\"audit\":{\"pages\":5,\"mismatches\":0,\"writable_executable\":0}}\n";

    fn finished(status: Option<i32>, serial: &str) -> Finished {
        let serial = serial.to_owned();
        Finished { status, serial, timed_out: status.is_none(), ..Finished::default() }
    }

    fn kind(status: Option<i32>, serial: &str) -> Option<Kind> {
        judge(&finished(status, serial)).err().map(|failure| failure.kind)
    }

    #[test]
    fn good_status_zero_and_a_clean_audit() {
        assert_eq!(kind(Some(0), GOOD), None);
    }

    #[test]
    fn good_who_is_not_told_to_end_is_judged_by_its_report() {
        let marked = |serial: &str| judge(&Finished { marked: true, serial: serial.to_owned(), ..Finished::default() });
        assert!(marked(GOOD).is_ok());
        assert!(marked(&GOOD.replace("mismatches\":0", "mismatches\":1")).is_err());
        assert!(marked("breakwater: panic at x\n").is_err());
    }

    fn with_cpus(cpus: &str) -> Option<Kind> {
        let report = serde_json::from_str(&format!("{{\"cpus\":{{{cpus}}}}}")).expect("JSON");
        complete(report).err().map(|failure| failure.kind)
    }

    #[test]
    fn good_every_cpu_that_may_run_is_online() {
        assert_eq!(with_cpus("\"online\":4,\"present\":4,\"wanted\":4"), None);
        assert_eq!(with_cpus("\"online\":2,\"present\":4,\"wanted\":2"), None, "maxcpus=2");
    }

    #[test]
    fn bad_cpus_that_stay_away_are_a_status_of_their_own() {
        assert_eq!(with_cpus("\"online\":3,\"present\":4,\"wanted\":4"), Some(Kind::Offline));
        assert_eq!(with_cpus("\"online\":512,\"present\":700,\"wanted\":700"), Some(Kind::Offline));
        assert_eq!(with_cpus("\"online\":3,\"present\":4"), Some(Kind::BadReport));
        assert_eq!(Kind::Offline.exit_code(), 19);
    }

    #[test]
    fn bad_each_failure_has_its_own_kind() {
        assert_eq!(kind(None, GOOD), Some(Kind::Hang));
        assert_eq!(kind(Some(0), "breakwater: panic at x\n"), Some(Kind::Panic));
        assert_eq!(kind(None, "breakwater: exception: data abort\n"), Some(Kind::Exception));
        assert_eq!(kind(Some(3), "breakwater: refused: no memory\n"), Some(Kind::Refused));
        assert_eq!(kind(Some(0), "hello\n"), Some(Kind::NoReport));
        assert_eq!(kind(Some(0), "BOOT-REPORT {\n"), Some(Kind::BadReport));
        assert_eq!(kind(Some(0), "BOOT-REPORT {}\n"), Some(Kind::BadReport));
        assert_eq!(kind(Some(0), &GOOD.replace("mismatches\":0", "mismatches\":1")), Some(Kind::Audit));
        assert_eq!(kind(Some(0), &GOOD.replace("executable\":0", "executable\":1")), Some(Kind::Audit));
        assert_eq!(kind(Some(0), &GOOD.replace("pages\":5", "pages\":0")), Some(Kind::Audit));
        assert_eq!(kind(Some(9), GOOD), Some(Kind::Status));
    }
}
