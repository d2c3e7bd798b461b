use super::select::{Gain, Selection};
use super::terms::Term;
use super::{Part, Polynomial, Product, Role, Structure};
use crate::latency::Latency;
use nalgebra::DVector;
use std::collections::BTreeMap;

/// A network and its measured latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// One choice per layer.
    pub choices: Vec<usize>,
    pub latency: Latency,
    /// The weight of the network in the fit, up to 1. It is lower if the measurement was disturbed.
    pub weight: f64,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    #[error("{measured} networks are too few to fit a latency model: measure at least {FEWEST}")]
    Few { measured: usize },
    #[error("network {network} cannot be fitted: {reason}; measure it again or leave it out")]
    Network { network: usize, reason: String },
    #[error(
        "some layers have isolated timings and `{part}` has none: measure it alone, or fit without isolated timings"
    )]
    Isolated { part: String },
}

/// The leave-one-out errors of fewer networks mean nothing.
const FEWEST: usize = 10;

/// What something adds to the latency of a network, as fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    pub latency: Latency,
    /// For a choice of a layer, the standard error of its difference from the mean over the choices of that layer with
    /// the same input, since what all of them share cannot be separated from the rest of the network.
    pub standard_error: Latency,
}

impl Effect {
    /// Returns half of the 95 % confidence interval.
    pub fn error(&self) -> Latency {
        1.96 * self.standard_error
    }
}

/// What a choice of a layer, with one of the inputs that the layer may get, adds to the latency of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    pub effect: Effect,
    /// The number of measured networks that contain it.
    pub networks: usize,
}

/// An interaction that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Interaction {
    /// Its name, and how it improves predictions for networks left out of the fit.
    pub gain: Gain,
    /// By name, what the interaction adds to a network in which it occurs, averaged over the places where it can occur.
    pub effects: Vec<(String, Effect)>,
}

/// A fitted latency model.
#[derive(Clone, Debug)]
pub struct Fit {
    pub polynomial: Polynomial,
    /// Those of the structure's parts.
    pub contributions: Vec<Contribution>,
    pub interactions: Vec<Interaction>,
    /// The relative error for each network, as predicted by a fit without that network.
    pub leave_one_out_errors: Vec<f64>,
    /// The weight of each network in the fit. It is low for a network that contradicts all others, which should then be
    /// measured again.
    pub weights: Vec<f64>,
}

impl Fit {
    /// Fits the latency model of `structure`'s networks to the `measured` ones.
    ///
    /// # Errors
    /// Fails if there are too few networks, if one does not belong to the structure or has no latency, or if only some
    /// of the parts have isolated timings.
    pub fn new(structure: &Structure, measured: &[Measured]) -> Result<Fit, FitError> {
        let selection = select(structure, measured)?;
        Ok(Fit {
            polynomial: polynomial(&selection),
            contributions: contributions(structure, measured, &selection),
            interactions: interactions(&selection),
            leave_one_out_errors: selection.leave_one_out_errors().to_vec(),
            weights: selection.weights().iter().copied().collect(),
        })
    }

    /// Returns the mean absolute relative error of networks left out of the fit.
    pub fn leave_one_out_error(&self) -> f64 {
        let errors = &self.leave_one_out_errors;
        errors.iter().map(|error| error.abs()).sum::<f64>() / errors.len() as f64
    }
}

/// Returns the indices of the `most` of `networks` whose measurement would improve predictions for all of them the
/// most.
///
/// # Errors
/// Same as [`Fit::new`].
pub fn d_optimal(
    structure: &Structure,
    measured: &[Measured],
    networks: &[Vec<usize>],
    most: usize,
) -> Result<Vec<usize>, FitError> {
    Ok(select(structure, measured)?.d_optimal(networks, most))
}

fn select<'m>(structure: &Structure, measured: &'m [Measured]) -> Result<Selection<'m>, FitError> {
    check(structure, measured)?;
    let mut latencies: Vec<f64> = measured.iter().map(|m| m.latency.ns()).collect();
    latencies.sort_by(f64::total_cmp);
    let typical = latencies[latencies.len() / 2];
    let few = FitError::Few { measured: measured.len() };
    let mut selection = Selection::new(measured, structure.contributions(typical)).ok_or(few)?;
    selection.grow(structure.interactions(typical));
    Ok(selection)
}

