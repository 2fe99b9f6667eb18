//! `cargo xtask bisect`: which commit broke a flight.
//!
//! `git bisect` chooses the commits, in a worktree of its own, so that nobody's files are touched. Each is built by its
//! own `cargo xtask build`, once: the images are kept. What flies them is this xtask, so that all are judged alike.

use crate::flight::Flight;
use crate::image::Earlycon;
use crate::setup::{self, Qemu};
use crate::{exec, paths, ui};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `cargo xtask bisect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A commit on which the flight went well
    #[arg(long, value_name = "COMMIT")]
    good: String,
    /// A later one on which it fails
    #[arg(long, value_name = "COMMIT", default_value = "HEAD")]
    bad: String,
    /// Fly so often: a commit is bad that fails once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Seconds until a boot counts as hung
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    /// The flight, as `cargo xtask boot` takes it
    #[arg(last = true, value_name = "OPTION OF BOOT")]
    flight: Vec<String>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Bad,
    /// It does not build, so that it says nothing.
    Skip,
}

/// Runs `bisect`.
///
/// # Errors
/// A commit is unknown, or not what it is said to be; git or set-up fails.
pub(crate) fn command(args: &Args) -> Result<()> {
    let flight = Flight::parse(&args.flight)?;
    let qemu = setup::emulator(args.qemu.as_deref())?;
    let home = paths::out().join("bisect");
    fs::create_dir_all(&home)?;
    let builder = Builder { home: &home, flight: &flight };
    let found = search(&paths::root(), &home.join("tree"), (&args.good, &args.bad), |tree, commit| {
        let Some(img) = builder.image(tree, commit)? else { return Ok(Standing::Skip) };
        for _ in 0..args.times {
            if let Err(why) = fly(&flight, &qemu, &img, &home, args.timeout) {
                ui::step("Bad", &format!("{commit:.12}: {why:#}"));
                return Ok(Standing::Bad);
            }
        }
        ui::step("Good", &format!("{commit:.12}"));
        Ok(Standing::Good)
    })?;
    print!("{found}");
    Ok(())
}

fn fly(flight: &Flight, qemu: &Qemu, img: &Path, home: &Path, timeout: u64) -> Result<()> {
    let finished = flight.fly(qemu, img, &home.join("scratch"), Duration::from_secs(timeout))?;
    Ok(flight.judge(&finished).map(drop)?)
}

/// Builds a commit's image in its own way, and keeps it.
struct Builder<'a> {
    home: &'a Path,
    flight: &'a Flight,
}

impl Builder<'_> {
    /// The image of `commit`, which is checked out in `tree`; nothing if it does not build.
    fn image(&self, tree: &Path, commit: &str) -> Result<Option<PathBuf>> {
        let mut options = Vec::new();
        if let Some(seed) = self.flight.layout_seed {
            options.extend(["--layout-seed".to_owned(), seed.to_string()]);
        }
        if self.flight.earlycon != Earlycon::default() {
            options.extend(["--earlycon".to_owned(), self.flight.earlycon.to_string()]);
        }
        let kept = self.home.join(format!("{commit}{}.img", options.concat().replace(['@', ','], "-")));
        if kept.is_file() {
            return Ok(Some(kept));
        }
        ui::step("Building", &format!("{commit:.12}"));
        // By the toolchain that the commit pins, not by the one that runs this xtask.
        let mut cargo = Command::new("cargo");
        for told in ["CARGO", "CARGO_MANIFEST_DIR", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(told);
        }
        cargo
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", self.home.join("target"))
            .args(["xtask", "build"])
            .args(options);
        let said = match exec::ask(&mut cargo) {
            Ok(said) => said,
            Err(error) => {
                ui::step("Skipped", &format!("{commit:.12} does not build: {error:#}"));
                return Ok(None);
            }
        };
        let img = said.lines().find(|line| line.ends_with(".img")).context("`cargo xtask build` names no image")?;
        fs::copy(tree.join(img), &kept).with_context(|| format!("cannot copy {img}"))?;
        Ok(Some(kept))
    }
}

/// What git says of the first bad commit between `good` and `bad` of a repository, each tried in a worktree at `tree`.
fn search(
    repository: &Path,
    tree: &Path,
    (good, bad): (&str, &str),
    mut trial: impl FnMut(&Path, &str) -> Result<Standing>,
) -> Result<String> {
    let git = |directory: &Path, words: &[&str]| exec::ask(Command::new("git").current_dir(directory).args(words));
    let commit = |name: &str| -> Result<String> {
        let full = git(repository, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]);
        Ok(full.with_context(|| format!("there is no commit {name}"))?.trim().to_owned())
    };
    let (good, bad) = (commit(good)?, commit(bad)?);
    let shown = tree.display().to_string();
    // One that was interrupted left it.
    let _ = git(repository, &["worktree", "remove", "--force", &shown]);
    let _ = git(repository, &["worktree", "prune"]);
    git(repository, &["worktree", "add", "--quiet", "--detach", "--force", &shown, &good])?;
    let mut bisected = || -> Result<String> {
        for (commit, wanted, name) in [(&good, Standing::Good, "good"), (&bad, Standing::Bad, "bad")] {
            git(tree, &["checkout", "--quiet", "--detach", commit])?;
            ensure!(trial(tree, commit)? == wanted, "{commit:.12} is said to be {name}, and is not");
        }
        let mut said = git(tree, &["bisect", "start", &bad, &good])?;
        while !said.contains("is the first bad commit") {
            let commit = git(tree, &["rev-parse", "HEAD"])?;
            let word = match trial(tree, commit.trim())? {
                Standing::Good => "good",
                Standing::Bad => "bad",
                Standing::Skip => "skip",
            };
            let output = Command::new("git").current_dir(tree).args(["bisect", word]).output()?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                // Only what was skipped is left: git says which.
                ensure!(said.contains("skip"), "git bisect {word}: {}", String::from_utf8_lossy(&output.stderr));
                break;
            }
        }
        Ok(said)
    };
    let found = bisected();
    let _ = git(tree, &["bisect", "reset"]);
    let removed = git(repository, &["worktree", "remove", "--force", &shown]);
    match found {
        Ok(said) if said.is_empty() => bail!("git bisect says nothing"),
        Ok(said) => removed.map(|_| said),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository of eight commits, oldest first.
    fn repository() -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let git =
            |words: &[&str]| exec::ask(Command::new("git").current_dir(dir.path()).args(words)).expect("git does it");
        git(&["init", "--quiet", "--initial-branch=main"]);
        let commit = |number: usize| {
            format!(
                "commit refs/heads/main\ncommitter x <x@example.org> {number} +0000\ndata 1\n{number}\n\
                 M 100644 inline number\ndata 1\n{number}\n"
            )
        };
        let stream = dir.path().join("stream");
        fs::write(&stream, (0..8).map(commit).collect::<String>()).expect("it can be written");
        let mut import = Command::new("git");
        import.current_dir(dir.path()).args(["fast-import", "--quiet"]);
        import.stdin(fs::File::open(&stream).expect("it was written"));
        assert!(import.status().expect("git runs").success());
        let commits = git(&["rev-list", "--reverse", "main"]);
        (dir, commits.lines().map(str::to_owned).collect())
    }

    /// What is found where commits from `broken` on are bad and those of `skipped` do not build.
    fn found(broken: usize, skipped: &[usize]) -> (Result<String>, Vec<String>) {
        let (dir, commits) = repository();
        let said = search(dir.path(), &dir.path().join("tree"), (&commits[0], "HEAD"), |tree, commit| {
            let number: usize = fs::read_to_string(tree.join("number"))?.parse()?;
            assert_eq!(commits[number], commit);
            Ok(match number {
                number if skipped.contains(&number) => Standing::Skip,
                number if number >= broken => Standing::Bad,
                _ => Standing::Good,
            })
        });
        assert!(!dir.path().join("tree").exists(), "nothing is left behind");
        (said, commits)
    }

    #[test]
    fn good_the_first_bad_commit_is_found() {
        for broken in [1, 4, 7] {
            let (said, commits) = found(broken, &[]);
            let said = said.expect("it is found");
            assert!(said.contains(&format!("{} is the first bad commit", commits[broken])), "{said}");
        }
    }

    #[test]
    fn good_what_does_not_build_is_left_out() {
        let (said, commits) = found(3, &[5, 6]);
        assert!(said.expect("it is found").contains(&format!("{} is the first bad commit", commits[3])));
        let (said, commits) = found(3, &[2, 3]);
        let said = said.expect("some are left");
        assert!([2, 3, 4].iter().all(|number| said.contains(&commits[*number])), "{said}");
    }

    #[test]
    fn bad_ends_that_are_not_as_said_are_named() {
        let (said, commits) = found(8, &[]);
        assert_eq!(
            said.expect_err("it is good").to_string(),
            format!("{:.12} is said to be bad, and is not", commits[7])
        );
        let (said, commits) = found(0, &[]);
        assert_eq!(
            said.expect_err("it is bad").to_string(),
            format!("{:.12} is said to be good, and is not", commits[0])
        );
    }
}
