//! Tables of others: the YAML of ProxylessNAS (Cai et al. 2019, arXiv 1812.00332) and of Once-for-All (Cai
//! et al. 2020, arXiv 1908.09791), a key a block and, in milliseconds, what it takes.

use super::header::FORMAT;
use super::{Header, Latency, Subject};
use crate::artifact::{self, ArtifactError};
use crate::space::{CandidateOp, Layer};
use nas_exporters::Shape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(
        "{path} is no published table: {reason}; every key needs count, mean, and std or var, in milliseconds",
        path = path.display()
    )]
    Yaml { path: PathBuf, reason: String },
    #[error("{path}, `{key}`: {reason}; correct it, or take the key out", path = path.display())]
    Value { path: PathBuf, key: String, reason: String },
    #[error(
        "none of the {keys} keys of {path} is an op of ours ({reasons}); only inverted residuals can be imported",
        path = path.display()
    )]
    Nothing { path: PathBuf, keys: usize, reasons: String },
}

/// Why a key is not a layer of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misfit {
    #[error("it is no inverted residual (expanded_conv)")]
    Kind,
    #[error("`{0}` is missing, stands twice, or cannot be read")]
    Unclear(String),
    #[error("its maps are not square")]
    NotSquare,
    #[error("its output is not its input divided by the stride, rounded up")]
    Size,
    #[error("no op has its kernel and expansion")]
    Op,
    #[error("its expansion may be a factor or a number of channels, and there are ops for both")]
    Ambiguous,
    #[error("it adds its input elsewhere than where shapes are equal")]
    Residual,
    #[error("its activation is h-swish, that of our ops ReLU6")]
    Activation,
    #[error("it does not tell the width and the gate of its squeeze-and-excite")]
    Excite,
    #[error("another key is the same layer")]
    Twice,
}

/// What others say of a subject. A row of a table that was imported, in the place of one that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    #[serde(flatten)]
    pub subject: Subject,
    /// [`Subject::digest`]
    pub model: String,
    pub published: Mean,
}

/// What is left of timings where only these numbers of them were published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    pub mean_ns: Latency,
    /// Standard deviation.
    pub std_ns: Latency,
    /// Timings that there were.
    pub count: u64,
}

/// A published table, read.
#[derive(Debug)]
pub struct PublishedTable {
    pub rows: Vec<Published>,
    /// Keys that are no layer of ours.
    pub unfit: Vec<(String, Misfit)>,
}

/// The value of a key, in milliseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    count: u64,
    mean: f64,
    std: Option<f64>,
    /// Of the square of milliseconds.
    var: Option<f64>,
}

impl Entry {
    fn read(&self) -> Result<Mean, String> {
        let deviation = match (self.std, self.var) {
            (Some(std), None) => std,
            (None, Some(var)) => var.sqrt(),
            _ => return Err("it needs either std or var".into()),
        };
        if self.count == 0 {
            return Err("its count is 0".into());
        }
        if !(self.mean > 0.0 && self.mean.is_finite()) {
            return Err(format!("its mean is {}, and no latency", self.mean));
        }
        if !(deviation >= 0.0 && deviation.is_finite()) {
            return Err("its std or var is no deviation".into());
        }
        let ns = |ms: f64| Latency::from_ns(1e6 * ms);
        Ok(Mean { mean_ns: ns(self.mean), std_ns: ns(deviation), count: self.count })
    }
}

