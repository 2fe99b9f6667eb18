//! The picture: bars on a scale of powers of ten, and the quartiles as a line through the end of each bar. Below
//! them stands what `growth` draws.

use super::counts::{Counted, Target};
use super::phases::Boot;
use super::{Host, Report, growth};
use anyhow::{Result, anyhow};
use breakwater_bench::rounds::{Measured, Row};
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Pixels.
const WIDTH: u32 = 1700;
const PANEL_HEIGHT: u32 = 620;
pub(super) const MARGIN: u32 = 12;
const AXIS_WIDTH: u32 = 84;
/// Beside the bars: it would hide some.
pub(super) const LEGEND_WIDTH: u32 = 290;
/// Names longer than this stand upright.
const LONGEST_ACROSS: usize = 16;
/// One for each candidate, for readers who cannot tell red from green too: Okabe and Ito's, and grey for the limit.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(240, 200, 90),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 210, 180),
    RGBColor(130, 130, 130),
];

/// One bar: its value, and from where to where half of the measurements lie.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Bar {
    value: f64,
    quartiles: Option<(f64, f64)>,
}

/// One panel: groups of bars, one bar for each series; `None` where there is nothing to show.
struct Panel {
    title: String,
    unit: String,
    groups: Vec<(String, Vec<Option<Bar>>)>,
    series: Vec<String>,
}

/// Draws `report` into `file`.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(report: &Report, file: &Path) -> Result<()> {
    let panels: Vec<Panel> = report.host.iter().map(of_host).chain(report.target.iter().map(of_target)).collect();
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|error| anyhow!("cannot make {}: {error}", dir.display()))?;
    }
    let boots = report.target.as_ref().map(|target| target.images.as_slice()).unwrap_or_default();
    std::fs::write(file, svg(&panels, boots)?).map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

