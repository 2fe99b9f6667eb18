//! Our image under the witness: on each CPU model, at each load address, in many layouts, again and again. The verdict
//! is always the same: no violation, and not one instruction with memory both writable and executable.
//!
//! Beside it what shows that the witness judges: a sample of its mutants, and the Xen story.

use super::runner::Case;
use super::variety::TIMEOUT;
use super::{Context, host};
use crate::boot::patient;
use crate::child::Limits;
use crate::firmware::Way;
use crate::flight::ways::{self, ADDRESSES, CPUS};
use crate::flight::{Flight, Loader};
use crate::image::{self, Image};
use crate::machine::Machine;
use crate::{exec, mutants, paths, witness};
use anyhow::{Context as _, Result, ensure};
use breakwater_oracle::xen::Story;
use breakwater_witness::order;
use breakwater_witness::story::{self, Extent, Ours, Row};
use breakwater_witness::watch::{self, Ends, Testimony, Verdict};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Boots of 8 CPUs in every test run.
pub(super) const REPEATS: u64 = 5;

/// Orders that the boot of 4 CPUs is judged in.
const ORDERS: u64 = 20;
/// Which part of the mutants is tried.
const MUTANTS_EVERY: usize = 10;
/// The recording, in the scratch directory.
const TRACE: &str = "raw.trace";

/// CPUs, models, load addresses, and `repeats` boots of 8 CPUs.
pub(super) fn cases(repeats: u64) -> Vec<Case> {
    let base = Machine::default;
    let mut cases = Vec::new();
    for smp in [1, 4, 8] {
        cases.push(case(format!("witness/smp-{smp}"), Machine { smp, ..base() }, None));
    }
    for cpu in CPUS {
        let machine = Machine { cpu: cpu.to_owned(), smp: 2, ..base() };
        cases.push(case(format!("witness/cpu-{cpu}"), machine, None));
    }
    for (address, memory) in ADDRESSES {
        let machine = Machine { memory: memory.to_owned(), smp: 2, ..base() };
        cases.push(case(format!("witness/load-{address:#x}"), machine, Some(address)));
    }
    cases.push(in_any_order());
    let again = |n| case(format!("witness/repeat-8-cpus-{n}"), Machine { smp: 8, ..base() }, None);
    cases.extend((0..repeats).map(again));
    cases.push(kept());
    // UEFI takes some million instructions, all of which are recorded: by a tree once is enough.
    let is_twice =
        |flight: &Flight| matches!(flight.loader, Loader::Firmware(Way::Esp | Way::Linux | Way::Chainloader));
    let loaders = ways::each_loader().into_iter();
    let loaders = loaders.filter(|flight| !is_twice(flight) || flight.machine.options.is_empty());
    cases.extend(loaders.chain(ways::each_board()).map(in_flight));
    cases
}

/// By every loader and on every board, and judged from the image's entry on.
fn in_flight(flight: Flight) -> Case {
    Case::new(format!("witness/{}", flight.name()), move |context, scratch| {
        let testimony = judged(context, &context.image, &flight, None, scratch)?;
        let line = || format!("cargo xtask witness {}\n{testimony}", flight.options().join(" "));
        ensure!(testimony.verdict == Verdict::Clean && testimony.entered.is_some(), "{}", line());
        let (started, smp) = (testimony.cpus.len(), flight.machine.smp);
        ensure!(started == smp as usize, "{started} CPUs started of {smp}: {}", line());
        Ok(())
    })
}

fn judged(
    context: &Context,
    image: &Image,
    flight: &Flight,
    trace: Option<&Path>,
    scratch: &Path,
) -> Result<Testimony> {
    let flight = flight.patient()?;
    let tools = witness::tools(&context.ready.qemu, scratch)?;
    let mut subject = flight.subject(&tools, &image.img, Some(&image.elf))?;
    witness::own(&mut subject, flight.loader);
    let Limits { timeout, marker, .. } = flight.limits(TIMEOUT);
    watch::watch(&subject, &Ends { timeout, marker, ..Ends::default() }, (trace, false), |_, _| {})
}

