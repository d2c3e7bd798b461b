//! Where and how networks are measured.

use super::RunError;
use crate::bounded::Threads;
use crate::data::{Data, DataSpec};
use crate::device::{Board, Device, DeviceError, LinkKind, Session, Site, Timeout};
use crate::profile;
use crate::space::{Networks, SearchSpace};
use crate::table::{Difference, Header, LatencyTable, TableError, TableName};
use nas_exporters::{Precision, Shape};
use nas_probe::Runtime;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The kind of device to measure on, how to measure, and where its latency tables are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeasureSettings {
    /// A name that `nas devices` lists, or a TOML file.
    pub device: String,
    /// Empty for the runtimes of the device.
    pub runtimes: Vec<Runtime>,
    /// Threads of the runtime.
    pub threads: Threads,
    pub precision: Precision,
    /// Folder of the latency tables.
    pub profiles: PathBuf,
    /// A latency table to use in place of the device's own, such as one that is shipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<PathBuf>,
    /// Use a latency table of another machine, runtime version or set of cores.
    pub allow_foreign_table: bool,
}

impl Default for MeasureSettings {
    fn default() -> Self {
        MeasureSettings {
            device: "host".into(),
            runtimes: vec![],
            threads: Threads::of(1),
            precision: Precision::Fp32,
            profiles: "profiles".into(),
            table: None,
            allow_foreign_table: false,
        }
    }
}

/// How boards are set up while they measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardSettings {
    /// Cores to pin the probe to. An empty list stands for those of the device file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Vec<usize>>,
    /// Scaling governor while measuring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// How long loading a model, its first inference, and a measurement beyond its planned time may each take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Where a board is. Only its owner knows that, so it is not part of experiment files.
    #[serde(skip)]
    pub reach: Reach,
}

/// How to reach boards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    /// `user@host:port`, or a `Host` of `~/.ssh/config`. Empty for the entries in `sites.toml` or `~/.ssh/config`.
    pub ssh: Vec<String>,
    /// Accept a host key that is not in known_hosts, and remember it.
    pub accept_new_host_key: bool,
}

/// The images that networks are made for, in the form in which a command line names them.
#[derive(Clone, Debug, PartialEq)]
pub enum Images {
    Data(DataSpec),
    Shape { input: Shape, classes: usize },
}

impl Images {
    /// Returns the networks of a space for these images.
    ///
    /// # Errors
    /// Fails if the data cannot be read.
    pub fn networks(&self, space: SearchSpace) -> Result<Networks, RunError> {
        match self {
            Images::Data(spec) => Ok(networks_for(space, &Data::load(spec)?)?),
            Images::Shape { input, classes } => Ok(Networks::new(space, *input, [*classes])?),
        }
    }

    fn flags(&self) -> String {
        match self {
            Images::Data(spec) => format!("--data {}", shell_words::quote(&spec.to_string())),
            Images::Shape { input, classes } => format!("--input {input} --classes {classes}"),
        }
    }
}

/// Returns the networks of a space for the images of a data set.
///
/// # Errors
/// Never fails for a data set that was read. The signature is that of [`Networks::new`].
pub fn networks_for(space: SearchSpace, data: &Data) -> Result<Networks, crate::space::SpaceError> {
    Networks::new(space, data.train.shape.into(), [data.train.classes.len()])
}

impl Reach {
    /// Returns the boards of a kind: this machine itself, or those at the known sites.
    ///
    /// # Errors
    /// Fails if no site is known, or if an address is malformed.
    pub fn boards(&self, device: &Device, runtimes: &[Runtime]) -> Result<Vec<Board>, DeviceError> {
        let local = Board { runtimes: runtimes.to_vec(), ..Board::local(device.clone()) };
        let sites = Site::of(device, &self.ssh, self.accept_new_host_key)?;
        if sites.is_empty() {
            return Ok(vec![local]);
        }
        Ok(sites.into_iter().map(|site| Board { site: Some(site), ..local.clone() }).collect())
    }
}

impl BoardSettings {
    /// Starts the probe on each known board of the device's kind. A board that cannot be reached is left out, with a
    /// warning.
    ///
    /// # Errors
    /// Fails if no board can be reached.
    pub fn open(&self, device: &Device, runtimes: &[Runtime]) -> Result<Vec<Session>, RunError> {
        let pin = match &self.pin {
            Some(cores) if cores.is_empty() && device.cores.is_empty() => {
                return Err(RunError::NoCores { device: device.name.clone() });
            }
            Some(cores) if cores.is_empty() => device.cores.clone(),
            Some(cores) => cores.clone(),
            None => vec![],
        };
        device.check_runtimes(runtimes)?;
        let (mut sessions, mut lost) = (vec![], vec![]);
        for board in self.reach.boards(device, runtimes)? {
            let (pin, governor, timeout) = (pin.clone(), self.governor.clone(), self.timeout);
            let board = Board { pin, governor, timeout, alone: true, ..board };
            match Session::open(&board) {
                Ok(session) => sessions.push(session),
                Err(why) => lost.push((board.to_string(), why)),
            }
        }
        if sessions.is_empty() && !lost.is_empty() {
            return Err(lost.swap_remove(0).1.into());
        }
        lost.iter().for_each(|(board, why)| log::warn!("{board} is left out: {why}"));
        Ok(sessions)
    }
}

