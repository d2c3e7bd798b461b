//! The elements of figures: colours, axes, lines over epochs, and labels.

use super::ReportError;
use crate::latency::Latency;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

const GREY: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// The palette of Okabe and Ito, which colour-blind people can distinguish. Black is replaced by grey, and yellow is
/// darker, so that all colours are visible on white and on black.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x56, 0xB4, 0xE9),
    GREY,
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0xA8, 0x98, 0x00),
];

pub fn color(i: usize) -> RGBColor {
    PALETTE[i % PALETTE.len()]
}

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub type DrawResult<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// An entry of a legend.
#[derive(Clone)]
pub struct Key {
    pub label: String,
    pub color: RGBColor,
    pub dashed: bool,
}

/// A line over epochs.
pub struct Series {
    pub key: Key,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Creates a line in the `i`th colour. It is dashed once all colours are used.
    pub fn new(label: &str, i: usize, points: impl Iterator<Item = (usize, f64)>) -> Self {
        let key = Key { label: label.into(), color: color(i), dashed: i >= PALETTE.len() };
        // Beyond this, the ticks of an axis cannot be told apart.
        let points = points.filter(|(_, y)| y.abs() <= 1e12);
        Series { key, points: points.map(|(epoch, y)| (epoch as f64, y)).collect() }
    }

    pub fn legend(series: &[Series]) -> Vec<Key> {
        series.iter().map(|s| s.key.clone()).collect()
    }

    /// Returns the range of all points, widened a little.
    pub fn range(series: &[Series]) -> Range<f64> {
        padded(series.iter().flat_map(|s| s.points.iter().map(|p| p.1)), 0.06)
    }
}

/// The axes of a chart.
pub struct Axes {
    pub x: Range<f64>,
    pub y: Range<f64>,
    pub x_title: String,
    /// Empty if the chart labels its rows itself.
    pub y_title: String,
    /// Width of the labels on the left, pixels.
    pub left: u32,
    /// Ticks at whole numbers only.
    pub whole_x: bool,
}

impl Axes {
    pub fn draw<'a, 'b>(self, area: &'a Area<'b>) -> DrawResult<Chart<'a, 'b>> {
        let x_digits = if self.whole_x { 0 } else { digits(&self.x) };
        let y_digits = digits(&self.y);
        let mut chart = ChartBuilder::on(area)
            .margin_top(10)
            .margin_right(14)
            .set_label_area_size(LabelAreaPosition::Left, self.left)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(self.x, self.y)?;
        let tick = |value: &f64, digits: usize| {
            let label = format!("{value:.digits$}");
            if digits == 0 && value.fract().abs() > 1e-6 { String::new() } else { label }
        };
        let (x_tick, y_tick) = (|x: &f64| tick(x, x_digits), |y: &f64| tick(y, y_digits));
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.25))
            .axis_style(GREY)
            .label_style(text())
            .axis_desc_style(text())
            .x_labels(6)
            .y_labels(if self.y_title.is_empty() { 0 } else { 6 })
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .x_label_formatter(&x_tick)
            .y_label_formatter(&y_tick);
        if self.whole_x {
            mesh.disable_x_mesh();
        }
        mesh.draw()?;
        Ok(chart)
    }
}

/// Draws lines over epochs as an SVG document.
pub fn lines(
    figure: &'static str,
    size: (u32, u32),
    y_title: &str,
    y: Range<f64>,
    series: &[Series],
) -> Result<String, ReportError> {
    let last = series.iter().flat_map(|s| s.points.last()).fold(2.0, |last: f64, p| last.max(p.0));
    let axes = Axes { x: 1.0..last, y, x_title: "epoch".into(), y_title: y_title.into(), left: 64, whole_x: true };
    svg(figure, size, |area| {
        let mut chart = axes.draw(area)?;
        for Series { key, points } in series {
            let (line, points) = (key.color.stroke_width(2), points.iter().copied());
            // If there are few epochs, the points are shown as well. A single epoch has no line at all.
            let dotted = points.len() <= if key.dashed { 1 } else { 12 };
            if key.dashed {
                chart.draw_series(DashedLineSeries::new(points.clone(), 7, 5, line))?;
            } else {
                chart.draw_series(LineSeries::new(points.clone(), line))?;
            }
            if dotted {
                chart.draw_series(points.map(|p| Circle::new(p, 3, key.color.filled())))?;
            }
        }
        Ok(())
    })
}

