//! Networks as data, and the formats that they are written in.
//!
//! A [`Graph`] is described once and used in three ways: it is executed in libtorch (crate edge-nas), written
//! as ONNX ([`onnx`]) and counted ([`Graph::cost`]). So the network that is timed, the one that is trained
//! and the one that is exported cannot differ.

mod cost;
mod fold;
mod graph;
pub mod onnx;
mod precision;
mod weights;

pub use cost::GraphCost;
pub use fold::fold_batch_norm;
pub use graph::{Graph, GraphError, MOST_VALUES, Node, NodeId, Op, Param, Role, Shape};
pub use onnx::EncodeError;
pub use precision::Precision;
pub use weights::{Tensor, Weights, WeightsError};

/// ε of batch norm, in training and in export; PyTorch's default.
pub const BATCH_NORM_EPS: f64 = 1e-5;
