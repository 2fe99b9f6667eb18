//! `cargo xtask image`: the file that a person writes to a card or a disk, with everything on it that the board needs
//! after what it has in itself.
//!
//! What must hold: firmware that is not free is fetched, comes with its licence and is never kept in the repository;
//! and each card says in README.TXT what will be seen and what nobody here knows. What boards need and say is data:
//! `boot/card/cards.toml`.

use crate::image::{self, Earlycon, Recipe};
use crate::setup::{self, Install, Loader, Toolchain};
use crate::ui::Progress;
use crate::{boards, paths, ui};
use anyhow::{Context, Result, anyhow, bail, ensure};
use breakwater_card::board::{Facts, Files};
use breakwater_card::target::{System, find};
use breakwater_card::{CHUNK, NO_TERMINAL};
use breakwater_image::replace;
use clap::ValueEnum as _;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;

/// `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it is for
    #[arg(long, value_enum)]
    board: Board,
    /// The file, in place of target/breakwater/cards/BOARD.img
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Command line of the image; without exit= it parks when it has said its report
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    append: String,
}

/// `cargo xtask flash`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct FlashArgs {
    /// What the card is for: its file is made first, without a command line
    #[arg(long, value_enum, group = "what")]
    board: Option<Board>,
    /// A file to write as it is, such as `cargo xtask image` made
    #[arg(long, value_name = "FILE", group = "what")]
    image: Option<PathBuf>,
    /// The disk: removable, whole, not mounted
    #[arg(long, value_name = "DEVICE")]
    device: PathBuf,
}

/// What a card or disk can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Board {
    /// Raspberry Pi 3 Model B
    Rpi3,
    /// Raspberry Pi 4 Model B
    Rpi4,
    /// Raspberry Pi 5
    Rpi5,
    /// Xilinx ZCU102, beside a U-Boot that it runs already
    Zcu102,
    /// NXP i.MX 8M Plus EVK, beside a U-Boot that it runs already
    Imx8mp,
    /// Radxa ROCK 5B, beside a U-Boot that it runs already
    Rock5,
    /// Any board that runs U-Boot: with the device tree that U-Boot has
    GenericUboot,
    /// Any machine with UEFI: a disk with an EFI system partition
    GenericUefi,
}

