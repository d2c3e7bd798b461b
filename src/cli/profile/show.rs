use super::Opened;
use crate::cli::output::{date, or_dash, percent, print, table};
use crate::latency::Latency;
use crate::model::{Adds, Effect, Interaction, Validation, Validations};
use crate::space::Layer;
use crate::table::{Facts, Header, Subject};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Show a latency table: what each layer adds to networks, and its latency as an isolated layer
#[derive(clap::Args)]
pub struct Args {
    /// Latency table, a file of JSON lines
    table: PathBuf,
}

#[derive(Serialize)]
struct Shown {
    table: PathBuf,
    header: Header,
    validations: Validations,
    /// Seconds since 1970, UTC, of the first row and the last.
    measured_at: Option<[u64; 2]>,
    rows: usize,
    /// Rows that are ignored because the code now makes a different model of their subject.
    stale: usize,
    /// Distinct networks, including those that are kept out of every fit.
    networks: usize,
    unseen_networks: usize,
    layers: Vec<ShownLayer>,
    interactions: Vec<ShownInteraction>,
    /// Mean absolute relative error on networks that are left out of the fit, one after another.
    leave_one_out_error: Option<f64>,
    /// What all networks have in common.
    base_ns: Option<Latency>,
    /// The cost of a call of the runtime itself, for the shape for which it is lowest.
    call_ns: Option<Latency>,
    /// The lowest and the highest value of all whole networks.
    peak_bytes: Option<[u64; 2]>,
    energy_uj: Option<[f64; 2]>,
    note: Option<String>,
}

/// A layer, with what it adds according to the model, and with its latency in isolation according to its own rows.
#[derive(Serialize)]
struct ShownLayer {
    layer: Layer,
    adds_ns: Option<Latency>,
    /// Half of the 95 % confidence interval.
    adds_error_ns: Option<Latency>,
    /// The number of fitted networks that contain it.
    networks: Option<usize>,
    places: Option<usize>,
    latency_ns: Option<Latency>,
    gap_ns: Option<Latency>,
    rows: usize,
    energy_uj: Option<f64>,
    disturbed: bool,
}

#[derive(Serialize)]
struct ShownInteraction {
    interaction: String,
    error_before: f64,
    error_after: f64,
    /// The largest effects.
    effects: Vec<ShownEffect>,
}

#[derive(Serialize)]
struct ShownEffect {
    name: String,
    ns: Latency,
    error_ns: Latency,
}

/// The number of effects that are shown for an interaction.
const EFFECTS: usize = 3;

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let shown = Shown::of(Opened::load(&self.table)?);
        print(json, &shown, || shown.text())
    }
}

impl Shown {
    fn of(opened: Opened) -> Shown {
        let Opened { table, model, validations, note } = opened;
        let facts = table.facts();
        let adds = model.as_ref().map(|model| model.adds());
        let networks = || facts.iter().filter(|(subject, _)| matches!(subject, Subject::Network(_)));
        let calls = facts.iter().filter(|(subject, _)| matches!(subject, Subject::Call(_)));
        let rows = table.rows();
        let times = || rows.iter().map(|row| row.measured_at);
        let fit = model.as_ref().and_then(|model| model.fit.as_ref());
        Shown {
            measured_at: times().min().zip(times().max()).map(Into::into),
            rows: rows.len() + table.published().len(),
            stale: table.stale(),
            networks: networks().count(),
            unseen_networks: table.unseen().len(),
            layers: layers(&facts, &adds.unwrap_or_default()),
            interactions: fit.map_or(vec![], |fit| fit.interactions.iter().map(shown).collect()),
            leave_one_out_error: fit.map(|fit| fit.leave_one_out_error()),
            base_ns: model.as_ref().map(|model| Latency::from_ns(model.polynomial.base())),
            call_ns: calls.map(|(_, facts)| facts.estimate.latency).min_by(|a, b| a.ns().total_cmp(&b.ns())),
            peak_bytes: range(networks().filter_map(|(_, facts)| facts.peak_bytes), u64::cmp),
            energy_uj: range(networks().filter_map(|(_, facts)| facts.energy_uj), f64::total_cmp),
            header: table.header.clone(),
            table: table.path().into(),
            validations,
            note,
        }
    }

