//! `cargo xtask image`: the file that a person writes to a card or a disk, with everything on it that the board needs
//! after what it has in itself.
//!
//! What must hold: firmware that is not free is fetched, comes with its licence and is never kept in the repository;
//! and each card says in README.TXT what will be seen and what nobody here knows. What boards need and say is data:
//! `xtask/cards.toml`.

use crate::image::{self, Earlycon, Recipe};
use crate::setup::{self, Install, Loader, Toolchain};
use crate::ui::Progress;
use crate::{boards, paths, ui};
use anyhow::{Context, Result, anyhow, bail, ensure};
use breakwater_card::disk::{self, Table};
use breakwater_card::target::{System, find};
use breakwater_card::{CHUNK, NO_TERMINAL, uboot};
use breakwater_image::replace;
use clap::ValueEnum as _;
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use serde::Deserialize;
use std::collections::BTreeMap;
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

/// What is known of a board.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    title: String,
    starts: Starts,
    /// In Debian's kernel package; without one, the machine's own is used.
    tree: Option<String>,
    /// The suite of Debian whose kernel has it, if the distribution's does not.
    suite: Option<String>,
    /// Its UART, as `cargo xtask build --earlycon` takes it.
    earlycon: Option<String>,
    /// Where U-Boot puts a FIT image, and the image that it holds.
    #[serde(default)]
    fit_at: u32,
    #[serde(default)]
    image_at: u32,
    /// Of Debian's raspi-firmware.
    #[serde(default)]
    firmware: Vec<String>,
    /// What the Raspberry Pi's firmware reads.
    #[serde(default)]
    config: String,
    start: String,
    serial: String,
    source: String,
    unknown: String,
}

/// What starts the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Starts {
    /// The Raspberry Pi's firmware; or U-Boot.
    Raspberry,
    /// U-Boot, by a script.
    Script,
    /// U-Boot, by a script and a FIT image.
    Fit,
    /// UEFI, by the removable path, which gives no command line.
    Uefi,
}

/// Of the firmware and of the device tree, on the card.
const LICENCE: &str = "LICENCE.raspi-firmware.txt";
const TREE_LICENCE: &str = "LICENCE.device-tree.txt";

/// What UEFI starts of a disk that it knows nothing of.
const REMOVABLE: &str = "EFI/BOOT/BOOTAA64.EFI";
const NO_COMMAND_LINE: &str =
    r"UEFI starts the image of a disk without a command line; at its shell: fs0:\EFI\BOOT\BOOTAA64.EFI LINE";

/// A file of a card: its path and contents.
type Files = Vec<(String, Vec<u8>)>;

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
    check(&facts(board)?, append)?;
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
    let earlycon = facts(board)?.earlycon.map_or(Ok(Earlycon::None), |uart| uart.parse());
    let earlycon = earlycon.map_err(|error: breakwater::earlycon::Error| anyhow!("cards.toml: {error}"))?;
    Ok(fs::read(image::build(toolchain, &Recipe { earlycon, ..Recipe::default() })?.img)?)
}

/// The card's bytes, with `image` to start and `append` as its command line.
///
/// # Errors
/// A package cannot be had, or the files do not fit.
pub(crate) fn make(board: Board, image: &[u8], append: &str) -> Result<Vec<u8>> {
    let facts = facts(board)?;
    check(&facts, append)?;
    let mut others = if facts.firmware.is_empty() { Vec::new() } else { firmware(&facts.firmware)? };
    let Some(tree) = &facts.tree else { return assembled(&facts, image, append, Vec::new(), others) };
    let tree = boards::of_suite(tree, facts.suite.as_deref())?;
    // The package's folders: usr/lib/PACKAGE/VENDOR, and usr/share/doc/PACKAGE.
    let [package, usr] = [2, 4].map(|above| tree.ancestors().nth(above).unwrap_or(&tree));
    let licence = usr.join("share/doc").join(package.file_name().unwrap_or_default()).join("copyright");
    others.push((TREE_LICENCE.to_owned(), fs::read(&licence).with_context(|| paths::shown(&licence))?));
    assembled(&facts, image, append, fs::read(&tree)?, others)
}

/// The same with another device tree than the board's, and none of its firmware.
///
/// # Errors
/// As [`make`].
pub(crate) fn with_tree(board: Board, image: &[u8], append: &str, tree: Vec<u8>) -> Result<Vec<u8>> {
    let facts = facts(board)?;
    check(&facts, append)?;
    assembled(&facts, image, append, tree, Vec::new())
}