fn check(structure: &Structure, measured: &[Measured]) -> Result<(), FitError> {
    if measured.len() < FEWEST {
        return Err(FitError::Few { measured: measured.len() });
    }
    for (network, Measured { choices, latency, weight }) in measured.iter().enumerate() {
        let error = |reason: String| Err(FitError::Network { network, reason });
        let layers = structure.roles.len();
        let fits = |(&choice, roles): (&usize, &Vec<Role>)| choice < roles.len();
        if choices.len() != layers || !choices.iter().zip(&structure.roles).all(fits) {
            return error(format!("{choices:?} is not one choice for each of {layers} layers"));
        }
        if !(latency.ns() > 0.0 && latency.ns().is_finite()) {
            return error(format!("its latency is {} ns", latency.ns()));
        }
        if !(*weight > 0.0 && *weight <= 1.0) {
            return error(format!("its weight is {weight}"));
        }
    }
    let real = || structure.parts.iter().filter(|part| part.role == Role::Real);
    match real().find(|part| part.isolated_ns.is_none()) {
        Some(part) if real().any(|part| part.isolated_ns.is_some()) => {
            Err(FitError::Isolated { part: part.work.clone() })
        }
        _ => Ok(()),
    }
}

fn polynomial(selection: &Selection) -> Polynomial {
    let terms = selection.terms().zip(selection.unknowns());
    Polynomial::sum(
        terms
            .flat_map(|(term, unknown)| term.products.iter().map(move |(product, ns)| (product.clone(), unknown * ns))),
    )
}

/// A linear form of the unknowns, in nanoseconds.
type Form = DVector<f64>;

fn contributions(structure: &Structure, measured: &[Measured], selection: &Selection) -> Vec<Contribution> {
    let unknowns = selection.unknowns();
    let form = |part: usize| {
        let of_term = |term: &Term| term.contributions.iter().filter(|(of, _)| *of == part).map(|(_, ns)| ns).sum();
        Form::from_iterator(unknowns.len(), selection.terms().map(of_term))
    };
    let forms: Vec<Form> = (0..structure.parts.len()).map(form).collect();
    let contribution = |(part, form): (&Part, &Form)| {
        let alike = || structure.parts.iter().zip(&forms).filter(|(other, _)| other.is_alternative_to(part));
        let mean = alike().fold(Form::zeros(unknowns.len()), |sum, (_, form)| sum + form) / alike().count() as f64;
        Contribution {
            effect: Effect {
                latency: Latency::from_ns(form.dot(unknowns)),
                standard_error: selection.standard_error(&(form - mean)),
            },
            networks: measured.iter().filter(|m| part.is_in(&m.choices)).count(),
        }
    };
    structure.parts.iter().zip(&forms).map(contribution).collect()
}

fn interactions(selection: &Selection) -> Vec<Interaction> {
    let found = selection.found().map(|(gain, terms)| {
        let terms: Vec<(usize, &Term)> = terms.collect();
        // Terms of one family may share products: one term for what all pairs have in common, and others for what only
        // some have.
        let mut by_product: BTreeMap<&Product, Vec<(usize, f64)>> = BTreeMap::new();
        for (unknown, term) in &terms {
            let parts = term.products.iter().map(|(product, ns)| (product, (*unknown, *ns)));
            parts.for_each(|(product, part)| by_product.entry(product).or_default().push(part));
        }
        let effect = |(_, term): &(usize, &Term)| {
            let mut form = Form::zeros(selection.unknowns().len());
            for (unknown, ns) in term.products.iter().flat_map(|(product, _)| &by_product[product]) {
                form[*unknown] += ns / term.products.len() as f64;
            }
            let latency = Latency::from_ns(form.dot(selection.unknowns()));
            (term.name.clone(), Effect { latency, standard_error: selection.standard_error(&form) })
        };
        Interaction { gain: gain.clone(), effects: terms.iter().map(effect).collect() }
    });
    found.collect()
}
