use super::{Contribution, Fit, FitError, Measured, Part, Polynomial, Product, Role, Structure};
use crate::artifact::Digest;
use crate::latency::Latency;
use crate::space::{CandidateOp, Layer, Networks, SpaceError, Variant};
use crate::table::{Estimate, LatencyTable, Subject, TableError};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error("no latency model fits the latency table {path}: {reason}; measure with `{command}`", path = path.display())]
    Fit { path: PathBuf, reason: FitError, command: String },
    #[error(
        "the latency table {path} has {measured} of {planned} networks that its model is fitted to; measure the others with `{command}`",
        path = path.display()
    )]
    Networks { path: PathBuf, measured: usize, planned: usize, command: String },
    #[error("{path} is of space {theirs}, and not of {ours}", path = path.display())]
    OtherSpace { path: PathBuf, theirs: String, ours: String },
}

/// The weight in a fit of a network that was disturbed each time it was measured.
const DISTURBED_WEIGHT: f64 = 0.25;

/// The latencies, in nanoseconds, of a space's networks on a device, as a polynomial of their choices.
#[derive(Clone, Debug)]
pub struct LatencyModel {
    pub networks: Networks,
    pub polynomial: Polynomial,
    /// The fit behind the model. `None` if the model is the plain sum of isolated layers.
    pub fit: Option<Fit>,
}

impl LatencyModel {
    /// Creates the model of `networks`, which have a single number of classes, from `table`. It is fitted to whole
    /// networks if any were planned, and otherwise the plain sum of isolated layers.
    ///
    /// # Errors
    /// Fails if rows are missing, or if the networks cannot be fitted.
    pub fn new(table: &LatencyTable, networks: &Networks) -> Result<Self, ModelError> {
        let planned = table.planned(networks.classes[0]);
        if planned == 0 {
            return Self::isolated(table, networks);
        }
        let data = FitData::new(table, networks)?;
        let measured = data.measured_for(networks.classes[0]);
        if measured < planned {
            let (path, command) = (table.path().into(), table.command().into());
            return Err(ModelError::Networks { path, measured, planned, command });
        }
        let fit = data.fit(table)?;
        let head = data.networks.len() - 1;
        let classes = data.networks.classes.iter().position(|classes| *classes == networks.classes[0]);
        let polynomial = fixed(fit.polynomial.given(head, classes.unwrap_or(0)), networks);
        let fastest = data.measured.iter().map(|m| m.latency.ns()).fold(f64::INFINITY, f64::min);
        let floor = call(table).max(polynomial.base().min(fastest));
        let polynomial = polynomial.with_floor(floor);
        Ok(LatencyModel { networks: networks.clone(), polynomial, fit: Some(fit) })
    }

    /// Creates the plain sum of isolated layers.
    ///
    /// # Errors
    /// Fails if the table lacks rows of some layers.
    pub fn isolated(table: &LatencyTable, networks: &Networks) -> Result<Self, ModelError> {
        check_space(table, networks)?;
        let subjects = isolated_subjects(networks);
        let estimates = table.require(&subjects)?;
        let latency = |layer: Layer| estimates.get(&Subject::Layer(layer)).map_or(0.0, |e| e.latency.ns());
        let of_layer = |(layer, variants): (usize, &Vec<Variant>)| {
            let part = |variant: &Variant| (networks.product(layer, variant), latency(variant.layer));
            variants.iter().map(part).collect::<Vec<(Product, f64)>>()
        };
        let sum = Polynomial::sum(networks.variants().iter().enumerate().flat_map(of_layer));
        let polynomial = fixed(sum, networks).with_floor(call(table));
        Ok(LatencyModel { networks: networks.clone(), polynomial, fit: None })
    }

