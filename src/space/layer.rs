use super::{CandidateOp, sizes};
use nas_exporters::{Graph, Shape};
use serde::{Deserialize, Serialize};

/// An op at one place in a network. The rows of a latency table are about such layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub op: CandidateOp,
    /// Shape of the input, CHW.
    pub input: Shape,
    /// Output channels.
    pub channels: usize,
    pub stride: usize,
}

impl Layer {
    /// Returns the layer as a network of its own: the micro-model that is measured, and the branch that is trained.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.input);
        self.op.describe(&mut graph, self);
        graph
    }

    /// Returns the shape of the output, CHW.
    pub fn output(&self) -> Shape {
        match self.op {
            CandidateOp::Head => Shape::new(self.channels, 1, 1),
            _ => self.input.strided(self.channels, self.stride),
        }
    }

    /// Checks that no size is 0, and that no feature map and no weights of the layer's graph are too large.
    ///
    /// # Errors
    /// A message that says which size is out of range.
    pub fn check(&self) -> Result<(), String> {
        sizes::check_layer(self)
    }

    /// Returns whether the layer is a `skip` that has nothing to compute.
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
