//! Arguments of the verbs that measure, or read what was measured.

use crate::device::{Board, Device, DeviceError, Session, Site};
use crate::latency::{Difference, Header, LatencyTable, TableError};
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
    /// Use a latency table of another machine, runtime version or set of cores; the report says so
    #[arg(long)]
    pub allow_foreign_table: bool,
}

/// Which boards are measured on, and how they are set for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Device")]
pub struct BoardArgs {
    /// Keep the probe on these cores, as --pin=2,3; without a list on those that the device file names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub pin: Option<Cores>,
    /// Set this scaling governor while measuring, and put the old one back
    #[arg(long, value_name = "performance")]
    pub governor: Option<String>,
    /// A board's owner knows where it is; no experiment file does.
    #[serde(skip)]
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// How a board is reached.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct ReachArgs {
    /// Where the board is, as user@host:port or a Host of ~/.ssh/config; may be given again, for
    /// several boards of one kind [default: what sites.toml or ~/.ssh/config says of the device]
    #[arg(long, value_name = "USER@HOST")]
    pub ssh: Vec<String>,
    /// Take a host key that is not in known_hosts for the board's, and remember it
    #[arg(long)]
    pub accept_new_host_key: bool,
}

/// Core numbers, as `2,3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cores(pub Vec<usize>);

impl std::str::FromStr for Cores {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let cores = s.split(',').map(str::trim).filter(|core| !core.is_empty());
        let core =
            |core: &str| core.parse().map_err(|_| format!("`{core}` is no core; write numbers, as 2,3"));
        Ok(Cores(cores.map(core).collect::<Result<_, _>>()?))
    }
}

impl Default for MeasureArgs {
    fn default() -> Self {
        MeasureArgs {
            device: "host".into(),
            runtimes: vec![],
            threads: NonZeroUsize::MIN,
            profiles: "profiles".into(),
            allow_foreign_table: false,
        }
    }
}

impl ReachArgs {
    /// The boards of a kind: this machine itself, or those at the sites that are known.
    pub fn boards(&self, device: &Device, runtimes: &[Runtime]) -> Result<Vec<Board>, DeviceError> {
        let local = Board { runtimes: runtimes.to_vec(), ..Board::local(device.clone()) };
        let sites = Site::of(device, &self.ssh, self.accept_new_host_key)?;
        if sites.is_empty() {
            return Ok(vec![local]);
        }
        Ok(sites.into_iter().map(|site| Board { site: Some(site), ..local.clone() }).collect())
    }
}

impl BoardArgs {
    /// Starts the probe on each board that is known of the device's kind.
    pub fn open(&self, device: &Device, runtimes: &[Runtime]) -> anyhow::Result<Vec<Session>> {
        let pin = match &self.pin {
            Some(Cores(cores)) if cores.is_empty() && device.cores.is_empty() => {
                anyhow::bail!("the device file of {} names no cores; name them, as --pin=3", device.name)
            }
            Some(Cores(cores)) if cores.is_empty() => device.cores.clone(),
            Some(Cores(cores)) => cores.clone(),
            None => vec![],
        };
        let (mut sessions, mut lost) = (vec![], vec![]);
        for board in self.reach.boards(device, runtimes)? {
            let board = Board { pin: pin.clone(), governor: self.governor.clone(), ..board };
            match Session::open(&board) {
                Ok(session) => sessions.push(session),
                Err(why) => lost.push(why),
            }
        }
        if sessions.is_empty() && !lost.is_empty() {
            return Err(lost.swap_remove(0).into());
        }
        lost.iter().for_each(|why| eprintln!("warning: going on without one board: {why}"));
        Ok(sessions)
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

    /// In what a table differs from what would be measured now, where that is allowed.
    ///
    /// # Errors
    /// Where it is not allowed.
    pub fn foreign(&self, table: &LatencyTable, ours: &Header) -> Result<Option<Difference>, TableError> {
        match table.check(ours) {
            Err(TableError::Foreign { difference, .. }) if self.allow_foreign_table => Ok(Some(difference)),
            checked => checked.map(|()| None),
        }
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
