//! Debian's Xen for arm64, as shipped, with the symbols that belong to it.
//!
//! Why it exists: a watcher of boots is worth what it finds in a hypervisor that it was not written for, and whoever
//! doubts a finding has to be able to fetch the same bytes. What must hold: image and symbols are of one version of the
//! package, to the last digit; the tree is there whole or not at all; nothing of the system changes, and no foreign
//! architecture has to be enabled. Where packages come from, the system's own sources say. What it refuses: a version
//! that no suite has, by the names of those that there are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::Tools;
use crate::apt::Offer;
use crate::debian::{self, ARCHITECTURE, Mirrors, PROVENANCE};
use crate::watch::{Start, Subject};

/// What the serial line says when Xen has brought up every CPU, built dom0 and given back the memory that only its boot
/// needed.
pub const END: &str = "kB init memory.";
/// Xen's command line, before what the user adds: its console is the serial line; a panic halts, where a restart would
/// wait five seconds in a loop of a hundred million instructions.
const APPEND: &str = "dtuart=/pl011@9000000 console=dtuart noreboot dom0_mem=64M bootscrub=0";
/// Where dom0's kernel lies until Xen copies it: above the device tree that QEMU makes for 1 GiB or more.
const GUEST: u64 = 0x4900_0000;

/// A Xen that can be booted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Xen {
    /// The Debian package's version.
    pub(crate) package_version: String,
    /// The suite it is from.
    pub(crate) suite: String,
    /// What is booted: an arm64 `Image`.
    pub(crate) image: PathBuf,
    /// The same, linked, with its symbols.
    pub(crate) elf: PathBuf,
}

impl Xen {
    /// What is watched: this Xen, with a dom0 that only waits.
    ///
    /// # Errors
    /// As [`waiting`].
    pub(crate) fn subject(&self, tools: &Tools, start: &Start<'_>) -> Result<Subject> {
        let elfs = std::slice::from_ref(&self.elf);
        let mut subject = waiting(tools, &Start { image: &self.image, elfs, ..*start })?;
        subject.name = format!("Debian's Xen {} ({})", self.package_version, self.suite);
        Ok(subject)
    }
}

/// The Xen of `start` with a dom0 that only waits, since without any Xen panics before its boot is over.
///
/// # Errors
/// The guest's kernel cannot be written; [`Subject::image`]'s errors.
pub fn waiting(tools: &Tools, start: &Start<'_>) -> Result<Subject> {
    let kernel = tools.scratch.join("dom0.img");
    fs::write(&kernel, waiting_kernel()).with_context(|| kernel.display().to_string())?;
    let loader = format!("guest-loader,addr={GUEST:#x},kernel={},bootargs=dom0", kernel.display());
    let more = [&["-device".to_owned(), loader], start.more].concat();
    let append = format!("{APPEND} {}", start.append);
    Subject::image(tools, &Start { append: append.trim_end(), more: &more, ..*start })
}

/// A Linux arm64 `Image` of one page: a branch over the header, then WFE and a branch to it.
fn waiting_kernel() -> Vec<u8> {
    const BRANCH_OVER_HEADER: u32 = 0x1400_0010;
    const WFE: u32 = 0xd503_205f;
    const BRANCH_BACK: u32 = 0x17ff_ffff;
    const PAGE: u64 = 0x1000;
    /// Little-endian, 4 KiB pages, anywhere in memory.
    const FLAGS: u64 = 0b1010;
    let mut image = Vec::new();
    image.extend(BRANCH_OVER_HEADER.to_le_bytes());
    image.extend([0; 4]);
    // Text offset, size and flags; three reserved fields; the magic number and another reserved one.
    image.extend([0, PAGE, FLAGS, 0, 0, 0].into_iter().flat_map(u64::to_le_bytes));
    image.extend(*b"ARM\x64\0\0\0\0");
    image.extend([WFE, BRANCH_BACK].into_iter().flat_map(u32::to_le_bytes));
    image.resize(PAGE as usize, 0);
    image
}

/// `4.17`, or `4.17=4.17.5+72-g01140da4e8-1` for that version of the package and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wanted<'a> {
    series: &'a str,
    exactly: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (series, exactly) = match text.split_once('=') {
            Some((series, exactly)) => (series, Some(exactly)),
            None => (text, None),
        };
        let is_series = series.split('.').count() == 2
            && series.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        ensure!(is_series, "{text:?} is no version of Xen: 4.17, or 4.17=VERSION for one version of the package");
        if let Some(exactly) = exactly {
            debian::require_version(exactly)?;
        }
        Ok(Self { series, exactly })
    }

    fn package(&self) -> String {
        format!("xen-hypervisor-{}-{ARCHITECTURE}", self.series)
    }

    /// The package with `xen-syms`.
    fn symbols(&self) -> String {
        format!("{}-dbg", self.package())
    }
}

