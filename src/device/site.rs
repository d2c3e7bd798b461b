use super::{Device, DeviceError, LinkKind, Timeout, wrong_folder};
use crate::{artifact, environment};
use serde::Deserialize;
use ssh2_config::{HostParams, ParseRule, SshConfig};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a board may be silent before it is given up, unless `sites.toml` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
const FOLDER: &str = ".cache/edge-nas";
const SSH_PORT: u16 = 22;

/// Where a board is and how to log in, which only its owner knows and no device file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Private keys, which are tried before those of the SSH agent. If there are none, the default keys are tried last.
    pub keys: Vec<PathBuf>,
    /// Folder on the board: absolute, or relative to the user's home there.
    pub folder: String,
    /// How long the board may be silent, beyond the time that a measurement takes.
    pub timeout: Duration,
    pub accept_new_host_key: bool,
    /// Home folder on this machine, which contains `.ssh`.
    pub home: PathBuf,
}

/// `pi@192.168.1.7:22`
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// An entry of `~/.config/edge-nas/sites.toml`, which has one for each device.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// `user@host:port`, or a `Host` of `~/.ssh/config`; several make a fleet.
    #[serde(default, deserialize_with = "crate::named::one_or_more")]
    ssh: Vec<String>,
    key: Option<PathBuf>,
    folder: Option<String>,
    timeout: Option<Timeout>,
}

impl Entry {
    /// Reads the entry of a device from `sites.toml`. It is empty if there is none.
    ///
    /// # Errors
    /// Fails if the file is no TOML, or if this entry is malformed.
    fn of(device: &Device, file: &Path) -> Result<Entry, DeviceError> {
        let entries = file.is_file().then(|| artifact::read_toml::<toml::Table>(file)).transpose()?;
        let Some(entry) = entries.and_then(|mut entries| entries.remove(&device.name)) else {
            return Ok(Entry::default());
        };
        let invalid =
            |reason: &str| DeviceError::Invalid { path: file.into(), reason: format!("[{}]: {reason}", device.name) };
        let entry: Entry = entry.try_into().map_err(|e: toml::de::Error| invalid(e.message()))?;
        match wrong_folder(entry.folder.as_deref()) {
            Some(wrong) => Err(invalid(wrong)),
            None => Ok(entry),
        }
    }
}

impl Site {
    /// Returns the sites of the boards of this kind: those of `ssh`, or else those of `sites.toml`, or else the `Host`
    /// of `~/.ssh/config` that has the name of the device. Empty for a device that is not reached over SSH.
    ///
    /// # Errors
    /// Fails if no address is known, or if one is malformed.
    pub fn of(device: &Device, ssh: &[String], accept_new_host_key: bool) -> Result<Vec<Site>, DeviceError> {
        if device.link == LinkKind::Local {
            return match ssh.first() {
                Some(_) => Err(DeviceError::NotABoard { device: device.name.clone() }),
                None => Ok(vec![]),
            };
        }
        let home = environment::path("HOME").ok_or(DeviceError::NoHome)?;
        let file = sites_file(&home);
        let entry = Entry::of(device, &file)?;
        let config = ssh_config(&home)?;
        let named = |name: &str| config.query(name);
        let mut addresses = if ssh.is_empty() { entry.ssh.clone() } else { ssh.to_vec() };
        if addresses.is_empty() && named(&device.name).host_name.is_some() {
            addresses.push(device.name.clone());
        }
        if addresses.is_empty() {
            return Err(DeviceError::NoAddress { device: device.name.clone(), file });
        }
        let site = |address: &String| {
            let typed = Address::parse(address)?;
            let params = named(&typed.host);
            let expand = |path: &PathBuf| path.strip_prefix("~").map_or(path.clone(), |rest| home.join(rest));
            let HostParams { host_name, user, port, identity_file, .. } = params;
            let keys = entry.key.clone().map(|key| vec![key]).or(identity_file).unwrap_or_default();
            let me = || std::env::var("USER").ok().filter(|user| !user.is_empty());
            let no_user =
                || DeviceError::Address { address: address.clone(), reason: "it has no user; write user@host".into() };
            Ok(Site {
                host: host_name.unwrap_or(typed.host),
                port: typed.port.or(port).or(device.port).unwrap_or(SSH_PORT),
                user: typed.user.or(user).or_else(me).ok_or_else(no_user)?,
                keys: keys.iter().map(expand).collect(),
                folder: entry.folder.clone().or(device.folder.clone()).unwrap_or(FOLDER.into()),
                timeout: entry.timeout.map_or(TIMEOUT, Timeout::duration),
                accept_new_host_key,
                home: home.clone(),
            })
        };
        let sites = addresses.iter().map(site).collect::<Result<Vec<Site>, DeviceError>>()?;
        different(&sites)?;
        Ok(sites)
    }
}