    /// Returns the digest that identifies the model in validations.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.polynomial)
    }

    /// Predicts the latency of the network with these choices.
    pub fn predict(&self, choices: &[usize]) -> Latency {
        Latency::from_ns(self.polynomial.value(choices, self.networks.first_live(choices)))
    }

    /// Returns what a layer adds to the network with these choices, without interactions.
    pub fn contribution(&self, layer: usize, choices: &[usize]) -> Latency {
        let here = self.networks.layers_of(choices)[layer];
        let variants = &self.networks.variants()[layer];
        let variant = variants.iter().find(|variant| variant.choice == choices[layer] && variant.layer == here);
        let product = variant.map(|variant| self.networks.product(layer, variant));
        // The layer may have several inputs, and this is one of them.
        let decided = product.filter(|product| product.len() > 1);
        let monomials = self.polynomial.monomials().iter();
        let on_input = monomials.filter(|m| Some(&m.holds) == decided.as_ref()).map(|m| m.coefficient).sum::<f64>();
        Latency::from_ns(self.polynomial.contribution((layer, choices[layer])) + on_input)
    }

    /// Returns what each layer adds to the networks that contain it. Empty if the model is a plain sum.
    pub fn adds(&self) -> BTreeMap<Layer, Adds> {
        let Some(fit) = &self.fit else { return BTreeMap::new() };
        let mut places: BTreeMap<Layer, Vec<Contribution>> = BTreeMap::new();
        for ((layer, variant), contribution) in computed(&self.networks).zip(&fit.contributions) {
            if self.networks.choices()[layer].len() > 1 {
                places.entry(variant.layer).or_default().push(*contribution);
            }
        }
        let of = |contributions: Vec<Contribution>| {
            let effects = || contributions.iter().map(|contribution| contribution.effect);
            let widest = effects().map(|effect| effect.error().ns()).fold(0.0, f64::max);
            let sum: Latency = effects().map(|effect| effect.latency).sum();
            Adds {
                latency: (1.0 / contributions.len() as f64) * sum,
                error: Latency::from_ns(widest),
                networks: contributions.iter().map(|contribution| contribution.networks).sum(),
                places: contributions.len(),
            }
        };
        places.into_iter().map(|(layer, contributions)| (layer, of(contributions))).collect()
    }
}

/// What a layer adds to the networks that contain it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adds {
    /// Mean over the places at which the space may have the layer.
    pub latency: Latency,
    /// Half of the 95 % confidence interval, at the place where it is widest.
    pub error: Latency,
    /// How often the fitted networks contain the layer.
    pub networks: usize,
    pub places: usize,
}

/// Returns the layers of all networks, each as a model of its own. A `zero`, and a `skip` that passes its input on, are
/// left out, since a deployed network does not contain them.
pub fn isolated_subjects(networks: &Networks) -> Vec<Subject> {
    let layers = networks.distinct_layers().into_iter();
    let computes = |layer: &Layer| layer.op != CandidateOp::Zero && !layer.is_identity();
    layers.filter(computes).map(Subject::Layer).collect()
}

/// Makes layers with a single choice part of the base.
fn fixed(polynomial: Polynomial, networks: &Networks) -> Polynomial {
    let choices = networks.choices().iter().enumerate().filter(|(_, choices)| choices.len() == 1);
    choices.fold(polynomial, |polynomial, (layer, _)| polynomial.given(layer, 0))
}

/// Returns what a call of the runtime itself costs, in nanoseconds, or 0 if it was not measured.
fn call(table: &LatencyTable) -> f64 {
    let call = Subject::Call(table.header.input);
    table.estimates().get(&call).map_or(0.0, |estimate| estimate.latency.ns())
}

fn check_space(table: &LatencyTable, networks: &Networks) -> Result<(), ModelError> {
    let Networks { space, input, .. } = networks;
    let header = &table.header;
    if header.space == *space && header.input == *input {
        return Ok(());
    }
    let name = |name: &str, input: nas_exporters::Shape| format!("`{name}` on {input}");
    let (theirs, ours) = (name(&header.space.name, header.input), name(&space.name, *input));
    let ours = if theirs == ours { format!("{ours} as it is now") } else { ours };
    Err(ModelError::OtherSpace { path: table.path().into(), theirs, ours })
}

/// What a table provides for a fit.
pub struct FitData {
    /// The networks for all numbers of classes in the table.
    pub networks: Networks,
    pub structure: Structure,
    pub measured: Vec<Measured>,
}

