use super::fit::{Fit, Polynomial};
use super::{Images, Latency, LatencyTable, Networks, Subject, TableError};
use crate::space::{CandidateOp, Genotype, Layer};
use serde::{Deserialize, Serialize};

/// What the networks of a space cost on a device, as a polynomial of what their layers hold. Prediction
/// and expectation are this one formula, so that at a one-hot distribution they agree to the last digit.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyModel {
    candidates: Vec<CandidateOp>,
    layers: usize,
    polynomial: Polynomial,
    /// What it was fitted to, and found; none where it is the plain sum of isolated layers.
    #[serde(skip)]
    pub fit: Option<Fit>,
}

impl LatencyModel {
    /// The model of the networks, from what `table` holds: fitted to whole networks where it is meant to
    /// have any, else the plain sum of isolated layers.
    ///
    /// # Errors
    /// [`TableError::Missing`], with all that the table has no row of; [`TableError::Fit`].
    pub fn new(table: &LatencyTable, networks: &Networks) -> Result<Self, TableError> {
        if table.header.networks == 0 {
            return Self::isolated(table, networks);
        }
        let (structure, measured) = networks.problem(table)?;
        let fit = Fit::new(&structure, &measured).map_err(|reason| table.unfit(reason))?;
        Ok(LatencyModel {
            candidates: networks.space.candidates.clone(),
            layers: networks.space.layers.len(),
            polynomial: fit.model.between_ends(structure.layers.len()),
            fit: Some(fit),
        })
    }

    /// The plain sum of isolated layers.
    ///
    /// # Errors
    /// [`TableError::Missing`], with all the layers that the table has no row of.
    pub fn isolated(table: &LatencyTable, networks: &Networks) -> Result<Self, TableError> {
        let subjects = networks.isolated();
        let timings = table.require(&subjects)?;
        let row = |layer: &Layer| {
            timings.get(&Subject::Layer(*layer)).map_or(Latency::ZERO, |timing| timing.fastest)
        };
        let Images { shape, classes } = networks.images;
        let fixed = row(&networks.space.stem(shape)) + row(&networks.space.head(shape, classes));
        let mixed = networks.space.mixed_layers(shape);
        let rows: Vec<Vec<Latency>> = mixed.iter().map(|layers| layers.iter().map(row).collect()).collect();
        let candidates = networks.space.candidates.clone();
        let polynomial = Polynomial::additive(fixed, &rows);
        Ok(LatencyModel { candidates, layers: rows.len(), polynomial, fit: None })
    }

    /// Layers and candidates.
    pub fn size(&self) -> (usize, usize) {
        (self.layers, self.candidates.len())
    }

    pub fn polynomial(&self) -> &Polynomial {
        &self.polynomial
    }

    /// Tells models apart.
    pub fn digest(&self) -> String {
        crate::digest(self)
    }

    /// Expected latency where layer l holds candidate i with `probabilities[l][i]`.
    pub fn expected(&self, probabilities: &[Vec<f64>]) -> Latency {
        self.polynomial.expected(probabilities)
    }

    /// Latency of the network whose layers hold `ops`, candidates of the space: the expectation where
    /// that is certain.
    pub fn predict(&self, ops: &[CandidateOp]) -> Latency {
        self.polynomial.predict(&self.indices(ops))
    }

    /// What is left of a network once dead code is removed: a `zero` takes with it all that is before it.
    fn live(&self, ops: &[CandidateOp]) -> Vec<usize> {
        let mut ops = ops.to_vec();
        if let Some(last) = ops.iter().rposition(|op| *op == CandidateOp::ZERO) {
            ops[..last].fill(CandidateOp::ZERO);
        }
        self.indices(&ops)
    }

    /// What an op in a layer adds, whatever the other layers hold.
    fn row(&self, layer: usize, op: usize) -> Latency {
        let holds =
            |holds: &[(usize, Vec<usize>)]| matches!(holds, [(l, ops)] if *l == layer && ops.contains(&op));
        self.polynomial.monomials().iter().filter(|m| holds(&m.holds)).map(|m| m.ns).sum()
    }

