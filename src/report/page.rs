//! The page: a single HTML file that refers to no other file.

mod search;
mod sections;

pub use search::BEST;

use super::chart::Key;
use super::figures::{self, Figure};
use super::summary::{SummaryLatency, SummaryRow, percent};
use super::{ReportError, Run, counted, labels};
use crate::record::{BenchRow, Expected, Held};
use std::collections::BTreeSet;

/// Identifies an HTML file as the page of a run.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"edge-nas\"/>";

/// Escapes text for HTML. [`table`], [`figure`] and [`missing`] take plain text and escape it themselves.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub fn html(run: &Run) -> Result<String, ReportError> {
    let mut sections = vec![];
    if let Some(begun) = &run.begun {
        sections.push(("The search that has not ended", search::begun(begun)?));
    }
    if !run.targets.is_empty() {
        sections.push(("Targets", sections::targets(run)));
    }
    if run.begun.is_none() || !(run.models.is_empty() && run.targets.is_empty() && run.bench.is_empty()) {
        sections.extend(parts(run)?);
    }
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

/// Returns the sections about the networks of a run, or about what is missing to make them.
fn parts(run: &Run) -> Result<Vec<(&'static str, String)>, ReportError> {
    let scatter = figures::accuracy_latency(run)?.map_or_else(
        || missing("No network of this run was both trained (nas train) and measured", "nas bench"),
        figure,
    );
    let layers = figures::layer_latency(run)?.map_or_else(
        || missing("There is no prediction for a network of the search space in bench.jsonl of this run", "nas bench"),
        figure,
    );
    let training =
        figures::training(run)?.map_or_else(|| missing("There is no train.jsonl in this run", "nas train"), figure);
    let accuracy = ("Accuracy and latency", scatter + &sections::bench(run));
    let search = ("Search", search::ended(run)?);
    let conditions = ("Conditions", sections::conditions(run));
    // Networks for several targets have their own pages.
    if !run.targets.is_empty() && run.genotype.is_none() {
        return Ok(vec![accuracy, search, conditions]);
    }
    let layers = ("Layers of the found network", layers + &sections::layers(run));
    let mut all = vec![("Result", sections::result(run)), accuracy, layers, search, ("Training", training)];
    if let Some(confusion) = figures::confusion(run)? {
        all.push(("Evaluation", sections::evaluation(run) + &figure(confusion)));
    }
    all.push(conditions);
    Ok(all)
}

fn title(run: &Run) -> String {
    let devices: BTreeSet<String> = run.settings().into_iter().map(|setting| setting.device).collect();
    let devices: Vec<String> = devices.into_iter().collect();
    if !run.targets.is_empty() && run.genotype.is_none() {
        return format!("Networks for {}", counted(run.targets.len(), "target"));
    }
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
    let rows = run.rows().into_iter().filter(|row| row.target.is_none());
    let mut sentences: Vec<String> = rows.filter_map(|row| sentence(&row, &labels)).collect();
    let limits: Vec<String> = match (&run.certificate, run.search.log.last()) {
        (Some(certificate), _) => {
            let limit = |held: &Held| held.unit.show_limit(held.target, &held.cost);
            certificate.constraints.iter().map(limit).collect()
        }
        (None, Some(epoch)) if run.genotype.is_some() => {
            let limit = |c: &Expected| format!("{} of {}", c.unit.show(c.limit), c.cost);
            epoch.constraints.iter().map(limit).collect()
        }
        _ => vec![],
    };
    if !limits.is_empty() {
        sentences.push(format!("The search was limited to {}.", limits.join(" and ")));
    }
    sentences.extend(missed(run));
    let search = run.search.foreign_table.as_ref().map(|d| ("searched", d));
    let foreign = |row: &'_ BenchRow| row.prediction.as_ref()?.foreign_table.clone();
    let bench = run.bench_rows().find_map(foreign);
    let bench = bench.as_ref().map(|d| ("predicted", d));
    let what_was = if run.targets.is_empty() { "It was" } else { "The networks were" };
    for (what, difference) in search.into_iter().chain(bench) {
        sentences.push(format!("{what_was} {what} with a foreign latency table: {difference}."));
    }
    if !sentences.is_empty() {
        html += &format!("<p class=\"headline\">{}</p>\n", escape(&sentences.join(" ")));
    }
    let note = |note: &String| format!("<p class=\"missing\">Note: {}.</p>\n", escape(note));
    html += &run.notes.iter().map(note).collect::<String>();
    html
}

/// Describes by how much the measured latencies of the found network are above their targets, if they are.
fn missed(run: &Run) -> Vec<String> {
    let held = || run.certificate.iter().flat_map(|certificate| &certificate.constraints);
    let of_row = |row: &BenchRow| {
        let target = held().find(|held| row.setting().is_of(held))?.target;
        let above = row.latency_ns.ns() / target - 1.0;
        let slower = row.slower_by().filter(|share| *share > 0.0).map_or(String::new(), |share| {
            format!(", on a device that was {:.1} % slower than when its latency table was measured", 100.0 * share)
        });
        let missed = || format!("In {}, it takes {:.1} % more than asked for{slower}.", row.setting(), 100.0 * above);
        (above > 0.0).then(missed)
    };
    let found = run.models.iter().find(|model| model.ops.is_some());
    let rows = run.bench.iter().filter(|row| row.images == 1 && found.is_some_and(|found| found.is_of(row)));
    rows.filter_map(of_row).collect()
}

/// Describes the accuracy and the latencies of a network in a sentence. Returns `None` if it was neither trained nor
/// measured.
fn sentence(row: &SummaryRow, labels: &[String]) -> Option<String> {
    let name = if row.genotype.is_some() { "The found network" } else { &row.name };
    let accuracy = row.test_accuracy.map(|a| format!("classifies {} of the test images correctly", percent(a)));
    let measured = |(latency, label): (&SummaryLatency, &String)| Some(format!("{} ({label})", latency.measured_ns?));
    let latencies: Vec<String> = row.latencies.iter().zip(labels).filter_map(measured).collect();
    let latency = (!latencies.is_empty()).then(|| format!("takes {}", latencies.join(" and ")));
    let parts: Vec<String> = accuracy.into_iter().chain(latency).collect();
    (!parts.is_empty()).then(|| format!("{name} {}.", parts.join(" and ")))
}

/// Returns a sentence in place of a missing part, which names the command that writes that part.
fn missing(what: &str, maker: &str) -> String {
    format!("<p class=\"missing\">{}; <code>{maker}</code> writes it.</p>\n", escape(what))
}

/// Texts longer than this are wrapped.
const WIDEST: usize = 60;

/// Formats a table whose first `text` columns contain text, and the others numbers.
fn table<S: AsRef<str>>(text: usize, header: &[S], rows: &[Vec<String>]) -> String {
    fn line<S: AsRef<str>>(tag: &str, text: usize, cells: &[S]) -> String {
        let cell = |(i, cell): (usize, &S)| {
            let class = match cell.as_ref().len() {
                _ if i >= text => "",
                ..=WIDEST => " class=\"text\"",
                _ => " class=\"text long\"",
            };
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
