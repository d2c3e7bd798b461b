use super::{Disturbance, Latency};
use crate::space::{Layer, chained};
use nas_exporters::{Graph, Shape, Weights, WeightsError, onnx};
use nas_probe::Conditions;
use serde::{Deserialize, Serialize};

/// What is timed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A layer as a model of its own, as it is never deployed.
    Layer(Layer),
    /// A whole network: stem, an op of each mixed layer, head.
    Network(Vec<Layer>),
    /// A model that hands on its input, of this shape: what a call of the runtime costs by itself.
    Call(Shape),
}

impl Subject {
    pub fn graph(&self) -> Graph {
        match self {
            Subject::Layer(layer) => layer.graph(),
            Subject::Network(layers) => chained(layers),
            Subject::Call(shape) => Graph::new(*shape),
        }
    }

    /// The model that is timed, as ONNX bytes, with weights that are the same every time.
    ///
    /// # Errors
    /// Never for a graph's own random weights; the signature is that of the encoder.
    pub fn model(&self) -> Result<Vec<u8>, WeightsError> {
        micro_model(&self.graph())
    }

    /// Digest of the graph that is timed.
    pub fn digest(&self) -> String {
        let graph = format!("{:?}", self.graph());
        blake3::hash(graph.as_bytes()).to_hex()[..16].to_string()
    }

    /// Whether its layers have no size of 0.
    pub fn is_sound(&self) -> bool {
        let sound = |layer: &Layer| !layer.input.is_empty() && layer.channels > 0 && layer.stride > 0;
        match self {
            Subject::Layer(layer) => sound(layer),
            Subject::Network(layers) => {
                let joined = |pair: &[Layer]| pair[0].output() == pair[1].input;
                !layers.is_empty() && layers.iter().all(sound) && layers.windows(2).all(joined)
            }
            Subject::Call(shape) => !shape.is_empty(),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Layer(layer) => write!(f, "{layer}"),
            Subject::Network(layers) => {
                let mixed = layers.get(1..layers.len().saturating_sub(1)).unwrap_or_default();
                let ops: Vec<&str> = mixed.iter().map(|layer| layer.op.name()).collect();
                write!(f, "network {}", ops.join(","))
            }
            Subject::Call(shape) => write!(f, "call {shape}"),
        }
    }
}

/// A subject timed once: a row of the table. What is known of a subject is in all its rows together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    pub subject: Subject,
    /// [`Subject::digest`]: a row of an op that has changed since does not count.
    pub model: String,
    pub median_ns: Latency,
    /// Nanoseconds of one inference, a sample.
    pub samples_ns: Vec<f64>,
    /// Inferences timed together in a sample.
    pub batch: u64,
    /// Seconds since 1970, UTC.
    pub measured_at: u64,
    pub before: Conditions,
    /// Half way.
    pub during: Conditions,
    pub after: Conditions,
    /// Cores that other programs kept busy meanwhile.
    #[serde(default)]
    pub others: Option<f64>,
    /// What else went on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<Disturbance>,
    /// Whether it was measured to see how the device drifts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anchor: bool,
    /// Whether this network is kept from every fit, to validate it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// Most memory that a process took which did nothing but run this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

impl Row {
    /// The fastest sample.
    pub fn fastest(&self) -> Latency {
        let fastest = self.samples_ns.iter().copied().reduce(f64::min);
        fastest.map_or(self.median_ns, Latency::from_ns)
    }
}

/// The model that is timed for a graph, as ONNX bytes, with weights that are the same every time.
///
/// # Errors
/// Never for a graph's own random weights; the signature is that of the encoder.
pub fn micro_model(graph: &Graph) -> Result<Vec<u8>, WeightsError> {
    onnx::encode(graph, &Weights::random(graph, 0))
}
