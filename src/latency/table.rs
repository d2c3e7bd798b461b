use super::{Disturbance, Latency, ProfileError};
use crate::artifact::{self, ArtifactError};
use crate::device::{DeviceError, Session};
use crate::space::{CandidateOp, Layer};
use nas_exporters::{Graph, Weights, WeightsError, onnx};
use nas_probe::{Conditions, Runtime, RuntimeInfo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the file format.
const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("there is no latency table {path}; measure it with `{command}`", path = path.display())]
    Absent { path: PathBuf, command: String },
    #[error(
        "the latency table {path} has no row for {n} of the layers: {list}; measure them with `{command}`",
        path = path.display(), n = layers.len(),
        list = layers.iter().map(Layer::to_string).collect::<Vec<_>>().join("; ")
    )]
    Missing { path: PathBuf, layers: Vec<Layer>, command: String },
    #[error(
        "no network of the space is within {target}: the cheapest takes {cheapest}; raise --target-latency"
    )]
    Unreachable { target: Latency, cheapest: Latency },
    #[error(
        "{path} was measured with {difference}: the two do not mix; measure into another --profiles folder, or let `nas search` and `nas bench` use the table all the same by --allow-foreign-table",
        path = path.display()
    )]
    Foreign { path: PathBuf, difference: Difference },
    #[error("{path} is no latency table of format {FORMAT}: {reason}", path = path.display())]
    Format { path: PathBuf, reason: String },
}

/// What all rows of a table share: its first line. A table never mixes any of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the file format.
    pub latency_table: u32,
    /// Name of the device file.
    pub device: String,
    pub cpu: String,
    pub arch: String,
    pub libc: String,
    pub runtime: Runtime,
    pub runtime_version: String,
    pub threads: usize,
    /// Of weights and activations: `fp32`.
    pub precision: String,
    /// ONNX Runtime's execution providers, the preferred one first; none for tract.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Cores that the probe stayed on; any where empty.
    #[serde(default)]
    pub pinned: Vec<usize>,
}

impl Header {
    /// Of what these boards measure together.
    ///
    /// # Errors
    /// Where one of them does not have the runtime, or is not of the others' kind.
    pub fn of(
        device: &str,
        boards: &[Session],
        runtime: Runtime,
        threads: usize,
    ) -> Result<Header, ProfileError> {
        let of = |session: &Session| {
            Ok::<_, DeviceError>(Self::new(device, session, session.require(runtime)?, threads))
        };
        let headers: Vec<Header> = boards.iter().map(of).collect::<Result<_, _>>()?;
        let mut all = boards.iter().zip(headers);
        let Some((first, header)) = all.next() else { return Err(ProfileError::NoBoard) };
        let differs = |(board, theirs): (&Session, Header)| {
            Some((board.board().to_string(), theirs.difference(&header)?))
        };
        match all.find_map(differs) {
            None => Ok(header),
            Some((board, difference)) => {
                Err(ProfileError::Mixed { board, first: first.board().into(), difference })
            }
        }
    }

    fn new(device: &str, session: &Session, info: &RuntimeInfo, threads: usize) -> Header {
        let hello = session.hello();
        Header {
            latency_table: FORMAT,
            device: device.into(),
            cpu: hello.cpu.clone(),
            arch: hello.arch.clone(),
            libc: hello.libc.clone(),
            runtime: info.runtime,
            runtime_version: info.version.clone(),
            threads,
            precision: "fp32".into(),
            providers: info.providers.clone(),
            pinned: session.ready().pinned.clone(),
        }
    }
}

/// What two headers differ in: `CPU A, not B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: &'static str,
    pub theirs: String,
    pub ours: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, not {}", self.what, self.theirs, self.ours)
    }
}

impl Header {
    /// The first thing in which this header differs from `ours`.
    pub fn difference(&self, ours: &Header) -> Option<Difference> {
        let said = |header: &Header| {
            let list = |parts: Vec<String>| if parts.is_empty() { "none".into() } else { parts.join(",") };
            [
                ("device", header.device.clone()),
                ("CPU", header.cpu.clone()),
                ("architecture", header.arch.clone()),
                ("libc", header.libc.clone()),
                ("runtime", header.runtime.to_string()),
                ("runtime version", header.runtime_version.clone()),
                ("threads", header.threads.to_string()),
                ("precision", header.precision.clone()),
                ("execution providers", list(header.providers.clone())),
                ("pinned cores", list(header.pinned.iter().map(usize::to_string).collect())),
            ]
        };
        let mut pairs = said(self).into_iter().zip(said(ours));
        let differs = pairs.find(|(a, b)| a != b);
        differs.map(|((what, theirs), (_, ours))| Difference { what, theirs, ours })
    }
}

/// A layer's latency, with the raw timings behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub layer: Layer,
    pub method: Method,
    /// Digest of the model that was timed: a row of an op that has changed since is measured anew.
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
    #[serde(default)]
    pub during: Conditions,
    pub after: Conditions,
    /// Cores that other programs kept busy meanwhile.
    #[serde(default)]
    pub others: Option<f64>,
    /// What else went on, in the last of the times that the layer was measured for this row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<Disturbance>,
}

