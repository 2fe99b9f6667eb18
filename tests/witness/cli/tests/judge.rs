//! Claims about `breakwater-witness judge` as a command: exit statuses, what it prints where, and that the documented examples are what their
//! documentation says.

use std::io::Write;
use std::process::{Command, Stdio};

use breakwater_oracle::policy::Policy;
use serde_json::Value;

const README: &str = include_str!("../../oracle/README.md");

struct Judged {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Judged {
    /// The JUDGE-REPORT line, which is the last.
    fn report(&self) -> Value {
        let line = self.stdout.lines().next_back().expect("something is printed");
        let json = line.strip_prefix("JUDGE-REPORT ").expect("the report is the last line");
        serde_json::from_str(json).expect("the report is JSON")
    }

    /// The rules broken, each once.
    fn rules(&self) -> Vec<String> {
        let report = self.report();
        let rules = report["by_rule"].as_object().expect("the rules are counted");
        rules.keys().cloned().collect()
    }
}

/// Runs `judge` with these arguments on this standard input.
fn judge(arguments: &[&str], input: &str) -> Judged {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakwater-witness"));
    command.arg("judge").args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // It may refuse its arguments and end before it has read anything.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    Judged { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The traces of the documentation, in order.
fn examples() -> Vec<Vec<&'static str>> {
    let mut examples: Vec<Vec<&str>> = Vec::new();
    let mut inside = false;
    for line in README.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            inside = false;
            continue;
        };
        if line == "breakwater-trace 1" {
            examples.push(Vec::new());
            inside = true;
        }
        if let (true, Some(example)) = (inside, examples.last_mut()) {
            example.push(line);
        }
    }
    examples
}

fn without(example: &[&str], removed: usize) -> String {
    let kept = example.iter().enumerate().filter(|(index, _)| *index != removed);
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn good_the_documented_examples_are_clean() {
    let examples = examples();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let judged = judge(&["-"], &without(&example, usize::MAX));
        assert_eq!((judged.status, judged.rules()), (Some(0), vec![]), "{}", judged.stdout);
        assert!(judged.stdout.contains("no violation"), "{}", judged.stdout);
        let report = judged.report();
        assert_eq!(report["version"], 1);
        assert_eq!(report["policies"].as_array().map(Vec::len), Some(Policy::ALL.len()));
        assert!(report["policies"].as_array().is_some_and(|all| all.iter().all(|one| one["crashes"] == false)));
    }
}

#[test]
fn bad_the_documented_examples_without_any_one_step() {
    for example in examples() {
        let steps = example.iter().enumerate().filter(|(_, line)| {
            let event = line.split_whitespace().nth(3).unwrap_or_default();
            line.starts_with(['0', '1']) && ["store", "dsb", "tlbi", "isb"].contains(&event)
        });
        // The last store makes the new mapping: whether the address is mapped again is the software's affair.
        for (index, line) in steps.filter(|(_, line)| !line.ends_with("40000040600701")) {
            let judged = judge(&["-"], &without(&example, index));
            assert_eq!(judged.status, Some(1), "without {line}: {}", judged.stdout);
            assert!(!judged.rules().is_empty(), "without {line}");
        }
    }
}

#[test]
fn bad_a_violation_is_printed_with_its_evidence() {
    let example = &examples()[0];
    let dsb = example.iter().position(|line| line.contains("no CPU can use the old entry")).expect("it is there");
    let judged = judge(&["-"], &without(example, dsb));
    assert_eq!(judged.status, Some(1));
    // It comes from the store that breaks the entry, the make shows it, and what is missing belongs behind the TLBI.
    let finding = &judged.report()["findings"][0];
    let lines = [&finding["line"], &finding["harm"][0]["line"], &finding["to_do"]["line"]];
    assert_eq!(lines, [dsb - 2, dsb + 1, dsb].map(Value::from).iter().collect::<Vec<_>>()[..], "{}", judged.stdout);
    assert_eq!(finding["cause"]["lacks"], "TLBI DSB");
    for part in ["0x40400000", "level 2 block 0x40400000 RW-", "level 2 block 0x40600000 RW-", "missing: ", "to do: "] {
        assert!(judged.stdout.contains(part), "{part} is not in {}", judged.stdout);
    }
}

