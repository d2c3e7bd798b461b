use crate::bounded::Classes;
use crate::latency::Latency;
use crate::space::{CandidateOp, Layer, chained};
use nas_exporters::{Graph, Shape};
use nas_probe::Conditions;
use serde::{Deserialize, Serialize};

/// What is timed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A layer as a model of its own, which is never deployed like this.
    Layer(Layer),
    /// A whole network, as its list of layers.
    Network(Vec<Layer>),
    /// A model that returns its input, of this shape. Its latency is what a call of the runtime itself costs.
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

    /// Returns the key that identifies what is timed: the first 16 digits of its graph's digest.
    pub fn key(&self) -> String {
        self.graph().digest()[..16].to_string()
    }

    /// Checks that the subject can be computed (see [`Layer::check`]), and that each layer's output is the next one's
    /// input.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Subject::Layer(layer) => layer.check(),
            Subject::Network(layers) => {
                let joined = |pair: &[Layer]| pair[0].output() == pair[1].input;
                layers.iter().try_for_each(Layer::check)?;
                let fits = (1..=MOST_LAYERS).contains(&layers.len()) && layers.windows(2).all(joined);
                if fits { Ok(()) } else { Err("its layers do not join".into()) }
            }
            Subject::Call(shape) => Layer { op: CandidateOp::Skip, input: *shape, channels: 1, stride: 1 }.check(),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Layer(layer) => write!(f, "{layer}"),
            Subject::Network(layers) => {
                let between = layers.get(1..layers.len().saturating_sub(1)).unwrap_or_default();
                let ops: Vec<String> = between.iter().map(|layer| layer.op.to_string()).collect();
                write!(f, "network {}", ops.join(","))
            }
            Subject::Call(shape) => write!(f, "call {shape}"),
        }
    }
}

/// One timing of a subject. All rows of a subject together say what is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    pub subject: Subject,
    /// [`Subject::key`] at the time of the timing. A row of an op that has changed since is stale.
    pub key: String,
    pub median_ns: Latency,
    /// Nanoseconds per inference, one value for each sample.
    pub samples_ns: Vec<f64>,
    /// Inferences that are timed together as one sample.
    pub batch: u64,
    /// Seconds since 1970, UTC.
    pub measured_at: u64,
    pub before: Conditions,
    /// Halfway through the timing.
    pub during: Conditions,
    pub after: Conditions,
    /// The number of cores that other programs kept busy meanwhile.
    #[serde(default)]
    pub others: Option<f64>,
    /// What else happened on the device meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<Disturbance>,
    /// Whether the row was timed to observe the device's drift.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anchor: bool,
    /// For a network that is kept out of every fit, to validate predictions: how it was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Drawn>,
    /// The peak memory of a process that runs only this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

/// What else happened while a row was timed, so that its latency may be too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    /// The device reduced its clock.
    Throttled,
    /// Other programs kept cores busy that the runtime was meant to use.
    Load,
}

/// How a network that is kept out of every fit was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// At random, with each choice of a layer in equally many networks.
    Random,
    /// As a search derives one: the best network by random scores within a target.
    Derived,
}

/// Larger numbers in a file are a mistake.
const MOST_LAYERS: usize = 1 << 12;
const MOST_NETWORKS: usize = 1 << 20;

impl Row {
    /// Checks that the timings are positive and finite, and that the other numbers are possible.
    ///
    /// # Errors
    /// A message that names the number that cannot come from a measurement.
    pub fn check(&self) -> Result<(), String> {
        let time = |ns: &f64| ns.is_finite() && *ns > 0.0;
        let checks = [
            ("samples_ns", !self.samples_ns.is_empty() && self.samples_ns.iter().all(time)),
            ("median_ns", time(&self.median_ns.ns())),
            ("batch", self.batch > 0),
            ("others", self.others.is_none_or(|cores| cores.is_finite() && cores >= 0.0)),
            ("peak_bytes", self.peak_bytes != Some(0)),
        ];
        match checks.iter().find(|(_, fine)| !fine) {
            Some((field, _)) => Err(format!("its `{field}` cannot be measured")),
            None => Ok(()),
        }
    }

    /// Returns the fastest sample, in nanoseconds.
    pub fn fastest_ns(&self) -> f64 {
        self.samples_ns.iter().copied().reduce(f64::min).unwrap_or(self.median_ns.ns())
    }
}

/// How many whole networks, with how many classes, the latency model of a table is fitted to. This line of the table is
/// written before the first of the networks is timed. A later line for the same number of classes replaces an earlier
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    pub networks: usize,
    pub classes: usize,
}

impl Planned {
    /// Checks that the numbers are possible.
    ///
    /// # Errors
    /// Fails if a number is 0 or too large.
    pub fn check(&self) -> Result<(), String> {
        let fits = (1..=MOST_NETWORKS).contains(&self.networks) && Classes::new(self.classes).is_some();
        if fits { Ok(()) } else { Err("its numbers of networks and classes are not those of a profile".into()) }
    }
}
