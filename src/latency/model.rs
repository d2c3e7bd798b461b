use super::{Latency, LatencyTable, TableError};
use crate::space::{CandidateOp, Genotype, Layer, SearchSpace};
use nas_exporters::Shape;
use serde::Serialize;

/// What the networks of a space cost on a device: latency(network) = fixed + Σ a row for each mixed
/// layer. Prediction and expectation are this one formula, so that at a one-hot distribution they
/// agree to the last digit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyModel {
    candidates: Vec<CandidateOp>,
    /// Stem and head.
    fixed: Latency,
    /// By mixed layer, by candidate.
    mixed: Vec<Vec<Latency>>,
}

impl LatencyModel {
    /// The model of `space` for images of shape `input`, from the rows of `table`.
    ///
    /// # Errors
    /// [`TableError::Missing`], with all the layers that the table has no row of.
    pub fn new(
        table: &LatencyTable,
        space: &SearchSpace,
        input: Shape,
        classes: usize,
    ) -> Result<Self, TableError> {
        table.require(&space.distinct_layers(input, classes))?;
        let row = |layer: &Layer| table.latency(layer);
        let mixed: Result<Vec<Vec<Latency>>, TableError> =
            space.mixed_layers(input).iter().map(|layers| layers.iter().map(row).collect()).collect();
        Ok(LatencyModel {
            candidates: space.candidates.clone(),
            fixed: row(&space.stem(input))? + row(&space.head(input, classes))?,
            mixed: mixed?,
        })
    }

    /// Latency of stem and head.
    pub fn fixed(&self) -> Latency {
        self.fixed
    }

    /// Nanoseconds by mixed layer and candidate.
    pub fn mixed_ns(&self) -> Vec<Vec<f64>> {
        self.mixed.iter().map(|layer| layer.iter().map(|l| l.ns()).collect()).collect()
    }

    /// Expected latency where layer l holds candidate i with `probabilities[l][i]`.
    pub fn expected(&self, probabilities: &[Vec<f64>]) -> Latency {
        let terms = self.mixed.iter().zip(probabilities).flat_map(|(latencies, ps)| latencies.iter().zip(ps));
        terms.map(|(&latency, &p)| p * latency).fold(self.fixed, |sum, term| sum + term)
    }

    /// Latency of the network whose layers hold `ops`.
    pub fn predict(&self, ops: &[CandidateOp]) -> Latency {
        let one_hot = |op: &CandidateOp| self.candidates.iter().map(|c| f64::from(c == op)).collect();
        self.expected(&ops.iter().map(one_hot).collect::<Vec<_>>())
    }

    /// Latencies of the cheapest and the dearest network without a `zero`.
    pub fn range(&self) -> (Latency, Latency) {
        let sum = |pick: fn(f64, f64) -> f64| {
            let picked =
                |layer: &Vec<Latency>| self.live(layer).map(|(_, l)| l.ns()).reduce(pick).unwrap_or(0.0);
            self.mixed.iter().fold(self.fixed, |sum, layer| sum + Latency::from_ns(picked(layer)))
        };
        (sum(f64::min), sum(f64::max))
    }

    /// # Errors
    /// Where even the cheapest network is slower than `target`.
    pub fn check_target(&self, target: Latency) -> Result<(), TableError> {
        let (cheapest, _) = self.range();
        if cheapest > target { Err(TableError::Unreachable { target, cheapest }) } else { Ok(()) }
    }

    /// The network of the largest summed score whose latency is within `target`, exactly: of the
    /// partial networks only those are kept that no other beats in both. A `zero` is never chosen,
    /// since behind it no network is left.
    ///
    /// # Errors
    /// [`TableError::Unreachable`]
    pub fn likeliest_within(
        &self,
        scores: &[Vec<f64>],
        target: Latency,
    ) -> Result<Vec<CandidateOp>, TableError> {
        let mut front: Vec<(Latency, f64, Vec<CandidateOp>)> = vec![(self.fixed, 0.0, vec![])];
        for (layer, scores) in self.mixed.iter().zip(scores) {
            let mut grown: Vec<_> = front
                .iter()
                .flat_map(|(latency, score, ops)| {
                    self.live(layer).map(move |(i, l)| {
                        let ops = [ops.as_slice(), &[self.candidates[i]]].concat();
                        (*latency + l, score + scores[i], ops)
                    })
                })
                .filter(|(latency, _, _)| *latency <= target)
                .collect();
            grown.sort_by(|a, b| a.0.ns().total_cmp(&b.0.ns()).then(b.1.total_cmp(&a.1)));
            let mut best = f64::NEG_INFINITY;
            grown.retain(|(_, score, _)| {
                let better = *score > best;
                best = best.max(*score);
                better
            });
            front = grown;
        }
        let cheapest = self.range().0;
        front.pop().map(|(_, _, ops)| ops).ok_or(TableError::Unreachable { target, cheapest })
    }

    fn live<'a>(&'a self, layer: &'a [Latency]) -> impl Iterator<Item = (usize, Latency)> + 'a {
        let live = |i: &usize| self.candidates[*i] != CandidateOp::ZERO;
        (0..layer.len()).filter(live).map(|i| (i, layer[i]))
    }
}

impl LatencyTable {
    /// The predicted latency of a network by layer; what its output does not depend on is left out.
    ///
    /// # Errors
    /// [`TableError::Missing`], with all the layers that the table has no row of.
    pub fn predict(&self, genotype: &Genotype) -> Result<Vec<crate::record::LayerLatency>, TableError> {
        let layers = genotype.live_layers();
        self.require(&layers)?;
        let row = |&layer| Ok(crate::record::LayerLatency { layer, ns: self.latency(&layer)? });
        layers.iter().map(row).collect()
    }
}
