use super::fit::{Choice, Measured, Role, Structure, Wiring, balanced};
use super::{LatencyTable, Subject, Timing};
use crate::space::{CandidateOp, Layer, SearchSpace};
use nas_exporters::Shape;
use std::collections::{BTreeMap, HashSet};

/// How much a network counts in a fit that was disturbed each time it was measured.
const DISTURBED_WEIGHT: f64 = 0.25;

/// Seed of the networks that models are fitted to.
const TO_FIT: u64 = 0;

/// The images that a space's networks are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// CHW
    pub shape: Shape,
    pub classes: usize,
}

/// A space, and the images that its networks are for.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    pub space: &'a SearchSpace,
    pub images: Images,
}

impl Networks<'_> {
    /// The layers of all networks, each as a model of its own; a `zero` is none.
    pub fn isolated(&self) -> Vec<Subject> {
        let layers = self.space.distinct_layers(self.images.shape, self.images.classes);
        layers.into_iter().filter(|layer| layer.op != CandidateOp::ZERO).map(Subject::Layer).collect()
    }

    /// The network that holds `ops`, indices of candidates.
    pub fn network(&self, ops: &[usize]) -> Subject {
        let mixed = self.space.mixed_layers(self.images.shape);
        let chosen = mixed.iter().zip(ops).map(|(layers, &op)| layers[op]);
        let (stem, head) =
            (self.space.stem(self.images.shape), self.space.head(self.images.shape, self.images.classes));
        Subject::Network([stem].into_iter().chain(chosen).chain([head]).collect())
    }

    /// The networks that a model is fitted to, always the same: each layer holds each candidate equally
    /// often.
    pub fn to_fit(&self, networks: usize) -> Vec<Subject> {
        self.designed(networks, TO_FIT)
    }

    /// Other networks than any that a fit of `table` sees: each layer holds each candidate equally often.
    pub fn fresh(&self, networks: usize, seed: u64, table: &LatencyTable) -> Vec<Subject> {
        let fitted: HashSet<&Subject> =
            table.rows().iter().filter(|row| !row.unseen).map(|row| &row.subject).collect();
        let mut fresh = self.designed(networks, seed);
        fresh.retain(|network| !fitted.contains(network));
        fresh
    }

    fn designed(&self, networks: usize, seed: u64) -> Vec<Subject> {
        if networks == 0 {
            return vec![];
        }
        let structure = self.structure(&BTreeMap::new());
        let mut designed: Vec<Subject> =
            balanced(&structure, networks, seed).iter().map(|ops| self.network(ops)).collect();
        let mut seen = HashSet::new();
        designed.retain(|network| seen.insert(network.clone()));
        designed
    }

    /// So many networks tell the rows and what interactions there are apart.
    pub fn usual_number(&self) -> usize {
        3 * self.isolated().len() + 50
    }

    /// The candidates that a network holds; none where it is not of this space and these images.
    pub fn ops(&self, subject: &Subject) -> Option<Vec<usize>> {
        let Subject::Network(layers) = subject else { return None };
        let mixed = self.space.mixed_layers(self.images.shape);
        let inner = layers.get(1..layers.len().checked_sub(1)?)?;
        let op = |(layer, choices): (&Layer, &Vec<Layer>)| choices.iter().position(|choice| choice == layer);
        let ops: Vec<usize> = inner.iter().zip(&mixed).map(op).collect::<Option<_>>()?;
        (ops.len() == mixed.len() && self.network(&ops) == *subject).then_some(ops)
    }

    /// The networks as a fit sees them, with what is known of their isolated layers if all are.
    pub fn structure(&self, timings: &BTreeMap<&Subject, Timing>) -> Structure {
        let all = self.isolated().iter().all(|layer| timings.contains_key(layer));
        let choice = |layer: &Layer| {
            let role = match layer.graph().nodes() {
                _ if layer.op == CandidateOp::ZERO => Role::Zero,
                [_input] => Role::Identity,
                _ => Role::Real,
            };
            let isolated = || timings.get(&Subject::Layer(*layer)).map(|timing| timing.fastest.ns());
            Choice {
                row: layer.to_string(),
                kind: if layer.stride > 1 {
                    format!("{}/{}", layer.op, layer.stride)
                } else {
                    layer.op.to_string()
                },
                op: layer.op.to_string(),
                role,
                isolated_ns: match role {
                    Role::Real if all => isolated(),
                    Role::Real => None,
                    Role::Identity | Role::Zero => Some(0.0),
                },
                weights: layer.graph().cost().params as f64,
            }
        };
        let layers = self.space.mixed_layers(self.images.shape);
        let layers = layers.iter().map(|choices| choices.iter().map(choice).collect()).collect();
        Structure { layers, wiring: Wiring::Chain }
    }

    /// What is known of those networks that are `unseen`, or of those that are not.
    pub fn measured(&self, table: &LatencyTable, unseen: bool) -> Vec<Measured> {
        let timings = table.timings();
        let kept: HashSet<&Subject> =
            table.rows().iter().filter(|row| row.unseen).map(|row| &row.subject).collect();
        let chosen = timings.iter().filter(|(subject, _)| kept.contains(**subject) == unseen);
        let measured = chosen.filter_map(|(subject, timing)| {
            let weight = if timing.disturbed { DISTURBED_WEIGHT } else { 1.0 };
            Some(Measured { ops: self.ops(subject)?, latency: timing.fastest, weight })
        });
        measured.collect()
    }
}
