use super::CandidateOp;
use nas_exporters::{Graph, MOST_VALUES, Shape};
use serde::{Deserialize, Serialize};

/// That of the ops of a graph.
const MOST_STRIDE: usize = 127;

/// An op at one place of a network: what a latency table has rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub op: CandidateOp,
    /// CHW
    pub input: Shape,
    /// Output channels.
    pub channels: usize,
    pub stride: usize,
}

impl Layer {
    /// The layer as a network of its own: the micro-model that is measured, and the branch that is trained.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.input);
        self.op.describe(&mut graph, self);
        graph
    }

    /// CHW
    pub fn output(&self) -> Shape {
        match self.op {
            CandidateOp::Head => Shape::new(self.channels, 1, 1),
            _ => self.input.strided(self.channels, self.stride),
        }
    }

    /// Checks that no size is 0, and that no feature map and no weights of its graph are too large to compute with.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let Layer { op, input, channels, stride } = *self;
        if input.is_empty() || channels == 0 || stride == 0 {
            return Err(format!("layer {self}: sizes start at 1"));
        }
        let hidden = input.channels.saturating_mul(op.expansion());
        let window = op.kernel() * op.kernel();
        let weights = match op {
            CandidateOp::Conv { .. } => [input.channels, channels, window],
            CandidateOp::Fused { .. } => [hidden, input.channels.max(channels), window],
            CandidateOp::InvertedResidual { .. } => [hidden, hidden.max(channels), 1],
            CandidateOp::SepConv { .. } => [input.channels, channels.max(window), 1],
            CandidateOp::Pool { .. } | CandidateOp::Skip | CandidateOp::Head => [input.channels, channels, 1],
            CandidateOp::Zero => [0; 3],
        };
        let map = [hidden.max(channels), input.height, input.width];
        let product = |sizes: [usize; 3]| sizes.into_iter().fold(1usize, usize::saturating_mul);
        if stride > MOST_STRIDE || product(weights) > MOST_VALUES || product(map) > MOST_VALUES {
            return Err(format!(
                "layer {self} is too large: at most {MOST_VALUES} weights and values of a feature map"
            ));
        }
        Ok(())
    }

    /// Whether it is a `skip` that has nothing to compute.
    pub fn is_identity(&self) -> bool {
        self.op == CandidateOp::Skip && self.input == self.output()
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}->{}", self.op, self.input, self.channels)?;
        if self.stride > 1 { write!(f, " /{}", self.stride) } else { Ok(()) }
    }
}
