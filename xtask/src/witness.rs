//! `cargo xtask witness`, `measure` and `story`: the witness on our own image. The commands are those of `breakwater-witness`
//! (tests/witness/cli), which knows nothing of this repository; what it needs of it is here.

use std::path::Path;

use anyhow::Result;
use breakwater_trace::Feature;
use breakwater_witness::paths::scratch_in;
use breakwater_witness::qemu::Qemu;
use breakwater_witness::watch::{OwnEnd, Subject};
use breakwater_witness::{Tools, measure as measuring, run as watching, story as telling};

use crate::boot;
use crate::flight::{Board, Flight, Loader, REPORT_ENDS};
use crate::image::{self, Earlycon, Image, Recipe};
use crate::{paths, setup, verdict};

/// What every CPU is judged by: errata that our image makes up for on every core, since the first tables are older than any knowledge of
/// the part.
pub(crate) const FEATURES: [Feature; 2] = [Feature::HcrBarriers, Feature::IsbBeforeMmuOff];

/// Models of QEMU's whose broadcast invalidations are repeated (1286807, CVE-2025-10263).
const REPEATING: [&str; 6] = ["cortex-a76", "cortex-a710", "cortex-a78", "neoverse-n1", "neoverse-n2", "neoverse-v1"];

/// Models of QEMU's with FEAT_TTL and FEAT_TLBIRANGE, as their boot reports say: the image uses both once every CPU that runs has them.
const BY_LEVEL_AND_RANGE: [&str; 3] = ["cortex-a710", "neoverse-n2", "max"];

/// The weakest PE that our image may meet in the model `cpu` (as in `-cpu`): what it leans on where it is there, and its errata.
pub(crate) fn weakest(cpu: &str) -> Vec<Feature> {
    let mut features = FEATURES.to_vec();
    if BY_LEVEL_AND_RANGE.contains(&cpu) {
        features.extend([Feature::Ttl, Feature::TlbiRange]);
    }
    if REPEATING.contains(&cpu) {
        features.push(Feature::RepeatTlbi);
    }
    features
}

/// Options that say themselves who starts what on which machine.
const NOT_OURS: [&str; 3] = ["bios", "xen", "board"];

/// `cargo xtask witness`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    watched: watching::Args,
    /// The machine: QEMU's own, or a board with the tree that Debian's kernel has for it
    #[arg(long = "machine", value_enum, default_value_t, value_name = "NAME", conflicts_with_all = NOT_OURS)]
    on: Board,
    /// Who starts the image
    #[arg(long, value_enum, default_value_t, value_name = "NAME", conflicts_with_all = NOT_OURS)]
    loader: Loader,
    /// Watch the layout of this seed
    #[arg(long, value_name = "N", conflicts_with_all = ["image", "xen"])]
    layout_seed: Option<u64>,
    /// Watch a build that speaks there before it knows its console, as `cargo xtask build --earlycon` makes it
    #[arg(long, value_name = "KIND@ADDRESS[,SHIFT,WIDTH]", default_value = "semihosting")]
    #[arg(conflicts_with_all = ["image", "xen"])]
    earlycon: Earlycon,
}

/// `cargo xtask measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    measured: measuring::Args,
    /// Measure this layout
    #[arg(long, value_name = "N", conflicts_with = "image")]
    layout_seed: Option<u64>,
}

/// `cargo xtask story`.
#[derive(Debug, clap::Args)]
pub(crate) struct StoryArgs {
    #[command(flatten)]
    told: telling::Args,
}

