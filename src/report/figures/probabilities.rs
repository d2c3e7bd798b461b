//! The figures of the probabilities of choices, for searches that have architecture weights.

use super::{Figure, Panel, THIRD};
use crate::record::SearchEpoch;
use crate::report::ReportError;
use crate::report::chart::{Series, lines};
use crate::space::Genotype;

/// The number of groups that are drawn for each layer.
const MOST_LINES: usize = 8;

/// Draws the probabilities of choices. If the choices have widths, draws the probabilities of the ops and of the widths
/// separately, so that there are few lines.
pub fn probabilities(
    log: &[SearchEpoch],
    last: &SearchEpoch,
    found: Option<&Genotype>,
) -> Result<Vec<Figure>, ReportError> {
    let has_widths = last.choices.iter().flatten().any(|name| name.contains(':'));
    if !has_widths {
        return Ok(vec![figure("Probability of each choice", log, found, &Grouping { last, group: |name| name })?]);
    }
    let mut figures = vec![
        figure("Probability of each op", log, found, &Grouping { last, group: |name| parts(name).0 })?,
        figure("Probability of each width", log, found, &Grouping { last, group: |name| parts(name).1 })?,
    ];
    figures.retain(|figure| !figure.panels.is_empty());
    Ok(figures)
}

/// Splits the name of a choice into its op and its width.
fn parts(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, "that of the input"))
}

/// The choices of each layer, grouped by a part of their names.
struct Grouping<'r> {
    /// The last epoch, which has the names of the choices.
    last: &'r SearchEpoch,
    group: fn(&str) -> &str,
}

impl<'r> Grouping<'r> {
    /// Returns the groups of a layer.
    fn of(&self, layer: usize) -> Vec<&'r str> {
        unique(self.last.choices.get(layer).into_iter().flatten().map(|name| (self.group)(name)))
    }

    /// Returns the groups of a layer that are likeliest at the end.
    fn likeliest(&self, layer: usize) -> Vec<&'r str> {
        let all = self.of(layer);
        let at_end = |name: &str| self.probability(self.last, layer, name).unwrap_or_default();
        let mut likeliest = all.clone();
        likeliest.sort_by(|a, b| at_end(b).total_cmp(&at_end(a)));
        likeliest.truncate(MOST_LINES);
        all.into_iter().filter(|name| likeliest.contains(name)).collect()
    }

    /// Returns the total probability of the choices in a group.
    fn probability(&self, epoch: &SearchEpoch, layer: usize, wanted: &str) -> Option<f64> {
        let alpha = softmax(epoch.alpha.get(layer)?);
        let choices = self.last.choices.get(layer)?.iter().zip(alpha);
        Some(choices.filter(|(name, _)| (self.group)(name) == wanted).map(|(_, probability)| probability).sum())
    }
}

/// Draws a panel for each layer that has several groups.
fn figure(
    title: &'static str,
    log: &[SearchEpoch],
    found: Option<&Genotype>,
    grouping: &Grouping,
) -> Result<Figure, ReportError> {
    let layers: Vec<usize> = (0..grouping.last.alpha.len()).filter(|layer| grouping.of(*layer).len() > 1).collect();
    // Groups with the same name have the same colour in all panels.
    let names = unique(layers.iter().flat_map(|layer| grouping.likeliest(*layer)));
    let number = |name: &str| names.iter().position(|known| *known == name).unwrap_or(0);
    let chosen = found.map(Genotype::names).unwrap_or_default();
    let panel = |&layer: &usize| {
        let of = |name: &&str| {
            let points = log.iter().filter_map(|epoch| Some((epoch.epoch, grouping.probability(epoch, layer, name)?)));
            Series::new(name, number(name), points)
        };
        let series: Vec<Series> = grouping.likeliest(layer).iter().map(of).collect();
        let chosen = chosen.get(layer).map(|name| format!(": {}", (grouping.group)(name))).unwrap_or_default();
        let svg = lines(title, THIRD, "probability", 0.0..1.0, &series)?;
        Ok(Panel { title: format!("{}{chosen}", grouping.last.layer(layer)), svg })
    };
    let caption = match layers.iter().any(|layer| grouping.of(*layer).len() > MOST_LINES) {
        true => {
            "Softmax of the architecture weights, with a panel for each layer, whose title names the final choice. Only \
             the eight likeliest are drawn."
        }
        false => {
            "Softmax of the architecture weights, with a panel for each layer, whose title names the final choice."
        }
    };
    let panels = layers.iter().map(panel).collect::<Result<_, ReportError>>()?;
    let key = |(i, name): (usize, &&str)| Series::new(name, i, std::iter::empty()).key;
    Ok(Figure { title, caption, legend: names.iter().enumerate().map(key).collect(), panels })
}

/// Returns the names in the order of their first appearance.
fn unique<'n>(all: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names = vec![];
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn softmax(alpha: &[f64]) -> Vec<f64> {
    let max = alpha.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = alpha.iter().map(|a| (a - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}
