//! Arguments of the verbs that measure, or read what was measured.

use crate::device::Device;
use crate::latency::{LatencyTable, TableError};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Where and how networks are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Device")]
pub struct MeasureArgs {
    /// Device: a name that `nas devices` lists, or a TOML file
    #[arg(long, default_value = "host")]
    pub device: String,
    /// Inference runtime, tract or ort; may be given again [default: those of the device]
    #[arg(long = "runtime")]
    pub runtimes: Vec<Runtime>,
    /// Threads of the runtime
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    pub threads: NonZeroUsize,
    /// Folder of the latency tables
    #[arg(long, default_value = "profiles")]
    pub profiles: PathBuf,
}

impl Default for MeasureArgs {
    fn default() -> Self {
        let threads = NonZeroUsize::MIN;
        MeasureArgs { device: "host".into(), runtimes: vec![], threads, profiles: "profiles".into() }
    }
}

impl MeasureArgs {
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(Device::load(&self.device)?)
    }

    /// The runtimes asked for, or else the device's.
    pub fn runtimes(&self, device: &Device) -> Vec<Runtime> {
        if self.runtimes.is_empty() { device.runtimes.clone() } else { self.runtimes.clone() }
    }

    /// Where the table of a space is kept.
    pub fn table_path(&self, device: &Device, space: &str, runtime: Runtime) -> PathBuf {
        LatencyTable::path(&self.profiles, &device.name, space, runtime, self.threads.get())
    }

    /// The table of a space; `space` and `images` are what the missing rows would have to be measured for.
    pub fn table(
        &self,
        device: &Device,
        space: (&str, &str),
        images: &str,
        runtime: Runtime,
    ) -> Result<LatencyTable, TableError> {
        let (name, source) = space;
        LatencyTable::load(&self.table_path(device, name, runtime), &self.command(source, images, runtime))
    }

    /// The command that measures such a table; `images` is `--data …` or `--input … --classes …`.
    pub fn command(&self, space: &str, images: &str, runtime: Runtime) -> String {
        let MeasureArgs { device, threads, profiles, .. } = self;
        format!(
            "nas-profile --device {device} --runtime {runtime} --threads {threads} --profiles {} --space {space} {images}",
            profiles.display()
        )
    }
}
