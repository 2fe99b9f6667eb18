//! On-target facts: a run under QEMU each, with what it must print, from `tests/boot/facts.toml`.

use super::Context;
use super::runner::Case;
use crate::boot::{Boot, patient};
use crate::child::{Finished, Limits};
use crate::firmware::{self, Way};
use crate::loader::{self, Loading, State};
use crate::machine::{Level, Machine};
use crate::verdict::{self, Kind};
use crate::{child, exec, image, linux, paths, trees, ui};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use regex_lite::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The package that the programs belong to.
const PACKAGE: &str = "breakwater-boot-tests";
/// The fact that `--stress` runs for longer.
const STRESS: &str = "concurrent-requests-on-eight-cpus";
/// Ends a hang; nothing else takes so long, whatever else the host does.
const TIMEOUT_SECONDS: u64 = 300;
/// How long something goes on that must not end by itself, after it has said all that it says.
const LINGER: Duration = Duration::from_secs(2);
/// What no fact may print unless it says so.
const NEVER: [&str; 3] = ["breakwater: panic", "breakwater: exception", "FACT FAILED"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    fact: Vec<Fact>,
}

/// One fact: a program, the machine it runs on, and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fact {
    name: String,
    /// The program; where it has several facts, a slash and which of them.
    bin: String,
    cpus: u32,
    memory: String,
    cpu: String,
    gic: String,
    numa: bool,
    machine: Vec<String>,
    enter: Enter,
    /// How the CPUs enter by the shim.
    state: State,
    tree: String,
    append: String,
    load_address: Option<u64>,
    /// What runs under the example hypervisor.
    guest: Option<linux::Guest>,
    exit: Exit,
    lines: Vec<String>,
    never: Vec<String>,
    report: bool,
    /// CPUs that the command line lets run stay away: the exit status of `cargo xtask boot` would say so.
    offline: bool,
    icount: bool,
    /// With `exit = "never"`: what it says last.
    last: String,
    /// Lines that contain this are shown when the run is over.
    #[serde(skip)]
    shown: Option<&'static str>,
    /// How long it is to take.
    #[serde(skip)]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Enter {
    Kernel,
    Shim,
    El3,
    El1,
    #[serde(untagged)]
    Firmware(Way),
}

/// How QEMU must end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Exit {
    Status(i32),
    /// `nonzero`, or `never`: it must still run when it has said its last for a while.
    Word(String),
}

impl Default for Fact {
    fn default() -> Self {
        Self {
            name: String::new(),
            bin: "breakwater".to_owned(),
            cpus: 1,
            memory: "2G".to_owned(),
            cpu: "cortex-a57".to_owned(),
            gic: "3".to_owned(),
            numa: false,
            machine: Vec::new(),
            enter: Enter::Kernel,
            state: State::AsProtocol,
            tree: "none-changed".to_owned(),
            append: "exit=semihosting".to_owned(),
            load_address: None,
            guest: None,
            exit: Exit::Status(0),
            lines: Vec::new(),
            never: Vec::new(),
            report: false,
            offline: false,
            icount: false,
            last: String::new(),
            shown: None,
            seconds: 0,
        }
    }
}

/// The facts as cases; the programs are built first, in one go.
///
/// # Errors
/// The file is malformed, names a program that does not exist, or a program does not build.
pub(super) fn cases(context: &Context) -> Result<Vec<Case>> {
    let facts = read()?;
    let images = build(context)?;
    facts.into_iter().map(|fact| case(&images, fact)).collect()
}

/// The fact of [`STRESS`] once more, for `seconds`, with the random numbers of `seed`; what the CPUs did is shown.
///
/// # Errors
/// As for [`cases`].
pub(super) fn stress(context: &Context, seconds: u64, seed: u64) -> Result<Case> {
    let fact = read()?.into_iter().find(|fact| fact.name == STRESS);
    let mut fact = fact.with_context(|| format!("no fact has the name {STRESS}"))?;
    fact.name = format!("stress-{seconds}-s");
    fact.append = format!("exit=semihosting stress-seconds={seconds:#x} stress-seed={seed:#x}");
    fact.seconds = seconds;
    fact.shown = Some("stress: ");
    case(&build(context)?, fact)
}

fn read() -> Result<Vec<Fact>> {
    let path = paths::root().join("tests/boot/facts.toml");
    let text = std::fs::read_to_string(&path).with_context(|| paths::shown(&path))?;
    let facts: Facts = toml::from_str(&text).with_context(|| paths::shown(&path))?;
    Ok(facts.fact)
}

