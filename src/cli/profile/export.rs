use super::Opened;
use crate::artifact;
use crate::cli::output::print;
use crate::model::Adds;
use crate::space::Layer;
use crate::table::{Facts, Subject};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Write a latency table as CSV, with one line per layer, network or call
#[derive(clap::Args)]
pub struct Args {
    /// Latency table, a file of JSON lines
    table: PathBuf,
    /// File to write [default: stdout]
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Replace a file that holds something else
    #[arg(long, requires = "csv")]
    force: bool,
}

/// A line of the CSV file. An unknown value is empty.
#[derive(Serialize)]
struct Line {
    /// `layer`, `network` or `call`.
    kind: &'static str,
    /// The layer; for a network, the ops between stem and head, separated by commas; for a call, its shape.
    subject: String,
    latency_ns: Option<f64>,
    gap_ns: Option<f64>,
    median_ns: Option<f64>,
    rows: usize,
    adds_ns: Option<f64>,
    adds_error_ns: Option<f64>,
    macs: u64,
    params: u64,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let opened = Opened::load(&self.table)?;
        let adds = opened.model.as_ref().map(|model| model.adds());
        let lines = lines(&opened.table.facts(), &adds.unwrap_or_default());
        if lines.is_empty() {
            anyhow::bail!("{} has no rows; measure them with `{}`", self.table.display(), opened.table.command());
        }
        if let Some(note) = &opened.note {
            log::info!("note: {note}");
        }
        let csv = csv(&lines)?;
        match &self.csv {
            Some(path) => {
                let header = csv.lines().next().unwrap_or_default().as_bytes();
                artifact::check_output(path, &[&self.table], self.force, |bytes| bytes.starts_with(header))?;
                artifact::write(path, csv.as_bytes())?;
                print(json, path, || path.display().to_string())
            }
            None => print(json, &lines, || csv),
        }
    }
}

fn lines(facts: &BTreeMap<&Subject, Facts>, adds: &BTreeMap<Layer, Adds>) -> Vec<Line> {
    let layers = adds.keys().map(|layer| Subject::Layer(*layer));
    let all: BTreeSet<Subject> = facts.keys().map(|&subject| subject.clone()).chain(layers).collect();
    let line = |subject: &Subject| {
        let estimate = facts.get(subject).map(|facts| facts.estimate);
        let (kind, shown, adds) = match subject {
            Subject::Layer(layer) => ("layer", layer.to_string(), adds.get(layer)),
            Subject::Network(_) => ("network", subject.to_string().replace("network ", ""), None),
            Subject::Call(shape) => ("call", shape.to_string(), None),
        };
        let cost = subject.graph().cost();
        Line {
            kind,
            subject: shown,
            latency_ns: estimate.map(|estimate| estimate.latency.ns()),
            gap_ns: estimate.and_then(|estimate| estimate.gap).map(|gap| gap.ns()),
            median_ns: estimate.and_then(|estimate| estimate.median).map(|median| median.ns()),
            rows: estimate.map_or(0, |estimate| estimate.rows),
            adds_ns: adds.map(|adds| adds.latency.ns()),
            adds_error_ns: adds.map(|adds| adds.error.ns()),
            macs: cost.macs,
            params: cost.params,
        }
    };
    all.iter().map(line).collect()
}

fn csv(lines: &[Line]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(vec![]);
    for line in lines {
        writer.serialize(line)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
