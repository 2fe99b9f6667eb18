//! Builds Xen for arm64, as it is or with our edits and our library.
//!
//! Why it exists: stock and ours must differ in the edits and in nothing else, so both come from one tree, one compiler
//! and one configuration, in the same run. What must hold: a build is repeated when anything that it is made of
//! changed, and not otherwise; dates, hosts and users are not in it, so that two builds are alike; the tree that was
//! unpacked is only read. What it refuses: to run Xen's makefiles as root, whose compiler probes would delete
//! /dev/null.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::Hasher;
use std::num::NonZero;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use breakwater_witness::{apt, exec, paths, ui};

use crate::edit::{self, Edit};
use crate::{edits, source};

/// Which Xen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Variant {
    /// As Debian has it.
    Stock,
    /// With this core.
    Ours,
}

impl Variant {
    /// Its name in paths and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Ours => "ours",
        }
    }
}

/// A configuration: Xen's defconfig for arm64 and these lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flavour {
    /// Its name in paths and on the command line.
    pub name: &'static str,
    /// Lines for `.config`.
    pub config: &'static [&'static str],
}

impl Flavour {
    /// The registers of the UART on which it speaks before it has read anything, in hexadecimal digits.
    #[must_use]
    pub fn early_uart(&self) -> Option<&'static str> {
        self.config.iter().find_map(|line| line.strip_prefix("CONFIG_EARLY_UART_BASE_ADDRESS=0x"))
    }
}

/// The configurations that are built, the plain one first.
pub const FLAVOURS: [Flavour; 4] = [
    Flavour { name: "plain", config: &[] },
    Flavour { name: "debug", config: &["CONFIG_DEBUG=y"] },
    Flavour {
        name: "early",
        // Experts alone are asked.
        config: &["CONFIG_EXPERT=y", "CONFIG_EARLY_UART_CHOICE_PL011=y", "CONFIG_EARLY_UART_BASE_ADDRESS=0x9000000"],
    },
    Flavour { name: "livepatch", config: &["CONFIG_LIVEPATCH=y"] },
];

/// What is built.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Which Xen.
    pub variant: Variant,
    /// Its configuration.
    pub flavour: Flavour,
    /// A name for what differs besides, if anything: builds of one name share a directory, and take turns in it.
    pub tag: Option<&'static str>,
    /// What differs: edits after those of the variant.
    pub more: Vec<Edit>,
}

impl Recipe {
    /// A variant in a configuration.
    #[must_use]
    pub const fn of(variant: Variant, flavour: Flavour) -> Self {
        Self { variant, flavour, tag: None, more: Vec::new() }
    }

    /// Its name in paths.
    #[must_use]
    pub fn name(&self) -> String {
        let words = [Some(self.variant.name()), Some(self.flavour.name), self.tag];
        words.into_iter().flatten().collect::<Vec<_>>().join("-")
    }

    fn edits(&self) -> Vec<Edit> {
        let own = if self.variant == Variant::Ours { edits::all() } else { Vec::new() };
        [own, self.more.clone()].concat()
    }
}

/// A Xen that can be booted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// Its name in reports.
    pub name: String,
    /// An arm64 `Image` that UEFI starts too.
    pub image: PathBuf,
    /// The same, linked, with its symbols.
    pub elf: PathBuf,
}

impl Built {
    /// A copy below `dir`, by another name: what it was built in is built in again.
    ///
    /// # Errors
    /// A file cannot be copied.
    pub fn kept(&self, dir: &Path, name: &str) -> Result<Self> {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).with_context(|| paths::shown(&dir))?;
        let kept = Self { name: name.to_owned(), image: dir.join("xen"), elf: dir.join("xen-syms") };
        for (from, to) in [(&self.image, &kept.image), (&self.elf, &kept.elf)] {
            fs::copy(from, to).with_context(|| paths::shown(from))?;
        }
        Ok(kept)
    }
}

/// What builds stand on.
#[derive(Clone, Debug)]
pub struct Bench {
    home: PathBuf,
    tree: PathBuf,
    builder: Builder,
    compiler: String,
}

/// Where the compiler's files are named alike on every host.
const CROSS: &str = "aarch64-linux-gnu-";
/// What a build needs, and the package of each.
const NEEDS: [(&str, &str); 5] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
];
/// In a directory of a build: what it was made of.
const STAMP: &str = "made-of";
/// What make was told, and said.
const LOG: &str = "build.log";

impl Bench {
    /// Sees to source and compiler. All files go below `home`.
    ///
    /// # Errors
    /// The source cannot be had; a program is missing, by the package to install.
    pub fn new(home: &Path) -> Result<Self> {
        require_programs()?;
        let tree = source::tree(home)?;
        let compiler = exec::ask(Command::new(format!("{CROSS}gcc")).arg("--version"))?;
        Ok(Self { home: home.to_path_buf(), tree, builder: Builder::new()?, compiler })
    }

