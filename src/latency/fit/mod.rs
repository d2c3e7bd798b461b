//! What the layers of a deployed network add to its latency, solved from whole networks that were
//! measured: latency = base + Σ rows + Σ interactions, relative least squares with a ridge. The
//! interactions are those with which networks left out of the fit are predicted better.

mod choose;
mod crowding;
mod design;
mod polynomial;
mod select;
mod solve;
mod structure;
mod terms;
mod validate;

pub use crowding::Crowding;
pub use design::{balanced, random};
pub use polynomial::{Monomial, Polynomial};
pub use select::Gain;
pub use structure::{Choice, Product, Role, Structure, Wiring};
pub use validate::Accuracy;

pub(super) use solve::MAD;

use super::Latency;
use nalgebra::DVector;
use select::Selection;
use std::collections::BTreeMap;
use structure::Place;

/// A network and what it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// By layer, which of its choices.
    pub ops: Vec<usize>,
    pub latency: Latency,
    /// How much it counts, up to 1: less where its measurement was disturbed.
    pub weight: f64,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    #[error("{measured} networks are too few to fit a latency model: measure at least {FEWEST}")]
    Few { measured: usize },
    #[error("network {network} cannot be fitted: {reason}; measure it again or leave it out")]
    Network { network: usize, reason: String },
    #[error(
        "some layers have isolated timings and `{row}` has none: measure it alone, or fit without isolated timings"
    )]
    Isolated { row: String },
}

/// Held-out errors of fewer say nothing.
const FEWEST: usize = 10;

/// A value that was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub latency: Latency,
    /// Of a row: of its difference from the mean row of its layer, since what all rows of a layer share
    /// cannot be told from the base by measuring networks.
    pub standard_error: Latency,
}

/// What an op in a layer adds to a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub estimate: Estimate,
    /// The measured networks that hold it.
    pub networks: usize,
}

/// An interaction that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Interaction {
    /// Its name, and what it does for networks left out of the fit.
    pub gain: Gain,
    /// By name: what the interaction adds to a network where that happens, on average over where it can.
    pub effects: Vec<(String, Estimate)>,
}

/// A latency model, fitted.
#[derive(Clone, Debug)]
pub struct Fit {
    pub model: Polynomial,
    /// By layer, by choice; none for a zero.
    pub rows: Vec<Vec<Option<Row>>>,
    pub interactions: Vec<Interaction>,
    /// By network, the relative error of what a fit without it predicts.
    pub held_out: Vec<f64>,
    /// By network, how much it counted: next to nothing where it is out of line with all others, so that
    /// it is worth being measured again.
    pub weights: Vec<f64>,
}

impl Fit {
    /// The latency model of `structure`'s networks after the `measured` ones.
    ///
    /// # Errors
    /// Where networks are too few, do not belong to the structure, or have no latency; where some rows
    /// have isolated timings and others none.
    pub fn new(structure: &Structure, measured: &[Measured]) -> Result<Fit, FitError> {
        let selection = select(structure, measured)?;
        Ok(Fit {
            model: Polynomial::new(selection.terms().zip(selection.unknowns())),
            rows: rows(structure, measured, &selection),
            interactions: interactions(&selection),
            held_out: selection.held_out().to_vec(),
            weights: selection.weights().iter().copied().collect(),
        })
    }

    /// Mean absolute relative error of networks left out of the fit.
    pub fn held_out_error(&self) -> f64 {
        self.held_out.iter().map(|error| error.abs()).sum::<f64>() / self.held_out.len() as f64
    }
}

/// Of `networks` the `most` that it helps most to measure next, for predictions of all of them.
///
/// # Errors
/// As [`Fit::new`].
pub fn telling(
    structure: &Structure,
    measured: &[Measured],
    networks: &[Vec<usize>],
    most: usize,
) -> Result<Vec<usize>, FitError> {
    Ok(select(structure, measured)?.telling(networks, most))
}