fn assembled(facts: &Facts, image: &[u8], append: &str, tree: Vec<u8>, others: Files) -> Result<Vec<u8>> {
    let mut files: Files = vec![("README.TXT".to_owned(), readme(facts, &tree).into_bytes())];
    let mut add = |name: &str, contents: &[u8]| files.push((name.to_owned(), contents.to_vec()));
    let mut table = Table::Mbr;
    match facts.starts {
        Starts::Uefi => {
            table = Table::Gpt;
            add(REMOVABLE, image);
        }
        Starts::Script | Starts::Raspberry => {
            add("boot.scr", &uboot::script(&script(append)));
            add("breakwater.img", image);
        }
        Starts::Fit => {
            add("boot.scr", &uboot::script(&fit_script(append, facts.fit_at)));
            add("breakwater.itb", &uboot::fit(image, facts.image_at, &tree));
        }
    }
    if facts.starts == Starts::Raspberry {
        add("config.txt", facts.config.trim_start().as_bytes());
        add("cmdline.txt", format!("{append}\n").as_bytes());
        let name = facts.tree.as_ref().and_then(|tree| tree.rsplit('/').next());
        add(name.context("a Raspberry Pi's card has a tree")?, &tree);
    }
    files.extend(others);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, contents)| (path.as_str(), contents.as_slice())).collect();
    disk::with_files(table, &files)
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

/// A command line stands between quotes in scripts, and is one line in a file.
fn check(facts: &Facts, append: &str) -> Result<()> {
    ensure!(append.is_empty() || facts.starts != Starts::Uefi, "--append: {NO_COMMAND_LINE}");
    let odd = append.chars().find(|&c| !(c.is_ascii_graphic() || c == ' ') || "'\"\\$`".contains(c));
    odd.map_or(Ok(()), |odd| bail!("--append: {odd:?} cannot stand in a command line on a card"))
}

fn facts(board: Board) -> Result<Facts> {
    let mut all: BTreeMap<String, Facts> = toml::from_str(include_str!("../cards.toml")).context("cards.toml")?;
    all.remove(&board.name()).with_context(|| format!("cards.toml has no {}", board.name()))
}

/// What U-Boot does that finds the card: the tree is that which it was given, else its own.
fn script(append: &str) -> String {
    format!(
        "setenv bootargs '{append}'\n\
         if test -n \"${{fdt_addr}}\"; then setenv tree ${{fdt_addr}}; else setenv tree ${{fdtcontroladdr}}; fi\n\
         load ${{devtype}} ${{devnum}}:${{distro_bootpart}} ${{kernel_addr_r}} ${{prefix}}breakwater.img\n\
         booti ${{kernel_addr_r}} - ${{tree}}\n"
    )
}

/// The same where a FIT image brings the tree: U-Boot fills in RAM.
fn fit_script(append: &str, fit_at: u32) -> String {
    format!(
        "setenv bootargs '{append}'\n\
         load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {fit_at:#x} ${{prefix}}breakwater.itb\n\
         bootm {fit_at:#x}\n"
    )
}