/// Checks that no board is named twice, not even by two different names.
fn different(sites: &[Site]) -> Result<(), DeviceError> {
    if sites.len() < 2 {
        return Ok(());
    }
    let addresses = |site: &Site| -> Vec<SocketAddr> {
        (site.host.as_str(), site.port).to_socket_addrs().map_or(vec![], Iterator::collect)
    };
    let sites: Vec<(&Site, Vec<SocketAddr>)> = sites.iter().map(|site| (site, addresses(site))).collect();
    for (i, (one, of_one)) in sites.iter().enumerate() {
        for (other, of_other) in &sites[i + 1..] {
            let same_name = (&one.host, one.port) == (&other.host, other.port);
            if same_name || of_one.iter().any(|address| of_other.contains(address)) {
                return Err(DeviceError::Twice { one: one.to_string(), other: other.to_string() });
            }
        }
    }
    Ok(())
}

fn sites_file(home: &Path) -> PathBuf {
    environment::path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("edge-nas/sites.toml")
}

fn ssh_config(home: &Path) -> Result<SshConfig, DeviceError> {
    let path = home.join(".ssh/config");
    let Ok(file) = std::fs::File::open(&path) else { return Ok(SshConfig::default()) };
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    let config = SshConfig::default().home_dir(home).parse(&mut std::io::BufReader::new(file), rules);
    config.map_err(|e| DeviceError::Invalid { path, reason: e.to_string() })
}

/// `[user@]host[:port]`, as a user types it; an IPv6 address is written in brackets.
#[derive(Debug, PartialEq)]
struct Address {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Address {
    fn parse(text: &str) -> Result<Address, DeviceError> {
        let wrong = |reason: &str| DeviceError::Address { address: text.into(), reason: reason.into() };
        let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(|| wrong("a `]` is missing"))?;
                let port = after.strip_prefix(':');
                if port.is_none() && !after.is_empty() {
                    return Err(wrong("a `:` is missing between `]` and the port"));
                }
                (host, port)
            }
            None if rest.matches(':').count() > 1 => {
                return Err(wrong("write an IPv6 address in brackets, as [::1]:22"));
            }
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || user == Some("") {
            return Err(wrong("write user@host:port"));
        }
        let port = port.map(|port| port.parse().map_err(|_| wrong("the port is not a number up to 65535")));
        Ok(Address { user: user.map(Into::into), host: host.into(), port: port.transpose()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_ssh_reads_them() {
        let read = |text: &str| {
            let Address { user, host, port } = Address::parse(text).unwrap();
            (user.unwrap_or_default(), host, port.unwrap_or_default())
        };
        assert_eq!(read("pi@10.0.0.7:2222"), ("pi".into(), "10.0.0.7".into(), 2222));
        assert_eq!(read("board"), (String::new(), "board".into(), 0));
        assert_eq!(read("me@[::1]:22"), ("me".into(), "::1".into(), 22));
        assert_eq!(read("a@b@board"), ("a@b".into(), "board".into(), 0));
        for wrong in ["", "pi@", "@board", "board:ssh", "board:70000", "[::1", "[::1]22"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Address::parse("pi@fe80::1").unwrap_err().to_string().contains("brackets"));
    }
}
