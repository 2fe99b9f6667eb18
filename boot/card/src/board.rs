//! What a board's card holds: what the board needs after what it has in itself, and a text that says what will be seen
//! and what nobody here knows. What boards need and say is data: `cards.toml`.

use crate::disk::{self, Table};
use crate::uboot;
use anyhow::{Context, Result, bail, ensure};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is known of a board.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    title: String,
    starts: Starts,
    /// In Debian's kernel package; without one, the machine's own is used.
    pub tree: Option<String>,
    /// The suite of Debian whose kernel has it, if the distribution's does not.
    pub suite: Option<String>,
    /// Its UART, as `cargo xtask build --earlycon` takes it.
    pub earlycon: Option<String>,
    /// Where U-Boot puts a FIT image, and the image that it holds.
    #[serde(default)]
    fit_at: u32,
    #[serde(default)]
    image_at: u32,
    /// Of Debian's raspi-firmware.
    #[serde(default)]
    pub firmware: Vec<String>,
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

/// What UEFI starts of a disk that it knows nothing of.
pub const REMOVABLE: &str = "EFI/BOOT/BOOTAA64.EFI";
const NO_COMMAND_LINE: &str =
    r"UEFI starts the image of a disk without a command line; at its shell: fs0:\EFI\BOOT\BOOTAA64.EFI LINE";

/// A file of a card: its path and contents.
pub type Files = Vec<(String, Vec<u8>)>;

impl Facts {
    /// Those of every board, by name.
    ///
    /// # Errors
    /// The data is malformed.
    pub fn all() -> Result<BTreeMap<String, Self>> {
        toml::from_str(include_str!("../cards.toml")).context("cards.toml")
    }

    /// Those of a board.
    ///
    /// # Errors
    /// There are none.
    pub fn of(board: &str) -> Result<Self> {
        Self::all()?.remove(board).with_context(|| format!("cards.toml has no {board}"))
    }

    /// Whether `append` can be a command line there: it stands between quotes in scripts, and is one line in a file.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self, append: &str) -> Result<()> {
        ensure!(append.is_empty() || self.starts != Starts::Uefi, "--append: {NO_COMMAND_LINE}");
        let odd = append.chars().find(|&c| !(c.is_ascii_graphic() || c == ' ') || "'\"\\$`".contains(c));
        odd.map_or(Ok(()), |odd| bail!("--append: {odd:?} cannot stand in a command line on a card"))
    }

    /// The bytes of a card that starts `image` with `append` as its command line. `tree` is empty where the machine has
    /// its own; `others` are on the card besides.
    ///
    /// # Errors
    /// The command line does not fit, or the files do not.
    pub fn card(&self, image: &[u8], append: &str, tree: &[u8], others: Files) -> Result<Vec<u8>> {
        self.check(append)?;
        let mut files: Files = vec![("README.TXT".to_owned(), readme(self, tree).into_bytes())];
        let mut add = |name: &str, contents: &[u8]| files.push((name.to_owned(), contents.to_vec()));
        let mut table = Table::Mbr;
        match self.starts {
            Starts::Uefi => {
                table = Table::Gpt;
                add(REMOVABLE, image);
            }
            Starts::Script | Starts::Raspberry => {
                add("boot.scr", &uboot::script(&script(append)));
                add("breakwater.img", image);
            }
            Starts::Fit => {
                add("boot.scr", &uboot::script(&fit_script(append, self.fit_at)));
                add("breakwater.itb", &uboot::fit(image, self.image_at, tree));
            }
        }
        if self.starts == Starts::Raspberry {
            add("config.txt", self.config.trim_start().as_bytes());
            add("cmdline.txt", format!("{append}\n").as_bytes());
            let name = self.tree.as_ref().and_then(|tree| tree.rsplit('/').next());
            add(name.context("a Raspberry Pi's card has a tree")?, tree);
        }
        files.extend(others);
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(path, contents)| (path.as_str(), contents.as_slice())).collect();
        disk::with_files(table, &files)
    }
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
    use crate::disk::read;
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
        for board in ["rpi3", "rpi4", "rpi5"] {
            let facts = Facts::of(board).expect("it has facts");
            let firmware = facts.firmware.iter().map(|name| (name.clone(), name.clone().into_bytes())).collect();
            let card = facts.card(b"an image", "exit=psci", &tree(), firmware).expect("a card");
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
        for board in ["zcu102", "imx8mp", "rock5"] {
            let facts = Facts::of(board).expect("it has facts");
            let card = facts.card(b"an image", "exit=psci", &tree(), Vec::new()).expect("a card");
            let fit = read(&card, "breakwater.itb").expect("it is there");
            assert_eq!(uboot::file_of_fit(&fit, "kernel").as_deref(), Some(&b"an image"[..]));
            assert_eq!(uboot::file_of_fit(&fit, "fdt"), Some(tree()));
            let script = text(&card, "boot.scr");
            assert!(
                script.contains("bootargs 'exit=psci'\n") && script.ends_with(&format!("bootm {:#x}\n", facts.fit_at))
            );
            // The image moves out of the FIT image, which is all that lies there.
            let (fit_at, image_at) = (u64::from(facts.fit_at), u64::from(facts.image_at));
            assert!(image_at % (2 << 20) == 0 && fit_at.abs_diff(image_at) >= 64 << 20, "{board}");
            assert!(text(&card, "README.TXT").contains("no first loader"));
        }
    }

    #[test]
    fn good_a_disk_has_the_image_by_the_removable_path() {
        let facts = Facts::of("generic-uefi").expect("it has facts");
        let disk = facts.card(b"an image", "", &[], Vec::new()).expect("a disk");
        assert_eq!(text(&disk, REMOVABLE), "an image");
        assert!(text(&disk, "README.TXT").contains("NEVER TRIED"));
    }

    #[test]
    fn bad_a_command_line_where_none_is_read() {
        let error = Facts::of("generic-uefi")
            .and_then(|facts| facts.card(b"an image", "exit=psci", &[], Vec::new()))
            .expect_err("it would be lost");
        assert!(error.to_string().starts_with("--append: UEFI starts"), "{error}");
    }

    #[test]
    fn bad_what_cannot_stand_in_a_script_or_on_one_line() {
        let facts = Facts::of("rpi3").expect("it has facts");
        assert!(facts.check("exit=psci maxcpus=2").is_ok());
        for line in ["a'b", "a\"b", "$x", "`x`", "a\\b", "a\nb", "a\tb", "\u{e9}", "\0"] {
            let said = facts.check(line).expect_err(line).to_string();
            assert!(said.starts_with("--append: ") && !said.contains('\n'), "{said}");
        }
    }
}
