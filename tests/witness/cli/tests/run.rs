//! Claims about `breakwater-witness run` as a command, with a machine that is none: a script in the place of QEMU,
//! which writes a recording that is known into the pipe it is given.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use breakwater_oracle::xen::{Story, scenario};
use breakwater_trace::{HEADER, Record};
use serde_json::Value;
use tempfile::TempDir;

/// Finds the pipe among QEMU's arguments.
const QEMU: &str = "#!/bin/sh\n\
    for argument; do\n\
        case $argument in\n\
            --version) echo 'QEMU emulator version 10.0.0'; exit 0 ;;\n\
            *out=*) pipe=${argument#*out=} ;;\n\
        esac\n\
    done\n\
    exec cat \"$(dirname \"$0\")/recording\" > \"${pipe%%,*}\"\n";

/// A directory with that QEMU, its recording and an image.
struct Desk(TempDir);

impl Desk {
    fn new(recording: &[u8]) -> Self {
        let desk = Self(TempDir::new().expect("a directory"));
        for (name, bytes) in [("recording", recording), ("image", &[0; 4096]), ("qemu", QEMU.as_bytes())] {
            fs::write(desk.file(name), bytes).expect("it can be written");
        }
        fs::set_permissions(desk.file("qemu"), PermissionsExt::from_mode(0o755)).expect("it is ours");
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `run` of the image after the shell has done `first`.
    fn run(&self, first: &str, options: &[&str]) -> Output {
        self.start(first, &[&["--load-address", "0x7fe00000"], options].concat())
    }

    /// The same where the image says itself where it is loaded.
    fn start(&self, first: &str, options: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{first} exec \"$0\" \"$@\"")])
            .args([env!("CARGO_BIN_EXE_breakwater-witness"), "run"]);
        command.arg("--qemu").arg(self.file("qemu")).arg("--image").arg(self.file("image")).args(options);
        command.args(["--smp", "1", "--timeout", "120"]);
        command.env("XDG_CACHE_HOME", self.0.path()).env("TMPDIR", self.0.path()).env_remove("RUST_BACKTRACE");
        command.output().expect("it starts")
    }
}

/// What a command says in its last line, behind `tag`.
fn report(output: &Output, tag: &str) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().next_back().and_then(|line| line.strip_prefix(tag));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {output:?}"))).expect("it is JSON")
}

/// A finding without what differs between a recording and what is kept of it: the lines, and what `run` alone weighs.
fn without_lines(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let stays = |name: &str| !["line", "says", "rests_on_order"].contains(&name);
            let members = members.iter().filter(|(name, _)| stays(name));
            Value::Object(members.map(|(name, value)| (name.clone(), without_lines(value))).collect())
        }
        Value::Array(values) => values.iter().map(without_lines).collect(),
        value => value.clone(),
    }
}

/// A recording with these lines.
fn recording(lines: impl IntoIterator<Item = String>) -> String {
    std::iter::once(HEADER.to_owned()).chain(lines).chain(["end exit".to_owned()]).map(|line| line + "\n").collect()
}

/// Waiting and filling memory that is no table: of that nothing is kept.
fn noise(cpu: u32, instructions: RangeInclusive<u64>) -> impl Iterator<Item = String> {
    instructions.map(move |number| {
        let event = ["store 8 70000000 70000000 1", "isb", "dsb ish"][(number % 3) as usize];
        format!("{cpu} {number} 40000000 {event}")
    })
}

