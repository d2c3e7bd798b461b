//! The figures of a search.

use super::probabilities::probabilities;
use super::{Figure, Panel, TALL, WIDE};
use crate::record::{CandidateRow, SearchEpoch};
use crate::report::ReportError;
use crate::report::chart::{Axes, Key, Series, color, labels, lines, padded, svg};
use crate::report::page::BEST;
use crate::space::Genotype;
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Returns the figures for which the epochs of a search have numbers. The titles of the layers name the choices of
/// `found`.
pub fn of_log(log: &[SearchEpoch], found: Option<&Genotype>) -> Result<Vec<Figure>, ReportError> {
    let Some(last) = log.last() else { return Ok(vec![]) };
    let mut figures = vec![losses(log)?];
    // A limit of 0, as for activations beyond a size, has no share.
    if last.constraints.iter().any(|constraint| constraint.limit > 0.0) {
        figures.push(expected_costs(log, last)?);
    }
    if !last.multipliers.is_empty() {
        figures.push(multipliers(log, last)?);
    }
    if !last.entropies.is_empty() {
        figures.push(entropies(log, last)?);
    }
    if !last.alpha.is_empty() {
        figures.extend(probabilities(log, last, found)?);
    }
    Ok(figures)
}

fn losses(log: &[SearchEpoch]) -> Result<Figure, ReportError> {
    let title = "Loss of the search";
    let mut series = vec![Series::new("training split, weights", 0, log.iter().map(|e| (e.epoch, e.train_loss)))];
    let mut caption = "Mean cross-entropy of each epoch on the images that the weights are trained on; the test images are \
                       not used.";
    let held_out: Vec<_> = log.iter().filter_map(|e| Some((e.epoch, e.held_out_loss?))).collect();
    if !held_out.is_empty() {
        series.push(Series::new("held-out split, architecture", 1, held_out.into_iter()));
        caption = "Mean cross-entropy of each epoch. The weights are trained on one part of the training images, and the \
                   architecture on the other; the test images are not used.";
    }
    let panels = Panel::only(lines(title, WIDE, "cross-entropy", Series::range(&series), &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

fn expected_costs(log: &[SearchEpoch], last: &SearchEpoch) -> Result<Figure, ReportError> {
    let title = "Expected costs against their limits";
    let share = |epoch: &SearchEpoch, i: usize| epoch.constraints.get(i).map(|c| c.expected / c.limit);
    let of = |(i, constraint): (usize, &crate::record::Expected)| {
        let points = log.iter().filter_map(move |epoch| Some((epoch.epoch, 100.0 * share(epoch, i)?)));
        Series::new(&constraint.cost, i, points)
    };
    let mut series: Vec<Series> = last.constraints.iter().enumerate().filter(|(_, c)| c.limit > 0.0).map(of).collect();
    let mut limit = Series::new("limit", series.len(), log.iter().map(|epoch| (epoch.epoch, 100.0)));
    limit.key.dashed = true;
    series.push(limit);
    let caption = "The expected cost at the end of each epoch, with each choice weighted by its probability, as a share of \
                   the limit. The network that is derived from it is within all limits.";
    let panels = Panel::only(lines(title, WIDE, "share of the limit, %", Series::range(&series), &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

fn multipliers(log: &[SearchEpoch], last: &SearchEpoch) -> Result<Figure, ReportError> {
    let title = "Multipliers of the limits";
    let of = |i: usize| {
        let name = last.constraints.get(i).map_or("limit", |constraint| &constraint.cost);
        Series::new(name, i, log.iter().filter_map(move |epoch| Some((epoch.epoch, *epoch.multipliers.get(i)?))))
    };
    let series: Vec<Series> = (0..last.multipliers.len()).map(of).collect();
    let caption = "λ, by what the excess over each limit is multiplied in the loss. It grows while the expected cost is \
                   above the limit, and falls while it is below.";
    let panels = Panel::only(lines(title, WIDE, "λ", Series::range(&series), &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

fn entropies(log: &[SearchEpoch], last: &SearchEpoch) -> Result<Figure, ReportError> {
    let title = "Indecision of each layer";
    let of = |layer: usize| {
        let even = last.choices.get(layer).map_or(1.0, |choices| (choices.len().max(2) as f64).ln());
        let points =
            log.iter().filter_map(move |epoch| Some((epoch.epoch, 100.0 * epoch.entropies.get(layer)? / even)));
        Series::new(&last.layer(layer), layer, points)
    };
    let series: Vec<Series> = (0..last.entropies.len()).map(of).collect();
    let caption = "Entropy of the probabilities of a layer's choices, as a share of that of an even choice: 100 % where all \
                   are as likely, 0 % where one is certain.";
    let panels = Panel::only(lines(title, WIDE, "entropy, %", 0.0..105.0, &series)?);
    Ok(Figure { title, caption, legend: Series::legend(&series), panels })
}

/// A network that a search compared. Its losses are by the number of epochs of its training, where 0 stands for the
/// weights of the supernet.
pub struct Compared<'r> {
    pub ops: &'r [String],
    pub losses: BTreeMap<usize, f64>,
    /// The row of the longest training.
    pub last: &'r CandidateRow,
}

/// Returns each network once, sorted by decreasing length of its training, then by its loss.
pub fn compared(rows: &[CandidateRow]) -> Vec<Compared<'_>> {
    let mut networks: BTreeMap<&[String], Compared> = BTreeMap::new();
    for row in rows {
        let new = || Compared { ops: &row.ops, losses: BTreeMap::new(), last: row };
        let network = networks.entry(&row.ops).or_insert_with(new);
        network.losses.extend(row.loss.map(|loss| (row.epochs, loss)));
        if row.epochs > network.last.epochs {
            network.last = row;
        }
    }
    let mut networks: Vec<Compared> = networks.into_values().collect();
    networks.sort_by(|a, b| b.last.epochs.cmp(&a.last.epochs).then(b.last.score().total_cmp(&a.last.score())));
    networks
}

/// Draws the first comparison of networks against the next one. Returns `None` if fewer than two networks were in both.
pub fn candidates(rows: &[CandidateRow]) -> Result<Option<Figure>, ReportError> {
    let title = "First comparison against the next one";
    let networks = compared(rows);
    let first = rows.iter().map(|row| row.epochs).min();
    let next = rows.iter().map(|row| row.epochs).filter(|epochs| Some(*epochs) > first).min();
    let (Some(first), Some(next)) = (first, next) else { return Ok(None) };
    let number = |i: usize| if i < BEST { (i + 1).to_string() } else { String::new() };
    let point = |(i, network): (usize, &Compared)| {
        let at = (*network.losses.get(&first)?, *network.losses.get(&next)?);
        // Beyond this, the ticks of an axis cannot be told apart.
        (at.0.abs() <= 1e12 && at.1.abs() <= 1e12).then(|| (at, number(i)))
    };
    let points: Vec<((f64, f64), String)> = networks.iter().enumerate().filter_map(point).collect();
    if points.len() < 2 {
        return Ok(None);
    }
    let axis = |epochs: usize| match epochs {
        0 => "loss with the supernet's weights".to_string(),
        1 => "loss of 1 epoch".to_string(),
        n => format!("loss of {n} epochs"),
    };
    let axes = Axes {
        x: padded(points.iter().map(|(at, _)| at.0), 0.1),
        y: padded(points.iter().map(|(at, _)| at.1), 0.1),
        x_title: axis(first),
        y_title: axis(next),
        left: 64,
        whole_x: false,
    };
    let svg = svg(title, TALL, |area| {
        let chart = axes.draw(area)?;
        for (at, _) in &points {
            chart.plotting_area().draw(&Circle::new(*at, 4, color(0).filled()))?;
        }
        labels(&chart, &points)
    })?;
    let caption = "A point is a network that was compared both ways; numbers are those of the table. Networks further left \
                   were better at first, and those further down in the later comparison.";
    Ok(Some(Figure { title, caption, legend: Vec::<Key>::new(), panels: Panel::only(svg) }))
}