    /// Builds what the recipe says, unless that has been done. Our variant links `library`.
    ///
    /// # Errors
    /// An edit does not match; Xen does not build, with the place of what make said.
    pub fn build(&self, recipe: &Recipe, library: Option<&Path>) -> Result<Built> {
        let (name, edits) = (recipe.name(), recipe.edits());
        let dir = self.home.join("build").join(&name);
        let built = Built { name: name.clone(), image: dir.join("xen"), elf: dir.join("xen-syms") };
        let library_bytes = library.map(fs::read).transpose().context("our library for Xen")?;
        let made_of = self.made_of(recipe, &edits, library_bytes.as_deref());
        let stamp = dir.join(STAMP);
        if built.image.is_file() && fs::read_to_string(&stamp).is_ok_and(|there| there == made_of) {
            return Ok(built);
        }
        ui::step("Building", &format!("Xen {}, {name}", source::VERSION));
        let tree = if edits.is_empty() { self.tree.clone() } else { self.edited(recipe, &edits)? };
        self.builder.own(&dir)?;
        if stamp.exists() {
            fs::remove_file(&stamp)?;
        }
        let log = Log::new(&dir.join(LOG))?;
        // With the same configuration as before make has only to build what changed.
        let config = dir.join(".config");
        let wanted = recipe.flavour.config.join("\n");
        if !fs::read_to_string(dir.join(CONFIG)).is_ok_and(|there| config.is_file() && there == wanted) {
            self.make(&tree, &dir, None, &log, &["defconfig"])?;
            let text = fs::read_to_string(&config)? + &wanted + "\n";
            fs::write(&config, text)?;
            self.make(&tree, &dir, None, &log, &["olddefconfig"])?;
            require_config(&config, recipe.flavour)?;
            fs::write(dir.join(CONFIG), wanted)?;
        }
        self.make(&tree, &dir, library, &log, &[])?;
        ensure!(built.image.is_file() && built.elf.is_file(), "make built no xen and xen-syms: {}", log.shown());
        fs::write(&stamp, made_of)?;
        Ok(built)
    }

    /// The copy of the tree that this recipe's edits are made in.
    fn edited(&self, recipe: &Recipe, edits: &[Edit]) -> Result<PathBuf> {
        let to = self.home.join("tree").join([recipe.variant.name(), recipe.tag.unwrap_or("plain")].join("-"));
        source::copy(&self.tree, &to, |fresh| edit::apply(fresh, edits))?;
        Ok(to)
    }

    fn made_of(&self, recipe: &Recipe, edits: &[Edit], library: Option<&[u8]>) -> String {
        let mut hasher = DefaultHasher::new();
        hasher.write(format!("{edits:?}").as_bytes());
        hasher.write(library.unwrap_or_default());
        let Flavour { config, .. } = recipe.flavour;
        format!("{}\n{config:?}\n{}{:016x}\n", source::VERSION, self.compiler, hasher.finish())
    }

    fn make(&self, tree: &Path, dir: &Path, library: Option<&Path>, log: &Log, targets: &[&str]) -> Result<()> {
        let mut make = self.builder.command("make", dir);
        let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
        make.arg("-C").arg(tree.join("xen")).arg(format!("O={}", dir.display())).arg(format!("-j{jobs}"));
        make.args(["XEN_TARGET_ARCH=arm64", &format!("CROSS_COMPILE={CROSS}")]);
        make.args([
            "XEN_BUILD_DATE=then",
            "XEN_BUILD_TIME=",
            "XEN_BUILD_HOST=there",
            "XEN_DOMAIN=",
            "XEN_WHOAMI=nobody",
        ]);
        if let Some(library) = library {
            make.arg(format!("BREAKWATER_LIB={}", library.display()));
        }
        log.run(make.args(targets))
    }
}

/// The lines that a build's configuration was made with.
const CONFIG: &str = "configured";

/// Kconfig drops silently what it does not know, or what something else forbids.
fn require_config(config: &Path, flavour: Flavour) -> Result<()> {
    let text = fs::read_to_string(config)?;
    for wanted in flavour.config {
        ensure!(text.lines().any(|line| line == *wanted), "Xen's configuration does not take {wanted}");
    }
    Ok(())
}

/// Sees to the programs of a build.
///
/// # Errors
/// One is missing, and cannot be installed: the packages to install.
fn require_programs() -> Result<()> {
    let missing =
        || NEEDS.into_iter().filter(|(program, _)| exec::on_path(program).is_none()).map(|(_, package)| package);
    let packages: Vec<&str> = missing().collect();
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!("to build Xen, install: apt-get install {}", packages.join(" "));
    ensure!(apt::is_root() && apt::usable(), "{install}");
    let mut command = Command::new("apt-get");
    command.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(&packages);
    exec::run(command.env("DEBIAN_FRONTEND", "noninteractive")).context(install)?;
    ensure!(missing().next().is_none(), "still missing: {}", missing().collect::<Vec<_>>().join(" "));
    Ok(())
}

