use super::ReportError;
use super::chart::{Axes, color, label, padded, svg, unit};
use crate::artifact;
use crate::model::{Accuracy, Unseen, Validation};
use crate::table::Drawn;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use std::path::Path;

const SIZE: (u32, u32) = (560, 520);

/// Draws, as an SVG file, the predicted against the measured latencies of networks that no fit has seen, together with
/// the plain sums of their isolated layers.
///
/// # Errors
/// Fails if the figure cannot be drawn, or if the file cannot be written.
pub fn scatter(path: &Path, unseen: &[Unseen], validation: &Validation) -> Result<(), ReportError> {
    let latencies = unseen.iter().flat_map(|u| [Some(u.measured_ns), Some(u.predicted_ns), u.plain_sum_ns]);
    let (scale, unit) = unit(latencies.clone().flatten());
    let range = padded(latencies.flatten().map(|l| l.ns() / scale), 0.05);
    let axes = Axes {
        x: range.clone(),
        y: range.clone(),
        x_title: format!("measured latency, {unit}"),
        y_title: format!("predicted latency, {unit}"),
        left: 64,
        whole_x: false,
    };
    let percent = |accuracy: &Accuracy| format!("{:.2} %", 100.0 * accuracy.mape);
    let plain =
        validation.plain_sum.as_ref().map(|accuracy| format!("plain sum of isolated layers: {}", percent(accuracy)));
    let derived = validation.derived.as_ref().map(|accuracy| format!("derived networks: {}", percent(accuracy)));
    let random = Some(format!("random networks: {}", percent(&validation.random)));
    let legend = [(0, random), (2, derived), (1, plain)];
    let drawing = svg("Predicted against measured", SIZE, |area| {
        area.fill(&WHITE)?;
        let mut chart = axes.draw(area)?;
        let diagonal = [(range.start, range.start), (range.end, range.end)];
        chart.draw_series(LineSeries::new(diagonal, BLACK.mix(0.4)))?;
        for network in unseen {
            let at = |ns: f64| (network.measured_ns.ns() / scale, ns / scale);
            if let Some(sum) = network.plain_sum_ns {
                chart.plotting_area().draw(&Cross::new(at(sum.ns()), 3, color(1).stroke_width(1)))?;
            }
            let predicted = network.predicted_ns.ns();
            chart.plotting_area().draw(&Circle::new(
                at(predicted),
                3,
                color(if network.drawn == Drawn::Random { 0 } else { 2 }).filled(),
            ))?;
        }
        let corner = (range.start, range.end);
        for (line, (i, text)) in legend.iter().enumerate() {
            let Some(text) = text else { continue };
            let down = 14 + 20 * line as i32;
            chart.plotting_area().draw(&(EmptyElement::at(corner) + Circle::new((16, down), 4, color(*i).filled())))?;
            label(&chart, corner, (28, down), text, HPos::Left, VPos::Center)?;
        }
        Ok(())
    })?;
    Ok(artifact::write(path, drawing.as_bytes())?)
}