#[test]
fn good_only_what_a_baseline_does_not_know_fails() {
    let example = &examples()[0];
    let without_line = |says: &str| {
        let line = example.iter().position(|line| line.contains(says)).expect("it is there");
        without(example, line)
    };
    let (no_dsb, no_isb) = (without_line("no CPU can use the old entry"), without_line("for what this CPU does"));
    let path = std::env::temp_dir().join(format!("breakwater-known-{}.txt", std::process::id()));
    std::fs::write(&path, judge(&["-"], &no_dsb).stdout).expect("the file is written");
    let against = |trace: &str| judge(&["-", "--baseline", path.to_str().expect("a path in text")], trace);
    let (same, other, clean) = (against(&no_dsb), against(&no_isb), against(&without(example, usize::MAX)));
    std::fs::remove_file(&path).expect("the file is removed");
    assert_eq!((same.status, same.report()["baseline"]["known"].as_u64()), (Some(0), Some(1)), "{}", same.stdout);
    assert!(same.stdout.contains("known: OutputChange"), "{}", same.stdout);
    assert_eq!((other.status, other.report()["baseline"]["new"].as_u64()), (Some(1), Some(1)), "{}", other.stdout);
    assert_eq!(
        (clean.status, clean.stdout.contains("gone: TLBI DSB in 0x4000010c")),
        (Some(0), true),
        "{}",
        clean.stdout
    );
    let refused = judge(&["-", "--baseline", "/nowhere/known.txt"], &no_dsb);
    assert_eq!(refused.status, Some(2), "{}", refused.stderr);
}

#[test]
fn good_of_a_trace_without_accesses_no_core_says_anything() {
    let text = "breakwater-trace 1\n0 1 40000000 start 2\n0 2 40000004 tlbi alle2is 0\nend exit\n";
    let judged = judge(&["-"], text);
    assert_eq!(judged.status, Some(1));
    assert!(!judged.stdout.contains("would have"), "{}", judged.stdout);
}

#[test]
fn good_a_file_is_judged_as_standard_input_is() {
    let path = std::env::temp_dir().join(format!("breakwater-judge-{}.trace", std::process::id()));
    let text = without(&examples()[0], usize::MAX);
    std::fs::write(&path, &text).expect("the file is written");
    let (of_file, of_input) = (judge(&[path.to_str().expect("a path in text")], ""), judge(&["-"], &text));
    std::fs::remove_file(&path).expect("the file is removed");
    assert_eq!((of_file.status, of_file.stdout), (Some(0), of_input.stdout));
}

#[test]
fn bad_features_stand_before_the_trace() {
    let text = without(&examples()[0], usize::MAX);
    let repeated = judge(&["-", "--features", "bbm=2,repeat-tlbi"], &text);
    assert_eq!(repeated.status, Some(1), "the broadcast is not repeated: {}", repeated.stdout);
    let unknown = judge(&["-", "--features", "bbm=2,sve"], &text);
    assert_eq!(unknown.status, Some(2));
    assert!(unknown.stderr.contains("unknown feature \"sve\""), "{}", unknown.stderr);
}

#[test]
fn good_one_policy_alone() {
    let text = without(&examples()[0], usize::MAX);
    let report = judge(&["-", "--policy", "hoarder"], &text).report();
    assert_eq!(report["policies"][0]["name"], "hoarder");
    assert_eq!(report["policies"].as_array().map(Vec::len), Some(1));
    let unknown = judge(&["-", "--policy", "cortex"], &text);
    assert_eq!(unknown.status, Some(2));
    assert!(unknown.stderr.contains("direct-mapped"), "{}", unknown.stderr);
}

#[test]
fn bad_the_policies_that_would_have_crashed_are_named() {
    // The block moves in place, and is read before and after.
    let example = &examples()[0];
    let head: Vec<&str> = example.iter().take_while(|line| !line.starts_with("0 2 ")).copied().collect();
    let events = [
        "0 2 40000104 load 8 40400000 40400000 0",
        "0 3 40000108 store 8 40202010 40202010 40000040600701",
        "0 4 4000010c load 8 40400000 40600000 1",
        "end exit",
    ];
    let judged = judge(&["-"], &without(&[&head[..], &events[..]].concat(), usize::MAX));
    assert_eq!(judged.status, Some(1));
    let report = judged.report();
    let crash = report["policies"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "hoarder"));
    assert_eq!(crash.map(|one| one["crashes"].clone()), Some(Value::from(true)), "{}", judged.stdout);
    assert!(judged.stdout.contains("hoarder: would have crashed: line "), "{}", judged.stdout);
}

