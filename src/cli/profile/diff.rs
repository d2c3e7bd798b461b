use super::Opened;
use crate::cli::output::{date, or_dash, percent, print, table};
use crate::latency::Latency;
use crate::space::Layer;
use crate::table::{Agreement, Estimate, Subject};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Compare two latency tables: of two devices, two runtimes, or two days
#[derive(clap::Args)]
pub struct Args {
    /// Latency table
    a: PathBuf,
    /// Latency table to compare it with
    b: PathBuf,
}

#[derive(Serialize)]
struct Diff {
    a: PathBuf,
    b: PathBuf,
    /// Facts in the headers that differ, and the time of the last row if it differs.
    facts: Vec<Fact>,
    isolated: Vec<Pair>,
    in_situ: Vec<Pair>,
    networks: Vec<(Latency, Latency)>,
    agreement: Agreements,
    /// Layers that only one of the tables has.
    only_a: Vec<Layer>,
    only_b: Vec<Layer>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Fact {
    what: &'static str,
    a: String,
    b: String,
}

/// A layer that both tables have.
#[derive(Serialize)]
struct Pair {
    layer: Layer,
    a_ns: Latency,
    b_ns: Latency,
    /// B / A; `None` if one of them is not positive.
    ratio: Option<f64>,
}

#[derive(Serialize)]
struct Agreements {
    isolated: Option<Agreement>,
    in_situ: Option<Agreement>,
    networks: Option<Agreement>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let diff = Diff::of(Opened::load(&self.a)?, Opened::load(&self.b)?);
        print(json, &diff, || diff.text())
    }
}

impl Diff {
    fn of(a: Opened, b: Opened) -> Diff {
        let estimates = (a.table.estimates(), b.table.estimates());
        let alone = |estimates: &BTreeMap<&Subject, Estimate>| -> BTreeMap<Layer, Latency> {
            let layer = |(subject, estimate): (&&Subject, &Estimate)| match subject {
                Subject::Layer(layer) => Some((*layer, estimate.latency)),
                _ => None,
            };
            estimates.iter().filter_map(layer).collect()
        };
        let isolated = (alone(&estimates.0), alone(&estimates.1));
        let networks = estimates.0.iter().filter(|(subject, _)| matches!(subject, Subject::Network(_)));
        let networks: Vec<(Latency, Latency)> =
            networks.filter_map(|(subject, a)| Some((a.latency, estimates.1.get(subject)?.latency))).collect();
        let only = |these: &BTreeMap<Layer, Latency>, those: &BTreeMap<Layer, Latency>| {
            these.keys().filter(|layer| !those.contains_key(layer)).copied().collect()
        };
        let (pairs, in_situ) = (pairs(&isolated.0, &isolated.1), pairs(&in_situ(&a), &in_situ(&b)));
        let note = |opened: &Opened| Some(format!("{}: {}", opened.table.path().display(), opened.note.as_ref()?));
        Diff {
            facts: facts(&a, &b),
            agreement: Agreements {
                isolated: agreement(&pairs),
                in_situ: agreement(&in_situ),
                networks: Agreement::of(networks.iter().copied()),
            },
            isolated: pairs,
            in_situ,
            networks,
            only_a: only(&isolated.0, &isolated.1),
            only_b: only(&isolated.1, &isolated.0),
            notes: [note(&a), note(&b)].into_iter().flatten().collect(),
            a: a.table.path().into(),
            b: b.table.path().into(),
        }
    }

    fn text(&self) -> String {
        let mut parts = vec![format!("A is {}, B is {}", self.a.display(), self.b.display())];
        let facts = self.facts.iter().map(|fact| vec![fact.what.into(), fact.a.clone(), fact.b.clone()]);
        if self.facts.is_empty() {
            parts.push("the headers are equal".into());
        } else {
            parts.push(table(&["what differs", "A", "B"], facts.collect()));
        }
        for (what, pairs) in [("isolated layer", &self.isolated), ("layer adds", &self.in_situ)] {
            let row = |pair: &Pair| {
                let ratio = or_dash(pair.ratio.map(|ratio| format!("{ratio:.4}")));
                vec![pair.layer.to_string(), pair.a_ns.to_string(), pair.b_ns.to_string(), ratio]
            };
            if !pairs.is_empty() {
                parts.push(table(&[what, "A", "B", "B / A"], pairs.iter().map(row).collect()));
            }
        }
        let Agreements { isolated, in_situ, networks } = &self.agreement;
        let cells = |(what, agreement): (&str, &Option<Agreement>)| match agreement {
            Some(agreement) => vec![
                what.into(),
                agreement.compared.to_string(),
                percent(agreement.median_difference),
                format!("{:.4}", agreement.median_ratio),
                or_dash(agreement.spearman.map(|rho| format!("{rho:.4}"))),
            ],
            None => vec![what.into(), "0".into(), "-".into(), "-".into(), "-".into()],
        };
        let all = [("isolated layers", isolated), ("what layers add", in_situ), ("networks", networks)];
        let header = ["in both tables", "compared", "median |B/A - 1|", "median B/A", "Spearman"];
        parts.push(table(&header, all.into_iter().map(cells).collect()));
        for (which, layers) in [("A", &self.only_a), ("B", &self.only_b)] {
            if !layers.is_empty() {
                let names: Vec<String> = layers.iter().map(Layer::to_string).collect();
                parts.push(format!("only in {which} ({}): {}", layers.len(), names.join("; ")));
            }
        }
        parts.extend(self.notes.iter().map(|note| format!("note: {note}")));
        parts.join("\n")
    }
}

fn facts(a: &Opened, b: &Opened) -> Vec<Fact> {
    let differences = a.table.header.differences(&b.table.header).into_iter();
    let mut facts: Vec<Fact> = differences.map(|d| Fact { what: d.what, a: d.theirs, b: d.ours }).collect();
    let last = |opened: &Opened| or_dash(opened.table.rows().iter().map(|row| row.measured_at).max().map(date));
    let (a, b) = (last(a), last(b));
    if a != b {
        facts.push(Fact { what: "last row", a, b });
    }
    facts
}

fn in_situ(opened: &Opened) -> BTreeMap<Layer, Latency> {
    let Some(model) = &opened.model else { return BTreeMap::new() };
    model.adds().into_iter().map(|(layer, adds)| (layer, adds.latency)).collect()
}

/// Returns the layers that both tables have, slowest in A first.
fn pairs(a: &BTreeMap<Layer, Latency>, b: &BTreeMap<Layer, Latency>) -> Vec<Pair> {
    let pair = |(&layer, &a_ns): (&Layer, &Latency)| {
        let b_ns = *b.get(&layer)?;
        Some(Pair { layer, a_ns, b_ns, ratio: Agreement::ratio(a_ns, b_ns) })
    };
    let mut pairs: Vec<Pair> = a.iter().filter_map(pair).collect();
    pairs.sort_by(|a, b| b.a_ns.ns().total_cmp(&a.a_ns.ns()));
    pairs
}

fn agreement(pairs: &[Pair]) -> Option<Agreement> {
    Agreement::of(pairs.iter().map(|pair| (pair.a_ns, pair.b_ns)))
}