impl PublishedTable {
    /// # Errors
    /// Where the file cannot be read, a value is none, or no key is a layer of ours.
    pub fn read(path: &Path) -> Result<Self, PublishedError> {
        let text = std::fs::read_to_string(path).map_err(|source| ArtifactError::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        let entries: BTreeMap<String, Entry> = serde_saphyr::from_str(&text).map_err(|e| {
            PublishedError::Yaml { path: path.into(), reason: e.without_snippet().to_string() }
        })?;
        let keys = entries.len();
        let (mut rows, mut unfit): (Vec<Published>, _) = (vec![], vec![]);
        for (key, entry) in entries {
            let published = entry.read().map_err(|reason| PublishedError::Value {
                path: path.into(),
                key: key.clone(),
                reason,
            })?;
            match layer(&key).map(Subject::Layer) {
                Ok(subject) if rows.iter().any(|row| row.subject == subject) => {
                    unfit.push((key, Misfit::Twice));
                }
                Ok(subject) => rows.push(Published { model: subject.digest(), subject, published }),
                Err(why) => unfit.push((key, why)),
            }
        }
        let table = PublishedTable { rows, unfit };
        if table.rows.is_empty() {
            let reasons = table.reasons().into_iter().map(|(why, keys)| format!("{keys}: {why}"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(PublishedError::Nothing { path: path.into(), keys, reasons });
        }
        Ok(table)
    }

    /// Why keys do not fit, and how many for each reason.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        self.unfit.iter().fold(BTreeMap::new(), |mut reasons, (_, why)| {
            *reasons.entry(why.to_string()).or_default() += 1;
            reasons
        })
    }

    /// Writes it as a latency table of its own. What was not published is `unknown` in its header.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path, device: &str, runtime: &str) -> Result<(), ArtifactError> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Line<'t> {
            Header(Box<Header>),
            Row(&'t Published),
        }
        let unknown = || "unknown".to_string();
        let header = Header {
            latency_table: FORMAT,
            device: device.into(),
            cpu: unknown(),
            arch: unknown(),
            libc: unknown(),
            runtime: runtime.into(),
            runtime_version: unknown(),
            threads: None,
            precision: unknown(),
            providers: vec![],
            pinned: vec![],
            networks: 0,
            validations: vec![],
        };
        let rows = self.rows.iter().map(Line::Row);
        let lines: Vec<Line> = std::iter::once(Line::Header(Box::new(header))).chain(rows).collect();
        artifact::write_lines(path, &lines)
    }
}

/// What a key says of a block, by name; all that it may say is named here.
struct Block<'k>(BTreeMap<&'static str, &'k str>);

const ATTRIBUTES: [&str; 8] = ["input", "output", "expand", "kernel", "stride", "idskip", "se", "hs"];

impl<'k> Block<'k> {
    fn new(key: &'k str) -> Result<Self, Misfit> {
        let attributes = key.strip_prefix("expanded_conv-").ok_or(Misfit::Kind)?;
        let mut said = BTreeMap::new();
        for attribute in attributes.split('-') {
            let named = |(name, value)| Some((ATTRIBUTES.into_iter().find(|known| *known == name)?, value));
            let fresh = attribute.split_once(':').and_then(named);
            let fresh = fresh.filter(|(name, _)| !said.contains_key(name));
            said.extend([fresh.ok_or_else(|| Misfit::Unclear(attribute.into()))?]);
        }
        Ok(Block(said))
    }

    fn number(&self, name: &str) -> Result<usize, Misfit> {
        let number = self.0.get(name).and_then(|value| value.parse::<u16>().ok());
        number.map(usize::from).filter(|number| *number > 0).ok_or_else(|| Misfit::Unclear(name.into()))
    }

    fn flag(&self, name: &str) -> Result<bool, Misfit> {
        match self.0.get(name) {
            Some(&"0") => Ok(false),
            Some(&"1") => Ok(true),
            _ => Err(Misfit::Unclear(name.into())),
        }
    }

    /// A flag that ProxylessNAS does not have, since none of its blocks has the thing.
    fn extra(&self, name: &str) -> Result<bool, Misfit> {
        if self.0.contains_key(name) { self.flag(name) } else { Ok(false) }
    }

    /// A shape, written height, width, channels.
    fn shape(&self, name: &str) -> Result<Shape, Misfit> {
        let sizes = self.0.get(name).map(|value| value.split('x').map(str::parse::<u16>));
        let sizes: Option<Vec<u16>> = sizes.and_then(|sizes| sizes.collect::<Result<_, _>>().ok());
        match sizes.as_deref() {
            Some(&[h, w, c]) if h > 0 && w > 0 && c > 0 => Ok(Shape::new(c.into(), h.into(), w.into())),
            _ => Err(Misfit::Unclear(name.into())),
        }
    }
}

