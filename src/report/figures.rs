//! The figures of a run. Titles, legends and captions are plain text, which the page formats.

mod accuracy;
mod probabilities;
mod search;

pub use accuracy::accuracy_latency;
pub use search::{Compared, candidates, compared, of_log};

use super::chart::{Axes, Key, Series, color, label, lines, svg, unit};
use super::evaluation::matrix;
use super::{Model, ReportError, Run, Setting, labels};
use crate::bounded::Share;
use crate::record::{Evaluation, TrainEpoch};
use crate::space::CandidateOp;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

const WIDE: (u32, u32) = (760, 300);
const TALL: (u32, u32) = (760, 420);
const HALF: (u32, u32) = (460, 290);
const THIRD: (u32, u32) = (340, 220);

pub struct Figure {
    pub title: &'static str,
    pub caption: &'static str,
    pub legend: Vec<Key>,
    pub panels: Vec<Panel>,
}

pub struct Panel {
    /// Empty for the only panel of a figure.
    pub title: String,
    pub svg: String,
}

impl Panel {
    fn only(svg: String) -> Vec<Panel> {
        vec![Panel { title: String::new(), svg }]
    }
}

/// Draws the loss and the accuracy of training runs. Returns `None` if no network was trained.
pub fn training(run: &Run) -> Result<Option<Figure>, ReportError> {
    let title = "Training from scratch";
    let curve = |value: &dyn Fn(&TrainEpoch) -> Option<f64>| -> Vec<Series> {
        let points = |m: &Model| m.train.iter().filter_map(|e| Some((e.epoch, value(e)?))).collect::<Vec<_>>();
        let drawn = run.models.iter().enumerate().map(|(i, m)| (i, &m.name, points(m)));
        let drawn = drawn.filter(|(_, _, points)| !points.is_empty());
        drawn.map(|(i, name, points)| Series::new(name, i, points.into_iter())).collect()
    };
    let loss = curve(&|e| Some(e.train_loss));
    if loss.is_empty() {
        return Ok(None);
    }
    let percent = |share: Option<Share>| share.map(|share| 100.0 * share.get());
    // A training with held-out images uses the test images once, which is no curve.
    let tested = curve(&|e| percent(e.test_accuracy.filter(|_| e.held_out_accuracy.is_none())));
    let held_out = curve(&|e| percent(e.held_out_accuracy));
    let all = [("training loss", "loss", &loss), ("test accuracy", "accuracy, %", &tested)];
    let all = all.into_iter().chain([("held-out accuracy", "accuracy, %", &held_out)]);
    let panel = |(name, y_title, series): (&str, &str, &Vec<Series>)| {
        let svg = lines(title, HALF, y_title, Series::range(series), series)?;
        Ok::<_, ReportError>(Panel { title: name.into(), svg })
    };
    let panels = all.filter(|(_, _, series)| !series.is_empty()).map(panel).collect::<Result<_, _>>()?;
    let caption = "Each network is trained by itself, from random weights. The reported accuracy is that of the last epoch: \
                   no epoch is selected by the test images.";
    Ok(Some(Figure { title, caption, legend: Series::legend(&loss), panels }))
}

/// Draws a panel for each evaluated network. Returns `None` if there is none.
pub fn confusion(run: &Run) -> Result<Option<Figure>, ReportError> {
    let panel =
        |evaluation: &Evaluation| Ok(Panel { title: evaluation.model.clone(), svg: matrix(evaluation, false)? });
    let panels = run.evaluations().map(panel).collect::<Result<Vec<_>, ReportError>>()?;
    let caption = "A row has the test images of a class, and a column those that were taken for a class, in percent of the \
                   row. The diagonal is the accuracy of each class.";
    let figure = Figure { title: "Confusion matrix", caption, legend: vec![], panels };
    Ok(Some(figure).filter(|figure| !figure.panels.is_empty()))
}

/// Draws the latency of each layer. Returns `None` if there is no prediction by layer.
pub fn layer_latency(run: &Run) -> Result<Option<Figure>, ReportError> {
    let title = "Latency by layer";
    let (rows, layers) = (run.by_layer(), run.layers());
    if rows.is_empty() {
        return Ok(None);
    }
    let latencies = || layers.iter().flat_map(|l| l.predicted.iter().flatten().copied());
    let (scale, unit) = unit(latencies());
    // What a layer adds may be negative.
    let (min, max) = latencies().fold((0.0, 0.0), |(min, max), l| (l.ns().min(min), l.ns().max(max)));
    let axes = Axes {
        x: 1.1 * min / scale..(1.15 * max / scale).max(1e-9),
        y: layers.len() as f64..0.0,
        x_title: format!("predicted latency, {unit}"),
        y_title: String::new(),
        left: 190,
        whole_x: false,
    };
    let left_edge = axes.x.start;
    let height = 60 + layers.len() as u32 * (10 + 17 * rows.len() as u32);
    let svg = svg(title, (WIDE.0, height), |area| {
        let chart = axes.draw(area)?;
        let bar = 0.84 / rows.len() as f64;
        for (i, layer) in layers.iter().enumerate() {
            let name = match layer.layer.op {
                CandidateOp::Head => layer.name.clone(),
                op => format!("{}: {op}", layer.name),
            };
            label(&chart, (left_edge, i as f64 + 0.5), (-8, 0), &name, HPos::Right, VPos::Center)?;
            for (r, (ns, alone)) in layer.predicted.iter().zip(&layer.isolated).enumerate() {
                let top = i as f64 + 0.08 + bar * r as f64;
                let end = ns.map_or(0.0, |ns| ns.ns() / scale);
                let nothing = if alone.is_some() { "in the base" } else { "no prediction" };
                let text = ns.map_or(nothing.into(), |ns| ns.to_string());
                let corners = [(end.min(0.0), top), (end.max(0.0), top + 0.92 * bar)];
                chart.plotting_area().draw(&Rectangle::new(corners, color(r).filled()))?;
                label(&chart, (end.max(0.0), top + 0.46 * bar), (6, 0), &text, HPos::Left, VPos::Center)?;
            }
        }
        Ok(())
    })?;
    let settings: Vec<Setting> = rows.iter().map(|(row, _)| row.setting()).collect();
    let key = |(r, label)| Key { label, color: color(r), dashed: false };
    let legend = labels(&settings).into_iter().enumerate().map(key).collect();
    let caption = "How much each layer adds to the latency of the found network, according to the latency table.";
    Ok(Some(Figure { title, caption, legend, panels: Panel::only(svg) }))
}
