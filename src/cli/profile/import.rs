use crate::artifact;
use crate::bounded::Name;
use crate::cli::output::{print, table};
use crate::table::{PublishedTable, TableName};
use nas_exporters::Precision;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Import a latency table that others published: the YAML of ProxylessNAS
///
/// The result is a table of the space `proxylessnas`. As in the paper, a prediction is the plain sum of the layers. Keys
/// that do not name a layer of that space are listed with the reason.
#[derive(clap::Args)]
pub struct Args {
    /// The published table
    pub file: PathBuf,
    /// Name of the device that was measured
    #[arg(long)]
    pub device: Name,
    /// Runtime that was measured, such as tflite
    #[arg(long)]
    pub runtime: Name,
    /// Folder of the latency tables
    #[arg(long, default_value = "profiles", conflicts_with = "out")]
    pub profiles: PathBuf,
    /// File to write [default: in <profiles>/<device>/]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Serialize)]
pub struct Imported {
    table: PathBuf,
    keys: usize,
    rows: usize,
    /// Number of keys that were left out, by reason.
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
        let networks = &published.networks;
        let (space, input, runtime) = (networks.space.name.as_str(), networks.input, &*self.runtime);
        let name = TableName { space, input, runtime, precision: Precision::Fp32, threads: 1 };
        let usual = || name.path(&self.profiles, &self.device);
        let path = self.out.clone().unwrap_or_else(usual);
        artifact::check_output(&path, &[&self.file], self.force, |_| false)?;
        published.write(&path, &self.device, &self.runtime)?;
        published.unfit.iter().for_each(|(key, why)| log::info!("left out: {key}: {why}"));
        Ok(Imported {
            table: path,
            keys: published.rows.len() + published.unfit.len(),
            rows: published.rows.len(),
            unfit: published.reasons(),
        })
    }
}