    fn text(&self) -> String {
        let mut parts = vec![self.header_text(), self.layers_text()];
        if !self.interactions.is_empty() {
            let rows = self.interactions.iter().map(ShownInteraction::cells).collect();
            let header = ["interaction of layers", "leave-one-out error", "largest effects"];
            parts.push(table(&header, rows));
        }
        let in_situ = "adds: what the layer adds to networks that contain it, with the 95 % confidence interval. What all choices of a layer have in common is part of the base.";
        parts.extend(self.leave_one_out_error.map(|_| in_situ.into()));
        parts.extend(self.base_ns.map(|ns| format!("base, in every network: {ns}")));
        parts.extend(self.call_ns.map(|ns| format!("a call of the runtime by itself: {ns}")));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        parts.extend(
            self.peak_bytes
                .map(|[least, most]| format!("peak memory of networks: {:.1} to {:.1} MiB", mib(least), mib(most))),
        );
        parts.extend(
            self.energy_uj
                .map(|[least, most]| format!("energy of an inference of a network: {least:.1} to {most:.1} µJ")),
        );
        parts.extend(self.note.iter().map(|note| format!("note: {note}")));
        parts.join("\n")
    }

    fn header_text(&self) -> String {
        let Header {
            device,
            cpu,
            arch,
            libc,
            runtime,
            runtime_version,
            threads,
            precision,
            providers,
            pinned,
            space,
            input,
            ..
        } = &self.header;
        let on = if providers.is_empty() { String::new() } else { format!(" on {}", providers.join(", ")) };
        let cores: Vec<String> = pinned.iter().map(usize::to_string).collect();
        let mut facts: Vec<(&str, String)> = vec![
            ("device", format!("{device}: {cpu}, {arch}, {libc}")),
            ("runtime", format!("{runtime} {runtime_version}{on}, threads: {}, {precision}", or_dash(*threads))),
            ("pinned to cores", if cores.is_empty() { "none".into() } else { cores.join(", ") }),
        ];
        if let Some([first, last]) = self.measured_at {
            facts.push(("measured", format!("{} to {}", date(first), date(last))));
        }
        let unseen = match self.unseen_networks {
            0 => String::new(),
            unseen => format!(", {unseen} of them for validation"),
        };
        facts.push(("space", format!("{}, images of {input}", space.name)));
        let stale = if self.stale > 0 { format!(", {} outdated ones left out", self.stale) } else { String::new() };
        facts.push(("rows", format!("{}{stale}; {} networks{unseen}", self.rows, self.networks)));
        facts.extend(self.leave_one_out_error.map(|error| ("leave-one-out error", percent(error))));
        facts.extend(self.validations.0.iter().map(|validation| ("validated", validated(validation))));
        table(&["what", "found"], facts.into_iter().map(|(what, found)| vec![what.into(), found]).collect())
    }

    fn layers_text(&self) -> String {
        let fitted = self.leave_one_out_error.is_some();
        let energy = self.layers.iter().any(|layer| layer.energy_uj.is_some());
        let disturbed = self.layers.iter().any(|layer| layer.disturbed);
        let mut header = vec!["layer"];
        header.extend(if fitted { &["adds", "networks"][..] } else { &[] });
        header.extend(["isolated", "gap", "rows"]);
        header.extend(energy.then_some("energy"));
        header.extend(disturbed.then_some(""));
        let row = |layer: &ShownLayer| {
            let mut cells = vec![layer.layer.to_string()];
            if fitted {
                cells.push(or_dash(layer.adds_ns.zip(layer.adds_error_ns).map(|(ns, e)| error_bar(ns, e))));
                cells.push(or_dash(layer.networks));
            }
            cells.extend([or_dash(layer.latency_ns), or_dash(layer.gap_ns), layer.rows.to_string()]);
            if energy {
                cells.push(or_dash(layer.energy_uj.map(|uj| format!("{uj:.1} µJ"))));
            }
            cells.extend(disturbed.then(|| if layer.disturbed { "disturbed" } else { "" }.into()));
            cells
        };
        table(&header, self.layers.iter().map(row).collect())
    }
}