/// Watches our image, or another; of the options some were `given`.
///
/// # Errors
/// Set-up or build failed; the errors of [`Flight::settled`] and [`watching::command`].
pub(crate) fn watch(args: &Args, given: &[String]) -> Result<()> {
    args.watched.check()?;
    let mut watched = args.watched.clone();
    let flight = Flight {
        board: args.on,
        loader: args.loader,
        machine: watched.machine.clone(),
        layout_seed: args.layout_seed,
        earlycon: args.earlycon.clone(),
        load_address: watched.load_address,
        append: watched.append.clone(),
    };
    let flight = flight.settled(|id| given.iter().any(|given| given == id))?;
    if watched.image.is_none() && watched.xen.is_none() {
        let image = built(&flight.recipe())?;
        (watched.image, watched.elfs) = (Some(image.img), vec![image.elf]);
        watched.append = boot::with_exit(&flight.append);
        watched.features.extend(FEATURES);
        (watched.house_rules, watched.own_end) = (true, Some(OWN_END));
        watched.name = Some(NAME.to_owned());
    }
    let qemu = setup::emulator(watched.qemu.as_deref())?;
    let scratch = scratch_in(&paths::out())?;
    watched.machine = flight.machine.clone();
    if let (Some(image), true) = (watched.image.clone(), flight.loader != Loader::Kernel) {
        let mut words = flight.brought(&qemu, &image, scratch.path())?;
        if words.first().is_some_and(|word| word == "-bios") {
            watched.bios = words.drain(..2).next_back().map(Into::into);
            // They are about an image that nothing ran before.
            watched.house_rules = false;
        }
        watched.more.splice(0..0, words);
        (watched.append, watched.load_address) = (String::new(), None);
        if !flight.is_told() && watched.until.is_none() {
            watched.until = Some(REPORT_ENDS.to_owned());
        }
    }
    watching::command(&watched, &tools(&qemu, scratch.path())?)
}

/// Measures our image, or another.
///
/// # Errors
/// Set-up or build failed; the errors of [`measuring::command`].
pub(crate) fn measure(args: &MeasureArgs) -> Result<()> {
    let mut measured = args.measured.clone();
    if measured.image.is_none() {
        let image = built(&Recipe { layout_seed: args.layout_seed, ..Recipe::default() })?;
        (measured.image, measured.elf) = (Some(image.img), Some(image.elf));
        measured.append = boot::with_exit(&measured.append);
        measured.features.extend(weakest(&measured.cpu));
        measured.house_rules = true;
    }
    let qemu = setup::emulator(measured.qemu.as_deref())?;
    let scratch = scratch_in(&paths::out())?;
    measuring::command(&measured, &tools(&qemu, scratch.path())?)
}

/// Tells the Xen story, with our image or another beside it.
///
/// # Errors
/// Set-up or build failed; the errors of [`telling::command`].
pub(crate) fn story(args: &StoryArgs) -> Result<()> {
    let mut told = args.told.clone();
    if told.image.is_none() {
        told.image = Some(built(&Recipe::default())?.img);
        told.append = boot::with_exit(&told.append);
        told.features.extend(FEATURES);
        told.name = Some("Breakwater".to_owned());
    }
    let qemu = setup::emulator(told.qemu.as_deref())?;
    let scratch = scratch_in(&paths::out())?;
    telling::command(&told, Some(&tools(&qemu, scratch.path())?))
}

const NAME: &str = "our image";

/// The image says by itself how its boot went.
const OWN_END: OwnEnd = |finished| verdict::judge(finished).err().map(|failure| failure.line);

fn built(recipe: &Recipe) -> Result<Image> {
    let toolchain = {
        let _lock = paths::lock()?;
        setup::toolchain(setup::Install::Allowed)?
    };
    image::build(&toolchain, recipe)
}

/// What the witness works with: files of a run go to `scratch`, what is fetched stays.
///
/// # Errors
/// A file or directory cannot be made.
pub(crate) fn tools(qemu: &Qemu, scratch: &Path) -> Result<Tools> {
    Tools::new(qemu.clone(), scratch, &paths::out())
}

/// What is known of our image, however it is started: house rules are about one that nothing ran before.
pub(crate) fn own(subject: &mut Subject, loader: Loader) {
    subject.promised = FEATURES.to_vec();
    (subject.house_rules, subject.own_end) = (loader <= Loader::Raw, Some(OWN_END));
    subject.name = NAME.to_owned();
}