/// The trace that `--trace` keeps: small, and judged as the whole is, which thinning itself makes sure of.
fn kept() -> Case {
    Case::new("witness/kept-trace".to_owned(), move |context, scratch| {
        let testimony = watched(context, &context.image, (&Machine::default(), None), scratch)?;
        let thinned = testimony.thin(&scratch.join("raw.trace"), &mut Vec::new())?;
        let (kept, whole) = (thinned.records, thinned.whole_records);
        ensure!(20 * kept < whole && thinned.bytes < 4 << 20, "{kept} of {whole} records, {} bytes", thinned.bytes);
        Ok(())
    })
}

/// One case a seed: link, check, flatten, boot under the witness.
///
/// # Errors
/// The link cannot be repeated.
pub(super) fn layout_cases(context: &Context, seeds: u64) -> Result<Vec<Case>> {
    let relink = Arc::new(image::relink(&context.ready.toolchain)?);
    let case = |seed| {
        let relink = Arc::clone(&relink);
        Case::new(format!("layout/seed-{seed}"), move |context, scratch| {
            let image = image::link_seed(&relink, seed, scratch, "breakwater")?;
            clean(&watched(context, &image, (&Machine::default(), None), scratch)?, 4)
        })
    };
    Ok((0..seeds).map(case).collect())
}

fn case(name: String, machine: Machine, load_address: Option<u64>) -> Case {
    Case::new(name, move |context, scratch| {
        clean(&watched(context, &context.image, (&machine, load_address), scratch)?, machine.smp)
    })
}

/// The boot of 4 CPUs would have been as clean if they had acted in another order, as far as what they observed leaves
/// one open.
fn in_any_order() -> Case {
    Case::new("witness/any-order-4-cpus", move |context, scratch| {
        let machine = Machine { smp: 4, ..Machine::default() };
        let testimony = watched(context, &context.image, (&machine, None), scratch)?;
        clean(&testimony, machine.smp)?;
        let (records, edges) = order::read(&scratch.join(TRACE), &testimony.declared)?;
        ensure!(edges.len() >= 3, "three CPUs were started, and {} orders observed", edges.len());
        let found = order::in_random_orders(&testimony.declared, &records, &edges, 0..ORDERS);
        ensure!(found.is_empty(), "{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        Ok(())
    })
}

/// Boots an image of ours under the witness.
///
/// # Errors
/// QEMU cannot be run, or writes no trace that can be read.
pub(super) fn watched(
    context: &Context,
    image: &Image,
    (machine, load_address): (&Machine, Option<u64>),
    scratch: &Path,
) -> Result<Testimony> {
    let flight = Flight { machine: machine.clone(), load_address, ..Flight::default() };
    judged(context, image, &flight, Some(&scratch.join(TRACE)), scratch)
}

/// Nothing was found, on every CPU, and every figure was taken.
pub(super) fn clean(testimony: &Testimony, smp: u32) -> Result<()> {
    ensure!(testimony.verdict == Verdict::Clean, "{testimony}");
    ensure!(testimony.cpus.len() == smp as usize, "{} CPUs started of {smp}", testimony.cpus.len());
    ensure!(testimony.elsewhere.is_empty() && testimony.unweighed == 0, "{testimony}");
    let measured = testimony.measured.as_ref().map_err(|why| anyhow::anyhow!("not measured: {why}"))?;
    for cpu in &measured.cpus {
        let exposed = cpu.writable_executable_leaves;
        ensure!(exposed == 0, "CPU {}: {exposed} instructions with memory writable and executable", cpu.cpu);
    }
    Ok(())
}

/// Some of the mutants of `cargo xtask mutate`: every tenth, and all that another instruction is said to cover.
pub(super) fn mutants() -> Case {
    Case::new("witness/mutants", |context, scratch| {
        let score = mutants::score(&context.ready, &context.image, scratch, (MUTANTS_EVERY, None))?;
        ensure!(score.is_whole(), "{score}");
        Ok(())
    })
}

/// The witness as an engineer has it who installed it: the command alone, far from the repository, with a copy of the image.
pub(super) fn installed() -> Case {
    Case::new("witness/installed", |context: &Context, _: &Path| {
        let far = std::env::temp_dir().join(format!("breakwater-installed-{}", std::process::id()));
        knows_no_repository(&paths::root().join("tests/witness/cli/src"))?;
        fs::create_dir_all(&far)?;
        let outcome = far_away(context, &far);
        fs::remove_dir_all(&far).with_context(|| far.display().to_string())?;
        outcome
    })
}

/// No source of the command, its tests aside, asks where it was built.
fn knows_no_repository(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| paths::shown(directory))? {
        let path = entry?.path();
        if path.is_dir() {
            knows_no_repository(&path)?;
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path)?;
            ensure!(!text.contains("CARGO_MANIFEST_DIR"), "{} knows where it was built", paths::shown(&path));
        }
    }
    Ok(())
}

