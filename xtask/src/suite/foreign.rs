//! A hypervisor of somebody else's: the project of tests/boot/door, beside a copy of the repository, outside of any
//! workspace of ours.
//!
//! What must hold: nothing but what is tracked is needed; the project's own few lines are enough; and who leaves the
//! one line of the build script out, or sets what cannot work, is told so by name.

use super::Context;
use super::runner::Case;
use super::variety::TIMEOUT;
use crate::boot::{Boot, patient};
use crate::child::{self, Finished};
use crate::loader::Loading;
use crate::machine::Machine;
use crate::setup::Toolchain;
use crate::{exec, image, paths};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines that the program may have: it is shown whole where people decide whether to try.
const PROGRAM_LINES: usize = 30;
/// What the linker says of a project without its line.
const MISSING_LINE: &str = "undefined symbol: build.rs lacks the line: breakwater_boot::link();";

/// A build script that chooses all that can be chosen.
const CHOOSING: &str = "fn main() {
    breakwater_boot::Link {
        boot_stack_bytes: 128 << 10,
        exception_stack_bytes: 16 << 10,
        cpu_stack_bytes: 44 << 10,
        image_bytes_max: 8 << 20,
        livepatch: false,
    }
    .emit();
}
";
/// Constants that only fit into an image of more than 2 MiB, and their use.
const LARGE: &str = "static LARGE: [u8; 3 << 20] = [7; 3 << 20];\n";
const USE: &str = "line!(\"the last is {}\", core::hint::black_box(&LARGE)[(3 << 20) - 1]);";
/// Another slot of the map for the hypervisor.
const SLOT: u64 = 30;

/// The project as it is, then without its line, then with everything chosen that can be.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("foreign/readme-shows-the-project", |_, _| shown()),
        Case::new("foreign/project-of-somebody-else", |context, scratch| {
            let project = Project::new(context)?;
            let usual = project.boots(context, scratch)?;
            project.lacks_its_line()?;
            project.chooses(context, scratch, &usual)
        }),
    ]
}

/// The README shows files whole, each in a fenced block after a line `<!-- PATH -->`: they are what is tested here.
fn shown() -> Result<()> {
    let program = fs::read_to_string(paths::root().join("tests/boot/door/src/main.rs"))?;
    let lines = program.lines().count();
    ensure!(lines <= PROGRAM_LINES, "the program has {lines} lines, more than {PROGRAM_LINES}");
    let readme = fs::read_to_string(paths::root().join("README.md"))?;
    ensure!(readme.contains("<!-- tests/boot/door/src/main.rs -->"), "README does not show the program");
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let path = line.trim().strip_prefix("<!-- tests/boot/door/").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(path) = path else { continue };
        ensure!(lines.next().is_some_and(|fence| fence.starts_with("```")), "README: no block after {path}'s name");
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let file =
            fs::read_to_string(paths::root().join("tests/boot/door").join(path)).with_context(|| path.to_owned())?;
        ensure!(block == file.lines().collect::<Vec<_>>(), "README shows another {path} than tests/boot/door has");
    }
    Ok(())
}

/// The project in a folder of its own, which vanishes with this value.
struct Project {
    folder: PathBuf,
    toolchain: Toolchain,
}

