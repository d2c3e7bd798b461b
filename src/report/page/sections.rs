//! The sections about networks: what they are, and how fast and accurate they are.

use super::{escape, missing, table};
use crate::bounded::rounded;
use crate::latency::Latency;
use crate::record::{BenchRow, Evaluation, Prediction};
use crate::report::figures::compared;
use crate::report::summary::{or_dash, percent, signed};
use crate::report::{LayerRow, METRICS, Model, Run, Setting, TargetRun, counted, labels, metrics_row};
use std::collections::BTreeSet;

/// Lists the networks for several targets, with links to their pages.
pub fn targets(run: &Run) -> String {
    let settings = run.settings();
    let mut header = ["target", "network", "asked for", "predicted"].map(String::from).to_vec();
    header.extend(labels(&settings).into_iter().map(|label| format!("{label}\nmeasured")));
    header.push("test\naccuracy".into());
    let row = |TargetRun { name, run }: &TargetRun| {
        let first = run.certificate.as_ref().and_then(|certificate| certificate.constraints.first());
        let found = run.models.iter().find(|model| model.ops.is_some());
        let names = run.genotype.as_ref().map(|genotype| genotype.names().join(", "));
        let mut cells = vec![name.clone(), names.unwrap_or_default()];
        cells.push(or_dash(first.map(|held| held.unit.show(held.target))));
        cells.push(or_dash(first.map(|held| held.unit.show(held.value))));
        let measured =
            |setting: &Setting| or_dash(found.and_then(|found| Some(run.bench_row(found, setting)?.latency_ns)));
        cells.extend(settings.iter().map(measured));
        cells.push(or_dash(found.and_then(|found| found.test_accuracy()).map(percent)));
        cells
    };
    let rows: Vec<_> = run.targets.iter().map(row).collect();
    let link = |target: &TargetRun| {
        let name = escape(&target.name);
        format!("<li><a href=\"targets/{name}/report.html\">{name}</a></li>")
    };
    let links: String = run.targets.iter().map(link).collect();
    table(2, &header, &rows)
        + "<p>One search found a network for each target. The page of each says more about it:</p>\n"
        + &format!("<ul class=\"links\">{links}</ul>\n")
}

pub fn result(run: &Run) -> String {
    if run.models.is_empty() {
        return missing("There is neither genotype.json nor network.json in this run", "nas search");
    }
    table(1, &run.summary_header(), &run.summary_cells())
        + "<p>Latencies are those of one image on the undisturbed device. A predicted latency is that by the latency \
           table of the device and runtime.</p>\n"
}

pub fn bench(run: &Run) -> String {
    if run.bench.is_empty() {
        // The benchmarks of targets are on their own pages.
        return if run.targets.is_empty() {
            missing("There is no bench.jsonl in this run", "nas bench")
        } else {
            String::new()
        };
    }
    let header = [
        "network",
        "measured with",
        "latency",
        "predicted",
        "device slower by",
        "error",
        "median",
        "5th percentile",
        "95th percentile",
        "samples",
        "peak memory",
    ];
    let row = |r: &BenchRow| {
        vec![
            r.title(),
            r.setting().to_string(),
            r.latency_ns.to_string(),
            or_dash(r.prediction.as_ref().map(|prediction| prediction.latency_ns)),
            or_dash(r.slower_by().map(signed)),
            or_dash(r.error().map(signed)),
            r.median_ns.to_string(),
            r.p5_ns.to_string(),
            r.p95_ns.to_string(),
            r.samples.to_string(),
            format!("{:.1} MB", r.peak_bytes as f64 / 1e6),
        ]
    };
    let rows: Vec<_> = run.bench.iter().map(row).collect();
    table(2, &header, &rows)
        + "<p>The latency is that of the undisturbed device, estimated from the rounds in the same way as from the rows \
           of a latency table; percentiles are those of all samples. The anchor of the latency table was measured as well, which \
           shows by how much the device is slower than when the table was measured. The error is that of the predicted \
           latency on a device that is slower by as much: if it is positive, the prediction is too high. Peak memory is that of a \
           process that only runs the network.</p>\n"
}

/// Lists the metrics of the networks that were evaluated.
pub fn evaluation(run: &Run) -> String {
    let header = ["network", "evaluated in", "test images"].into_iter().chain(METRICS).collect::<Vec<_>>();
    let row =
        |e: &Evaluation| [e.model.clone(), e.place(), e.extent()].into_iter().chain(metrics_row(&e.metrics)).collect();
    let rows: Vec<Vec<String>> = run.evaluations().map(row).collect();
    table(3, &header, &rows)
        + "<p>An image counts for top-5 if its class has one of the five largest logits. The lowest class is that of the \
           lowest accuracy. The calibration error is by how much the confidence of the network differs from its accuracy, \
           on average over 15 levels of confidence.</p>\n"
}