/// Builds and flattens every program, and returns where each is.
fn build(context: &Context) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = image::cargo(&context.ready.toolchain, "build", None);
    cargo.args(["--package", PACKAGE, "--bins"]);
    exec::run(&mut cargo).context("the programs of tests/boot do not build")?;
    let mut images = BTreeMap::from([
        ("breakwater".to_owned(), context.image.img.clone()),
        ("guest".to_owned(), linux::build(&context.ready.toolchain)?),
    ]);
    let out = paths::out().join("tests");
    for entry in std::fs::read_dir(paths::root().join("tests/boot/src/bin"))? {
        let file = entry?.path();
        let Some(name) = file.file_stem().and_then(|name| name.to_str()) else { continue };
        let linked = paths::target().join(paths::TARGET).join("release").join(name);
        images.insert(name.to_owned(), image::finish(&linked, &out, name)?.img);
    }
    Ok(images)
}

fn case(images: &BTreeMap<String, PathBuf>, fact: Fact) -> Result<Case> {
    let (program, _) = fact.program();
    let img = images.get(program).with_context(|| format!("fact {}: no program {program}", fact.name))?.clone();
    for pattern in fact.lines.iter().chain(&fact.never) {
        Pattern::new(pattern).with_context(|| format!("fact {}", fact.name))?;
    }
    Ok(Case::new(format!("fact/{}", fact.name), move |context, scratch| {
        let machine = fact.machine();
        let entry = fact.entry(context, &machine, &img, scratch)?;
        let boot = Boot { qemu: &context.ready.qemu, img: &img, machine: &machine, entry: &entry, scratch };
        let mut command = boot.command()?;
        if let (_, Some(which)) = fact.program() {
            // Before boot there is no device tree to read, but there is a debugger.
            command.args(["-semihosting-config", &format!("enable=on,target=native,arg={which}")]);
        }
        if let Some(guest) = fact.guest {
            command.args(linux::arguments(guest, &context.ready.qemu, &machine, "", scratch)?);
        }
        let limits = Limits {
            timeout: Duration::from_secs(TIMEOUT_SECONDS + fact.seconds),
            marker: Some(fact.last.clone()).filter(|last| !last.is_empty()),
            linger: LINGER,
            ..Limits::default()
        };
        let finished = child::run_until(&mut command, &limits, false)?;
        let shown = |line: &&str| fact.shown.is_some_and(|shown| line.contains(shown));
        finished.serial.lines().filter(shown).for_each(|line| ui::step("Said", line));
        fact.judge(&finished).map_err(|error| anyhow!("{error:#}; it said last: {}", tail(&finished)))
    }))
}

/// The last lines of a run, for whoever has to find out.
fn tail(finished: &Finished) -> String {
    let text = finished.everything();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(6);
    lines[from..].iter().map(|line| line.chars().take(100).collect::<String>()).collect::<Vec<_>>().join(" | ")
}

impl Fact {
    /// The program, and which of its facts if it has several.
    fn program(&self) -> (&str, Option<&str>) {
        self.bin.split_once('/').map_or((&self.bin, None), |(program, which)| (program, Some(which)))
    }

    fn machine(&self) -> Machine {
        Machine {
            cpu: self.cpu.clone(),
            smp: self.cpus,
            memory: self.memory.clone(),
            gic: self.gic.clone(),
            numa: self.numa,
            icount: self.icount,
            options: self.machine.clone(),
            level: match self.enter {
                Enter::Kernel | Enter::Shim | Enter::Firmware(_) => Level::El2,
                Enter::El3 => Level::El3,
                Enter::El1 => Level::El1,
            },
            ..Machine::default()
        }
    }

    fn entry(&self, context: &Context, machine: &Machine, img: &Path, scratch: &Path) -> Result<Loading> {
        let append = patient(&self.append);
        Ok(match self.enter {
            Enter::Kernel | Enter::El1 => Loading::Kernel { load_address: self.load_address, append },
            Enter::Firmware(way) => {
                // Who believes its tree's command line, parks.
                let tree = trees::make(&self.tree, &context.ready.qemu, machine, "exit=park", scratch)?;
                Loading::Given(firmware::arguments(way, img, &append, &tree.bytes, scratch)?)
            }
            Enter::Shim | Enter::El3 => {
                let tree = trees::make(&self.tree, &context.ready.qemu, machine, &append, scratch)?;
                let image_at = self.load_address.unwrap_or(loader::IMAGE_AT);
                Loading::Shim { tree: tree.bytes, tree_at: tree.at, image_at, state: self.state }
            }
        })
    }