/// Bars above, and below how `boots` grow, if there are any.
fn svg(panels: &[Panel], boots: &[Boot]) -> Result<String> {
    let mut text = String::new();
    {
        let rows = panels.len() + usize::from(!boots.is_empty());
        let size = (WIDTH, PANEL_HEIGHT * rows as u32);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("cannot draw the plot: {error}");
        area.fill(&WHITE).map_err(failed)?;
        let areas = area.split_evenly((rows, 1));
        for (panel, area) in panels.iter().zip(&areas) {
            one(panel, area).map_err(failed)?;
        }
        if let Some(area) = areas.get(panels.len()) {
            growth::draw(boots, WIDTH, area).map_err(failed)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(text)
}

fn of_host(host: &Host) -> Panel {
    let bars = |request: &Measured| {
        let bar = |row: &Row| {
            let spread = row.nanoseconds?;
            Some(Bar { value: spread.median, quartiles: Some((spread.lower, spread.upper)) })
        };
        (request.name.to_owned(), request.rows.iter().map(bar).collect())
    };
    Panel {
        title: format!("Host: time a leaf, median of {} rounds, line: quartiles (no bar: refused)", host.rounds),
        unit: "ns a page or block".to_owned(),
        groups: host.requests.iter().map(bars).collect(),
        series: host.candidates.iter().map(|candidate| candidate.name.to_owned()).collect(),
    }
}

fn of_target(target: &Target) -> Panel {
    let first = target.runs.first().map(|run| run.requests.as_slice()).unwrap_or_default();
    let bars = |(index, name): (usize, &String)| {
        let bar = |run: &Counted| {
            let value = run.requests.get(index)?.instructions as f64;
            Some(Bar { value, quartiles: None })
        };
        (name.clone(), target.runs.iter().map(bar).collect())
    };
    Panel {
        title: format!("Target: instructions a request, exact ({}, QEMU {})", target.cpu, target.qemu),
        unit: "instructions".to_owned(),
        groups: first.iter().map(|cost| &cost.name).enumerate().map(bars).collect(),
        series: target.runs.iter().map(|run| format!("CPUs: {}", run.cpus)).collect(),
    }
}

/// The scale for every bar.
fn scale(panel: &Panel) -> (f64, f64) {
    let bars = panel.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
    powers_around(bars.flat_map(|bar| {
        let (low, high) = bar.quartiles.unwrap_or((bar.value, bar.value));
        [low, bar.value, high]
    }))
}

/// The powers of ten around `values`.
pub(super) fn powers_around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let around = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    let (low, high) = values.filter(|value| *value > 0.0).fold((f64::INFINITY, f64::NEG_INFINITY), around);
    if !(low.is_finite() && high > 0.0) {
        return (0.1, 10.0);
    }
    (10f64.powf(low.log10().floor()), 10f64.powf((high * 1.01).log10().ceil()))
}

pub(super) type Outcome<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
pub(super) type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

fn one<B: DrawingBackend>(panel: &Panel, area: &DrawingArea<B, Shift>) -> Outcome<B> {
    let (low, high) = scale(panel);
    let is_long = panel.groups.iter().any(|(name, _)| name.len() > LONGEST_ACROSS);
    let mut chart: Chart<'_, B> = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 20))
        .margin(MARGIN)
        .margin_right(MARGIN + LEGEND_WIDTH)
        .x_label_area_size(if is_long { 175 } else { 30 })
        .y_label_area_size(AXIS_WIDTH)
        .build_cartesian_2d(0.0..panel.groups.len() as f64, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(&panel.unit)
        .y_label_formatter(&|value| in_short(*value))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for index in 0..panel.series.len() {
        bars(panel, index, (low, high), &mut chart)?;
    }
    names(panel, low, is_long, area, &chart)?;
    legend(panel, area)
}

/// Which colour is whose, beside the bars.
fn legend<B: DrawingBackend>(panel: &Panel, area: &DrawingArea<B, Shift>) -> Outcome<B> {
    let left = (WIDTH - LEGEND_WIDTH) as i32;
    for (index, series) in panel.series.iter().enumerate() {
        let top = 50 + 22 * index as i32;
        let colour = COLOURS[index % COLOURS.len()];
        area.draw(&Rectangle::new([(left, top), (left + 14, top + 12)], colour.filled()))?;
        area.draw(&Text::new(series.clone(), (left + 22, top), TextStyle::from(("sans-serif", 14).into_font())))?;
    }
    Ok(())
}

/// `0.1`, `10`, `10k`, `10M`.
pub(super) fn in_short(value: f64) -> String {
    let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let step = steps.into_iter().find(|(step, _)| value >= *step);
    step.map_or_else(|| format!("{value}"), |(step, letter)| format!("{}{letter}", value / step))
}

/// One bar of each group, and the line that shows the noise.
fn bars<B: DrawingBackend>(
    panel: &Panel,
    index: usize,
    (low, high): (f64, f64),
    chart: &mut Chart<'_, B>,
) -> Outcome<B> {
    let colour = COLOURS[index % COLOURS.len()];
    let width = 1.0 / (panel.series.len() as f64 + 1.5);
    let left = |group: usize| group as f64 + (index as f64 + 0.75) * width;
    let there =
        panel.groups.iter().enumerate().filter_map(|(group, (_, bars))| Some((left(group), (*bars.get(index)?)?)));
    let there: Vec<(f64, Bar)> = there.collect();
    let boxes = there
        .iter()
        .map(|(left, bar)| Rectangle::new([(*left, low), (left + 0.9 * width, bar.value.max(low))], colour.filled()));
    chart.draw_series(boxes)?;
    let lines = there.iter().filter_map(|(left, bar)| {
        let (lower, upper) = bar.quartiles?;
        let middle = left + 0.45 * width;
        Some(PathElement::new(vec![(middle, lower.max(low)), (middle, upper.min(high))], BLACK.stroke_width(2)))
    });
    chart.draw_series(lines)?;
    Ok(())
}

/// The groups' names below the middle of each, upright where there are many.
fn names<B: DrawingBackend>(
    panel: &Panel,
    low: f64,
    is_long: bool,
    area: &DrawingArea<B, Shift>,
    chart: &Chart<'_, B>,
) -> Outcome<B> {
    let base = area.get_base_pixel();
    let font = TextStyle::from(("sans-serif", 13).into_font());
    for (group, (name, _)) in panel.groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64 + 0.5, low));
        let (x, y) = (x - base.0, y - base.1 + 8);
        let style = if is_long {
            font.clone().transform(FontTransform::Rotate90).pos(Pos::new(HPos::Left, VPos::Center))
        } else {
            font.clone().pos(Pos::new(HPos::Center, VPos::Top))
        };
        area.draw(&Text::new(name.clone(), (x, y), style))?;
    }
    Ok(())
}
