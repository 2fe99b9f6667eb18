//! Packages of Debian for arm64 machines, whatever this machine is and runs.
//!
//! Why it exists: whoever doubts a finding must be able to fetch the same bytes by one command. What must hold: a
//! package is there whole or not at all; nothing of the system changes, and no foreign architecture has to be enabled.
//! Where packages come from, the system's own sources say. What it refuses: a version that no suite has, by the names
//! of those that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt, Offer, Source};
use crate::ui;

/// The suites that are asked, whichever of them the machine itself runs.
const SUITES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "sid"];
/// What Debian calls its suites otherwise; a source that has one of these is a mirror of it all.
const ALIASES: [&str; 6] = ["oldoldstable", "oldstable", "stable", "testing", "unstable", "experimental"];
/// The suites that get security updates.
const SECURED: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

pub(crate) const ARCHITECTURE: &str = "arm64";
/// In an unpacked tree: the package's version and the suite it came from.
pub(crate) const PROVENANCE: &str = "package";

/// Debian's packages, as the mirrors of this machine have them.
pub(crate) struct Mirrors {
    apt: Apt,
    /// What apt said when it fetched the lists.
    said: String,
}

impl Mirrors {
    /// Fetches the lists, into a directory of `home`, for `what` is wanted.
    ///
    /// # Errors
    /// The machine has no apt, or no mirror of Debian among its sources; `home` cannot be written.
    pub(crate) fn new(what: &str, home: &Path) -> Result<Self> {
        ensure!(
            apt::usable(),
            "{what} is a Debian package, and this machine has no apt-get, apt-cache and dpkg-deb to fetch it"
        );
        fs::create_dir_all(home).with_context(|| {
            format!("cannot keep {what} in {}: set XDG_CACHE_HOME to a directory of yours", home.display())
        })?;
        let sources = sources(&apt::configured()).with_context(|| format!("{what} is a Debian package"))?;
        let (apt, said) = Apt::foreign(home.join("apt"), ARCHITECTURE, &sources)?;
        Ok(Self { apt, said })
    }

    /// The names of packages that begin so: some, if the mirror can be reached.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn names(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let names = self.apt.names(prefix);
        ensure!(!names.is_empty(), "cannot fetch Debian's package lists: {}", apt::reason(&self.said));
        Ok(names)
    }

    /// The versions of a package, each with its suite.
    pub(crate) fn offers(&self, package: &str) -> Vec<Offer> {
        self.apt.offers(package)
    }

    /// Unpacks one version of these packages into `tree`, which appears when it is whole.
    ///
    /// # Errors
    /// A package cannot be fetched or unpacked.
    pub(crate) fn unpack(&self, packages: &[String], chosen: &Offer, tree: &Path) -> Result<()> {
        let Offer { version, suite } = chosen;
        ui::step("Fetching", &format!("{} {version} from {suite}", packages.join(", ")));
        let exact: Vec<String> = packages.iter().map(|name| format!("{name}={version}")).collect();
        self.apt.unpack_alone(&exact, tree, |partial| {
            Ok(fs::write(partial.join(PROVENANCE), format!("{version} {suite}\n"))?)
        })
    }
}

/// The files of `PACKAGE`, or of `PACKAGE=VERSION`, below `home` if they are there, otherwise fetched. The newest of
/// all suites without a version.
///
/// # Errors
/// That is no name of a package; [`Mirrors::new`]'s; no suite has the package, or that version.
pub(crate) fn fetch(wanted: &str, home: &Path) -> Result<PathBuf> {
    let (package, exactly) = parse(wanted)?;
    let tree = home.join(wanted).join("tree");
    if tree.join(PROVENANCE).is_file() {
        return Ok(tree);
    }
    let mirrors = Mirrors::new(package, &home.join(wanted))?;
    mirrors.names("")?;
    let offers = mirrors.offers(package);
    ensure!(!offers.is_empty(), "Debian has no package {package} for {ARCHITECTURE}");
    mirrors.unpack(&[package.to_owned()], &choose(package, offers, exactly)?, &tree)?;
    Ok(tree)
}