/// That Xen, from below `home` if it is there, otherwise fetched by a private apt.
///
/// # Errors
/// `version` is no version; the machine has no apt, or no mirror of Debian among its sources; nothing can be fetched;
/// no suite has that version, or its symbols.
pub(crate) fn fetch(version: &str, home: &Path) -> Result<Xen> {
    let wanted = Wanted::parse(version)?;
    let tree = home.join(version).join("tree");
    if let Some(xen) = unpacked(&tree, &wanted) {
        return Ok(xen);
    }
    let mirrors = Mirrors::new("Xen", &home.join(version))?;
    let chosen = choose(&mirrors, &wanted)?;
    mirrors.unpack(&[wanted.package(), wanted.symbols()], &chosen, &tree)?;
    unpacked(&tree, &wanted).with_context(|| format!("{} and its symbols hold no Xen", wanted.package()))
}

/// The Xen in `tree`, if it is all there.
fn unpacked(tree: &Path, wanted: &Wanted<'_>) -> Option<Xen> {
    let provenance = fs::read_to_string(tree.join(PROVENANCE)).ok()?;
    let (package_version, suite) = provenance.trim().split_once(' ')?;
    let name = format!("{}-{ARCHITECTURE}", wanted.series);
    let image = tree.join(format!("boot/xen-{name}"));
    let elf = tree.join(format!("usr/lib/debug/boot/xen-syms-{name}"));
    let whole = image.is_file() && elf.is_file();
    whole.then(|| Xen { package_version: package_version.to_owned(), suite: suite.to_owned(), image, elf })
}

/// The newest version that has its symbols, or the one asked for.
fn choose(mirrors: &Mirrors, wanted: &Wanted<'_>) -> Result<Offer> {
    let names = mirrors.names("xen-hypervisor-")?;
    let (packages, symbols) = (mirrors.offers(&wanted.package()), mirrors.offers(&wanted.symbols()));
    if packages.is_empty() {
        bail!("Debian has no Xen {}; it has {}", wanted.series, series(names.iter().map(String::as_str)).join(", "));
    }
    let whole = complete(packages, &symbols);
    if whole.is_empty() {
        bail!("no version of {} has its symbols in {}", wanted.package(), wanted.symbols());
    }
    debian::choose(&format!("Xen {}", wanted.series), whole, wanted.exactly)
}

/// The series among names of packages, oldest first.
fn series<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let of_name = |name: &'a str| {
        let series = name.strip_prefix("xen-hypervisor-")?.strip_suffix("-arm64")?;
        let (major, minor) = series.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let mut all: Vec<_> = names.filter_map(of_name).collect();
    all.sort_unstable();
    all.into_iter().map(|(major, minor)| format!("{major}.{minor}")).collect()
}

/// Versions that there are symbols for, each once.
fn complete(packages: Vec<Offer>, symbols: &[Offer]) -> Vec<Offer> {
    let mut whole: Vec<Offer> = Vec::new();
    for offer in packages {
        let twice = whole.iter().any(|other| other.version == offer.version);
        if !twice && symbols.iter().any(|other| other.version == offer.version) {
            whole.push(offer);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str, suite: &str) -> Offer {
        Offer { version: version.to_owned(), suite: suite.to_owned() }
    }

    #[test]
    fn good_a_series_or_one_version_of_it() -> Result<()> {
        assert_eq!(Wanted::parse("4.17")?, Wanted { series: "4.17", exactly: None });
        let exact = Wanted::parse("4.17=4.17.5+72-g01140da4e8-1")?;
        assert_eq!(exact.exactly, Some("4.17.5+72-g01140da4e8-1"));
        assert_eq!(exact.symbols(), "xen-hypervisor-4.17-arm64-dbg");
        Ok(())
    }

    #[test]
    fn bad_what_is_no_version_reaches_no_shell_and_no_path() {
        for text in ["", "4", "4.", "4.17.5", "../4.17", "4.17=", "4.17=-o", "4.17=1/2", "4.17=1 2", "latest"] {
            assert!(Wanted::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn good_a_version_without_symbols_is_passed_over() {
        let packages = vec![offer("2", "x-security"), offer("1", "x"), offer("1", "y")];
        assert_eq!(complete(packages, &[offer("1", "x"), offer("1", "y")]), [offer("1", "x")]);
    }

    #[test]
    fn good_series_are_listed_in_their_order() {
        let names = [
            "xen-hypervisor-4.20-arm64",
            "xen-hypervisor-4.9-arm64",
            "xen-hypervisor-4.20-arm64-dbg",
            "xen-hypervisor-common",
        ];
        assert_eq!(series(names.into_iter()), ["4.9", "4.20"]);
    }

    #[test]
    fn bad_half_a_tree_is_no_xen() -> Result<()> {
        let tree = std::env::temp_dir().join(format!("breakwater-half-a-xen-{}", std::process::id()));
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("boot"))?;
        fs::write(tree.join(PROVENANCE), "4.17.5 bookworm\n")?;
        fs::write(tree.join("boot/xen-4.17-arm64"), "")?;
        let wanted = Wanted::parse("4.17")?;
        assert_eq!(unpacked(&tree, &wanted), None);
        fs::create_dir_all(tree.join("usr/lib/debug/boot"))?;
        fs::write(tree.join("usr/lib/debug/boot/xen-syms-4.17-arm64"), "")?;
        assert_eq!(unpacked(&tree, &wanted).map(|xen| xen.package_version).as_deref(), Some("4.17.5"));
        Ok(fs::remove_dir_all(&tree)?)
    }
}
