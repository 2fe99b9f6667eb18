//! `cargo xtask lint`: what Cargo's own tools say, and the few rules of this repository that no tool knows.

mod rules;
mod words;

use crate::setup::{self, Install, Toolchain};
use crate::{exec, paths, ui};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::process::Command;

/// `cargo xtask lint`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these: rules, formatting, clippy, documentation, clippy-for-target, documentation-for-target
    checks: Vec<String>,
}

/// Runs every check, and fails when one does, after all of them.
///
/// # Errors
/// A check failed.
pub(crate) fn command(args: &Args) -> Result<()> {
    let mut failed = Vec::new();
    let is_wanted = |name: &str| args.checks.is_empty() || args.checks.iter().any(|check| check == name);
    let lint = Lint::prepare(is_wanted)?;
    ensure!(lint.rules || !lint.checks.is_empty(), "no check has that name");
    lint.run(|name, outcome| {
        if let Err(error) = outcome {
            ui::failure(&format!("{name}: {error:#}"));
            failed.push(name);
        }
    });
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    ui::step("Clean", "nothing is wrong");
    Ok(())
}

/// One thing to check.
struct Check {
    name: &'static str,
    /// What has to be installed, as a component of the toolchain and as a program; nothing for what belongs to Cargo.
    needs: Option<(&'static str, &'static str)>,
    command: Command,
}

/// The checks that are wanted, with their tools.
pub(crate) struct Lint {
    checks: Vec<(Check, Result<()>)>,
    rules: bool,
}

impl Lint {
    /// Those whose name is `wanted`; what their tools lack is fetched. Without the pinned toolchain a tool that cannot be had leaves its
    /// checks out, by name; with it that is a check that fails.
    ///
    /// # Errors
    /// There is no toolchain, or Cargo does not know this workspace.
    pub(crate) fn prepare(wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let _lock = paths::lock()?;
        let toolchain = setup::toolchain(Install::Allowed)?;
        let is_pinned = matches!(toolchain, Toolchain::Pinned);
        let mut checks = Vec::new();
        for check in every(is_pinned)?.into_iter().filter(|check| wanted(check.name)) {
            let tool = check.needs.map_or(Ok(()), |(name, program)| setup::component(name, program, Install::Allowed));
            match tool {
                Err(error) if !is_pinned => ui::step("Note", &format!("lint/{} is left out: {error:#}", check.name)),
                tool => checks.push((check, tool)),
            }
        }
        Ok(Self { checks, rules: wanted("rules") })
    }

    /// Runs them, and tells of each as it ends.
    pub(crate) fn run(self, mut done: impl FnMut(&'static str, Result<()>)) {
        if self.rules {
            done("rules", rules::check());
        }
        for (mut check, tool) in self.checks {
            done(check.name, tool.and_then(|()| exec::run(&mut check.command)));
        }
    }
}

/// What Cargo says of the workspace.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    metadata: Option<serde_json::Value>,
}

impl Package {
    /// Its manifest says that its documentation is that of the target: it is linked into an image.
    fn is_for_target(&self) -> bool {
        let target = self.metadata.as_ref().and_then(|metadata| metadata.pointer("/docs/rs/default-target"));
        target.and_then(serde_json::Value::as_str) == Some(paths::TARGET)
    }
}

/// Cargo's tools, for this machine and for the target.
fn every(is_pinned: bool) -> Result<Vec<Check>> {
    const RUSTFMT: Option<(&str, &str)> = Some(("rustfmt", "cargo-fmt"));
    const CLIPPY: Option<(&str, &str)> = Some(("clippy", "cargo-clippy"));
    let cargo = |words: &[&str]| {
        let mut command = paths::cargo();
        command.args(words);
        command
    };
    let denied = ["--", "-D", "warnings"];
    let check = |name, needs, command| Check { name, needs, command };
    let mut list = vec![
        check("formatting", RUSTFMT, cargo(&["fmt", "--all", "--", "--check"])),
        check("clippy", CLIPPY, cargo(&[&["clippy", "--workspace", "--all-targets"], &denied[..]].concat())),
        check("documentation", None, cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])),
    ];
    if is_pinned {
        let said = exec::ask(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
        let Workspace { packages } = serde_json::from_str(&said).context("what cargo metadata says")?;
        let named = packages.iter().filter(|package| package.is_for_target());
        let mut on_target: Vec<&str> = named.flat_map(|package| ["--package", &package.name]).collect();
        ensure!(!on_target.is_empty(), "no package's docs.rs metadata names {} as its target", paths::TARGET);
        on_target.extend(["--target", paths::TARGET]);
        let clippy = [&["clippy", "--lib", "--bins", "--examples"], &on_target[..], &denied[..]].concat();
        list.push(check("clippy-for-target", CLIPPY, cargo(&clippy)));
        list.push(check(
            "documentation-for-target",
            None,
            cargo(&[&["doc", "--no-deps", "--lib"], &on_target[..]].concat()),
        ));
    }
    for check in list.iter_mut().filter(|check| check.name.starts_with("documentation")) {
        check.command.env("RUSTDOCFLAGS", "-D warnings");
    }
    Ok(list)
}
