//! The page: one HTML file that refers to no other file.

use super::chart::Key;
use super::figures::{self, Figure};
use super::summary::{SummaryLatency, SummaryRow, millions, or_dash, percent};
use super::{LayerRow, Model, ReportError, Run, Setting, labels};
use crate::latency::Latency;
use crate::record::{BenchRow, Expected, Prediction};

/// Identifies a page as one of a run.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"edge-nas\"/>";

/// Escapes text for HTML. [`table`], [`figure`] and [`missing`] take plain text and escape it themselves.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub fn html(run: &Run) -> Result<String, ReportError> {
    let search = match run.search.is_empty() {
        true => missing("There is no search.jsonl in this run", "nas search"),
        false => [figures::losses(run)?, figures::expected_costs(run)?, figures::alpha(run)?].map(figure).concat(),
    };
    let training =
        figures::training(run)?.map_or_else(|| missing("There is no train.jsonl in this run", "nas train"), figure);
    let layers = figures::layer_latency(run)?.map_or_else(
        || missing("There is no prediction for a network of the search space in bench.jsonl of this run", "nas bench"),
        figure,
    );
    let scatter = figures::accuracy_latency(run)?.map_or_else(
        || missing("No network of this run was both trained (nas train) and measured", "nas bench"),
        figure,
    );
    let bench = match run.bench.is_empty() {
        true => missing("There is no bench.jsonl in this run", "nas bench"),
        false => bench_table(run),
    };
    let sections = [
        ("Result", result(run)),
        ("Accuracy and latency", scatter + &bench),
        ("Layers of the found network", layers + &layer_table(run)),
        ("Search", search),
        ("Training", training),
        ("Conditions", conditions(run)),
    ];
    let body: String =
        sections.iter().map(|(title, html)| format!("<section>\n<h2>{title}</h2>\n{html}</section>\n")).collect();
    let style = include_str!("page.css");
    let title = escape(&title(run));
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         {GENERATOR}\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{}{body}</main>\n</body>\n</html>\n",
        headline(run)
    ))
}

fn title(run: &Run) -> String {
    let mut devices: Vec<String> = run.settings().into_iter().map(|s| s.device).collect();
    devices.dedup();
    match (run.genotype.is_some(), devices.is_empty()) {
        (true, false) => format!("The network found for {}", devices.join(", ")),
        (true, true) => "The network found".into(),
        _ => "Report of a run".into(),
    }
}

fn headline(run: &Run) -> String {
    let mut html = String::new();
    if let Some(genotype) = &run.genotype {
        let ops: String = genotype.names().iter().map(|op| format!("<li><code>{op}</code></li>")).collect();
        html += &format!("<ol class=\"genotype\">{ops}</ol>\n");
    }
    let labels = labels(&run.settings());
    let mut sentences: Vec<String> = run.rows().iter().filter_map(|row| sentence(row, &labels)).collect();
    if let Some(epoch) = run.search.last() {
        let limit = |c: &Expected| format!("{} of {}", c.unit.show(c.limit), c.cost);
        let limits: Vec<String> = epoch.constraints.iter().map(limit).collect();
        sentences.push(format!("The search was limited to {}.", limits.join(" and ")));
    }
    let search = run.search.iter().find_map(|epoch| epoch.foreign_table.as_ref()).map(|d| ("searched", d));
    let foreign = |row: &'_ BenchRow| row.prediction.as_ref()?.foreign_table.clone();
    let bench = run.bench.iter().find_map(foreign);
    let bench = bench.as_ref().map(|d| ("predicted", d));
    for (what, difference) in search.into_iter().chain(bench) {
        sentences.push(format!("It was {what} with a foreign latency table: {difference}."));
    }
    if !sentences.is_empty() {
        html += &format!("<p class=\"headline\">{}</p>\n", escape(&sentences.join(" ")));
    }
    let note = |note: &String| format!("<p class=\"missing\">Note: {}.</p>\n", escape(note));
    html += &run.notes.iter().map(note).collect::<String>();
    html
}

/// Accuracy and latencies of a network in a sentence; `None` if it was neither trained nor measured.
fn sentence(row: &SummaryRow, labels: &[String]) -> Option<String> {
    let name = if row.genotype.is_some() { "The found network" } else { &row.name };
    let accuracy = row.test_accuracy.map(|a| format!("classifies {} of the test images correctly", percent(a)));
    let measured = |(latency, label): (&SummaryLatency, &String)| Some(format!("{} ({label})", latency.measured_ns?));
    let latencies: Vec<String> = row.latencies.iter().zip(labels).filter_map(measured).collect();
    let latency = (!latencies.is_empty()).then(|| format!("takes {}", latencies.join(" and ")));
    let parts: Vec<String> = accuracy.into_iter().chain(latency).collect();
    (!parts.is_empty()).then(|| format!("{name} {}.", parts.join(" and ")))
}

