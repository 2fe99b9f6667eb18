//! Debian packages without touching the system: a private apt configuration with lists and cache in a directory of its
//! own, the mirror and the keys that the system's own sources name, and `dpkg-deb -x` instead of an installation.

use crate::{exec, paths, ui};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One line of apt's sources, in either spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The mirror.
    pub uri: String,
    /// Its suites.
    pub suites: Vec<String>,
    /// Their components.
    pub components: Vec<String>,
    /// The file with the key.
    pub signed_by: Option<String>,
}

/// The distribution, from os-release: its ID and code name.
pub fn distribution() -> Option<(String, String)> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_owned()))
    };
    Some((field("ID")?, field("VERSION_CODENAME")?))
}

/// Whether this machine speaks apt at all.
pub fn usable() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb"].into_iter().all(|tool| exec::on_path(tool).is_some())
}

/// The system's own sources of binary packages.
pub fn configured() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(parts);
    files.sort();
    let of_file = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => Vec::new(),
        }
    };
    files.iter().flat_map(of_file).collect()
}

/// `deb [options] uri suite component...`
fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_source).collect()
}

fn one_source(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.starts_with(char::is_whitespace).then(|| rest.trim_start())?;
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
    Some(Source { uri: words.next()?, suites: vec![words.next()?], components: words.collect(), signed_by })
}

/// Paragraphs of `Field: value`, where an indented line goes on with the value before it.
fn deb822(text: &str) -> Vec<Source> {
    let without_comments: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    without_comments.split("\n\n").filter_map(paragraph).collect()
}

fn paragraph(text: &str) -> Option<Source> {
    let joined = text.replace("\n ", " ").replace("\n\t", " ");
    let field = |name: &str| {
        joined.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let words =
        |name: &str| -> Vec<String> { field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect() };
    let enabled = field("Enabled").is_none_or(|value| !value.eq_ignore_ascii_case("no"));
    let binary = words("Types").iter().any(|kind| kind == "deb");
    // A key given in the file itself spans lines and cannot be repeated in one: such a source is left to the system's own apt.
    let signed_by = field("Signed-By").filter(|value| value.starts_with('/'));
    let uri = words("URIs").into_iter().next()?;
    (enabled && binary).then(|| Source { uri, suites: words("Suites"), components: words("Components"), signed_by })
}

/// The distribution's own sources: those that carry its code name, without the vendors that happen to serve it as well.
pub fn of_distribution(codename: &str) -> Vec<Source> {
    let family = [
        codename.to_owned(),
        format!("{codename}-updates"),
        format!("{codename}-security"),
        format!("{codename}-backports"),
    ];
    let ours = |source: &Source| {
        source.suites.iter().any(|suite| family.contains(suite)) && source.components.iter().any(|name| name == "main")
    };
    configured().into_iter().filter(ours).collect()
}

/// A version of a package, and the suite that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The version.
    pub version: String,
    /// The suite.
    pub suite: String,
}

