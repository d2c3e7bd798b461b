//! How results are printed: for people, or as JSON with `--json`.

use serde::Serialize;
use std::io::Write;

/// Writes the result to stdout. A reader that has gone away, as in `| head`, is no error.
pub fn print(json: bool, result: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(result)? } else { text() };
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A table for people.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.to_string()
}