/// Returns the layers, slowest first, sorted by what they add and then by their isolated latencies.
fn layers(facts: &BTreeMap<&Subject, Facts>, adds: &BTreeMap<Layer, Adds>) -> Vec<ShownLayer> {
    let alone = facts.keys().filter_map(|s| if let Subject::Layer(layer) = s { Some(*layer) } else { None });
    let all: BTreeSet<Layer> = alone.chain(adds.keys().copied()).collect();
    let of = |layer: Layer| {
        let (facts, adds) = (facts.get(&Subject::Layer(layer)), adds.get(&layer));
        ShownLayer {
            layer,
            adds_ns: adds.map(|adds| adds.latency),
            adds_error_ns: adds.map(|adds| adds.error),
            networks: adds.map(|adds| adds.networks),
            places: adds.map(|adds| adds.places),
            latency_ns: facts.map(|facts| facts.estimate.latency),
            gap_ns: facts.and_then(|facts| facts.estimate.gap),
            rows: facts.map_or(0, |facts| facts.estimate.rows),
            energy_uj: facts.and_then(|facts| facts.energy_uj),
            disturbed: facts.is_some_and(|facts| facts.estimate.disturbed),
        }
    };
    let mut layers: Vec<ShownLayer> = all.into_iter().map(of).collect();
    let ns = |latency: Option<Latency>| latency.map_or(f64::NEG_INFINITY, Latency::ns);
    let dearer = |a: &ShownLayer, b: &ShownLayer| {
        let alone = || ns(b.latency_ns).total_cmp(&ns(a.latency_ns));
        ns(b.adds_ns).total_cmp(&ns(a.adds_ns)).then_with(alone)
    };
    layers.sort_by(dearer);
    layers
}

fn shown(Interaction { gain, effects }: &Interaction) -> ShownInteraction {
    let effect = |(name, effect): &(String, Effect)| ShownEffect {
        name: name.clone(),
        ns: effect.latency,
        error_ns: effect.error(),
    };
    let mut effects: Vec<ShownEffect> = effects.iter().map(effect).collect();
    effects.sort_by(|a, b| b.ns.ns().abs().total_cmp(&a.ns.ns().abs()));
    effects.truncate(EFFECTS);
    ShownInteraction {
        interaction: gain.interaction.clone(),
        error_before: gain.before,
        error_after: gain.after,
        effects,
    }
}

impl ShownInteraction {
    fn cells(&self) -> Vec<String> {
        let effect = |effect: &ShownEffect| format!("{}: {}", effect.name, error_bar(effect.ns, effect.error_ns));
        let error = format!("{} → {}", percent(self.error_before), percent(self.error_after));
        let effects: Vec<String> = self.effects.iter().map(effect).collect();
        vec![self.interaction.clone(), error, effects.join("\n")]
    }
}

fn error_bar(ns: Latency, error: Latency) -> String {
    format!("{ns} ± {error}")
}

fn validated(validation: &Validation) -> String {
    let Validation { classes, random, derived, noise, .. } = validation;
    let noise = noise.map_or(String::new(), |noise| format!("; noise {}", percent(noise)));
    let of = |networks: &str, accuracy: &crate::model::Accuracy| {
        format!(
            "MAPE {}, bias {:+.2} %, {} within ±5 %, over {} {networks} networks",
            percent(accuracy.mape),
            100.0 * accuracy.bias,
            percent(accuracy.within_5),
            accuracy.networks
        )
    };
    let derived = derived.as_ref().map_or(String::new(), |accuracy| format!("; {}", of("derived", accuracy)));
    format!("{classes} classes: {}{derived}{noise}", of("random", random))
}

fn range<T: Copy>(values: impl Iterator<Item = T>, by: impl Fn(&T, &T) -> std::cmp::Ordering) -> Option<[T; 2]> {
    let mut values: Vec<T> = values.collect();
    values.sort_by(by);
    Some([*values.first()?, *values.last()?])
}
