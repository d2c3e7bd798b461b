use super::ReportError;
use super::chart::{color, label, svg, text};
use super::summary::{or_dash, percent};
use crate::artifact;
use crate::record::{Evaluation, Metrics};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// The largest width of a cell, and the approximate width of the whole matrix, in pixels.
const CELL: usize = 40;
const MATRIX: usize = 600;
/// Margins to the left of, below and around the matrix.
const LEFT: u32 = 190;
const BELOW: u32 = 46;
const EDGE: u32 = 10;
/// The largest numbers of classes for which cells show numbers and rows show names.
const MOST_NUMBERS: usize = 20;
const MOST_NAMES: usize = 40;
const LONGEST_NAME: usize = 18;

/// The columns of [`metrics_row`].
pub const METRICS: [&str; 5] = ["top-1", "top-5", "lowest class", "cross-entropy", "calibration\nerror"];

/// Formats the metrics of a network for people.
pub fn metrics_row(metrics: &Metrics) -> [String; 5] {
    let lowest = metrics.worst().map(|(class, accuracy)| format!("{class}, {}", percent(accuracy)));
    [
        percent(metrics.top1),
        or_dash(metrics.top5.map(percent)),
        or_dash(lowest),
        format!("{:.4}", metrics.cross_entropy),
        percent(metrics.calibration_error),
    ]
}

/// Draws the confusion matrix of an evaluation as an SVG file.
///
/// # Errors
/// Fails if the figure cannot be drawn, or if the file cannot be written.
pub fn confusion(path: &Path, evaluation: &Evaluation) -> Result<(), ReportError> {
    Ok(artifact::write(path, matrix(evaluation, true)?.as_bytes())?)
}

/// Draws the confusion matrix as an SVG document, on white or on whatever is below it. The larger the share of a cell
/// in its row, the darker the cell.
pub fn matrix(evaluation: &Evaluation, on_white: bool) -> Result<String, ReportError> {
    let (rows, classes) = (evaluation.metrics.confusion.rows(), &evaluation.metrics.classes);
    let (n, cell) = (rows.len() as f64, (MATRIX / rows.len()).clamp(1, CELL));
    let side = (cell * rows.len()) as u32;
    svg("Confusion matrix", (LEFT + side + EDGE, EDGE + side + BELOW), |area| {
        if on_white {
            area.fill(&WHITE)?;
        }
        let chart = ChartBuilder::on(area)
            .margin_top(EDGE)
            .margin_right(EDGE)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
            .build_cartesian_2d(0.0..n, n..0.0)?;
        let plot = chart.plotting_area();
        let middle = |i: usize| i as f64 + 0.5;
        for (i, row) in rows.iter().enumerate() {
            let images: f64 = row.iter().copied().map(f64::from).sum();
            for (j, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let share = f64::from(*count) / images;
                let corners = [(j as f64, i as f64), (j as f64 + 1.0, i as f64 + 1.0)];
                // The colour is not quite opaque, so that the number is readable.
                plot.draw(&Rectangle::new(corners, color(0).mix(0.08 + 0.62 * share).filled()))?;
                if rows.len() <= MOST_NUMBERS {
                    let at = (middle(j), middle(i));
                    label(&chart, at, (0, 0), &in_percent(share), HPos::Center, VPos::Center)?;
                }
            }
        }
        plot.draw(&Rectangle::new([(0.0, 0.0), (n, n)], color(5)))?;
        if rows.len() <= MOST_NAMES {
            for (i, of) in classes.iter().enumerate() {
                let name = format!("{} {i}", shortened(&of.class));
                label(&chart, (0.0, middle(i)), (-8, 0), &name, HPos::Right, VPos::Center)?;
                label(&chart, (middle(i), n), (0, 6), &i.to_string(), HPos::Center, VPos::Top)?;
            }
        }
        label(&chart, (n / 2.0, n), (0, 26), "taken for", HPos::Center, VPos::Top)?;
        let sideways = text().transform(FontTransform::Rotate270).pos(Pos::new(HPos::Center, VPos::Center));
        plot.draw(&(EmptyElement::at((0.0, n / 2.0)) + Text::new("class", (12 - LEFT as i32, 0), sideways)))
    })
}

/// Formats a share in percent, without the percent sign.
fn in_percent(share: f64) -> String {
    if share < 0.01 { "<1".into() } else { format!("{:.0}", 100.0 * share) }
}

fn shortened(name: &str) -> String {
    match name.chars().count() {
        ..=LONGEST_NAME => name.into(),
        _ => name.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
    }
}
