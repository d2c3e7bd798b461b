//! The summary table of a run, for the terminal, for the page and as JSON.

use super::{Model, Run, Setting, labels};
use crate::latency::Latency;
use crate::record::Share;
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::Serialize;

/// The row of a network in the summary table.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryRow {
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
    /// By the latency table; only for networks of a search space.
    pub predicted_ns: Option<Latency>,
    pub measured_ns: Option<Latency>,
}

impl Run {
    /// A row for each network of the run; each has the latencies of all of [`Run::settings`].
    pub fn rows(&self) -> Vec<SummaryRow> {
        self.models
            .iter()
            .map(|model| SummaryRow {
                name: model.name.clone(),
                genotype: model.ops.clone(),
                params: model.cost.params,
                macs: model.cost.macs,
                test_accuracy: model.test_accuracy(),
                latencies: self.settings().into_iter().map(|s| self.latency(model, s)).collect(),
            })
            .collect()
    }

    fn latency(&self, model: &Model, setting: Setting) -> SummaryLatency {
        let row = self.bench_row(model, &setting);
        SummaryLatency {
            setting,
            predicted_ns: row.and_then(|r| Some(r.prediction.as_ref()?.latency_ns)),
            measured_ns: row.map(|r| r.latency_ns),
        }
    }

    /// The rows as text for a terminal, below the genotype.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(self.summary_header());
        table.add_rows(self.summary_cells());
        // No line between rows.
        table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        match &self.genotype {
            Some(genotype) => format!("genotype {genotype}\n{table}"),
            None => table.to_string(),
        }
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
            let mut cells = vec![row.name, millions(row.params), millions(row.macs), or_dash(row.test_accuracy)];
            cells.extend(row.latencies.iter().flat_map(|l| [l.predicted_ns, l.measured_ns].map(or_dash)));
            cells
        };
        self.rows().into_iter().map(cells).collect()
    }
}

pub fn millions(n: u64) -> String {
    if n == 0 {
        return "0".into();
    }
    let n = n as f64 / 1e6;
    let digits = if n < 0.9995 { 3 } else { 2 };
    format!("{n:.digits$} M")
}

pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("–".into(), |v| v.to_string())
}