#[test]
fn bad_what_is_no_trace_ends_with_status_2_and_one_line() {
    let whole = without(&examples()[0], usize::MAX);
    let cut_off = whole.strip_suffix("end exit\n").expect("it ends");
    let late = whole.replace("end exit\n", "word 40000000 0\nend exit\n");
    let after = format!("{whole}count 0 30\n");
    let lines = whole.lines().count();
    for (text, place) in [
        ("", "trace line 1, column 1: ".to_owned()),
        ("\u{7f}ELF", "trace line 1, column 1: ".to_owned()),
        ("breakwater-trace 1\n0 1 40 nop\n", "trace line 2, column 8: unknown event".to_owned()),
        (cut_off, format!("trace line {lines}, column 1: the trace breaks off")),
        (&late, format!("trace line {lines}, column 1: declarations stand before")),
        (&after, format!("trace line {}, column 1: nothing follows", lines + 1)),
    ] {
        let judged = judge(&["-"], text);
        assert_eq!((judged.status, judged.stdout.as_str()), (Some(2), ""), "{}", judged.stderr);
        assert!(judged.stderr.contains(&place), "{place}: {}", judged.stderr);
        assert_eq!(judged.stderr.lines().count(), 1, "{}", judged.stderr);
    }
    let missing = judge(&["/nowhere/boot.trace"], "");
    assert_eq!((missing.status, missing.stderr.lines().count()), (Some(2), 1), "{}", missing.stderr);
}

#[test]
fn good_help_has_an_example_that_is_judged_bad() {
    let help = judge(&["--help"], "").stdout;
    for part in ["Exit status", "malformed", "eager", "tests/witness/oracle/README.md"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    let (_, example) = help.split_once("printf '%s\\n'").expect("there is an example");
    let lines: Vec<&str> = example.split('\'').skip(1).step_by(2).collect();
    let judged = judge(&["-"], &without(&lines, usize::MAX));
    assert_eq!(judged.status, Some(1), "{}", judged.stdout);
    assert_eq!(judged.report()["total"], 1, "{}", judged.stdout);
}

#[test]
fn bad_what_is_counted_and_not_listed_is_said() {
    // A block is filled in, and used at many addresses without ISB; then another one changes in place.
    let example = &examples()[0];
    let head: Vec<&str> = example.iter().take_while(|line| !line.starts_with("0 2 ")).copied().collect();
    let mut text = without(&head, usize::MAX)
        .replace("word 40202010 40000040400701", "word 40202010 0\nword 40202018 40000040600701");
    text += "0 2 40000104 store 8 40202010 40202010 40000040400701\n0 3 40000108 dsb ish\n";
    for index in 0..1500 {
        text += &format!("0 {} 4000010c load 1 {1:x} {1:x} 0\n", 4 + index, 0x4040_0000 + index);
    }
    text += "0 2000 40000110 isb\n0 2001 40000114 store 8 40202018 40202018 40000040800701\n0 2002 40000118 dsb ish\nend exit\n";
    let judged = judge(&["-"], &text);
    assert_eq!(
        (judged.status, judged.rules()),
        (Some(1), vec!["FillSync".into(), "OutputChange".into(), "StaleLeaf".into()])
    );
    let report = judged.report();
    assert_eq!(
        (&report["not_kept"][0]["times"], &report["by_rule"]["FillSync"]),
        (&Value::from(500), &Value::from(1500))
    );
    assert!(judged.stdout.contains("500 more were counted"), "{}", judged.stdout);
}

#[test]
fn good_what_only_an_unseen_branch_settles_is_said_and_fails_nothing() {
    // CPU 1 sees CPU 0's flag, and then invalidates what CPU 0 broke.
    let example = &examples()[0];
    let head: Vec<&str> = example.iter().take_while(|line| !line.starts_with("0 2 ")).copied().collect();
    let text = without(&head, usize::MAX)
        + "0 2 40000104 store 8 40202010 40202010 0\n0 3 40000108 dsb ish\n0 4 4000010c store 8 40200100 40200100 1\n\
           1 2 40000204 load 8 40200100 40200100 1\n1 3 40000208 tlbi vae2is 40400\n1 4 4000020c dsb ish\n1 5 40000210 isb\nend exit\n";
    let judged = judge(&["-"], &text);
    assert_eq!((judged.status, judged.rules()), (Some(0), vec![]), "{}", judged.stdout);
    assert!(judged.stdout.contains("PE 1 at 40000208: in doubt"), "{}", judged.stdout);
    assert_eq!(judged.report()["doubts"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bad_a_judge_without_memory_has_no_verdict_and_says_so() {
    // Stores to 60,000 pages, and room for a part of them.
    let stores: String = (0..60_000_u64)
        .map(|page| (page + 2, 0x8000_0000 + (page << 12)))
        .map(|(number, pa)| format!("0 {number} 40000000 store 8 {pa:x} {pa:x} 1\n"))
        .collect();
    let trace = format!("breakwater-trace 1\n0 1 40000000 start 2\n{stores}end exit\n");
    let mut command = Command::new("sh");
    let limited = format!("ulimit -v 150000; exec {} judge -", env!("CARGO_BIN_EXE_breakwater-witness"));
    command.args(["-c", &limited]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let _ = child.stdin.take().expect("a pipe").write_all(trace.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("memory allocation of"), "{said}");
    assert!(output.stdout.is_empty(), "half a verdict is none");
}