/// The files of one version of a source package of `suite`, below `home` if they are there, otherwise fetched.
///
/// # Errors
/// The machine has no apt, or no mirror of Debian among its sources; the suite does not have that version.
pub fn fetch_source(package: &str, version: &str, suite: &str, home: &Path) -> Result<PathBuf> {
    require_version(version)?;
    let files = home.join(version).join("files");
    if files.is_dir() {
        return Ok(files);
    }
    ensure!(apt::usable(), "{package} is a Debian source package, and this machine has no apt-get to fetch it");
    let mirror = sources(&apt::configured()).with_context(|| format!("{package} is a Debian source package"))?;
    let of_suite = mirror.into_iter().take(1).map(|source| Source { suites: vec![suite.to_owned()], ..source });
    let (apt, said) = Apt::of_sources(home.join("apt"), &of_suite.collect::<Vec<_>>())?;
    let known = apt.source_versions(package);
    ensure!(!known.is_empty(), "cannot fetch the list of {suite}'s sources: {}", apt::reason(&said));
    ensure!(
        known.contains(version),
        "{suite} has no {package} {version}, but {}",
        known.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    ui::step("Fetching", &format!("the source of {package} {version} from {suite}"));
    apt.fetch_source(package, version, &files)?;
    Ok(files)
}

fn parse(wanted: &str) -> Result<(&str, Option<&str>)> {
    let (package, exactly) = match wanted.split_once('=') {
        Some((package, exactly)) => (package, Some(exactly)),
        None => (wanted, None),
    };
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let is_name = package.len() > 1 && package.bytes().all(of_name) && !package.starts_with(['+', '-', '.']);
    ensure!(is_name, "{wanted:?} names no Debian package: PACKAGE, or PACKAGE=VERSION");
    if let Some(exactly) = exactly {
        require_version(exactly)?;
    }
    Ok((package, exactly))
}

/// # Errors
/// `text` is no version of a Debian package.
pub(crate) fn require_version(text: &str) -> Result<()> {
    let is_version = text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:~".contains(&byte));
    ensure!(is_version, "{text:?}: what follows = is no version of a Debian package");
    Ok(())
}

/// The newest of `offers`, or the one that is asked for.
///
/// # Errors
/// That one is not among them.
pub(crate) fn choose(what: &str, offers: Vec<Offer>, exactly: Option<&str>) -> Result<Offer> {
    let known: BTreeSet<&str> = offers.iter().map(|offer| offer.version.as_str()).collect();
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let newer = |best: Offer, next: Offer| if apt::is_newer(&next.version, &best.version) { next } else { best };
    let chosen = match exactly {
        Some(exactly) => offers.into_iter().find(|offer| offer.version == exactly),
        None => offers.into_iter().reduce(newer),
    };
    chosen.with_context(|| format!("Debian's {what} has the versions {known}"))
}

/// Every suite, of the mirrors that the system's own sources name.
fn sources(configured: &[Source]) -> Result<Vec<Source>> {
    let of_main = |source: &&Source| source.components.iter().any(|name| name == "main");
    let has = |source: &Source, known: &dyn Fn(&str) -> bool| source.suites.iter().any(|suite| known(suite));
    let is_suite = |suite: &str| SUITES.contains(&suite) || ALIASES.contains(&suite);
    let is_secured = |suite: &str| suite.strip_suffix("-security").is_some_and(is_suite);
    let main = configured.iter().filter(of_main).find(|source| has(source, &is_suite));
    let Some(main) = main else {
        bail!("the system's apt sources name no mirror of Debian");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suites: &[&str], component: &str) -> Source {
        Source {
            uri: uri.to_owned(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            components: vec![component.to_owned()],
            signed_by: None,
        }
    }

    #[test]
    fn good_every_suite_is_asked_of_the_mirrors_that_the_system_names() -> Result<()> {
        let vendor = source("http://vendor/apt", &["stable"], "tool");
        let main = source("http://mirror/debian", &["bookworm", "bookworm-updates"], "main");
        let security = source("http://mirror/debian-security", &["bookworm-security"], "main");
        let all = sources(&[vendor, main, security])?;
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].uri.as_str(), all[0].suites.as_slice()),
            ("http://mirror/debian", &SUITES.map(str::to_owned)[..])
        );
        assert_eq!(all[1].uri, "http://mirror/debian-security");
        assert!(all[1].suites.iter().all(|suite| suite.ends_with("-security")));
        Ok(())
    }

    #[test]
    fn good_without_security_updates_the_rest_is_asked() -> Result<()> {
        assert_eq!(sources(&[source("http://mirror/debian", &["sid"], "main")])?.len(), 1);
        Ok(())
    }

    #[test]
    fn bad_another_distribution_names_no_mirror_of_debian() {
        let other = source("http://mirror/other", &["noble", "noble-security"], "main");
        assert!(sources(&[other]).is_err_and(|error| !error.to_string().contains('\n')));
    }

    #[test]
    fn good_a_package_or_one_version_of_it() -> Result<()> {
        assert_eq!(parse("u-boot-qemu")?, ("u-boot-qemu", None));
        assert_eq!(parse("u-boot-qemu=2023.01+dfsg-2+deb12u2")?, ("u-boot-qemu", Some("2023.01+dfsg-2+deb12u2")));
        Ok(())
    }

    #[test]
    fn bad_what_is_no_package_reaches_no_shell_and_no_path() {
        for text in ["", "x", "../x", "-o", "a b", "A", "ab=", "ab=-o", "ab=1/2", "ab=x"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bad_a_version_that_no_suite_has_is_refused_by_those_that_there_are() {
        let offers = vec![Offer { version: "1.2-3".to_owned(), suite: "x".to_owned() }];
        assert_eq!(choose("thing", offers.clone(), Some("1.2-3")).ok(), offers.first().cloned());
        let refused = choose("thing", offers, Some("9")).unwrap_err().to_string();
        assert_eq!(refused, "Debian's thing has the versions 1.2-3");
    }
}