fn result(run: &Run) -> String {
    if run.models.is_empty() {
        return missing("There is neither genotype.json nor network.json in this run", "nas search");
    }
    table(1, &run.summary_header(), &run.summary_cells())
        + "<p>Latencies are those of one image on the undisturbed device. A predicted latency is that by the latency \
           table of the device and runtime.</p>\n"
}

fn bench_table(run: &Run) -> String {
    let header = [
        "network",
        "measured with",
        "latency",
        "predicted",
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
            or_dash(r.error().map(|error| format!("{:+.1} %", 100.0 * error))),
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
           of a latency table; percentiles are those of all samples. The error is that of the predicted latency, \
           predicted / measured − 1, at the speed that the device had when the table was measured: if it is positive, the \
           network is faster than predicted. Peak memory is that of a \
           process that only runs the network.</p>\n"
}

fn layer_table(run: &Run) -> String {
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
        let macs = millions(graph.cost().macs);
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

/// The interactions between layers according to the tables, by setting.
fn interactions(rows: &[(&BenchRow, &Prediction)]) -> String {
    let with_any = rows.iter().filter(|(_, p)| !p.interactions.is_empty());
    let sentence = |(row, p): &(&BenchRow, &Prediction)| {
        let (setting, found) = (row.setting().to_string(), p.interactions.join("; "));
        format!("<p>Interactions between layers ({}): {}.</p>\n", escape(&setting), escape(&found))
    };
    with_any.map(sentence).collect()
}

fn conditions(run: &Run) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for setting in run.settings() {
        let mut versions: Vec<&str> =
            run.bench.iter().filter(|r| r.setting() == setting).map(|r| r.runtime_version.as_str()).collect();
        versions.dedup();
        rows.push(vec!["measured with".into(), format!("{setting}; {} {}", setting.runtime, versions.join(", "))]);
    }
    if !run.search.is_empty() {
        let seconds = run.search.iter().map(|e| e.seconds).sum();
        rows.push(vec!["search".into(), format!("{} in {}", epochs(run.search.len()), duration(seconds))]);
    }
    for Model { name, train, data, .. } in run.models.iter().filter(|m| !m.train.is_empty()) {
        let seconds = train.iter().map(|e| e.seconds).sum();
        let on = data.as_ref().map(|data| format!(" on {data}")).unwrap_or_default();
        rows.push(vec![format!("training of {name}"), format!("{}{on} in {}", epochs(train.len()), duration(seconds))]);
    }
    match rows.is_empty() {
        true => missing("Nothing was searched, trained or measured in this run", "nas run"),
        false => table(2, &["what", "how"], &rows),
    }
}

fn epochs(number: usize) -> String {
    if number == 1 { "1 epoch".into() } else { format!("{number} epochs") }
}

fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match (s / 3600, s / 60 % 60) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, minutes) => format!("{minutes} min {} s", s % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// A sentence in place of a missing part, with the command that writes it.
fn missing(what: &str, maker: &str) -> String {
    format!("<p class=\"missing\">{}; <code>{maker}</code> writes it.</p>\n", escape(what))
}

/// A table whose first `text` columns contain text and the others numbers.
fn table<S: AsRef<str>>(text: usize, header: &[S], rows: &[Vec<String>]) -> String {
    fn line<S: AsRef<str>>(tag: &str, text: usize, cells: &[S]) -> String {
        let cell = |(i, cell): (usize, &S)| {
            let class = if i < text { " class=\"text\"" } else { "" };
            format!("<{tag}{class}>{}</{tag}>", escape(cell.as_ref()))
        };
        format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
    }
    let body: String = rows.iter().map(|row| line("td", text, row)).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead>{}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n",
        line("th", text, header)
    )
}

fn figure(figure: Figure) -> String {
    let Figure { title, caption, legend, panels } = figure;
    let key = |Key { label, color, dashed }: &Key| {
        let class = if *dashed { " class=\"dashed\"" } else { "" };
        let (r, g, b) = (color.0, color.1, color.2);
        format!("<li><i{class} style=\"border-color: rgb({r}, {g}, {b})\"></i>{}</li>", escape(label))
    };
    let keys: String = legend.iter().map(key).collect();
    let legend = if keys.is_empty() { keys } else { format!("<ul class=\"legend\">{keys}</ul>\n") };
    let class = match panels.len() {
        1 => "panels one",
        2 => "panels",
        _ => "panels small",
    };
    let panel = |panel: &figures::Panel| {
        let name = escape(&panel.title);
        let heading = if name.is_empty() { String::new() } else { format!("<b>{name}</b>") };
        format!(
            "<div class=\"panel\">{heading}<div role=\"img\" aria-label=\"{} {name}\">\n{}</div></div>\n",
            escape(title),
            panel.svg
        )
    };
    let panels: String = panels.iter().map(panel).collect();
    format!(
        "<figure>\n<h3>{}</h3>\n{legend}<div class=\"{class}\">\n{panels}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
        escape(title),
        escape(caption)
    )
}