impl Project {
    /// Copies what is tracked, and the project beside it. The versions of other crates are the repository's: nothing is
    /// fetched.
    fn new(context: &Context) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("breakwater-foreign-{}", std::process::id()));
        let project = Self { folder, toolchain: context.ready.toolchain.clone() };
        let listed = exec::ask(Command::new("git").current_dir(paths::root()).args(["ls-files"]))?;
        for name in listed.lines().filter(|name| paths::root().join(name).is_file()) {
            copy(&paths::root().join(name), &project.folder.join("breakwater").join(name))?;
            if let Some(own) = name.strip_prefix("tests/boot/door/") {
                copy(&paths::root().join(name), &project.file(own))?;
            }
        }
        for name in ["Cargo.lock", "rust-toolchain.toml"] {
            copy(&paths::root().join(name), &project.file(name))?;
        }
        Ok(project)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("hypervisor").join(name)
    }

    /// `cargo build` as its author types it, but offline. Other crates are compiled once for all runs.
    fn build(&self, more: &[(&str, String)]) -> Command {
        let mut cargo = image::cargo(&self.toolchain, "build", Some(&paths::out().join("foreign")));
        cargo.current_dir(self.folder.join("hypervisor")).arg("--offline").envs(more.iter().cloned());
        cargo
    }

    /// Builds, checks and flattens, and boots four CPUs.
    fn run(&self, context: &Context, scratch: &Path, more: &[(&str, String)]) -> Result<(Finished, serde_json::Value)> {
        exec::run(&mut self.build(more)).context("the project does not build")?;
        let linked = paths::out().join("foreign").join(paths::TARGET).join("release/hypervisor");
        let image = image::finish(&linked, scratch, "hypervisor")?;
        let entry = Loading::Kernel { load_address: None, append: patient("exit=semihosting") };
        let machine = Machine::default();
        let boot = Boot { qemu: &context.ready.qemu, img: &image.img, machine: &machine, entry: &entry, scratch };
        let finished = child::run(&mut boot.command()?, TIMEOUT, false)?;
        let report = super::variety::judged(&finished, scratch)?;
        Ok((finished, report))
    }

    fn boots(&self, context: &Context, scratch: &Path) -> Result<serde_json::Value> {
        let (finished, report) = self.run(context, scratch, &[])?;
        let said = |line: &str| finished.serial.lines().any(|other| other.trim().ends_with(line));
        for line in ["seconds since 1970", "CPU 1 runs", "CPU 2 runs", "CPU 3 runs"] {
            ensure!(said(line), "the project never says `{line}`:\n{}", finished.serial);
        }
        Ok(report)
    }

    fn lacks_its_line(&self) -> Result<()> {
        let script = fs::read_to_string(self.file("build.rs"))?;
        let without = script.replace("breakwater_boot::link();", "");
        ensure!(without != script, "the project's build script has no such line");
        fs::write(self.file("build.rs"), without)?;
        self.refused(MISSING_LINE)
    }

    fn chooses(&self, context: &Context, scratch: &Path, usual: &serde_json::Value) -> Result<()> {
        let program = fs::read_to_string(self.file("src/main.rs"))?;
        let program = program.replace("handover.leave()", &format!("{USE}\n    handover.leave()"));
        fs::write(self.file("src/main.rs"), format!("{program}{LARGE}"))?;
        fs::write(self.file("build.rs"), CHOOSING.replace("image_bytes_max: 8", "image_bytes_max: 2"))?;
        self.refused("image_bytes_max: set it higher in build.rs")?;
        fs::write(self.file("build.rs"), CHOOSING.replace("44 <<", "48 <<"))?;
        self.refused("cpu_stack_bytes is 0xc000")?;

        fs::write(self.file("build.rs"), CHOOSING)?;
        let (finished, report) = self.run(context, scratch, &[("BREAKWATER_XEN_SLOT", SLOT.to_string())])?;
        ensure!(finished.serial.contains("the last is 7"), "the large constants are not there:\n{}", finished.serial);
        let sizes = [("boot stack", 128), ("boot exception stack", 16), ("CPU stack", 44)];
        for (name, kib) in sizes {
            let bytes = number(&report, "regions", name, "bytes");
            ensure!(bytes == Some(kib << 10), "{name}: {bytes:?} bytes, not {kib} KiB");
        }
        let linked = fs::read(paths::out().join("foreign").join(paths::TARGET).join("release/hypervisor"))?;
        let refusal = format!("the image ends above {} GiB,", SLOT << 9);
        let says = |text: &str| linked.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        ensure!(says(&refusal), "`{refusal}` is not among the refusals");
        let image = number(&report, "areas", "image", "va");
        ensure!(image == Some((SLOT << 39) + (2 << 20)), "the image is linked at {image:x?}");
        let frames = |report| number(report, "phases", "vmap, livepatch", "frames");
        ensure!(frames(&report) < frames(usual), "the map has a livepatch slot, with tables of its own");
        Ok(())
    }

    /// The project must not build, and must be told `why`.
    fn refused(&self, why: &str) -> Result<()> {
        match exec::ask(&mut self.build(&[])) {
            Ok(_) => bail!("the project builds, and was to be refused: {why}"),
            Err(error) => ensure!(format!("{error:#}").contains(why), "`{why}` is not said:\n{error:#}"),
        }
        Ok(())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // What stays is in the system's folder for such things.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// `field` of what is called `name` in a list of the report.
fn number(report: &serde_json::Value, list: &str, name: &str, field: &str) -> Option<u64> {
    report.get(list)?.as_array()?.iter().find(|one| one["name"] == name)?[field].as_u64()
}