/// The layer that a key names, if one of our ops computes the very same: of paddings, which no key tells,
/// nothing is asked, and of two clamps, ReLU is as good as ReLU6.
fn layer(key: &str) -> Result<Layer, Misfit> {
    let block = Block::new(key)?;
    let (input, output) = (block.shape("input")?, block.shape("output")?);
    if input.height != input.width || output.height != output.width {
        return Err(Misfit::NotSquare);
    }
    let (kernel, expand) = (block.number("kernel")?, block.number("expand")?);
    let (stride, adds_input) = (block.number("stride")?, block.flag("idskip")?);
    if block.extra("hs")? {
        return Err(Misfit::Activation);
    }
    if block.extra("se")? {
        return Err(Misfit::Excite);
    }
    // ProxylessNAS writes the factor, Once-for-All the channels.
    let channels = input.channels;
    let of_channels = expand.is_multiple_of(channels).then_some(expand / channels);
    let op = |factor: usize| format!("mb_{kernel}x{kernel}_e{factor}").parse::<CandidateOp>().ok();
    let op = match (op(expand), of_channels.and_then(op)) {
        (Some(a), Some(b)) if a != b => return Err(Misfit::Ambiguous),
        (a, b) => a.or(b).ok_or(Misfit::Op)?,
    };
    let layer = Layer { op, input, channels: output.channels, stride };
    if layer.output() != output {
        return Err(Misfit::Size);
    }
    if adds_input != (input == output) {
        return Err(Misfit::Residual);
    }
    Ok(layer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_an_expansion_name_the_layer() {
        for (key, expected) in [
            (
                "expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0",
                "mb_5x5_e6 16x112x112->24 /2",
            ),
            (
                "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:7-stride:1-idskip:1-se:0-hs:0",
                "mb_7x7_e3 136x10x10->136",
            ),
            // Of 15 pixels, rounded up, 8.
            (
                "expanded_conv-input:15x15x40-output:8x8x80-expand:40-kernel:3-stride:2-idskip:0",
                "mb_3x3_e1 40x15x15->80 /2",
            ),
            // Three channels, and three times one channel.
            (
                "expanded_conv-input:8x8x1-output:8x8x4-expand:3-kernel:3-stride:1-idskip:0",
                "mb_3x3_e3 1x8x8->4",
            ),
        ] {
            assert_eq!(layer(key).map(|layer| layer.to_string()), Ok(expected.into()), "{key}");
        }
    }

    /// Each differs in one thing from a key that fits.
    #[test]
    fn what_does_not_fit_is_told_why() {
        let key = "expanded_conv-input:10x10x6-output:10x10x6-expand:18-kernel:3-stride:1-idskip:1-se:0-hs:0";
        assert_eq!(layer(key).unwrap().to_string(), "mb_3x3_e3 6x10x10->6");
        let unclear = |what: &str| Misfit::Unclear(what.into());
        for (from, to, why) in [
            ("expanded_conv", "Conv_1", Misfit::Kind),
            ("kernel:3", "kernel:9", Misfit::Op),
            ("expand:18", "expand:24", Misfit::Op),
            ("expand:18", "expand:19", Misfit::Op),
            ("expand:18", "expand:6", Misfit::Ambiguous),
            ("input:10x10x6", "input:10x12x6", Misfit::NotSquare),
            ("stride:1", "stride:2", Misfit::Size),
            ("idskip:1", "idskip:0", Misfit::Residual),
            ("output:10x10x6", "output:10x10x8", Misfit::Residual),
            ("hs:0", "hs:1", Misfit::Activation),
            ("se:0", "se:1", Misfit::Excite),
            ("hs:0", "hs:2", unclear("hs")),
            ("stride:1", "stride:0", unclear("stride")),
            ("-kernel:3", "", unclear("kernel")),
            ("10x10x6-output", "10x10-output", unclear("input")),
            ("-kernel:3", "-kernel:3-kernel:5", unclear("kernel:5")),
            ("-hs:0", "-hs:0-dilation:2", unclear("dilation:2")),
        ] {
            assert_eq!(layer(&key.replacen(from, to, 1)), Err(why), "{to}");
        }
    }
}