/// A private apt.
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Writes the configuration into `dir` and fetches the lists. `more_suites` are asked of the mirror that serves
    /// `codename` itself.
    ///
    /// # Errors
    /// The system names no source for this distribution, or the lists cannot be fetched.
    pub fn new(dir: PathBuf, codename: &str, more_suites: &[String]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let sources = of_distribution(codename);
        let Some(mirror) = sources.iter().find(|source| source.suites.iter().any(|suite| suite == codename)) else {
            bail!("the system's apt sources name no mirror for {codename}");
        };
        let more = Source { suites: more_suites.to_vec(), components: vec!["main".to_owned()], ..mirror.clone() };
        let more = (!more_suites.is_empty()).then_some(more);
        let list: String = sources.iter().chain(&more).map(|source| stanza("deb", source)).collect();
        fs::write(dir.join("private.sources"), list)?;
        fs::write(dir.join("apt.conf"), configuration(&dir))?;
        let apt = Self { dir };
        exec::run(apt.get().arg("update")).context("cannot fetch the package lists")?;
        Ok(apt)
    }

    /// An apt in `dir` for packages of another machine: `architecture` alone, from `sources` alone, beside nothing that
    /// is installed. A suite that a mirror does not have is no error; what apt said of it is returned.
    ///
    /// # Errors
    /// Files cannot be written, or apt-get cannot be started.
    pub fn foreign(dir: PathBuf, architecture: &str, sources: &[Source]) -> Result<(Self, String)> {
        Self::alone(dir, "deb", architecture, sources)
    }

    /// The same for source packages.
    ///
    /// # Errors
    /// As [`Self::foreign`].
    pub fn of_sources(dir: PathBuf, sources: &[Source]) -> Result<(Self, String)> {
        Self::alone(dir, "deb-src", "all", sources)
    }

    /// From `sources` of this type alone.
    fn alone(dir: PathBuf, packages: &str, architecture: &str, sources: &[Source]) -> Result<(Self, String)> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let list: String = sources.iter().map(|source| stanza(packages, source)).collect();
        fs::write(dir.join("private.sources"), list)?;
        fs::write(dir.join("status"), "")?;
        let more = foreign_configuration(&dir, architecture, sources);
        fs::write(dir.join("apt.conf"), configuration(&dir) + &more)?;
        let apt = Self { dir };
        let mut command = apt.get();
        ui::command(&exec::shown(command.arg("update")));
        let output = command.stdin(Stdio::null()).output().context("cannot start apt-get")?;
        Ok((apt, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The names of packages that begin so.
    pub fn names(&self, prefix: &str) -> BTreeSet<String> {
        let said = exec::ask(self.cache().args(["pkgnames", prefix])).unwrap_or_default();
        said.lines().map(str::to_owned).collect()
    }

    /// What the newest version of a package depends on first.
    #[must_use]
    pub fn dependency(&self, package: &str) -> Option<String> {
        let said = exec::ask(self.cache().args(["depends", "--important", package])).ok()?;
        said.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned)
    }

    /// The versions of a package that the sources have, with the suite of each.
    pub fn offers(&self, package: &str) -> Vec<Offer> {
        offers(&exec::ask(self.cache().args(["madison", package])).unwrap_or_default())
    }

    /// Fetches packages alone, as `NAME=VERSION`, unpacks them into a directory as [`Self::unpack`] does, and forgets
    /// lists and archives.
    ///
    /// # Errors
    /// A package cannot be fetched or unpacked.
    pub fn unpack_alone(
        &self,
        packages: &[String],
        into: &Path,
        complete: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let archives = self.dir.join("cache/archives");
        exec::run(self.get().current_dir(&archives).arg("download").args(packages))?;
        self.fill(&debs(&archives)?, into, complete)
    }

    /// The versions of a source package that the sources have.
    pub fn source_versions(&self, package: &str) -> BTreeSet<String> {
        let said = exec::ask(self.cache().args(["showsrc", "--only-source", package])).unwrap_or_default();
        said.lines().filter_map(|line| line.strip_prefix("Version: ")).map(str::to_owned).collect()
    }

    /// Fetches one version of a source package, its files as they are, into a directory that appears when it is
    /// complete, and forgets the lists. What is fetched is what the mirror's signed lists say.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn fetch_source(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        paths::fill_whole(into, |partial| {
            let mut command = self.get();
            command.current_dir(partial).args(["source", "--download-only"]);
            exec::run(command.arg(format!("{package}={version}")))
        })?;
        fs::remove_dir_all(&self.dir).context("cannot remove the private apt's lists")
    }

    fn cache(&self) -> Command {
        let mut command = Command::new("apt-cache");
        command.arg("-c").arg(self.dir.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-qq").arg("-c").arg(self.dir.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// The version that would be fetched.
    pub fn candidate(&self, package: &str) -> Option<String> {
        let shown = exec::ask(self.cache().args(["policy", package])).ok()?;
        let version = shown.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
        (version != "(none)").then(|| version.to_owned())
    }

    /// Fetches packages, with what of their dependencies the system lacks, and unpacks them into a directory that
    /// appears when it is complete; `complete` adds what is not in a package.
    ///
    /// # Errors
    /// A package cannot be had, fetched or unpacked.
    pub fn unpack(
        &self,
        packages: &[&str],
        suite: Option<&str>,
        into: &Path,
        complete: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let archives = self.dir.join("cache/archives");
        for old in debs(&archives)? {
            fs::remove_file(old)?;
        }
        let mut command = self.get();
        command.args(["install", "--yes", "--download-only", "--no-install-recommends"]);
        if let Some(suite) = suite {
            command.args(["--target-release", suite]);
        }
        exec::run(command.args(packages))?;
        let fetched = debs(&archives)?;
        if fetched.is_empty() {
            bail!("apt-get fetched nothing: {} are installed already", packages.join(" "));
        }
        self.fill(&fetched, into, complete)
    }

    /// Unpacks what was fetched, and removes the rest of this apt.
    fn fill(&self, fetched: &BTreeSet<PathBuf>, into: &Path, complete: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        paths::fill_whole(into, |partial| {
            let (shown, count) = (paths::shown(partial), fetched.len());
            ui::command(&format!("dpkg-deb -x PACKAGE {shown} # for each of {count} packages"));
            for deb in fetched {
                exec::ask(Command::new("dpkg-deb").arg("-x").arg(deb).arg(partial))?;
            }
            complete(partial)
        })?;
        fs::remove_dir_all(&self.dir).context("cannot remove the private apt's lists and archives")
    }
}

fn stanza(packages: &str, source: &Source) -> String {
    let mut text = format!(
        "Types: {packages}\nURIs: {}\nSuites: {}\nComponents: {}\n",
        source.uri,
        source.suites.join(" "),
        source.components.join(" ")
    );
    if let Some(key) = &source.signed_by {
        text.push_str(&format!("Signed-By: {key}\n"));
    }
    text.push('\n');
    text
}

/// Overrides the places, nothing else: proxies, checks and keys stay the system's. Hooks are cleared, since they are
/// meant for the system's own lists.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    let user = if is_root() { "APT::Sandbox::User \"root\";\n" } else { "" };
    format!(
        "Dir::State::lists \"{dir}/lists\";\nDir::Cache \"{dir}/cache\";\nDir::Etc::sourcelist \"{dir}/private.sources\";\n\
         Dir::Etc::sourceparts \"-\";\nDebug::NoLocking \"true\";\n{user}\
         #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
         #clear Acquire::IndexTargets::deb::DEP-11;\n"
    )
}