fn far_away(context: &Context, far: &Path) -> Result<()> {
    let copies = [
        (host::program("breakwater-witness")?, far.join("breakwater-witness")),
        (context.image.img.clone(), far.join("boot.img")),
        (context.image.elf.clone(), far.join("boot.elf")),
    ];
    for (from, to) in &copies {
        fs::copy(from, to).with_context(|| from.display().to_string())?;
    }
    let mut witness = Command::new(far.join("breakwater-witness"));
    // As a service runs it: no way to anything of ours by PATH, and no home to keep files in, for this one is a file.
    let home = far.join("boot.img");
    witness.current_dir(far).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("TMPDIR", far);
    witness.args(
        "run --image boot.img --elf boot.elf --timeout 60 --json --timeline boot.svg --trace boot.trace".split(' '),
    );
    witness.args(["--append", &patient("exit=semihosting"), "--qemu"]).arg(&context.ready.qemu.program);
    let said = exec::ask(&mut witness)?;
    ensure!(said.contains(r#""verdict":"clean""#), "{said}");
    ensure!(far.join("boot.svg").is_file(), "there is no picture");
    let mut judge = Command::new(far.join("breakwater-witness"));
    let judged = exec::ask(judge.current_dir(far).env_clear().args(["judge", "boot.trace"]))?;
    ensure!(judged.contains("no violation"), "{judged}");
    Ok(())
}

/// The Xen story at fewer page offsets than `cargo xtask story` tries: the boots of both of Xen's, and of ours on 1 and
/// on 4 CPUs.
pub(super) fn story_cases() -> Vec<Case> {
    let xen = [("4.11", Story::Xen411), ("00c96d77422a", Story::Xen00c96d77422a)].map(|(name, story)| {
        Case::new(format!("story/xen-{name}"), move |_: &Context, _: &Path| {
            let row = story::xen_row(story, extent(64), None)?;
            as_told(&row)
        })
    });
    let ours = [(1, 8), (4, 2)].map(|(cpus, offsets)| {
        Case::new(format!("story/ours-{cpus}-cpus"), move |context: &Context, scratch: &Path| {
            let tools = witness::tools(&context.ready.qemu, scratch)?;
            let ours = Ours::new(&tools, &context.image.img, cpus, &patient("exit=semihosting"), &witness::FEATURES);
            as_told(&story::our_row("Breakwater", &ours, extent(offsets), None)?)
        })
    });
    xen.into_iter().chain(ours).collect()
}

/// The suite has its own way of doing two things at a time.
const fn extent(offsets: u16) -> Extent {
    Extent { offsets, boots: 2, at_once: 1 }
}

/// Exactly what should be flagged is, and none of our boots crashes.
fn as_told(row: &Row) -> Result<()> {
    let wrong = row.wrong().unwrap_or_default();
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}