fn select<'m>(structure: &Structure, measured: &'m [Measured]) -> Result<Selection<'m>, FitError> {
    check(structure, measured)?;
    let mut latencies: Vec<f64> = measured.iter().map(|m| m.latency.ns()).collect();
    latencies.sort_by(f64::total_cmp);
    let typical = latencies[latencies.len() / 2];
    let few = FitError::Few { measured: measured.len() };
    let mut selection = Selection::new(measured, structure.rows(typical)).ok_or(few)?;
    selection.grow(structure.interactions(typical));
    selection.finish();
    Ok(selection)
}

fn check(structure: &Structure, measured: &[Measured]) -> Result<(), FitError> {
    if measured.len() < FEWEST {
        return Err(FitError::Few { measured: measured.len() });
    }
    for (network, Measured { ops, latency, weight }) in measured.iter().enumerate() {
        let error = |reason: String| Err(FitError::Network { network, reason });
        let layers = structure.layers.len();
        if ops.len() != layers || ops.iter().zip(&structure.layers).any(|(&op, choices)| op >= choices.len())
        {
            return error(format!("{ops:?} is not one choice for each of {layers} layers"));
        }
        if !(latency.ns() > 0.0 && latency.ns().is_finite()) {
            return error(format!("its latency is {} ns", latency.ns()));
        }
        if !(*weight > 0.0 && *weight <= 1.0) {
            return error(format!("its weight is {weight}"));
        }
    }
    let real = || structure.layers.iter().flatten().filter(|choice| choice.role == Role::Real);
    match real().find(|choice| choice.isolated_ns.is_none()) {
        Some(choice) if real().any(|choice| choice.isolated_ns.is_some()) => {
            Err(FitError::Isolated { row: choice.row.clone() })
        }
        _ => Ok(()),
    }
}

/// A linear form of the unknowns, in nanoseconds.
type Form = DVector<f64>;

fn rows(structure: &Structure, measured: &[Measured], selection: &Selection) -> Vec<Vec<Option<Row>>> {
    let zero = || Form::zeros(selection.unknowns().len());
    let form = |place: Place| {
        let part =
            |term: &terms::Term| term.rows.iter().filter(|(at, _)| *at == place).map(|(_, ns)| ns).sum();
        Form::from_iterator(selection.unknowns().len(), selection.terms().map(part))
    };
    let row = |place: Place, form: &Form, mean: &Form| Row {
        estimate: Estimate {
            latency: Latency::from_ns(form.dot(selection.unknowns())),
            standard_error: selection.standard_error(&(form - mean)),
        },
        networks: measured.iter().filter(|m| m.ops[place.0] == place.1).count(),
    };
    let layer = |layer: usize| {
        let choices = &structure.layers[layer];
        let forms: Vec<Option<Form>> = choices
            .iter()
            .enumerate()
            .map(|(op, c)| (c.role != Role::Zero).then(|| form((layer, op))))
            .collect();
        let live = forms.iter().flatten();
        let mean = live.clone().fold(zero(), |sum, form| sum + form) / live.count().max(1) as f64;
        forms.iter().enumerate().map(|(op, form)| Some(row((layer, op), form.as_ref()?, &mean))).collect()
    };
    (0..structure.layers.len()).map(layer).collect()
}

fn interactions(selection: &Selection) -> Vec<Interaction> {
    let found = selection.found().map(|(gain, terms)| {
        let terms: Vec<(usize, &terms::Term)> = terms.collect();
        // Terms of one family may have products in common: what all have, and what some have besides.
        let mut by_product: BTreeMap<&Product, Vec<(usize, f64)>> = BTreeMap::new();
        for (unknown, term) in &terms {
            let parts = term.products.iter().map(|(product, ns)| (product, (*unknown, *ns)));
            parts.for_each(|(product, part)| by_product.entry(product).or_default().push(part));
        }
        let effect = |(unknown, term): &(usize, &terms::Term)| {
            let mut form = Form::zeros(selection.unknowns().len());
            form[*unknown] += term.crowding_mean();
            for (unknown, ns) in term.products.iter().flat_map(|(product, _)| &by_product[product]) {
                form[*unknown] += ns / term.products.len() as f64;
            }
            let latency = Latency::from_ns(form.dot(selection.unknowns()));
            (term.name.clone(), Estimate { latency, standard_error: selection.standard_error(&form) })
        };
        Interaction { gain: gain.clone(), effects: terms.iter().map(effect).collect() }
    });
    found.collect()
}
