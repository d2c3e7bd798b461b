//! The summary table of a run, for the terminal, for the page and as JSON.

use super::{Model, Run, Setting, labels};
use crate::bounded::{Share, rounded};
use crate::latency::Latency;
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::Serialize;

/// The row of a network in the summary table.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryRow {
    /// The target whose folder the network is in, if there are several targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub name: String,
    pub genotype: Option<String>,
    pub params: u64,
    pub macs: u64,
    /// Share of the test images that are classified correctly after the last epoch.
    pub test_accuracy: Option<Share>,
    pub latencies: Vec<SummaryLatency>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SummaryLatency {
    #[serde(flatten)]
    pub setting: Setting,
    /// The prediction of the latency table, only for networks of a search space.
    pub predicted_ns: Option<Latency>,
    pub measured_ns: Option<Latency>,
}

impl Run {
    /// Returns a row for each network of the run and of its targets, each with the latencies of all of
    /// [`Run::settings`].
    pub fn rows(&self) -> Vec<SummaryRow> {
        let settings = self.settings();
        let of_targets = self.targets.iter().map(|target| (Some(&target.name), &target.run));
        let runs = of_targets.chain([(None, self)]);
        let rows = |(target, run): (Option<&String>, &Run)| -> Vec<SummaryRow> {
            run.models.iter().map(|model| run.row(model, target, &settings)).collect()
        };
        runs.flat_map(rows).collect()
    }

    fn row(&self, model: &Model, target: Option<&String>, settings: &[Setting]) -> SummaryRow {
        SummaryRow {
            target: target.cloned(),
            name: model.name.clone(),
            genotype: model.ops.clone(),
            params: model.cost.params,
            macs: model.cost.macs,
            test_accuracy: model.test_accuracy(),
            latencies: settings.iter().map(|setting| self.latency(model, setting.clone())).collect(),
        }
    }

    fn latency(&self, model: &Model, setting: Setting) -> SummaryLatency {
        let row = self.bench_row(model, &setting);
        SummaryLatency {
            setting,
            predicted_ns: row.and_then(|r| Some(r.prediction.as_ref()?.latency_ns)),
            measured_ns: row.map(|r| r.latency_ns),
        }
    }

    /// Formats the rows as text for a terminal, below the genotypes. Returns an empty text if there are no networks.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(self.summary_header());
        table.add_rows(self.summary_cells());
        // No lines between rows.
        table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let of_target = |row: SummaryRow| Some(format!("{} {}\n", row.target?, row.genotype?));
        let mut text: String = self.rows().into_iter().filter_map(of_target).collect();
        if let Some(genotype) = &self.genotype {
            text += &format!("genotype {genotype}\n");
        }
        if self.rows().is_empty() { text } else { format!("{text}{table}") }
    }

    pub(super) fn summary_header(&self) -> Vec<String> {
        let mut header = ["network", "parameters", "MACs", "test\naccuracy"].map(String::from).to_vec();
        for label in labels(&self.settings()) {
            header.extend([format!("{label}\npredicted"), format!("{label}\nmeasured")]);
        }
        header
    }

    pub(super) fn summary_cells(&self) -> Vec<Vec<String>> {
        let cells = |row: SummaryRow| {
            let name = row.target.map_or(row.name.clone(), |target| format!("{target}: {}", row.name));
            let mut cells = vec![
                name,
                rounded(row.params as f64),
                rounded(row.macs as f64),
                or_dash(row.test_accuracy.map(percent)),
            ];
            cells.extend(row.latencies.iter().flat_map(|l| [l.predicted_ns, l.measured_ns].map(or_dash)));
            cells
        };
        self.rows().into_iter().map(cells).collect()
    }
}

/// Formats a number with a noun: `1 epoch`, `2 epochs`.
pub fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub fn percent(share: Share) -> String {
    format!("{:.2} %", 100.0 * share.get())
}

/// Formats a relative difference.
pub fn signed(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}

pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("–".into(), |v| v.to_string())
}