/// Draws an SVG document. `figure` names it in errors.
pub fn svg(
    figure: &'static str,
    size: (u32, u32),
    paint: impl FnOnce(&Area) -> DrawResult<()>,
) -> Result<String, ReportError> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    paint(&area).and_then(|()| area.present()).map_err(|e| ReportError::Draw { figure, reason: e.to_string() })?;
    drop(area);
    Ok(svg)
}

/// Returns the style of text. The style sheet of the page overrides its colour and font family.
pub fn text() -> TextStyle<'static> {
    ("sans-serif", 15).into_text_style(&(460, 280))
}

/// Writes `label` at a point of the chart, moved by (right, down) pixels.
pub fn label(chart: &Chart, at: (f64, f64), offset: (i32, i32), label: &str, h: HPos, v: VPos) -> DrawResult<()> {
    let style = text().pos(Pos::new(h, v));
    chart.plotting_area().draw(&(EmptyElement::at(at) + Text::new(label.to_string(), offset, style)))
}

/// Writes a label beside each point, so that labels cover neither points nor each other where there is room.
pub fn labels(chart: &Chart, points: &[((f64, f64), String)]) -> DrawResult<()> {
    const NEAR: [(i32, i32); 8] = [(5, -8), (-5, -8), (5, 9), (-5, 9), (9, 0), (-9, 0), (0, -9), (0, 10)];
    let (across, down) = chart.plotting_area().get_pixel_range();
    let around = |(x, y): (i32, i32)| [x - 6, y - 6, x + 6, y + 6];
    let mut taken: Vec<[i32; 4]> = points.iter().map(|(at, _)| around(chart.backend_coord(at))).collect();
    let overlap = |a: &[i32; 4], b: &[i32; 4]| a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    for (at, name) in points.iter().filter(|(_, name)| !name.is_empty()) {
        let (x, y) = chart.backend_coord(at);
        // Letters are about half as wide as the font is high.
        let (width, height) = (8 * name.chars().count() as i32, 16);
        let place = |&(dx, dy): &(i32, i32)| {
            let left = x + dx - width * (1 - dx.signum()) / 2;
            let top = y + dy - height * (1 - dy.signum()) / 2;
            [left, top, left + width, top + height]
        };
        let inside = |[x0, y0, x1, y1]: &[i32; 4]| {
            across.contains(x0) && across.contains(x1) && down.contains(y0) && down.contains(y1)
        };
        let is_free = |offset: &&(i32, i32)| {
            let place = place(offset);
            inside(&place) && !taken.iter().any(|taken| overlap(&place, taken))
        };
        let least_bad = || NEAR.iter().find(|offset| inside(&place(offset)));
        let &(dx, dy) = NEAR.iter().find(is_free).or_else(least_bad).unwrap_or(&NEAR[0]);
        taken.push(place(&(dx, dy)));
        let h = [HPos::Right, HPos::Center, HPos::Left][(dx.signum() + 1) as usize];
        let v = [VPos::Bottom, VPos::Center, VPos::Top][(dy.signum() + 1) as usize];
        label(chart, *at, (dx, dy), name, h, v)?;
    }
    Ok(())
}

/// Returns the smallest range that contains all values, widened on both sides by a share of its width.
pub fn padded(values: impl Iterator<Item = f64>, share: f64) -> Range<f64> {
    let (min, max) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)));
    match max - min {
        width if width > 1e-9 * max.abs() => min - share * width..max + share * width,
        _ if max.is_finite() => max - 0.1 * max.abs() - 1e-9..max + 0.1 * max.abs() + 1e-9,
        _ => 0.0..1.0,
    }
}

/// Returns the number of decimals that distinguishes five to ten ticks of a range.
fn digits(range: &Range<f64>) -> usize {
    let step = (range.end - range.start).abs() / 6.0;
    (-step.log10()).ceil().clamp(0.0, 9.0) as usize
}

/// Returns the unit that suits the largest of these latencies, as its number of nanoseconds and its name.
pub fn unit(latencies: impl Iterator<Item = Latency>) -> (f64, &'static str) {
    match latencies.fold(0.0, |max, l| l.ns().max(max)) {
        ns if ns < 1e3 => (1.0, "ns"),
        ns if ns < 1e6 => (1e3, "µs"),
        ns if ns < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    }
}