impl MeasureSettings {
    /// Loads the device.
    ///
    /// # Errors
    /// Fails if there is no such device.
    pub fn device(&self) -> Result<Device, DeviceError> {
        Device::load(&self.device)
    }

    /// Returns the runtimes that are named, or else those of the device.
    pub fn runtimes(&self, device: &Device) -> Vec<Runtime> {
        if self.runtimes.is_empty() { device.runtimes.clone() } else { self.runtimes.clone() }
    }

    /// Returns the runtimes whose tables are measured.
    ///
    /// # Errors
    /// Fails if a single table is given for several of them.
    pub fn profiled(&self, device: &Device) -> Result<Vec<Runtime>, RunError> {
        let runtimes = self.runtimes(device);
        match &self.table {
            Some(table) if runtimes.len() > 1 => Err(RunError::ManyRuntimes { table: table.clone() }),
            _ => Ok(runtimes),
        }
    }

    /// Returns the first of the runtimes.
    ///
    /// # Errors
    /// Fails if the device has none.
    pub fn first_runtime(&self, device: &Device) -> Result<Runtime, RunError> {
        let none = || RunError::NoRuntime { device: device.name.clone() };
        self.runtimes(device).first().copied().ok_or_else(none)
    }

    /// Returns the header of a table that `sessions` measure.
    ///
    /// # Errors
    /// Same as [`profile::header`].
    pub fn header(
        &self,
        device: &Device,
        sessions: &[Session],
        runtime: Runtime,
        networks: &Networks,
    ) -> Result<Header, RunError> {
        Ok(profile::header(&device.name, sessions, runtime, self.threads.get(), self.precision, networks)?)
    }

    /// Returns where the table of some networks is stored.
    pub fn table_path(&self, device: &Device, networks: &Networks, runtime: Runtime) -> PathBuf {
        let (space, input, threads) = (networks.space.name.as_str(), networks.input, self.threads.get());
        let name = TableName { space, input, runtime, precision: self.precision, threads };
        self.table.clone().unwrap_or_else(|| name.path(&self.profiles, &device.name))
    }

    /// Loads the table of some networks. `space` and `images` are what a command would call them.
    ///
    /// # Errors
    /// Fails if there is no table, or if it is damaged.
    pub fn load_table(
        &self,
        device: &Device,
        networks: &Networks,
        (space, images): (&str, &Images),
        runtime: Runtime,
    ) -> Result<LatencyTable, TableError> {
        let command = self.command(space, images, runtime);
        LatencyTable::load(&self.table_path(device, networks, runtime), &command)
    }

    /// Returns how a table differs from what would be measured now, if a difference is allowed.
    ///
    /// # Errors
    /// Fails if the table differs and that is not allowed.
    pub fn foreign(&self, table: &LatencyTable, ours: &Header) -> Result<Option<Difference>, TableError> {
        match table.check(ours) {
            Err(TableError::Foreign { difference, .. }) if self.allow_foreign_table => Ok(Some(difference)),
            checked => checked.map(|()| None),
        }
    }

    /// Returns the header of what would be measured now for the networks of `table`. A board is not asked, since its
    /// table is identified by the name of the device.
    ///
    /// # Errors
    /// Fails if the probe of this machine does not start.
    pub fn header_now(
        &self,
        device: &Device,
        table: &LatencyTable,
        runtime: Runtime,
        networks: &Networks,
    ) -> Result<Header, RunError> {
        let theirs = table.header.clone();
        if device.link == LinkKind::Ssh {
            let (device, runtime) = (device.name.clone(), runtime.to_string());
            return Ok(Header {
                device,
                runtime,
                threads: Some(self.threads.get()),
                precision: self.precision,
                ..theirs
            });
        }
        let session = Session::open(&Board { runtimes: vec![runtime], ..Board::local(device.clone()) })?;
        let ours = self.header(device, &[session], runtime, networks)?;
        // The owner chooses which cores the probe is pinned to. They are not a property of the device.
        Ok(Header { pinned: theirs.pinned, ..ours })
    }

    /// Returns the command that measures such a table.
    pub fn command(&self, space: &str, images: &Images, runtime: Runtime) -> String {
        let MeasureSettings { device, threads, profiles, table, .. } = self;
        let (device, space) = (shell_words::quote(device), shell_words::quote(space));
        let (flag, path) = table.as_ref().map_or(("--profiles", profiles), |table| ("--table", table));
        let (path, images) = (path.to_string_lossy(), images.flags());
        let path = shell_words::quote(&path);
        format!(
            "nas-profile --device {device} --runtime {runtime} --threads {threads} {flag} {path} --space {space} {images}"
        )
    }
}
