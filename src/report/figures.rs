//! The figures of a run. Titles, legends and captions are plain text, which the page formats.

use super::chart::{Axes, Key, Series, color, label, lines, padded, svg, unit};
use super::{Model, ReportError, Run, Setting, labels};
use crate::record::{SearchEpoch, TrainEpoch};
use crate::space::{CandidateOp, Genotype};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

const WIDE: (u32, u32) = (760, 300);
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

pub fn losses(run: &Run) -> Result<Figure, ReportError> {
    let title = "Loss of the search";
    let validation = run.search.iter().filter_map(|e| Some((e.epoch, e.validation_loss?)));
    let series = [
        Series::new("training split, weights", 0, run.search.iter().map(|e| (e.epoch, e.train_loss))),
        Series::new("held-out split, architecture", 1, validation),
    ];
    let caption = "Mean cross-entropy of each epoch. The weights are trained on one part of the training \
                   images, and the architecture on the other; the test images are not used.";
    let panels = Panel::only(lines(title, WIDE, "cross-entropy", Series::range(&series), &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

pub fn expected_costs(run: &Run) -> Result<Figure, ReportError> {
    let title = "Expected costs against their limits";
    let constraints = run.search.last().map_or(0, |epoch| epoch.constraints.len());
    let share = |epoch: &SearchEpoch, i: usize| epoch.constraints.get(i).map(|c| c.expected / c.limit.max(1.0));
    let of = |i: usize| {
        let name = run.search.last().map_or(String::new(), |epoch| epoch.constraints[i].cost.clone());
        let points = run.search.iter().filter_map(move |epoch| Some((epoch.epoch, 100.0 * share(epoch, i)?)));
        Series::new(&name, i, points)
    };
    let mut series: Vec<Series> = (0..constraints).map(of).collect();
    let mut limit = Series::new("limit", constraints, run.search.iter().map(|epoch| (epoch.epoch, 100.0)));
    limit.key.dashed = true;
    series.push(limit);
    let caption = "The expected cost at the end of each epoch, with each choice weighted by its probability, as a share of \
                   the limit. The network that is derived from it is within all limits.";
    let panels = Panel::only(lines(title, WIDE, "share of the limit, %", Series::range(&series), &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

pub fn alpha(run: &Run) -> Result<Figure, ReportError> {
    let title = "Probability of each choice";
    let Some(last) = run.search.last() else {
        return Ok(Figure { title, caption: "", legend: vec![], panels: vec![] });
    };
    // Choices with the same name have the same colour in all panels.
    let mut names: Vec<&String> = vec![];
    for name in last.choices.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let number = |name: &String| names.iter().position(|known| *known == name).unwrap_or(0);
    let series = |layer: usize| -> Vec<Series> {
        let of = |choice: usize| {
            let probability = move |alpha: &Vec<Vec<f64>>| softmax(alpha.get(layer)?).get(choice).copied();
            run.search.iter().filter_map(move |e| Some((e.epoch, probability(&e.alpha)?)))
        };
        last.choices[layer].iter().enumerate().map(|(i, name)| Series::new(name, number(name), of(i))).collect()
    };
    let chosen = run.genotype.as_ref().map(Genotype::names).unwrap_or_default();
    let panel = |layer: usize| {
        let chosen = chosen.get(layer).map(|name| format!(": {name}")).unwrap_or_default();
        let svg = lines(title, THIRD, "probability", 0.0..1.0, &series(layer))?;
        Ok(Panel { title: format!("layer {}{chosen}", layer + 1), svg })
    };
    let caption =
        "Softmax of the architecture weights, with a panel for each layer, whose title names the final choice.";
    let panels = (0..last.choices.len()).map(panel).collect::<Result<_, ReportError>>()?;
    let key = |(i, name): (usize, &&String)| Series::new(name, i, std::iter::empty()).key;
    Ok(Figure { title, caption, legend: names.iter().enumerate().map(key).collect(), panels })
}

fn softmax(alpha: &[f64]) -> Vec<f64> {
    let max = alpha.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = alpha.iter().map(|a| (a - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

/// `None` if no network was trained.
pub fn training(run: &Run) -> Result<Option<Figure>, ReportError> {
    let title = "Training from scratch";
    let curve = |value: fn(&TrainEpoch) -> f64| -> Vec<Series> {
        let series = |(i, m): (usize, &Model)| Series::new(&m.name, i, m.train.iter().map(|e| (e.epoch, value(e))));
        let trained = run.models.iter().enumerate().filter(|(_, m)| !m.train.is_empty());
        trained.map(series).collect()
    };
    let (loss, accuracy) = (curve(|e| e.train_loss), curve(|e| e.test_accuracy.percent()));
    if loss.is_empty() {
        return Ok(None);
    }
    let panel = |name: &str, y_title: &str, series: &[Series]| {
        let svg = lines(title, HALF, y_title, Series::range(series), series)?;
        Ok::<_, ReportError>(Panel { title: name.into(), svg })
    };
    let panels =
        vec![panel("training loss", "cross-entropy", &loss)?, panel("test accuracy", "accuracy, %", &accuracy)?];
    let caption = "Each network is trained by itself, from random weights. The reported accuracy is that of the last epoch: \
                   no epoch is selected by the test images.";
    Ok(Some(Figure { title, caption, legend: Series::legend(&loss), panels }))
}

/// `None` if there is no prediction by layer.
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

/// A panel for each setting; `None` if no network was both trained and measured.
pub fn accuracy_latency(run: &Run) -> Result<Option<Figure>, ReportError> {
    let settings = run.settings();
    let mut panels = vec![];
    for (setting, name) in settings.iter().zip(labels(&settings)) {
        if let Some(svg) = scatter(run, setting)? {
            panels.push(Panel { title: name, svg });
        }
    }
    let caption = "Networks further up and to the left are better. A point is at the measured latency; its bar spans the \
                   5th to the 95th percentile of all samples. The accuracy is that of the trained network, in 32-bit \
                   floats.";
    let figure = Figure { title: "Accuracy against latency", caption, legend: vec![], panels };
    Ok(Some(figure).filter(|f| !f.panels.is_empty()))
}

fn scatter(run: &Run, setting: &Setting) -> Result<Option<String>, ReportError> {
    let measured = |(i, model): (usize, &Model)| {
        let row = run.bench_row(model, setting)?;
        Some((i, model.name.clone(), model.test_accuracy()?.percent(), [row.p5_ns, row.latency_ns, row.p95_ns]))
    };
    let points: Vec<_> = run.models.iter().enumerate().filter_map(measured).collect();
    if points.is_empty() {
        return Ok(None);
    }
    let (scale, unit) = unit(points.iter().flat_map(|p| p.3));
    let max = points.iter().flat_map(|p| p.3).fold(0.0, |max: f64, l| max.max(l.ns() / scale));
    let axes = Axes {
        x: 0.0..(1.12 * max).max(1e-9),
        y: padded(points.iter().map(|p| p.2), 0.4),
        x_title: format!("measured latency, {unit}"),
        y_title: "test accuracy, %".into(),
        left: 64,
        whole_x: false,
    };
    let middle = (axes.y.start + axes.y.end) / 2.0;
    let svg = svg("Accuracy against latency", HALF, |area| {
        let chart = axes.draw(area)?;
        let plot = chart.plotting_area();
        for (i, name, accuracy, latencies) in &points {
            let [p5, latency, p95] = latencies.map(|l| l.ns() / scale);
            let line = color(*i).stroke_width(2);
            plot.draw(&PathElement::new([(p5, *accuracy), (p95, *accuracy)], line))?;
            for end in [p5, p95] {
                let cap = PathElement::new([(0, -5), (0, 5)], line);
                plot.draw(&(EmptyElement::at((end, *accuracy)) + cap))?;
            }
            plot.draw(&Circle::new((latency, *accuracy), 5, color(*i).filled()))?;
            // Labels stay inside the chart, and those of two points do not overlap.
            let (h, dx) = if latency < max / 2.0 { (HPos::Left, -5) } else { (HPos::Right, 5) };
            let (v, dy) = if *accuracy >= middle { (VPos::Bottom, -7) } else { (VPos::Top, 9) };
            label(&chart, (latency, *accuracy), (dx, dy), name, h, v)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}
