//! Debian's Xen for arm64, as shipped, with the symbols that belong to it.
//!
//! Why it exists: a watcher of boots is worth what it finds in a hypervisor that it was not written for, and whoever doubts a finding has to
//! be able to fetch the same bytes. What must hold: image and symbols are of one version of the package, to the last digit; the tree is
//! there whole or not at all; nothing of the system changes, and no foreign architecture has to be enabled. Where packages come
//! from, the system's own sources say. What it refuses: a version that no suite has, by the names of those that there are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt, Offer, Source};
use crate::watch::{Start, Subject};
use crate::{Tools, ui};

/// The suites that are asked, whichever of them the machine itself runs.
const SUITES: [&str; 4] = ["bookworm", "trixie", "forky", "sid"];
/// What Debian calls its suites otherwise; a source that has one of these is a mirror of it all.
const ALIASES: [&str; 7] = ["bullseye", "oldoldstable", "oldstable", "stable", "testing", "unstable", "experimental"];
/// The suites that get security updates.
const SECURED: [&str; 2] = ["bookworm-security", "trixie-security"];

/// What the serial line says when Xen has brought up every CPU, built dom0 and given back the memory that only its boot needed.
pub(crate) const END: &str = "kB init memory.";
/// Xen's command line, before what the user adds: its console is the serial line; a panic halts, where a restart would wait five seconds in
/// a loop of a hundred million instructions.
const APPEND: &str = "dtuart=/pl011@9000000 console=dtuart noreboot dom0_mem=64M bootscrub=0";
/// Where dom0's kernel lies until Xen copies it: above the device tree that QEMU makes for 1 GiB or more.
const GUEST: u64 = 0x4900_0000;

const ARCHITECTURE: &str = "arm64";
/// In the unpacked tree: the package's version and the suite it came from.
const PROVENANCE: &str = "package";

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
    /// What is watched: this Xen, with a dom0 that only waits, since without any Xen panics before its boot is over.
    ///
    /// # Errors
    /// The guest's kernel cannot be written; [`Subject::image`]'s errors.
    pub(crate) fn subject(&self, tools: &Tools, start: &Start<'_>) -> Result<Subject> {
        let kernel = tools.scratch.join("dom0.img");
        fs::write(&kernel, waiting_kernel()).with_context(|| kernel.display().to_string())?;
        let loader = format!("guest-loader,addr={GUEST:#x},kernel={},bootargs=dom0", kernel.display());
        let more = [&["-device".to_owned(), loader], start.more].concat();
        let append = format!("{APPEND} {}", start.append);
        let elfs = std::slice::from_ref(&self.elf);
        let start = Start { image: &self.image, elfs, append: append.trim_end(), more: &more, ..*start };
        let mut subject = Subject::image(tools, &start)?;
        subject.name = format!("Debian's Xen {} ({})", self.package_version, self.suite);
        Ok(subject)
    }
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
        let is_version = |version: &str| {
            version.starts_with(|first: char| first.is_ascii_digit())
                && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:~".contains(&byte))
        };
        ensure!(exactly.is_none_or(is_version), "{text:?}: what follows = is no version of a Debian package");
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
/// `version` is no version; the machine has no apt, or no mirror of Debian among its sources; nothing can be fetched; no suite has that
/// version, or its symbols.
pub(crate) fn fetch(version: &str, home: &Path) -> Result<Xen> {
    let wanted = Wanted::parse(version)?;
    let home = home.join(version);
    let tree = home.join("tree");
    if let Some(xen) = unpacked(&tree, &wanted) {
        return Ok(xen);
    }
    ensure!(
        apt::usable(),
        "Xen is a Debian package, and this machine has no apt-get, apt-cache and dpkg-deb to fetch it"
    );
    fs::create_dir_all(&home).with_context(|| {
        format!("cannot keep Xen in {}: set XDG_CACHE_HOME to a directory of yours", home.display())
    })?;
    let (mirrors, said) = Apt::foreign(home.join("apt"), ARCHITECTURE, &sources(&apt::configured())?)?;
    let chosen = choose(&mirrors, &wanted, &said)?;
    ui::step("Fetching", &format!("{} {} from {}", wanted.package(), chosen.version, chosen.suite));
    let exact = [wanted.package(), wanted.symbols()].map(|name| format!("{name}={}", chosen.version));
    mirrors.unpack_alone(&exact, &tree, |partial| {
        Ok(fs::write(partial.join(PROVENANCE), format!("{} {}\n", chosen.version, chosen.suite))?)
    })?;
    unpacked(&tree, &wanted).with_context(|| format!("{} holds no Xen", exact.join(" and ")))
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

/// Every suite, of the mirrors that the system's own sources name.
fn sources(configured: &[Source]) -> Result<Vec<Source>> {
    let of_main = |source: &&Source| source.components.iter().any(|name| name == "main");
    let has = |source: &Source, known: &dyn Fn(&str) -> bool| source.suites.iter().any(|suite| known(suite));
    let is_suite = |suite: &str| SUITES.contains(&suite) || ALIASES.contains(&suite);
    let is_secured = |suite: &str| suite.strip_suffix("-security").is_some_and(is_suite);
    let main = configured.iter().filter(of_main).find(|source| has(source, &is_suite));
    let Some(main) = main else {
        bail!("Xen is a Debian package, and the system's apt sources name no mirror of Debian");
    };
    let security = configured.iter().filter(of_main).find(|source| has(source, &is_secured));
    let all_of = |source: &Source, suites: &[&str]| Source {
        suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        components: vec!["main".to_owned()],
        ..source.clone()
    };
    // One of two lines may serve both: then the second is asked for security updates as well.
    Ok([all_of(main, &SUITES)].into_iter().chain(security.map(|source| all_of(source, &SECURED))).collect())
}

/// The newest version that has its symbols, or the one asked for.
fn choose(mirrors: &Apt, wanted: &Wanted<'_>, said: &str) -> Result<Offer> {
    let names = mirrors.names("xen-hypervisor-");
    if names.is_empty() {
        bail!("cannot fetch Debian's package lists: {}", apt::reason(said));
    }
    let (packages, symbols) = (mirrors.offers(&wanted.package()), mirrors.offers(&wanted.symbols()));
    if packages.is_empty() {
        bail!("Debian has no Xen {}; it has {}", wanted.series, series(names.iter().map(String::as_str)).join(", "));
    }
    let whole = complete(packages, &symbols);
    if whole.is_empty() {
        bail!("no version of {} has its symbols in {}", wanted.package(), wanted.symbols());
    }
    let known = whole.iter().map(|offer| offer.version.as_str()).collect::<Vec<_>>().join(", ");
    let chosen = match wanted.exactly {
        Some(exactly) => whole.iter().find(|offer| offer.version == exactly),
        None => whole.iter().reduce(|best, next| if apt::is_newer(&next.version, &best.version) { next } else { best }),
    };
    chosen.cloned().with_context(|| format!("Debian's Xen {} has the versions {known}", wanted.series))
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
mod tests;
