//! The picture of how a boot grows: a line for each phase, over RAM and over CPUs, on a scale of powers of ten.
//!
//! Both panels have one scale and one legend, so that a phase has one colour and one height wherever it is looked at.

use super::phases::{Boot, TOTAL};
use super::plot::{COLOURS, Chart, LEGEND_WIDTH, MARGIN, Outcome, in_short, powers_around};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels.
const AXIS_WIDTH: u32 = 84;
const TICKS_HEIGHT: u32 = 48;
const LEGEND_TOP: i32 = 56;
const LEGEND_LINE: i32 = 24;
const LEGEND_DASH: i32 = 34;
const DOT: i32 = 4;
const LABEL: (&str, i32) = ("sans-serif", 14);
/// Beside the first and the last machine; 1 is from a machine to one with twice as much.
const ROOM: f64 = 0.12;

/// One panel: machines that differ in one thing.
struct Panel<'a> {
    title: String,
    unit: &'static str,
    /// How much of it each has, from the least to the most.
    machines: Vec<(u64, &'a Boot)>,
}

/// How the line of a phase looks. There are more phases than colours: the second round has empty dots.
#[derive(Clone, Copy)]
struct Look {
    line: ShapeStyle,
    is_full: bool,
}

/// Draws both panels into `area`, which is `width` pixels wide.
///
/// # Errors
/// The backend's.
pub(super) fn draw<B: DrawingBackend>(boots: &[Boot], width: u32, area: &DrawingArea<B, Shift>) -> Outcome<B> {
    let least_gib = boots.iter().map(|boot| boot.gib).min().unwrap_or_default();
    let by_ram = Panel {
        title: "A boot with more RAM: instructions by phase, 1 CPU".to_owned(),
        unit: "GiB of RAM",
        machines: sorted(boots.iter().filter(|boot| boot.cpus == 1).map(|boot| (boot.gib, boot))),
    };
    let by_cpus = Panel {
        title: format!("A boot with more CPUs: instructions by phase, {least_gib} GiB"),
        unit: "CPUs",
        machines: sorted(boots.iter().filter(|boot| boot.gib == least_gib).map(|boot| (boot.cpus.into(), boot))),
    };
    let phases = phases(by_ram.machines.last().map(|(_, boot)| *boot));
    let scale = powers_around(boots.iter().flat_map(|boot| &boot.phases).map(|phase| phase.instructions as f64));
    let panel_width = (width - LEGEND_WIDTH) / 2;
    let (left, rest) = area.split_horizontally(panel_width);
    let (right, legend_area) = rest.split_horizontally(panel_width);
    one(&by_ram, &phases, scale, &left)?;
    one(&by_cpus, &phases, scale, &right)?;
    legend(&phases, &legend_area)
}

fn sorted<'a>(machines: impl Iterator<Item = (u64, &'a Boot)>) -> Vec<(u64, &'a Boot)> {
    let mut machines: Vec<_> = machines.collect();
    machines.sort_by_key(|(much, _)| *much);
    machines
}

/// The phases with their looks, in the order in which their lines end in the first panel.
fn phases(boot: Option<&Boot>) -> Vec<(String, Look)> {
    let mut phases = boot.map_or_else(Vec::new, |boot| boot.phases.clone());
    phases.sort_by_key(|phase| std::cmp::Reverse((phase.name == TOTAL, phase.instructions)));
    let look = |(index, name): (usize, String)| {
        let colour = COLOURS[index % COLOURS.len()];
        let line = if name == TOTAL { BLACK.stroke_width(3) } else { colour.stroke_width(2) };
        (name, Look { line, is_full: index < COLOURS.len() })
    };
    phases.into_iter().map(|phase| phase.name).enumerate().map(look).collect()
}

fn one<B: DrawingBackend>(
    panel: &Panel<'_>,
    phases: &[(String, Look)],
    (low, high): (f64, f64),
    area: &DrawingArea<B, Shift>,
) -> Outcome<B> {
    let at = |much: u64| (much as f64).log2();
    let [first, .., last] = panel.machines.as_slice() else { return Ok(()) };
    let mut chart: Chart<'_, B> = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 20))
        .margin(MARGIN)
        .x_label_area_size(TICKS_HEIGHT)
        .y_label_area_size(AXIS_WIDTH)
        .build_cartesian_2d(at(first.0) - ROOM..at(last.0) + ROOM, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc("instructions")
        .y_label_formatter(&|value| in_short(*value))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (name, look) in phases {
        let of = |(much, boot): &(u64, &Boot)| Some((at(*much), (boot.instructions(name)? as f64).max(low)));
        let points: Vec<(f64, f64)> = panel.machines.iter().filter_map(of).collect();
        chart.draw_series([PathElement::new(points.clone(), look.line)])?;
        chart.draw_series(points.iter().map(|at| Circle::new(*at, DOT, WHITE.filled())))?;
        chart.draw_series(points.iter().map(|at| Circle::new(*at, DOT, look.dot())))?;
    }
    let base = area.get_base_pixel();
    let font = TextStyle::from(LABEL.into_font()).pos(Pos::new(HPos::Center, VPos::Top));
    for (much, _) in &panel.machines {
        let (x, y) = chart.backend_coord(&(at(*much), low));
        area.draw(&Text::new(much.to_string(), (x - base.0, y - base.1 + 8), font.clone()))?;
    }
    let (x, y) = chart.backend_coord(&(f64::midpoint(at(first.0), at(last.0)), low));
    area.draw(&Text::new(panel.unit, (x - base.0, y - base.1 + 30), font))
}

impl Look {
    fn dot(self) -> ShapeStyle {
        ShapeStyle { filled: self.is_full, stroke_width: 2, ..self.line }
    }
}

/// Which line is whose, beside the panels.
fn legend<B: DrawingBackend>(phases: &[(String, Look)], area: &DrawingArea<B, Shift>) -> Outcome<B> {
    for (index, (name, look)) in phases.iter().enumerate() {
        let (left, middle) = (MARGIN as i32, LEGEND_TOP + LEGEND_LINE * index as i32);
        let centre = (left + LEGEND_DASH / 2, middle);
        area.draw(&PathElement::new([(left, middle), (left + LEGEND_DASH, middle)], look.line))?;
        area.draw(&Circle::new(centre, DOT, WHITE.filled()))?;
        area.draw(&Circle::new(centre, DOT, look.dot()))?;
        let font = TextStyle::from(LABEL.into_font()).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name.clone(), (left + LEGEND_DASH + 10, middle), font))?;
    }
    Ok(())
}
