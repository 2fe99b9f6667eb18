//! What a person sees: steps, commands, progress. Everything here goes to standard error, so that standard output carries results
//! only; colours and bars appear on a terminal and nowhere else.

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Says what is being done, in the manner of Cargo.
pub fn step(verb: &str, what: &str) {
    anstream::eprintln!("{GOOD}{verb:>12}{GOOD:#} {what}");
}

/// Shows a command before it runs.
pub fn command(line: &str) {
    anstream::eprintln!("{QUIET}{:>12} {line}{QUIET:#}", "$");
}

/// Shows a failure.
pub fn failure(what: &str) {
    anstream::eprintln!("{BAD}{:>12}{BAD:#} {what}", "failed");
}

/// How far something has come of which nobody knows the end: a line every few seconds on a terminal, nothing elsewhere.
pub struct Counter {
    verb: &'static str,
    began: Instant,
    /// When to say something next, if at all.
    next: Option<Duration>,
}

impl Counter {
    /// Between two lines.
    const PERIOD: Duration = Duration::from_secs(5);

    /// Of what `verb` says; silent unless that is `wanted`.
    #[must_use]
    pub fn new(verb: &'static str, wanted: bool) -> Self {
        let next = (wanted && std::io::stderr().is_terminal()).then_some(Self::PERIOD);
        Self { verb, began: Instant::now(), next }
    }

    /// Says how far it has come, if it is time.
    pub fn says(&mut self, what: impl FnOnce() -> String) {
        let taken = self.began.elapsed();
        if let Some(next) = self.next.as_mut().filter(|next| **next <= taken) {
            *next = taken + Self::PERIOD;
            step(self.verb, &format!("{} s: {}", taken.as_secs(), what()));
        }
    }
}

/// Progress of a known number of things: a bar on a terminal, one line a thing elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts a bar over `total` things.
    #[must_use]
    pub fn new(total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    /// Names what is under way.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// That many more things are done, too many for a line each.
    pub fn advance(&self, things: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(things);
        }
    }

    /// One more thing is done. `line` stays on the screen; `None` only moves the bar.
    pub fn done(&self, good: bool, line: Option<&str>) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        let Some(line) = line else { return };
        let (style, word) = if good { (GOOD, "ok") } else { (BAD, "FAILED") };
        let print = || anstream::eprintln!("{style}{word:>12}{style:#} {line}");
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
