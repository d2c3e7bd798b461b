use super::fit::{self, Choice, Measured, Role, Structure, Wiring, balanced, random};
use super::{LatencyTable, Subject, TableError, Timing};
use crate::space::{CandidateOp, Layer, SearchSpace};
use nas_exporters::Shape;
use std::collections::{BTreeMap, HashSet};

/// How much a network counts in a fit that was disturbed each time it was measured.
const DISTURBED_WEIGHT: f64 = 0.25;

/// Seed of the networks that models are fitted to.
const TO_FIT: u64 = 0;

/// Seed of the networks that those are chosen of which tell the most, and how many they are.
const TELLING: u64 = 0;
const CANDIDATES: usize = 4000;

/// Of so many networks to fit a model to, those that are chosen when the others were measured.
fn telling(networks: usize) -> usize {
    networks / 4
}

/// A network's mixed layers.
fn between_ends(ops: &[usize]) -> &[usize] {
    &ops[1..ops.len() - 1]
}

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

    /// The networks that every model of so many is fitted to, three quarters of them and always the same:
    /// each layer holds each candidate equally often.
    pub fn to_fit(&self, networks: usize) -> Vec<Subject> {
        self.designed(networks - telling(networks), TO_FIT)
    }

    /// The rest of so many networks to fit a model to, once `table` has [`Self::to_fit`]: those that
    /// were chosen before, and others that tell the most of what its model is not yet sure of, such as how
    /// layers act on each other that seldom meet.
    ///
    /// # Errors
    /// As [`super::LatencyModel::new`].
    pub fn telling(&self, table: &LatencyTable, networks: usize) -> Result<Vec<Subject>, TableError> {
        let same: HashSet<Subject> = self.to_fit(networks).into_iter().collect();
        let fitted = self.measured(table, false).into_iter().map(|measured| self.network(&measured.ops));
        let mut chosen: Vec<Subject> = fitted.filter(|network| !same.contains(network)).collect();
        let left = telling(networks).saturating_sub(chosen.len());
        if left > 0 {
            let mut known: HashSet<Subject> = table.rows().iter().map(|row| row.subject.clone()).collect();
            let (structure, measured) = self.problem(table)?;
            let mut others = random(&structure, CANDIDATES, TELLING);
            others.retain(|ops| known.insert(self.network(between_ends(ops))));
            let telling = fit::telling(&structure, &measured, &others, left);
            let telling = telling.map_err(|reason| table.unfit(reason))?;
            chosen.extend(telling.into_iter().map(|i| self.network(between_ends(&others[i]))));
        }
        Ok(chosen)
    }

    /// What a model of what `table` holds is fitted to.
    ///
    /// # Errors
    /// [`TableError::Missing`]
    pub(super) fn problem(&self, table: &LatencyTable) -> Result<(Structure, Vec<Measured>), TableError> {
        let structure = self.structure(&table.require(&self.to_fit(table.header.networks))?);
        let with_ends = |m: Measured| Measured { ops: [&[0], &*m.ops, &[0]].concat(), ..m };
        Ok((structure, self.measured(table, false).into_iter().map(with_ends).collect()))
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
        let structure = Structure { layers: self.choices(&BTreeMap::new()), wiring: Wiring::Chain };
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

    /// The networks as a fit sees them, with what is known of their isolated layers if all are: stem and
    /// head are layers of one choice, since their neighbours may change what they cost.
    pub fn structure(&self, timings: &BTreeMap<&Subject, Timing>) -> Structure {
        let Images { shape, classes } = self.images;
        let none = BTreeMap::new();
        let timings = if self.isolated().iter().all(|l| timings.contains_key(l)) { timings } else { &none };
        let end = |layer: Layer| {
            let choice = self.choice(&layer, timings);
            // Every network reads these: only what differs can crowd out anything more.
            vec![Choice { weights: 0.0, ..choice }]
        };
        let mut layers = self.choices(timings);
        layers.insert(0, end(self.space.stem(shape)));
        layers.push(end(self.space.head(shape, classes)));
        Structure { layers, wiring: Wiring::Chain }
    }

    /// By mixed layer.
    fn choices(&self, timings: &BTreeMap<&Subject, Timing>) -> Vec<Vec<Choice>> {
        let layers = self.space.mixed_layers(self.images.shape);
        let choices = |layers: &Vec<Layer>| layers.iter().map(|layer| self.choice(layer, timings)).collect();
        layers.iter().map(choices).collect()
    }

    fn choice(&self, layer: &Layer, timings: &BTreeMap<&Subject, Timing>) -> Choice {
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
                Role::Real => isolated(),
                Role::Identity | Role::Zero => Some(0.0),
            },
            weights: layer.graph().cost().params as f64,
        }
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
