//! What is promised in numbers, measured from outside the image by the recorder plugin; and the proof that the recorder counts right.
//! So are the counts of `cargo xtask bench`: they are exact, and can be tested; its times are not, and are not.

use super::Context;
use super::fixture::{Tools as Assembling, VARIANTS};
use super::runner::Case;
use super::variety::TIMEOUT;
use crate::bench::report::Cost;
use crate::bench::target;
use crate::boot::patient;
use crate::{paths, setup, witness};
use anyhow::{Context as _, Result, ensure};
use breakwater_witness::measure::{in_order, measure};
use breakwater_witness::recorded::Options;
use std::path::Path;

/// Instructions that requests for one page may take on the target, by the pinned compiler.
const MOST: [(&str, u64); 3] = [("map-1-page", 747), ("protect-1-page", 919), ("unmap-1-page", 1027)];

/// The measurements of every test run.
pub(super) fn cases() -> Vec<Case> {
    let promised = [("cortex-a57", 1), ("cortex-a57", 4), ("cortex-a76", 2), ("max", 8)].map(|(cpu, smp)| {
        Case::new(format!("measure/promises-{cpu}-{smp}-cpus"), move |context: &Context, scratch: &Path| {
            let options = options(context, (cpu, smp), scratch)?;
            measure(&options)?.kept(smp)?;
            in_order(&options)
        })
    });
    let proofs = VARIANTS.iter().map(|variant| {
        Case::new(format!("measure/recorder-{}", variant.name), move |context, scratch| {
            variant.check(&tools(context, scratch)?)
        })
    });
    promised.into_iter().chain(proofs).collect()
}

fn options(context: &Context, (cpu, smp): (&str, u32), scratch: &Path) -> Result<Options> {
    let tools = witness::tools(&context.ready.qemu, scratch)?;
    let mut options = Options::new(&tools, &context.image.img, &scratch.join("boot.trace"));
    options.elf = Some(context.image.elf.clone());
    (options.cpu, options.smp) = (cpu.to_owned(), smp);
    (options.features, options.house_rules) = (witness::weakest(cpu), true);
    (options.append, options.timeout) = (patient("exit=semihosting"), TIMEOUT);
    Ok(options)
}

fn tools(context: &Context, scratch: &Path) -> Result<Assembling> {
    let sysroot = setup::sysroot().context("cannot find the compiler")?;
    Ok(Assembling {
        tools: witness::tools(&context.ready.qemu, scratch)?,
        rustc: sysroot.join("bin/rustc"),
        target: paths::TARGET.to_owned(),
        source: paths::root().join("tests/witness/recorder/images/small_boot.S"),
        scratch: scratch.to_path_buf(),
    })
}

/// Two boots each with one CPU and with several say the same, and what they say can be.
pub(super) fn bench_cases() -> Vec<Case> {
    vec![Case::new("bench/exact-counts", |context: &Context, scratch: &Path| {
        let target = target::counted(&context.ready, scratch)?;
        for run in &target.runs {
            run.requests.iter().try_for_each(plausible)?;
            for (name, most) in MOST {
                let cost = run.requests.iter().find(|cost| cost.name == name).with_context(|| format!("no {name}"))?;
                let (now, cpus) = (cost.instructions, run.cpus);
                ensure!(now <= most, "{name}, {cpus} CPUs: {now} instructions, more than {most}");
            }
        }
        let names = |cost: &Cost| cost.name.clone();
        let asked = target.runs.iter().map(|run| run.requests.iter().map(names).collect::<Vec<_>>());
        let asked: Vec<_> = asked.collect();
        ensure!(asked.windows(2).all(|pair| pair[0] == pair[1]), "other requests with more CPUs");
        Ok(())
    })]
}

/// Every request here changes tables in force: it stores, and no store goes without its barriers.
fn plausible(cost: &Cost) -> Result<()> {
    ensure!(cost.instructions > cost.stores, "{cost:?}");
    ensure!(cost.stores > 0 && cost.dsbs > 0 && cost.isbs > 0, "{cost:?}");
    ensure!(cost.name.starts_with("map-") == (cost.tlbis == 0), "a fill invalidates nothing, all else does: {cost:?}");
    Ok(())
}