fn readme(facts: &Facts, tree: &[u8]) -> String {
    let console = (!tree.is_empty()).then_some(tree).and_then(|tree| {
        // Debian's trees are right; dtoolkit's check has its opinion of names besides.
        let path = Fdt::new_unchecked(tree).find_node("/chosen")?.property("stdout-path")?.value().to_vec();
        Some(String::from_utf8_lossy(&path).trim_end_matches('\0').to_owned())
    });
    let console = console.map_or_else(String::new, |console| {
        format!(
            "The device tree says of the console: {console}. Behind a colon stands the speed in bits a second; 8 data bits,\n\
             no parity, 1 stop bit. The device tree is that of Debian's linux-image package for arm64.\n"
        )
    });
    let early = facts.earlycon.as_ref().map_or_else(String::new, |uart| {
        format!("The image speaks there ({uart}) from its first instruction on, before it has read the device tree.\n")
    });
    let parts = [&facts.title, &facts.start, &facts.serial, &facts.unknown, &facts.source].map(|part| part.trim());
    let [title, start, serial, unknown, source] = parts;
    format!(
        "Breakwater for {title}\n\n\
         THIS WAS NEVER TRIED ON A BOARD. What was run stands in boot/BOARDS.md of the repository.\n\n\
         How to start it\n{start}\n\n\
         Where to look: the serial line\n{serial}\n{console}{early}\
         Speed and pins are the firmware's: the image uses them as it finds them.\n\n\
         What will be seen\n\
         A report that begins with the line `breakwater: booted at ...`, says `CPUs online  N of N`, and ends with\n\
         `audit: N pages, 0 mismatches, 0 writable and executable` and a line BOOT-REPORT for programs. Then the CPUs\n\
         wait for ever: switch the machine off. What the image refuses is said in one line, `breakwater: refused: ...`.\n\n\
         Not known here\n{unknown}\n\n\
         Sources\n{source}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use breakwater_card::disk::read;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    fn tree() -> Vec<u8> {
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        chosen.add_property(DeviceTreeProperty::new_unchecked("stdout-path", "serial1:115200n8"));
        let mut tree = DeviceTree::new();
        tree.root.add_child(chosen);
        tree.to_dtb()
    }

    fn text(card: &[u8], name: &str) -> String {
        String::from_utf8_lossy(&read(card, name).expect(name)).into_owned()
    }

    #[test]
    fn good_a_card_has_all_that_is_named_on_it() {
        for board in [Board::Rpi3, Board::Rpi4, Board::Rpi5] {
            let facts = facts(board).expect("it has facts");
            let firmware = facts.firmware.iter().map(|name| (name.clone(), name.clone().into_bytes())).collect();
            let card = assembled(&facts, b"an image", "exit=psci", tree(), firmware).expect("a card");
            let config = text(&card, "config.txt");
            for key in ["kernel=", "device_tree="] {
                let name = config.lines().find_map(|line| line.strip_prefix(key)).expect(key);
                assert!(!text(&card, name).is_empty(), "{name}");
            }
            assert!(facts.firmware.iter().all(|name| text(&card, name) == *name));
            assert_eq!(text(&card, "cmdline.txt"), "exit=psci\n");
            assert!(text(&card, "boot.scr").contains("setenv bootargs 'exit=psci'\n"));
            let readme = text(&card, "README.TXT");
            assert!(readme.contains(&facts.title) && readme.contains("serial1:115200n8"), "{readme}");
            assert!(readme.contains("NEVER TRIED"), "{readme}");
        }
    }

    #[test]
    fn good_a_fit_image_has_what_its_script_starts() {
        for board in [Board::Zcu102, Board::Imx8mp, Board::Rock5] {
            let facts = facts(board).expect("it has facts");
            let card = assembled(&facts, b"an image", "exit=psci", tree(), Vec::new()).expect("a card");
            let fit = read(&card, "breakwater.itb").expect("it is there");
            assert_eq!(uboot::file_of_fit(&fit, "kernel").as_deref(), Some(&b"an image"[..]));
            assert_eq!(uboot::file_of_fit(&fit, "fdt"), Some(tree()));
            let script = text(&card, "boot.scr");
            assert!(
                script.contains("bootargs 'exit=psci'\n") && script.ends_with(&format!("bootm {:#x}\n", facts.fit_at))
            );
            // The image moves out of the FIT image, which is all that lies there.
            let (fit_at, image_at) = (u64::from(facts.fit_at), u64::from(facts.image_at));
            assert!(image_at % (2 << 20) == 0 && fit_at.abs_diff(image_at) >= 64 << 20, "{board:?}");
            assert!(text(&card, "README.TXT").contains("no first loader"));
        }
    }

    #[test]
    fn good_a_disk_has_the_image_by_the_removable_path() {
        let facts = facts(Board::GenericUefi).expect("it has facts");
        let disk = assembled(&facts, b"an image", "", Vec::new(), Vec::new()).expect("a disk");
        assert_eq!(text(&disk, REMOVABLE), "an image");
        assert!(text(&disk, "README.TXT").contains("NEVER TRIED"));
    }

    #[test]
    fn bad_a_command_line_where_none_is_read() {
        let error = make(Board::GenericUefi, b"an image", "exit=psci").expect_err("it would be lost");
        assert!(error.to_string().starts_with("--append: UEFI starts"), "{error}");
    }

    #[test]
    fn good_each_board_has_facts() {
        let all: BTreeMap<String, Facts> = toml::from_str(include_str!("../cards.toml")).expect("cards.toml is good");
        let names: Vec<String> = Board::value_variants().iter().map(|board| board.name()).collect();
        assert_eq!(all.len(), names.len());
        assert!(names.iter().all(|name| all.contains_key(name)));
        for uart in all.values().filter_map(|facts| facts.earlycon.as_deref()) {
            assert!(matches!(uart.parse(), Ok(Earlycon::Uart(_))), "{uart}");
        }
    }

    #[test]
    fn bad_what_cannot_stand_in_a_script_or_on_one_line() {
        let facts = facts(Board::Rpi3).expect("it has facts");
        assert!(check(&facts, "exit=psci maxcpus=2").is_ok());
        for line in ["a'b", "a\"b", "$x", "`x`", "a\\b", "a\nb", "a\tb", "\u{e9}", "\0"] {
            let said = check(&facts, line).expect_err(line).to_string();
            assert!(said.starts_with("--append: ") && !said.contains('\n'), "{said}");
        }
    }
}
