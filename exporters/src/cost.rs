use crate::{Graph, Op};
use serde::{Deserialize, Serialize};

/// Counted cost of a network, for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphCost {
    /// Multiply-accumulate operations (MACs) of convolutions and linear layers.
    pub macs: u64,
    /// Trainable parameters, including scale and shift of batch norms.
    pub params: u64,
    /// Peak memory of f32 activations, in bytes: the largest total size of the activations that are needed at
    /// the same time if nodes are computed in order and never in place.
    pub peak_activation_bytes: u64,
}

impl Graph {
    /// Counts the cost of the live nodes.
    pub fn cost(&self) -> GraphCost {
        let graph = self.live();
        let params = graph
            .params()
            .iter()
            .filter(|p| p.role.is_trained())
            .map(|p| p.dims.iter().product::<usize>() as u64)
            .sum();
        GraphCost {
            macs: graph.ids().map(|id| graph.macs(id)).sum(),
            params,
            peak_activation_bytes: graph.peak_bytes(),
        }
    }

    fn macs(&self, id: crate::NodeId) -> u64 {
        let node = self.node(id);
        let weights: usize = self.node_params(id).first().map_or(0, |w| w.dims.iter().product());
        match node.op {
            Op::Conv2d { .. } => (weights * node.shape.height * node.shape.width) as u64,
            Op::Linear { .. } => weights as u64,
            _ => 0,
        }
    }

    fn peak_bytes(&self) -> u64 {
        let last_read: Vec<usize> = self
            .ids()
            .enumerate()
            .map(|(i, id)| {
                let read = self.nodes().iter().rposition(|n| n.inputs.contains(&id));
                if id == self.output() { self.nodes().len() } else { read.unwrap_or(i) }
            })
            .collect();
        let alive =
            |now: usize| (0..=now).filter(|&i| last_read[i] >= now).map(|i| self.nodes()[i].shape.len()).sum::<usize>();
        (0..self.nodes().len()).map(alive).max().unwrap_or(0) as u64 * 4
    }
}