    fn judge(&self, finished: &Finished) -> Result<()> {
        let text = finished.everything();
        let mut rest = text.lines();
        for line in &self.lines {
            let pattern = Pattern::new(line)?;
            ensure!(rest.any(|seen| pattern.is_in(seen)), "no line with `{line}` where it belongs");
        }
        let unless = |never: &&str| !self.lines.iter().any(|line| line.contains(never));
        let never = NEVER.iter().copied().filter(unless).map(str::to_owned).chain(self.never.iter().cloned());
        let refusals = text.lines().filter(|line| line.contains("breakwater: refused:")).count();
        ensure!(refusals <= 1, "{refusals} refusals, where one clear line would do");
        for word in never {
            let pattern = Pattern::new(&word)?;
            if let Some(line) = text.lines().find(|line| pattern.is_in(line)) {
                bail!("`{line}`, which must not be");
            }
        }
        match (&self.exit, finished.status) {
            (Exit::Status(wanted), status) => ensure!(status == Some(*wanted), "exit status {status:?}, not {wanted}"),
            (Exit::Word(word), status) if word == "never" => {
                ensure!(finished.marked, "it never said `{}`", self.last);
                ensure!(status.is_none(), "it ended with {status:?}");
            }
            (Exit::Word(word), status) if word == "nonzero" => {
                ensure!(status.is_some_and(|s| s != 0), "exit status {status:?}")
            }
            (Exit::Word(word), _) => bail!("exit = \"{word}\" is no way to end: a number, \"nonzero\" or \"never\""),
        }
        if self.report {
            let complete = verdict::judge(finished).and_then(verdict::complete);
            let is_offline = matches!(&complete, Err(failure) if failure.kind == Kind::Offline);
            ensure!(is_offline || !self.offline, "every CPU is online that may run");
            if !is_offline || !self.offline {
                complete.map_err(anyhow::Error::new)?;
            }
        }
        Ok(())
    }
}

/// A substring, or between slashes a regular expression.
enum Pattern<'a> {
    Text(&'a str),
    Regex(Regex),
}

impl<'a> Pattern<'a> {
    fn new(text: &'a str) -> Result<Self> {
        match text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
            Some(regex) => Ok(Self::Regex(Regex::new(regex).with_context(|| format!("`{text}`"))?)),
            None => Ok(Self::Text(text)),
        }
    }

    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text),
            Self::Regex(regex) => regex.is_match(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A program's table and facts.toml name the same facts: none is left out, and none asked for that is not there.
    #[test]
    fn good_each_fact_of_a_program_is_run() {
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(paths::root().join("tests/boot/src/bin")).expect("the programs are there") {
            let file = entry.expect("a program").path();
            let text = std::fs::read_to_string(&file).expect("a program is text");
            let program = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let Some((_, rest)) = text.split_once("::facts!(") else { continue };
            let (table, _) = rest.split_once(");").expect("the table ends");
            let facts = table.split(',').map(str::trim).filter(|fact| !fact.is_empty());
            there.extend(facts.map(|fact| format!("{program}/{fact}")));
        }
        let asked: BTreeSet<String> = read().expect("facts.toml is good").into_iter().map(|fact| fact.bin).collect();
        assert_eq!(there, asked.into_iter().filter(|bin| bin.contains('/')).collect());
        assert!(!there.is_empty());
    }

    fn judged(fact: &Fact, status: Option<i32>, serial: &str) -> Result<()> {
        let (serial, is_cut) = (serial.to_owned(), status.is_none());
        fact.judge(&Finished { status, serial, timed_out: is_cut, marked: is_cut, ..Finished::default() })
    }

    #[test]
    fn good_lines_come_in_order() {
        let fact = Fact { lines: vec!["one".to_owned(), "/^t.o$/".to_owned()], ..Fact::default() };
        assert!(judged(&fact, Some(0), "one\nx\ntwo\n").is_ok());
        assert!(judged(&fact, Some(0), "two\none\n").is_err());
        assert!(judged(&fact, Some(0), "one two\n").is_err());
    }

    #[test]
    fn bad_a_panic_nobody_expects() {
        let fact = Fact::default();
        assert!(judged(&fact, Some(0), "breakwater: panic at x\n").is_err());
        let expects = Fact { lines: vec!["breakwater: panic".to_owned()], exit: Exit::Status(3), ..Fact::default() };
        assert!(judged(&expects, Some(3), "breakwater: panic at x\n").is_ok());
        assert!(judged(&expects, Some(0), "breakwater: panic at x\n").is_err());
    }

    #[test]
    fn good_a_run_that_must_not_end() {
        let fact = Fact { exit: Exit::Word("never".to_owned()), ..Fact::default() };
        assert!(judged(&fact, None, "").is_ok());
        assert!(judged(&fact, Some(0), "").is_err());
    }
}
