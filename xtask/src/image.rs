//! Building the image: Cargo links the ELF, breakwater-image checks it and flattens it into the file that loaders take.
//!
//! A layout seed links the same objects again in another order and with other gaps, so that no boot depends on where the linker
//! happens to put things. The link keeps what it was made of (`--reproduce`), which makes a seed cost one link and no compilation.

use crate::setup::{self, Toolchain};
use crate::{exec, paths, ui};
use anyhow::{Context, Result};
use breakwater::earlycon;
use breakwater_image::{Elf, replace};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// Where the image speaks before it knows its console.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Earlycon {
    /// Nowhere: for boards without a debugger, where a semihosting call would be an exception.
    None,
    /// To the debugger: for QEMU.
    #[default]
    Semihosting,
    /// On a UART, as [`breakwater::earlycon`] spells it.
    Uart(String),
}

/// What the image's build reads such a UART from.
const EARLYCON: &str = "BREAKWATER_EARLYCON";

impl FromStr for Earlycon {
    type Err = earlycon::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "semihosting" => Self::Semihosting,
            uart => earlycon::Earlycon::parse(uart).map(|_| Self::Uart(uart.to_owned()))?,
        })
    }
}

impl fmt::Display for Earlycon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Semihosting => "semihosting",
            Self::Uart(uart) => uart,
        })
    }
}

/// What to build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recipe {
    pub(crate) layout_seed: Option<u64>,
    pub(crate) earlycon: Earlycon,
    /// Another place than the usual one, for a build that must not disturb it.
    pub(crate) target_dir: Option<PathBuf>,
}

/// A built image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// With symbols.
    pub(crate) elf: PathBuf,
    /// What loaders take.
    pub(crate) img: PathBuf,
    pub(crate) order_hash: u64,
}

impl Image {
    /// One that somebody else has built.
    pub(crate) fn foreign(img: &Path) -> Self {
        Self { elf: img.with_extension("elf"), img: img.to_owned(), order_hash: 0 }
    }
}

/// `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shuffle sections and insert gaps by this number; the result goes to target/breakwater/seed-N
    #[arg(long, value_name = "N")]
    layout_seed: Option<u64>,
    /// Where the image speaks before it knows its console: none, semihosting, or a UART, as pl011@0x9000000 or
    /// 8250@0x3f215040,2,4
    #[arg(long, value_name = "KIND@ADDRESS[,SHIFT,WIDTH]", default_value = "semihosting")]
    earlycon: Earlycon,
    /// Build with the distribution's compiler, and core from its source
    #[arg(long)]
    fallback_toolchain: bool,
}

/// Runs `build` and prints where the files are.
///
/// # Errors
/// Set-up, compilation or a check failed.
pub(crate) fn command(args: &Args) -> Result<()> {
    let (toolchain, target_dir) = if args.fallback_toolchain {
        (setup::fallback_toolchain()?, Some(paths::out().join("fallback")))
    } else {
        let _lock = paths::lock()?;
        (setup::toolchain(setup::Install::Allowed)?, None)
    };
    let image =
        build(&toolchain, &Recipe { layout_seed: args.layout_seed, earlycon: args.earlycon.clone(), target_dir })?;
    anstream::println!("{}", paths::shown(&image.elf));
    anstream::println!("{}", paths::shown(&image.img));
    anstream::println!("symbol order {:016x}", image.order_hash);
    Ok(())
}

/// Compiles, links, checks and flattens.
///
/// # Errors
/// Any of that failed.
pub(crate) fn build(toolchain: &Toolchain, recipe: &Recipe) -> Result<Image> {
    let _lock = paths::lock()?;
    let link = Link::of(&recipe.earlycon, recipe.target_dir.clone());
    fs::create_dir_all(&link.release)?;
    let mut cargo = cargo(toolchain, "rustc", link.target_dir.as_deref());
    cargo.args(["--package", "breakwater-boot", "--bin", "breakwater"]);
    match &recipe.earlycon {
        Earlycon::None => {}
        Earlycon::Semihosting => drop(cargo.args(["--features", "earlycon-semihosting"])),
        Earlycon::Uart(uart) => drop(cargo.env(EARLYCON, uart)),
    }
    cargo.arg("--").arg(format!("-Clink-arg=--reproduce={}", link.inputs().display()));
    exec::run(&mut cargo).context("the image does not build")?;
    match recipe.layout_seed {
        None => finish(&link.release.join("breakwater"), &link.out(), &link.name),
        Some(seed) => {
            ui::step("Linking", &format!("layout seed {seed}"));
            let dir = link.out().join(format!("seed-{seed}"));
            fs::create_dir_all(&dir)?;
            link_seed(&Relink::new(toolchain, &link)?, seed, &dir, &link.name)
        }
    }
}

