use crate::cli::output::{print, table};
use crate::latency::{LatencyTable, PublishedTable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Make a latency table of one that others published: the YAML of ProxylessNAS or of Once-for-All
///
/// A key becomes a row where an op of ours computes exactly what it names; all others are listed with
/// the reason. What was published stays what it is, the mean of so many timings, in milliseconds.
#[derive(clap::Args)]
pub struct Args {
    /// The published table
    pub file: PathBuf,
    /// Name of the device that it is of
    #[arg(long, value_parser = name)]
    pub device: String,
    /// Runtime that it is of, as tflite
    #[arg(long, value_parser = name)]
    pub runtime: String,
    /// Folder of the latency tables
    #[arg(long, default_value = "profiles", conflicts_with = "out")]
    pub profiles: PathBuf,
    /// File to write [default: <profiles>/<device>/<name of the file>.<runtime>.jsonl]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Serialize)]
pub struct Imported {
    table: PathBuf,
    keys: usize,
    rows: usize,
    /// Keys that were left out, by the reason.
    unfit: BTreeMap<String, usize>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let imported = self.execute()?;
        print(json, &imported, || {
            let line = |what: String, keys: usize| vec![what, keys.to_string()];
            let mut lines = vec![line(format!("rows of {}", imported.table.display()), imported.rows)];
            lines.extend(imported.unfit.iter().map(|(why, keys)| line(format!("left out: {why}"), *keys)));
            table(&["", "keys"], lines)
        })
    }

    pub fn execute(&self) -> anyhow::Result<Imported> {
        let published = PublishedTable::read(&self.file)?;
        let name = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let usual = || LatencyTable::path(&self.profiles, &self.device, &name, &self.runtime, 1);
        let path = self.out.clone().unwrap_or_else(usual);
        if path.exists() && !self.force {
            anyhow::bail!("{} is there already; write over it with --force", path.display());
        }
        published.write(&path, &self.device, &self.runtime)?;
        published.unfit.iter().for_each(|(key, why)| eprintln!("left out: {key}: {why}"));
        Ok(Imported {
            table: path,
            keys: published.rows.len() + published.unfit.len(),
            rows: published.rows.len(),
            unfit: published.reasons(),
        })
    }
}

/// A part of a path.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
        Ok(text.into())
    } else {
        Err(format!("`{text}` cannot be part of a file's name; use letters, digits, `-`, `_` and `.`"))
    }
}
