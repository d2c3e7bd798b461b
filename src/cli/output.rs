//! How results are printed: for people, or as JSON with `--json`.

use nas_probe::printable;
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Writes the result to stdout. It is not an error if the reader has gone away, as in `| head`.
pub fn print(json: bool, result: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(result)? } else { shown(&text()) };
    write(format!("{}\n", text.trim_end()).as_bytes())
}

/// Escapes a text for a terminal, since files from others may contain characters that a terminal would obey.
pub fn shown(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Writes bytes to stdout. As in [`print`], it is not an error if the reader has gone away.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

/// Formats a number of seconds since 1970, in UTC, as `2026-11-24T13:05:00Z`. After the year 9999, the result is the
/// number itself.
pub fn date(seconds: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800;
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        Some(time) if seconds < YEAR_10000 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => seconds.to_string(),
    }
}

/// Formats a table for people.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.to_string()
}