/// `run --trace` of a recording, and `judge` of what is kept: the same findings, counts and unknowns. How many events
/// are kept of how many, and the rules.
fn live_and_kept(recording: &str) -> (usize, usize, Vec<String>) {
    let desk = Desk::new(recording.as_bytes());
    let kept = desk.file("kept");
    let live = desk.run("", &["--trace", kept.to_str().expect("it is text")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakwater-witness"));
    let again = command.arg("judge").arg(&kept).output().expect("it starts");
    assert_eq!((live.status.code(), again.status.code()), (Some(20), Some(1)), "{live:?}");
    let (live, again) = (report(&live, "WITNESS-REPORT "), report(&again, "JUDGE-REPORT "));
    for what in ["findings", "not_kept", "doubts", "unknown"] {
        assert_eq!(without_lines(&live[what]), without_lines(&again[what]), "{what}");
    }
    let rules = live["by_rule"].as_object().expect("the rules are counted");
    for (rule, counted) in rules {
        assert_eq!(counted["times"], again["by_rule"][rule], "{rule}");
    }
    assert_eq!(Some(rules.len()), again["by_rule"].as_object().map(serde_json::Map::len));
    let lines = |text: &str| text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count();
    let kept = fs::read_to_string(kept).expect("it is kept");
    (lines(&kept), lines(recording), rules.keys().cloned().collect())
}

#[test]
fn good_what_is_kept_is_small_and_judged_as_the_machine_was() {
    for story in [Story::Xen411, Story::Xen00c96d77422a] {
        let records = scenario(story, 77);
        let last = records.iter().rev().find_map(|record| match record {
            Record::Step(step) => Some((step.cpu, step.instruction)),
            _ => None,
        });
        let (cpu, number) = last.expect("it has steps");
        let told = records.iter().filter(|record| !matches!(record, Record::End(_))).map(ToString::to_string);
        let (kept, whole, rules) = live_and_kept(&recording(told.chain(noise(cpu, number + 1..=number + 30_000))));
        assert!(kept + 29_000 < whole, "{story:?}: {kept} of {whole} events");
        assert!(!rules.is_empty(), "{story:?}");
    }
}

#[test]
fn good_what_is_counted_only_is_counted_alike() {
    // A block is filled in and used at many addresses without an ISB: of its violations 1,000 are kept.
    let head = [
        "word 80001008 80002003",
        "word 80002000 40000781",
        "word 80002008 0",
        "0 1 40000000 start 2",
        "0 1 40000000 found mair_el2 ff",
        "0 1 40000000 found tcr_el2 80803519",
        "0 1 40000000 found ttbr0_el2 80001000",
        "0 1 40000000 found sctlr_el2 30cd183d",
        "0 2 40000104 store 8 80002008 80002008 40000040200701",
        "0 3 40000108 dsb ish",
    ];
    let uses = (0..1500).map(|index| format!("0 {} 4000010c load 1 {1:x} {1:x} 0", 4 + index, 0x4020_0000 + index));
    let told = head.into_iter().map(ToOwned::to_owned).chain(uses).chain(noise(0, 2000..=5000));
    let (kept, whole, rules) = live_and_kept(&recording(told));
    assert_eq!(rules, ["FillSync"]);
    assert!(kept + 2900 < whole, "{kept} of {whole} events");
}

#[test]
fn bad_a_run_without_memory_has_no_verdict_and_says_so() {
    // Stores to 200,000 pages, and room for a part of them.
    let stores = (0..200_000_u64)
        .map(|page| format!("0 {} 40000000 store 8 {1:x} {1:x} 1", page + 2, 0x4020_0000 + (page << 12)));
    let desk = Desk::new(recording(["0 1 40000000 start 2".to_owned()].into_iter().chain(stores)).as_bytes());
    let output = desk.run("ulimit -v 400000;", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    // Beside the command that it runs, which is shown.
    let is_shown = |line: &str| line.is_empty() || line.trim_start().starts_with("$ ");
    let lines: Vec<&str> = said.lines().filter(|line| !is_shown(line)).collect();
    assert_eq!(output.status.code(), Some(24), "{said}");
    assert!(matches!(lines.as_slice(), [line] if line.contains("memory is used up")), "{said}");
    let left = fs::read_dir(desk.0.path()).expect("it is there").filter_map(Result::ok).map(|file| file.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("breakwater-witness-")).collect();
    assert!(left.is_empty(), "files of the run are left behind: {left:?}");
    assert!(output.stdout.is_empty(), "half a verdict is none");
}

#[test]
fn bad_a_regime_that_is_not_followed_has_no_verdict() {
    // With E2H the MMU goes on by the name SCTLR_EL1, so that it was never on as EL2 alone has it.
    let told = [
        "0 1 40000000 start 2",
        "0 1 40000000 found hcr_el2 400000000",
        "0 1 40000000 found sctlr_el2 30cd0838",
        "0 2 40000004 msr sctlr_el1 30cd183d",
        "0 3 40000008 isb",
    ];
    let output = Desk::new(recording(told.map(ToOwned::to_owned)).as_bytes()).run("", &[]);
    assert_eq!(output.status.code(), Some(24), "{output:?}");
    let said = report(&output, "WITNESS-REPORT ");
    assert_eq!(said["findings"].as_array().map(Vec::len), Some(0));
    assert!(said["why"].as_str().is_some_and(|why| why.contains("E2H")), "{}", said["why"]);
}

/// An ELF file that loads 4 KiB at 0x40000000 and calls what is 0x100 into them `maker`.
fn elf() -> Vec<u8> {
    let le = |words: &[(u64, usize)]| -> Vec<u8> {
        words.iter().flat_map(|(value, bytes)| value.to_le_bytes()[..*bytes].to_vec()).collect()
    };
    let (code, table, strings) = (0x1000, 0x2000, 0x2030);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Type, machine, version, entry, program and section headers, flags, sizes and counts.
    file.extend(le(&[(2, 2), (183, 2), (1, 4), (0x4000_0000, 8), (64, 8), (0x2040, 8), (0, 4), (64, 2), (56, 2)]));
    file.extend(le(&[(1, 2), (64, 2), (3, 2), (2, 2)]));
    // PT_LOAD, readable and executable.
    file.extend(le(&[(1, 4), (5, 4), (code, 8), (0x4000_0000, 8), (0x4000_0000, 8), (4096, 8), (4096, 8), (4096, 8)]));
    file.resize(table as usize + 24, 0);
    // A global function of 64 bytes in a section that is none of them.
    file.extend(le(&[(1, 4), (0x12, 1), (0, 1), (0xfff1, 2), (0x4000_0100, 8), (64, 8)]));
    file.extend(b"\0maker\0");
    file.resize(0x2040 + 64, 0);
    // SHT_SYMTAB, whose names are in the SHT_STRTAB behind it.
    file.extend(le(&[(0, 4), (2, 4), (0, 8), (0, 8), (table, 8), (48, 8), (2, 4), (1, 4), (8, 8), (24, 8)]));
    file.extend(le(&[(0, 4), (3, 4), (0, 8), (0, 8), (strings, 8), (7, 8), (0, 4), (0, 4), (1, 8), (0, 8)]));
    file
}

#[test]
fn good_an_image_that_is_an_elf_file_has_its_names() {
    let told = [
        "word 40201008 40202003",
        "word 40202000 40000781",
        "word 40202008 40000040200701",
        "0 1 40000000 start 2",
        "0 1 40000000 found mair_el2 ff",
        "0 1 40000000 found tcr_el2 80803519",
        "0 1 40000000 found ttbr0_el2 40201000",
        "0 1 40000000 found sctlr_el2 30cd183d",
        "0 2 40000108 store 8 40202008 40202008 40000040400701",
        "0 3 4000010c dsb ish",
    ];
    let desk = Desk::new(recording(told.map(ToOwned::to_owned)).as_bytes());
    fs::write(desk.file("image"), elf()).expect("it can be written");
    let said = report(&desk.start("", &[]), "WITNESS-REPORT ");
    let places: Vec<&str> =
        said["findings"].as_array().into_iter().flatten().filter_map(|f| f["symbol"].as_str()).collect();
    assert!(!places.is_empty() && places.iter().all(|place| *place == "maker+0x8"), "{said}");
}