/// Who builds: this user, or for root one without rights.
#[derive(Clone, Debug)]
struct Builder {
    /// User and group, for root.
    nobody: Option<(u32, u32)>,
}

impl Builder {
    fn new() -> Result<Self> {
        if !apt::is_root() {
            return Ok(Self { nobody: None });
        }
        ensure!(
            exec::on_path("setpriv").is_some(),
            "Xen is not built as root, and there is no setpriv: be another user"
        );
        let id = |option: &str| -> Result<u32> {
            Ok(exec::ask(Command::new("id").args([option, "nobody"]))?.trim().parse()?)
        };
        Ok(Self { nobody: Some((id("-u")?, id("-g")?)) })
    }

    /// Makes a directory that is the builder's.
    fn own(&self, dir: &Path) -> Result<()> {
        for dir in [dir.to_path_buf(), dir.join("home")] {
            fs::create_dir_all(&dir)?;
            if let Some((user, group)) = self.nobody {
                chown(&dir, Some(user), Some(group)).with_context(|| paths::shown(&dir))?;
            }
        }
        let mut probe = self.command("test", dir);
        let can = probe.arg("-w").arg(dir).stderr(Stdio::null()).status()?.success();
        ensure!(can, "Xen is built as nobody, who cannot enter {}: be another user than root", dir.display());
        Ok(())
    }

    /// A command of the builder's, which knows of nothing but PATH, and of a home of its own in `dir`.
    fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = match self.nobody {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={group}")]);
                command.args(["--clear-groups", "--no-new-privs", program]);
                command
            }
        };
        let own = dir.join("home");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
        // Else the commit of whatever repository lies around the tree gets into the build.
        command.env("HOME", &own).env("TMPDIR", &own).env("GIT_DIR", own.join("no-repository"));
        command.env("SOURCE_DATE_EPOCH", "0").stdin(Stdio::null());
        command
    }
}

/// What make says goes to a file.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| paths::shown(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    fn shown(&self) -> String {
        paths::shown(&self.path)
    }

    /// Runs it; what it said last is the error.
    fn run(&self, command: &mut Command) -> Result<()> {
        // Without the environment, which is the same each time.
        let words = exec::shown(command);
        ui::command(words.find("make -C").map_or(words.as_str(), |at| &words[at..]));
        let status = command.stdout(self.file.try_clone()?).stderr(self.file.try_clone()?).status();
        if status.with_context(|| format!("cannot start `{}`", exec::shown(command)))?.success() {
            return Ok(());
        }
        let said = fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        bail!("Xen does not build: {}; all of it is in {}", complaint(&said), self.shown())
    }
}

/// The first error in what a build said.
fn complaint(said: &str) -> &str {
    let is_error =
        |line: &&str| line.contains("error:") || line.contains("undefined reference") || line.contains("*** [");
    said.lines().find(is_error).or_else(|| said.lines().next_back()).unwrap_or("make said nothing").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_recipes_have_names_of_their_own() {
        let [plain, .., livepatch] = FLAVOURS;
        let tagged = Recipe { tag: Some("layout"), ..Recipe::of(Variant::Ours, livepatch) };
        assert_eq!(Recipe::of(Variant::Stock, plain).name(), "stock-plain");
        assert_eq!(tagged.name(), "ours-livepatch-layout");
    }

    #[test]
    fn good_stock_is_not_edited() {
        assert!(FLAVOURS.iter().all(|flavour| Recipe::of(Variant::Stock, *flavour).edits().is_empty()));
    }

    #[test]
    fn bad_a_build_that_fails_says_its_first_error() {
        let said = "  CC a.o\na.c:1:2: error: no such thing\nmake[2]: *** [a.o] Error 1\n";
        assert_eq!(complaint(said), "a.c:1:2: error: no such thing");
        assert_eq!(complaint("ld: cannot\n"), "ld: cannot");
    }

    #[test]
    fn bad_an_option_that_kconfig_drops_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join(".config");
        fs::write(&config, "# CONFIG_DEBUG is not set\nCONFIG_LIVEPATCH=y\n")?;
        let [_, debug, _, livepatch] = FLAVOURS;
        assert!(require_config(&config, livepatch).is_ok());
        let refused = require_config(&config, debug).expect_err("it is not set").to_string();
        assert_eq!(refused, "Xen's configuration does not take CONFIG_DEBUG=y");
        Ok(())
    }

    #[test]
    fn bad_a_program_that_fails_names_its_log() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = Log::new(&dir.path().join("log"))?;
        let failed = log.run(Command::new("sh").args(["-c", "echo 'x: error: so'; exit 2"])).expect_err("it fails");
        assert!(failed.to_string().starts_with("Xen does not build: x: error: so; all of it is in "), "{failed}");
        Ok(())
    }
}