/// The link of the usual image as it was built last, ready to be repeated.
///
/// # Errors
/// There is none, or no linker.
pub(crate) fn relink(toolchain: &Toolchain) -> Result<Relink> {
    let _lock = paths::lock()?;
    Relink::new(toolchain, &Link::of(&Earlycon::default(), None))
}

/// Links once more by a seed, checks and flattens into `dir`.
///
/// # Errors
/// The link or a check failed.
pub(crate) fn link_seed(relink: &Relink, seed: u64, dir: &Path, name: &str) -> Result<Image> {
    let linked = dir.join("linked");
    relink.seed(seed, &linked, &[])?;
    let image = finish(&linked, dir, name)?;
    fs::remove_file(linked)?;
    Ok(image)
}

/// Where a link's files are. Its inputs lie beside what Cargo links, so that they vanish with it and are never older.
struct Link {
    name: String,
    target_dir: Option<PathBuf>,
    release: PathBuf,
}

impl Link {
    fn of(earlycon: &Earlycon, target_dir: Option<PathBuf>) -> Self {
        let name = match earlycon {
            Earlycon::None => "breakwater-silent".to_owned(),
            Earlycon::Semihosting => "breakwater".to_owned(),
            Earlycon::Uart(uart) => format!("breakwater-{}", uart.replace(['@', ','], "-")),
        };
        let release = target_dir.clone().unwrap_or_else(paths::target).join(paths::TARGET).join("release");
        Self { name, target_dir, release }
    }

    fn inputs(&self) -> PathBuf {
        self.release.join(format!("{}.tar", self.name))
    }

    fn out(&self) -> PathBuf {
        self.target_dir.clone().unwrap_or_else(paths::out)
    }
}

/// `cargo build` or the like for the image's target, with either toolchain.
pub(crate) fn cargo(toolchain: &Toolchain, verb: &str, target_dir: Option<&Path>) -> Command {
    let mut command = paths::cargo();
    command.args([verb, "--release", "--target", paths::TARGET]).env_remove(EARLYCON);
    if let Some(dir) = target_dir {
        command.arg("--target-dir").arg(dir);
    }
    if let Toolchain::BuildStd { rustc, linker } = toolchain {
        command.arg("-Zbuild-std=core,compiler_builtins");
        command
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", linker);
    }
    command
}

/// Builds, checks and flattens a program that is linked on Breakwater; `what` is told to Cargo, the program's name last.
///
/// # Errors
/// It does not build, a check found something, or a file cannot be written.
pub(crate) fn program(toolchain: &Toolchain, what: &[&str]) -> Result<Image> {
    let name = what.last().context("a program has a name")?;
    exec::run(cargo(toolchain, "build", None).args(what)).with_context(|| format!("{name} does not build"))?;
    let below = if what.contains(&"--example") { "release/examples" } else { "release" };
    finish(&paths::target().join(paths::TARGET).join(below).join(name), &paths::out().join("tests"), name)
}

/// Checks a linked image and puts ELF and flat file into `dir`.
///
/// # Errors
/// A check found something, or a file cannot be written.
pub(crate) fn finish(linked: &Path, dir: &Path, name: &str) -> Result<Image> {
    let elf = Elf::read(linked)?;
    elf.check()?;
    fs::create_dir_all(dir)?;
    let image = Image {
        elf: dir.join(format!("{name}.elf")),
        img: dir.join(format!("{name}.img")),
        order_hash: order_hash(&elf),
    };
    replace(&image.elf, &fs::read(linked)?)?;
    replace(&image.img, &elf.flatten()?)?;
    Ok(image)
}