impl FitData {
    /// Collects the measured networks of a table.
    ///
    /// # Errors
    /// Fails if the table lacks rows of some isolated layers of `networks`, or if it is about another space.
    pub fn new(table: &LatencyTable, networks: &Networks) -> Result<FitData, ModelError> {
        check_space(table, networks)?;
        let estimates = table.require(&isolated_subjects(networks))?;
        // An interrupted command may have left the classifier of another number of classes without a row.
        let has_rows = |classes: &usize| {
            let subjects = table.networks(vec![*classes]).map(|networks| isolated_subjects(&networks));
            subjects.is_ok_and(|subjects| subjects.iter().all(|subject| estimates.contains_key(subject)))
        };
        let mut classes: Vec<usize> = table.classes().into_iter().filter(has_rows).collect();
        let new = networks.classes.iter().filter(|ours| !table.classes().contains(ours));
        classes.extend(new);
        let all = table.networks(classes)?;
        let structure = structure(&all, &estimates);
        let unseen = table.unseen();
        let fitted = estimates.iter().filter(|(subject, _)| !unseen.contains_key(*subject));
        let measured = fitted.filter_map(|(subject, estimate)| measured(&all, subject, estimate)).collect();
        Ok(FitData { networks: all, structure, measured })
    }

    /// Fits a latency model to the measured networks.
    ///
    /// # Errors
    /// Fails if the networks cannot be fitted.
    pub fn fit(&self, table: &LatencyTable) -> Result<Fit, ModelError> {
        Fit::new(&self.structure, &self.measured).map_err(|reason| unfit(table, reason))
    }

    /// Returns how many networks for this number of classes were measured.
    fn measured_for(&self, classes: usize) -> usize {
        let head = self.networks.len() - 1;
        let is = |m: &&Measured| self.networks.classes[m.choices[head]] == classes;
        self.measured.iter().filter(is).count()
    }
}

pub fn unfit(table: &LatencyTable, reason: FitError) -> ModelError {
    ModelError::Fit { path: table.path().into(), reason, command: table.command().into() }
}

/// Returns a network as a fit sees it, or `None` if `subject` is not one of `networks`.
pub fn measured(networks: &Networks, subject: &Subject, estimate: &Estimate) -> Option<Measured> {
    let Subject::Network(layers) = subject else { return None };
    let weight = if estimate.disturbed { DISTURBED_WEIGHT } else { 1.0 };
    Some(Measured { choices: networks.choices_of(layers)?, latency: estimate.latency, weight })
}

/// Returns the variants of each layer that are computed, in the order of the parts of a [`structure`]. The order is the
/// same for any number of classes, except in the classifier, which comes last.
fn computed(networks: &Networks) -> impl Iterator<Item = (usize, &Variant)> {
    let layers = networks.variants().iter().enumerate();
    let all = layers.flat_map(|(layer, variants)| variants.iter().map(move |variant| (layer, variant)));
    all.filter(|(_, variant)| variant.layer.op != CandidateOp::Zero)
}

/// Returns what networks are made of, including the latencies of isolated layers if all of them were measured.
pub fn structure(networks: &Networks, estimates: &BTreeMap<&Subject, Estimate>) -> Structure {
    let known = |layer: &Layer| estimates.get(&Subject::Layer(*layer)).map(|e| e.latency.ns());
    let all_known = isolated_subjects(networks).iter().all(|subject| estimates.contains_key(subject));
    let part = |(layer, variant): (usize, &Variant)| {
        let Layer { op, stride, .. } = variant.layer;
        let role = if variant.layer.is_identity() { Role::Identity } else { Role::Real };
        Part {
            at: (layer, variant.choice),
            products: vec![networks.product(layer, variant)],
            work: variant.layer.to_string(),
            kind: if stride > 1 { format!("{op}/{stride}") } else { op.to_string() },
            op: op.to_string(),
            role,
            isolated_ns: match role {
                Role::Real => known(&variant.layer).filter(|_| all_known),
                Role::Identity | Role::Zero => Some(0.0),
            },
        }
    };
    let parts: Vec<Part> = computed(networks).map(part).collect();
    let role = |(layer, choice): (usize, usize)| {
        let of_choice = || parts.iter().filter(|part| part.at == (layer, choice));
        match of_choice().next() {
            None => Role::Zero,
            Some(_) if of_choice().all(|part| part.role == Role::Identity) => Role::Identity,
            Some(_) => Role::Real,
        }
    };
    let choices = networks.choices().iter().enumerate();
    let roles = choices.map(|(layer, choices)| (0..choices.len()).map(|choice| role((layer, choice))).collect());
    Structure::chain(roles.collect(), parts.clone())
}