impl Board {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Of the firmware and of the device tree, on the card.
const LICENCE: &str = "LICENCE.raspi-firmware.txt";
const TREE_LICENCE: &str = "LICENCE.device-tree.txt";

/// Makes a card's file and says what to do with it.
///
/// # Errors
/// As [`build`].
pub(crate) fn command(args: &Args) -> Result<()> {
    let out = build(args.board, &args.append, args.out.clone())?;
    ui::step("Read", "README.TXT on it: what will be seen, on which pins, at which speed");
    ui::step("Next", &format!("cargo xtask flash --device DEVICE --image {}", paths::shown(&out)));
    anstream::println!("{}", paths::shown(&out));
    Ok(())
}

/// Writes a card, after asking.
///
/// # Errors
/// The disk is refused, nobody agrees, or what is read back differs.
pub(crate) fn flash(args: &FlashArgs) -> Result<()> {
    let system = System::here();
    // Before anything is built.
    ensure!(std::io::stdin().is_terminal(), NO_TERMINAL);
    find(&system, &args.device)?;
    let file = match (&args.image, args.board) {
        (Some(file), _) => file.clone(),
        (None, Some(board)) => build(board, "", None)?,
        (None, None) => bail!("name a --board or an --image"),
    };
    let image = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut ask = |question: &str| {
        anstream::eprint!("{question}");
        Ok(std::io::stdin().lines().next().transpose()?.unwrap_or_default())
    };
    let mut progress = None;
    let mut advance = || {
        let bar = progress.get_or_insert_with(|| Progress::new(2 * image.len().div_ceil(CHUNK) as u64));
        bar.doing("MiB written and read back");
        bar.advance(1);
    };
    let name = paths::shown(&file);
    let disk = breakwater_card::flash(&system, &args.device, (&name, &image), Some(&mut ask), &mut advance)?;
    drop(progress);
    ui::step("Wrote", &format!("{} bytes to {disk}, and read them back: the card can be taken out", image.len()));
    Ok(())
}

/// Builds the image and makes the card's file of it: `out`, or a place of its own.
///
/// # Errors
/// The command line does not fit, the image does not build, a package cannot be had, or the file cannot be written.
pub(crate) fn build(board: Board, append: &str, out: Option<PathBuf>) -> Result<PathBuf> {
    Facts::of(&board.name())?.check(append)?;
    let out = out.unwrap_or_else(|| paths::out().join("cards").join(format!("{}.img", board.name())));
    let is_other = out.exists() && !out.is_file();
    ensure!(!is_other, "{} is no file: `cargo xtask flash` writes to devices", out.display());
    let toolchain = {
        let _lock = paths::lock()?;
        setup::toolchain(Install::Allowed)?
    };
    let card = make(board, &built(board, &toolchain)?, append)?;
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    replace(&out, &card)?;
    ui::step("Made", &format!("{} ({} MiB)", paths::shown(&out), card.len() >> 20));
    Ok(out)
}

/// The board's image: it speaks on the board's UART from its first instruction, where that is known.
///
/// # Errors
/// It does not build.
pub(crate) fn built(board: Board, toolchain: &Toolchain) -> Result<Vec<u8>> {
    // Without a debugger, semihosting would be an exception.
    let earlycon = Facts::of(&board.name())?.earlycon.map_or(Ok(Earlycon::None), |uart| uart.parse());
    let earlycon = earlycon.map_err(|error: breakwater::earlycon::Error| anyhow!("cards.toml: {error}"))?;
    Ok(fs::read(image::build(toolchain, &Recipe { earlycon, ..Recipe::default() })?.img)?)
}

/// The card's bytes, with `image` to start and `append` as its command line.
///
/// # Errors
/// A package cannot be had, or the files do not fit.
pub(crate) fn make(board: Board, image: &[u8], append: &str) -> Result<Vec<u8>> {
    let facts = Facts::of(&board.name())?;
    facts.check(append)?;
    let mut others = if facts.firmware.is_empty() { Vec::new() } else { firmware(&facts.firmware)? };
    let Some(tree) = &facts.tree else { return facts.card(image, append, &[], others) };
    let tree = boards::of_suite(tree, facts.suite.as_deref())?;
    // The package's folders: usr/lib/PACKAGE/VENDOR, and usr/share/doc/PACKAGE.
    let [package, usr] = [2, 4].map(|above| tree.ancestors().nth(above).unwrap_or(&tree));
    let licence = usr.join("share/doc").join(package.file_name().unwrap_or_default()).join("copyright");
    others.push((TREE_LICENCE.to_owned(), fs::read(&licence).with_context(|| paths::shown(&licence))?));
    facts.card(image, append, &fs::read(&tree)?, others)
}

/// The same with another device tree than the board's, and none of its firmware.
///
/// # Errors
/// As [`make`].
pub(crate) fn with_tree(board: Board, image: &[u8], append: &str, tree: &[u8]) -> Result<Vec<u8>> {
    Facts::of(&board.name())?.card(image, append, tree, Vec::new())
}

/// These files of Debian's raspi-firmware, and its licence.
fn firmware(names: &[String]) -> Result<Files> {
    let licence = setup::loader(Loader::RaspiFirmware)?;
    let package = licence.ancestors().nth(5).context("the package has folders")?;
    let mut files: Files = vec![(LICENCE.to_owned(), fs::read(&licence)?)];
    for name in names {
        let file = package.join("usr/lib/raspi-firmware").join(name);
        files.push((name.clone(), fs::read(&file).with_context(|| paths::shown(&file))?));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_each_board_has_facts() {
        let all = Facts::all().expect("cards.toml is good");
        let names: Vec<String> = Board::value_variants().iter().map(|board| board.name()).collect();
        assert_eq!(all.len(), names.len());
        assert!(names.iter().all(|name| all.contains_key(name)));
        for uart in all.values().filter_map(|facts| facts.earlycon.as_deref()) {
            assert!(matches!(uart.parse(), Ok(Earlycon::Uart(_))), "{uart}");
        }
    }
}