pub fn layers(run: &Run) -> String {
    let layers = run.layers();
    if layers.is_empty() {
        return missing("There is no genotype.json in this run", "nas search");
    }
    let rows = run.by_layer();
    let mut header = ["layer", "op", "input", "output", "stride", "MACs"].map(String::from).to_vec();
    let settings: Vec<Setting> = rows.iter().map(|(row, _)| row.setting()).collect();
    let columns = |label: String| [format!("{label}\nadds"), format!("{label}\nisolated")];
    header.extend(labels(&settings).into_iter().flat_map(columns));
    let cells = |l: &LayerRow| {
        let (graph, stride) = (l.layer.graph(), l.layer.stride.to_string());
        let (input, output) = (l.layer.input.to_string(), graph.output_shape().to_string());
        let macs = rounded(graph.cost().macs as f64);
        let mut cells = vec![l.name.clone(), l.layer.op.to_string(), input, output, stride, macs];
        cells.extend(l.predicted.iter().zip(&l.isolated).flat_map(|(&adds, &alone)| [or_dash(adds), or_dash(alone)]));
        cells
    };
    let mut body: Vec<Vec<String>> = layers.iter().map(cells).collect();
    if !rows.is_empty() {
        let sum = |p: &Prediction| p.layers.iter().filter_map(|l| l.adds_ns).sum::<Latency>();
        let rest = |(_, p): &(&BenchRow, &Prediction)| [(p.latency_ns + -1.0 * sum(p)).to_string(), String::new()];
        let total = |(_, p): &(&BenchRow, &Prediction)| [p.latency_ns.to_string(), or_dash(p.isolated_ns)];
        let line = |name: &str, cells: Vec<String>| {
            let mut row = vec![String::new(); 6];
            row[0] = name.into();
            row.extend(cells);
            row
        };
        body.push(line("base", rows.iter().flat_map(rest).collect()));
        body.push(line("network", rows.iter().flat_map(total).collect()));
    }
    table(2, &header, &body)
        + "<p>Shapes are channels × height × width of one image. What a layer adds is its cost in the deployed network; \
           isolated, as a model of its own, it takes longer. The base is the rest of the latency of the network: stem, \
           head, and interactions between layers.</p>\n"
        + &interactions(&rows)
}

/// Lists the interactions between layers according to the tables, by setting.
fn interactions(rows: &[(&BenchRow, &Prediction)]) -> String {
    let with_any = rows.iter().filter(|(_, p)| !p.interactions.is_empty());
    let sentence = |(row, p): &(&BenchRow, &Prediction)| {
        let (setting, found) = (row.setting().to_string(), p.interactions.join("; "));
        format!("<p>Interactions between layers ({}): {}.</p>\n", escape(&setting), escape(&found))
    };
    with_any.map(sentence).collect()
}

pub fn conditions(run: &Run) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for setting in run.settings() {
        let of = run.bench_rows().filter(|row| row.setting() == setting);
        let versions: BTreeSet<&str> = of.map(|row| row.runtime_version.as_str()).collect();
        let versions: Vec<&str> = versions.into_iter().collect();
        rows.push(vec!["measured with".into(), format!("{setting}; {} {}", setting.runtime, versions.join(", "))]);
    }
    if !run.search.log.is_empty() {
        let seconds = run.search.log.iter().map(|e| e.seconds).sum();
        rows.push(vec![
            "search".into(),
            format!("{} in {}", counted(run.search.log.len(), "epoch"), duration(seconds)),
        ]);
    }
    if !run.search.candidates.is_empty() {
        let seconds = run.search.candidates.iter().map(|row| row.seconds).sum();
        let networks = counted(compared(&run.search.candidates).len(), "network");
        rows.push(vec!["comparison".into(), format!("{networks} in {}", duration(seconds))]);
    }
    for Model { name, train, data, .. } in run.models.iter().filter(|m| !m.train.is_empty()) {
        let seconds = train.iter().map(|e| e.seconds).sum();
        let on = data.as_ref().map(|data| format!(" on {data}")).unwrap_or_default();
        rows.push(vec![
            format!("training of {name}"),
            format!("{}{on} in {}", counted(train.len(), "epoch"), duration(seconds)),
        ]);
    }
    for evaluation in run.evaluations() {
        rows.push(vec![format!("evaluation of {}", evaluation.model), evaluation.describe()]);
    }
    match rows.is_empty() {
        true => missing("Nothing was searched, trained or measured in this run", "nas run"),
        false => table(2, &["what", "how"], &rows),
    }
}

fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match (s / 3600, s / 60 % 60) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, minutes) => format!("{minutes} min {} s", s % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
