use super::{Figure, HALF, Panel, TALL};
use crate::bounded::Share;
use crate::latency::Latency;
use crate::report::chart::{Axes, Key, color, labels, padded, svg, unit};
use crate::report::{Model, ReportError, Run, Setting, labels as setting_labels};
use plotters::prelude::*;

/// Colours of found networks, of baselines, and of targets.
const FOUND: usize = 0;
const BASELINE: usize = 1;
const TARGET: usize = 5;

/// A network that was trained and measured.
struct Point {
    name: String,
    color: usize,
    accuracy: Share,
    p5: Latency,
    latency: Latency,
    p95: Latency,
}

/// Draws a panel for each setting, with the networks of the run and of its targets. Returns `None` if no network was
/// both trained and measured.
pub fn accuracy_latency(run: &Run) -> Result<Option<Figure>, ReportError> {
    let settings = run.settings();
    let (mut panels, mut has_targets) = (vec![], false);
    let size = if settings.len() == 1 { TALL } else { HALF };
    for (setting, title) in settings.iter().zip(setting_labels(&settings)) {
        let (points, targets) = (points(run, setting), targets(run, setting));
        if !points.is_empty() {
            has_targets |= !targets.is_empty();
            panels.push(Panel { title, svg: scatter(&points, &targets, size)? });
        }
    }
    let key = |label: &str, i: usize, dashed: bool| Key { label: label.into(), color: color(i), dashed };
    let mut legend = vec![key("found", FOUND, false), key("baseline", BASELINE, false)];
    if has_targets {
        legend.push(key("target", TARGET, true));
    }
    let caption = "Networks further up and to the left are better. A point is at the measured latency; its bar spans the \
                   5th to the 95th percentile of all samples. The accuracy is that of the trained network, in 32-bit \
                   floats.";
    let figure = Figure { title: "Accuracy against latency", caption, legend, panels };
    Ok(Some(figure).filter(|f| !f.panels.is_empty()))
}

fn points(run: &Run, setting: &Setting) -> Vec<Point> {
    let of = |run: &Run, model: &Model, found: &str| {
        let (row, accuracy) = (run.bench_row(model, setting)?, model.test_accuracy()?);
        let (name, color) = match model.ops {
            Some(_) => (found.to_string(), FOUND),
            None => (model.name.clone(), BASELINE),
        };
        Some(Point { name, color, accuracy, p5: row.p5_ns, latency: row.latency_ns, p95: row.p95_ns })
    };
    let own = run.models.iter().filter_map(|model| of(run, model, &model.name));
    let of_targets = run.targets.iter().flat_map(|target| {
        target.run.models.iter().filter_map(|model| of(&target.run, model, &target.name)).collect::<Vec<_>>()
    });
    of_targets.chain(own).collect()
}

/// Returns the targets, for a setting, of those networks that were measured.
fn targets(run: &Run, setting: &Setting) -> Vec<Latency> {
    let runs = run.targets.iter().map(|target| &target.run).chain([run]);
    let measured = runs.filter(|run| run.models.iter().any(|m| m.ops.is_some() && run.bench_row(m, setting).is_some()));
    let held = measured.filter_map(|run| run.certificate.as_ref()).flat_map(|certificate| &certificate.constraints);
    held.filter(|held| setting.is_of(held)).map(|held| Latency::from_ns(held.target)).collect()
}

fn scatter(points: &[Point], targets: &[Latency], size: (u32, u32)) -> Result<String, ReportError> {
    let all = || points.iter().flat_map(|p| [p.p5, p.latency, p.p95]).chain(targets.iter().copied());
    let (scale, unit) = unit(all());
    let max = all().fold(0.0, |max: f64, l| max.max(l.ns() / scale));
    let percent = |point: &Point| 100.0 * point.accuracy.get();
    let axes = Axes {
        x: 0.0..(1.12 * max).max(1e-9),
        y: padded(points.iter().map(percent), 0.4),
        x_title: format!("measured latency, {unit}"),
        y_title: "test accuracy, %".into(),
        left: 64,
        whole_x: false,
    };
    let height = axes.y.clone();
    svg("Accuracy against latency", size, |area| {
        let mut chart = axes.draw(area)?;
        for target in targets {
            let ends = [height.start, height.end].map(|y| (target.ns() / scale, y));
            chart.draw_series(DashedLineSeries::new(ends, 4, 4, color(TARGET).stroke_width(1)))?;
        }
        let plot = chart.plotting_area();
        for point in points {
            let [p5, latency, p95] = [point.p5, point.latency, point.p95].map(|l| l.ns() / scale);
            let (accuracy, line) = (percent(point), color(point.color).stroke_width(2));
            plot.draw(&PathElement::new([(p5, accuracy), (p95, accuracy)], line))?;
            for end in [p5, p95] {
                plot.draw(&(EmptyElement::at((end, accuracy)) + PathElement::new([(0, -5), (0, 5)], line)))?;
            }
            plot.draw(&Circle::new((latency, accuracy), 5, color(point.color).filled()))?;
        }
        let at = |point: &Point| ((point.latency.ns() / scale, percent(point)), point.name.clone());
        labels(&chart, &points.iter().map(at).collect::<Vec<_>>())
    })
}