/// A hash of the order of functions and objects by address (FNV-1a, 64 bits): it tells layouts apart.
fn order_hash(elf: &Elf) -> u64 {
    let typed = elf.symbols.iter().filter(|symbol| symbol.typed);
    let mut order: Vec<(u64, &str)> = typed.map(|symbol| (symbol.address, symbol.name.as_str())).collect();
    order.sort_unstable();
    let bytes = order.iter().flat_map(|(_, name)| name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A link that can be repeated: the objects, the script and the options of the first.
pub(crate) struct Relink {
    toolchain: Toolchain,
    dir: PathBuf,
}

impl Relink {
    /// Unpacks what the link kept, unless that has been done since.
    ///
    /// # Errors
    /// There is no linker, or the archive cannot be unpacked.
    fn new(toolchain: &Toolchain, link: &Link) -> Result<Self> {
        let (inputs, into) = (link.inputs(), link.out().join(format!("{}.link", link.name)));
        let made = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
        let fresh = matches!((made(&into), made(&inputs)), (Ok(unpacked), Ok(archive)) if unpacked >= archive);
        if !fresh {
            paths::fill_whole(&into, |dir| {
                exec::run(Command::new("tar").arg("-xf").arg(&inputs).arg("-C").arg(dir).arg("--strip-components=1"))
            })?;
        }
        Ok(Self { toolchain: toolchain.clone(), dir: into })
    }

    /// Links once more, in the order and with the gaps that `seed` says.
    ///
    /// # Errors
    /// The link fails, for example because an ASSERT of the linker script does not hold.
    pub(crate) fn seed(&self, seed: u64, linked: &Path, more: &[&str]) -> Result<()> {
        let mut command = setup::linker(&self.toolchain)?;
        command.current_dir(&self.dir).arg("@response.txt").args(more).arg("-o").arg(linked);
        command.arg(format!("--shuffle-sections=*={}", seed & 0x7fff_ffff));
        command.args(gaps(seed).into_iter().map(|(place, bytes)| format!("--defsym=layout_pad_{place}={bytes}")));
        exec::ask(&mut command).with_context(|| format!("layout seed {seed} does not link"))?;
        Ok(())
    }
}

/// The gaps that a seed puts before the code and the tables. Within a page a step of 64 bytes keeps every alignment; tables move by
/// whole pages.
fn gaps(seed: u64) -> [(&'static str, u64); 4] {
    let mut state = seed;
    let mut below = |bound: u64| {
        // SplitMix64: neighbouring seeds must not give neighbouring gaps.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    };
    [("init", below(64) * 64), ("idmap", below(16) * 64), ("text", below(64) * 64), ("tables", below(16) * 4096)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use breakwater_image::Symbol;
    use std::collections::BTreeSet;

    #[test]
    fn good_the_hash_follows_the_order_and_not_the_addresses() {
        let symbol = |(name, address): &(&str, u64)| Symbol {
            name: (*name).to_owned(),
            address: *address,
            size: 8,
            absolute: false,
            typed: true,
            label: false,
        };
        let with = |symbols: [(&str, u64); 2]| {
            order_hash(&Elf { symbols: symbols.iter().map(symbol).collect(), ..Elf::default() })
        };
        let one = with([("a", 0), ("b", 8)]);
        assert_eq!(one, with([("b", 64), ("a", 16)]));
        assert_ne!(one, with([("a", 8), ("b", 0)]));
    }

    #[test]
    fn good_an_early_console_is_none_a_debugger_or_a_uart() {
        assert_eq!("none".parse(), Ok(Earlycon::None));
        assert_eq!("semihosting".parse(), Ok(Earlycon::default()));
        assert_eq!("pl011@0x9000000".parse(), Ok(Earlycon::Uart("pl011@0x9000000".to_owned())));
        assert!(
            ["none", "semihosting", "8250@1016,0,1"].iter().all(|text| text
                .parse()
                .map(|e: Earlycon| e.to_string())
                .as_deref()
                == Ok(text))
        );
    }

    #[test]
    fn bad_what_is_no_early_console_is_refused_in_one_line() {
        for text in ["", "semi", "pl012@0x9000000", "pl011@0x9000002", "8250@0x1000,4,1"] {
            let said = text.parse::<Earlycon>().expect_err(text).to_string();
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn good_gaps_spread_and_stay_within_bounds() {
        for place in 0..4 {
            let seen: BTreeSet<u64> = (0..300).map(|seed| gaps(seed)[place].1).collect();
            assert!(seen.len() >= 8);
        }
        assert!((0..300).all(|seed| gaps(seed)[1].1 < 1024 && gaps(seed)[2].1 < 4096));
    }
}