    fn indices(&self, ops: &[CandidateOp]) -> Vec<usize> {
        let none = self.candidates.len();
        let index = |op: &CandidateOp| self.candidates.iter().position(|c| c == op).unwrap_or(none);
        ops.iter().map(index).collect()
    }

    /// Latencies of the cheapest and the dearest network without a `zero`.
    pub fn range(&self) -> (Latency, Latency) {
        let live = |op: &usize| self.candidates[*op] != CandidateOp::ZERO;
        let choices = vec![(0..self.candidates.len()).filter(live).collect(); self.layers];
        self.polynomial.range(&choices).unwrap_or_default()
    }

    /// # Errors
    /// Where even the cheapest network is slower than `target`.
    pub fn check_target(&self, target: Latency) -> Result<(), TableError> {
        let (cheapest, _) = self.range();
        if cheapest > target { Err(TableError::Unreachable { target, cheapest }) } else { Ok(()) }
    }

    /// The network of the largest summed score whose latency is within `target`, exactly. A `zero` is
    /// never chosen, since behind it no network is left.
    ///
    /// # Errors
    /// [`TableError::Unreachable`]
    pub fn likeliest_within(
        &self,
        scores: &[Vec<f64>],
        target: Latency,
    ) -> Result<Vec<CandidateOp>, TableError> {
        let live = |(&op, &score): (&CandidateOp, &f64)| {
            if op == CandidateOp::ZERO { f64::NEG_INFINITY } else { score }
        };
        let scores: Vec<Vec<f64>> =
            scores.iter().map(|layer| self.candidates.iter().zip(layer).map(live).collect()).collect();
        let best = self.polynomial.likeliest_within(&scores, target);
        let cheapest = self.range().0;
        let best = best.ok_or(TableError::Unreachable { target, cheapest })?;
        Ok(best.into_iter().map(|op| self.candidates[op]).collect())
    }
}

/// What a table says of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub latency: Latency,
    /// The sum of its isolated layers, where the table has all of them.
    pub isolated: Option<Latency>,
    /// Those that the output depends on.
    pub layers: Vec<LayerLatency>,
    /// How layers act on each other, of the whole space.
    pub interactions: Vec<String>,
}

/// A layer's part in a network's latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerLatency {
    pub layer: Layer,
    /// What it adds; of stem and head, which every network has, the base tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<Latency>,
    /// What it takes as a model of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Latency>,
}

impl LatencyTable {
    /// What this table says of a network; what its output does not depend on is left out.
    ///
    /// # Errors
    /// Where it has no model of the genotype's space.
    pub fn predict(&self, genotype: &Genotype) -> Result<Prediction, TableError> {
        let images = Images { shape: genotype.input, classes: genotype.classes };
        let model = LatencyModel::new(self, &Networks { space: &genotype.space, images })?;
        let timings = self.timings();
        let (live, all) = (genotype.live_layers(), genotype.layers().len());
        let ops = model.live(&genotype.ops);
        let layer = |(i, &layer): (usize, &Layer)| {
            let isolated_ns = timings.get(&Subject::Layer(layer)).map(|timing| timing.fastest);
            let place = all - live.len() + i;
            let is_mixed = place > 0 && place + 1 < all;
            let ns = match model.fit {
                Some(_) => is_mixed.then(|| model.row(place - 1, ops[place - 1])),
                None => isolated_ns,
            };
            let skip = layer.graph().nodes().len() == 1;
            LayerLatency { layer, ns, isolated_ns: isolated_ns.or(skip.then_some(Latency::ZERO)) }
        };
        let layers: Vec<LayerLatency> = live.iter().enumerate().map(layer).collect();
        let isolated: Option<Latency> = layers.iter().map(|layer| layer.isolated_ns).sum();
        let latency = match model.fit {
            Some(_) => model.polynomial.predict(&ops),
            None => isolated.unwrap_or_default(),
        };
        let found = model.fit.iter().flat_map(|fit| &fit.interactions);
        let interactions = found.map(|interaction| interaction.gain.interaction.clone()).collect();
        Ok(Prediction { latency, isolated, layers, interactions })
    }
}
