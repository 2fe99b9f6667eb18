//! SVG, as far as the picture needs it: boxes, lines, triangles and words, each with what a reader sees who hovers over it.
//!
//! What must hold: no number that is none gets into the file, and no text can be mistaken for markup.

use svg::Document;
use svg::node::element::{Group, Line, Polygon, Polyline, Rectangle, Text, Title};

/// Colours that readers who cannot tell red from green can tell from each other: Okabe and Ito's.
pub(super) mod colour {
    pub(in crate::timeline) const INK: &str = "#222222";
    pub(in crate::timeline) const FAINT: &str = "#666666";
    pub(in crate::timeline) const RULE: &str = "#bbbbbb";
    pub(in crate::timeline) const STRETCH: &str = "#f0f0f0";
    pub(in crate::timeline) const OFF: &str = "#d9d9d9";
    pub(in crate::timeline) const ALARM: &str = "#d55e00";
    /// Behind marks: somewhere here a rule is broken.
    pub(in crate::timeline) const ALARM_FAINT: &str = "#fbe3d2";
    pub(in crate::timeline) const ALARM_HELD: &str = "#f3c7a6";
    pub(in crate::timeline) const ORANGE: &str = "#e69f00";
    pub(in crate::timeline) const SKY: &str = "#56b4e9";
    pub(in crate::timeline) const GREEN: &str = "#009e73";
    pub(in crate::timeline) const BLUE: &str = "#0072b2";
    pub(in crate::timeline) const PURPLE: &str = "#cc79a7";
    pub(in crate::timeline) const BLACK: &str = "#000000";
    /// For roots, one after the other.
    pub(in crate::timeline) const ROOTS: [&str; 6] = ["#a9d5f2", "#9fdcc8", "#f5e58a", "#e6bcd4", "#9cc3df", "#f4cf86"];
}

/// Which end of a text stands at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A box in pixels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) const fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self { x, y, width, height }
    }
}

/// How words look.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Style {
    pub(super) size: u32,
    pub(super) anchor: Anchor,
    pub(super) colour: &'static str,
    pub(super) is_bold: bool,
}

impl Style {
    pub(super) const fn new(size: u32) -> Self {
        Self { size, anchor: Anchor::Start, colour: colour::INK, is_bold: false }
    }

    pub(super) const fn anchored(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    pub(super) const fn coloured(mut self, colour: &'static str) -> Self {
        self.colour = colour;
        self
    }

    pub(super) const fn bold(mut self) -> Self {
        self.is_bold = true;
        self
    }

    /// About how wide `text` will be.
    pub(super) fn width(self, text: &str) -> f64 {
        let one = if self.is_bold { 0.62 } else { 0.56 };
        text.chars().count() as f64 * f64::from(self.size) * one
    }
}

/// A picture in the making.
pub(super) struct Canvas {
    group: Group,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self { group: Group::new().set("font-family", "Helvetica, Arial, 'DejaVu Sans', sans-serif") }
    }

    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.group, node);
    }

    /// A filled box; an empty `hover` is none.
    pub(super) fn area(&mut self, area: Area, fill: &str, hover: &str) {
        let Area { x, y, width, height } = area;
        let mut node = Rectangle::new().set("x", number(x)).set("y", number(y)).set("fill", fill);
        node = node.set("width", number(width.max(0.5))).set("height", number(height.max(0.5)));
        if !hover.is_empty() {
            node = node.add(Title::new(clean(hover)));
        }
        self.add(node);
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let node = Line::new().set("x1", number(from.0)).set("y1", number(from.1)).set("x2", number(to.0));
        self.add(node.set("y2", number(to.1)).set("stroke", colour).set("stroke-width", number(width)));
    }

    /// A triangle that points down to `tip`.
    pub(super) fn pointer(&mut self, tip: (f64, f64), colour: &str, is_hollow: bool, hover: &str) {
        let (x, y) = tip;
        let points = [(x - 5.0, y - 9.0), (x + 5.0, y - 9.0), (x, y)];
        let fill = if is_hollow { "#ffffff" } else { colour };
        let node = Polygon::new().set("points", listed(&points)).set("fill", fill).set("stroke", colour);
        self.add(node.add(Title::new(clean(hover))));
    }

    /// The mark of an axis that leaves something out, around `middle`.
    pub(super) fn zigzag(&mut self, middle: (f64, f64), height: f64, hover: &str) {
        let (x, y) = middle;
        for offset in [-1.5, 2.0] {
            let at = |dx: f64, part: f64| (x + offset + dx, y + height * part);
            let points = [at(-1.5, -0.6), at(1.5, -0.2), at(-1.5, 0.2), at(1.5, 0.6)];
            let node = Polyline::new().set("points", listed(&points)).set("fill", "none").set("stroke", colour::INK);
            self.add(node.add(Title::new(clean(hover))));
        }
    }

    /// `text` with its baseline at `at`.
    pub(super) fn text(&mut self, at: (f64, f64), style: Style, text: &str) {
        let mut node = Text::new(clean(text)).set("x", number(at.0)).set("y", number(at.1));
        node = node.set("font-size", style.size).set("fill", style.colour);
        match style.anchor {
            Anchor::Start => {}
            Anchor::Middle => node = node.set("text-anchor", "middle"),
            Anchor::End => node = node.set("text-anchor", "end"),
        }
        if style.is_bold {
            node = node.set("font-weight", "bold");
        }
        self.add(node);
    }

    /// The file, of this size in pixels.
    pub(super) fn finish(self, width: f64, height: f64) -> String {
        let document = Document::new().set("width", number(width)).set("height", number(height));
        let sheet = Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "#ffffff");
        let document = document.set("viewBox", (0, 0, number(width), number(height))).add(sheet);
        format!("{}\n", document.add(self.group))
    }
}

fn listed(points: &[(f64, f64)]) -> String {
    let each: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
    each.join(" ")
}

/// A tenth of a pixel is enough, and what is no number stands at the edge.
fn number(value: f64) -> f64 {
    if value.is_finite() { (value * 10.0).round() / 10.0 } else { 0.0 }
}

/// Without what XML cannot carry. The rest is escaped on the way out.
fn clean(text: &str) -> String {
    let carried = |letter: &char| !letter.is_control() && !matches!(letter, '\u{fffe}' | '\u{ffff}');
    text.chars().filter(carried).collect()
}