/// How a row was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// As a model of its own.
    Isolated,
}

/// Latencies of layers on one device with one runtime, as a file of JSON lines: a [`Header`], then
/// [`Row`]s as they were measured.
#[derive(Debug)]
pub struct LatencyTable {
    path: PathBuf,
    /// What measures rows that are missing.
    command: String,
    pub header: Header,
    rows: BTreeMap<Layer, Row>,
}

impl LatencyTable {
    /// Where the table of a space is kept below the folder `profiles`.
    pub fn path(profiles: &Path, device: &str, space: &str, runtime: Runtime, threads: usize) -> PathBuf {
        let threads = if threads == 1 { String::new() } else { format!(".{threads}threads") };
        profiles.join(device).join(format!("{space}.{runtime}{threads}.jsonl"))
    }

    /// Reads a table; `command` is what makes it.
    ///
    /// # Errors
    /// Where it is absent, or damaged.
    pub fn load(path: &Path, command: &str) -> Result<Self, TableError> {
        if !path.is_file() {
            return Err(TableError::Absent { path: path.into(), command: command.into() });
        }
        let mut lines: Vec<serde_json::Value> = artifact::read_lines(path)?;
        let format = |reason: String| TableError::Format { path: path.into(), reason };
        if lines.is_empty() {
            return Err(format("it is empty".into()));
        }
        let header: Header =
            serde_json::from_value(lines.remove(0)).map_err(|e| format(format!("line 1: {e}")))?;
        if header.latency_table != FORMAT {
            return Err(format(format!("it is of format {}", header.latency_table)));
        }
        let mut rows = BTreeMap::new();
        for (i, line) in lines.into_iter().enumerate() {
            let row: Row =
                serde_json::from_value(line).map_err(|e| format(format!("line {}: {e}", i + 2)))?;
            if row.layer.input.is_empty() || row.layer.channels == 0 || row.layer.stride == 0 {
                return Err(format(format!("line {}: a layer has a size of 0", i + 2)));
            }
            if row.model == model_digest(&row.layer) {
                rows.insert(row.layer, row);
            }
        }
        Ok(LatencyTable { path: path.into(), command: command.into(), header, rows })
    }

    /// Opens the table at `path` to add rows to, or begins it.
    ///
    /// # Errors
    /// Where the table that is there was measured under another header.
    pub fn open(path: &Path, header: Header, command: &str) -> Result<Self, TableError> {
        if !path.is_file() {
            artifact::write_lines(path, std::slice::from_ref(&header))?;
            return Ok(LatencyTable {
                path: path.into(),
                command: command.into(),
                header,
                rows: BTreeMap::new(),
            });
        }
        artifact::drop_torn_line(path)?;
        let table = Self::load(path, command)?;
        table.check(&header)?;
        Ok(table)
    }

    /// # Errors
    /// Where the table was measured under another header than `ours`.
    pub fn check(&self, ours: &Header) -> Result<(), TableError> {
        match self.header.difference(ours) {
            Some(difference) => Err(TableError::Foreign { path: self.path.clone(), difference }),
            None => Ok(()),
        }
    }
    /// Adds a row, to the file first.
    pub fn append(&mut self, row: Row) -> Result<(), TableError> {
        artifact::append_line(&self.path, &row)?;
        self.rows.insert(row.layer, row);
        Ok(())
    }

    /// Takes the rows that were disturbed for missing; in the file each stays, until a later one for its
    /// layer counts.
    pub fn forget_disturbed(&mut self) {
        self.rows.retain(|_, row| row.disturbed.is_empty());
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The layers that have to be measured yet.
    pub fn missing(&self, layers: &[Layer]) -> Vec<Layer> {
        layers.iter().copied().filter(|l| l.op != CandidateOp::ZERO && !self.rows.contains_key(l)).collect()
    }

    /// A layer's latency. A `zero` costs nothing by definition.
    ///
    /// # Errors
    /// [`TableError::Missing`]
    pub fn latency(&self, layer: &Layer) -> Result<Latency, TableError> {
        if layer.op == CandidateOp::ZERO {
            return Ok(Latency::ZERO);
        }
        self.require(std::slice::from_ref(layer))?;
        Ok(self.rows[layer].median_ns)
    }

    /// # Errors
    /// [`TableError::Missing`], with all of `layers` that there is no row of.
    pub fn require(&self, layers: &[Layer]) -> Result<(), TableError> {
        let layers = self.missing(layers);
        if layers.is_empty() {
            return Ok(());
        }
        Err(TableError::Missing { path: self.path.clone(), layers, command: self.command.clone() })
    }
}

/// The model that is timed for a graph, as ONNX bytes, with weights that are the same every time.
///
/// # Errors
/// Never for a graph's own random weights; the signature is that of the encoder.
pub fn micro_model(graph: &Graph) -> Result<Vec<u8>, WeightsError> {
    onnx::encode(graph, &Weights::random(graph, 0))
}

/// Digest of a layer's micro-model's graph.
pub fn model_digest(layer: &Layer) -> String {
    let graph = format!("{:?}", layer.graph());
    blake3::hash(graph.as_bytes()).to_hex()[..16].to_string()
}