/// What another machine's packages need besides: its architecture, and no thought for what is installed here. Old lists
/// are all that a snapshot has.
fn foreign_configuration(dir: &Path, architecture: &str, sources: &[Source]) -> String {
    let dated = sources.iter().any(|source| source.uri.contains("snapshot"));
    let dated = if dated { "Acquire::Check-Valid-Until \"false\";\n" } else { "" };
    format!(
        "APT::Architecture \"{architecture}\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"{architecture}\"; }};\n\
         Dir::State::status \"{}/status\";\nAcquire::Languages \"none\";\n{dated}",
        dir.display()
    )
}

/// `package | version | uri suite/component architecture Packages`, a line each.
fn offers(madison: &str) -> Vec<Offer> {
    let offer = |line: &str| {
        let mut fields = line.split('|').map(str::trim).skip(1);
        let version = fields.next()?.to_owned();
        let place = fields.next()?.split_whitespace().nth(1)?;
        let suite = place.rsplit_once('/').map_or(place, |(suite, _)| suite).to_owned();
        Some(Offer { version, suite })
    };
    madison.lines().filter_map(offer).collect()
}

/// The first thing that apt complained of.
#[must_use]
pub fn reason(said: &str) -> &str {
    let complaint = said.lines().find_map(|line| line.strip_prefix("E: ").or_else(|| line.strip_prefix("W: ")));
    complaint.unwrap_or("apt-get update said nothing of why")
}

/// Whether a package's version `one` is newer than `other`.
pub fn is_newer(one: &str, other: &str) -> bool {
    exec::ask(Command::new("dpkg").args(["--compare-versions", one, "gt", other])).is_ok()
}

fn debs(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let files = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    Ok(files.filter(|file| file.extension().is_some_and(|e| e == "deb")).collect())
}

/// Whether the system's own package manager may be used.
pub fn is_root() -> bool {
    // The owner of a process's own directory in /proc is its effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_both_spellings_of_a_source_read_alike() {
        let long = deb822(
            "Types: deb deb-src\n# a note\nURIs: http://mirror/debian\nSuites: x\n x-updates\nComponents: main\nSigned-By: /k\n\nTypes: deb-src\nURIs: u\nSuites: x\n",
        );
        let short = one_line(
            "# deb http://no/ x main\ndeb [arch=amd64 signed-by=/k] http://mirror/debian x main # note\ndeb-src u x main\n",
        );
        assert_eq!(long.len(), 1);
        assert_eq!(long[0].suites, ["x", "x-updates"]);
        assert_eq!((&long[0].uri, &long[0].signed_by), (&short[0].uri, &short[0].signed_by));
        assert_eq!(short.len(), 1);
    }

    #[test]
    fn good_offers_are_versions_and_suites() {
        let said = " xen | 4.17.7+13-1 | http://mirror/debian-security x-security/main arm64 Packages\n\
                    xen | 4.17.5-1 | http://mirror/debian x/main arm64 Packages\n";
        let offer = |version: &str, suite: &str| Offer { version: version.to_owned(), suite: suite.to_owned() };
        assert_eq!(offers(said), [offer("4.17.7+13-1", "x-security"), offer("4.17.5-1", "x")]);
    }

    #[test]
    fn bad_an_answer_that_is_no_table_offers_nothing() {
        assert!(offers("N: Unable to locate package xen\n | \n").is_empty());
    }

    #[test]
    fn good_only_a_snapshot_may_be_out_of_date() {
        let source = |uri: &str| deb822(&format!("Types: deb\nURIs: {uri}\nSuites: x\nComponents: main\n"));
        let text = |uri| foreign_configuration(Path::new("/d"), "arm64", &source(uri));
        assert!(text("http://snapshot.mirror/x").contains("Check-Valid-Until"));
        assert!(!text("http://mirror/x").contains("Check-Valid-Until"));
    }

    #[test]
    fn good_the_first_complaint_is_the_reason() {
        assert_eq!(
            reason("\nW: Failed to fetch http://mirror\nE: Some index files failed\n"),
            "Failed to fetch http://mirror"
        );
    }

    #[test]
    fn bad_a_disabled_source_is_not_used() {
        assert!(deb822("Enabled: no\nTypes: deb\nURIs: u\nSuites: x\nComponents: main\n").is_empty());
    }
}
