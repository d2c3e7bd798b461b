use super::{Connection, SshError, asks};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD};
use dialoguer::Confirm;
use sha2::{Digest, Sha256};
use ssh2::{CheckResult, KnownHostFileKind, MethodType};
use std::io::Write;
use std::path::PathBuf;

/// The user's `known_hosts`.
pub struct KnownHosts {
    hosts: ssh2::KnownHosts,
    file: PathBuf,
    /// The keys that the file has for the board, of any type.
    known: Vec<Vec<u8>>,
}

impl KnownHosts {
    pub fn read(connection: &Connection) -> Result<KnownHosts, SshError> {
        let doing = "reading known_hosts";
        let failed = |e| connection.failed(doing, e);
        let file = connection.site.home.join(".ssh/known_hosts");
        let mut hosts = connection.session.known_hosts().map_err(failed)?;
        if file.is_file() {
            hosts.read_file(&file, KnownHostFileKind::OpenSSH).map_err(failed)?;
        }
        let site = &connection.site;
        let keys = hosts.hosts().map_err(failed)?;
        let keys = keys.iter().filter_map(|host| BASE64_STANDARD.decode(host.key()).ok());
        // Names may be hashed in the file, so each of its keys is looked up for this host.
        let is_known = |key: &Vec<u8>| matches!(hosts.check_port(&site.host, site.port, key), CheckResult::Match);
        let known = keys.filter(is_known).collect();
        Ok(KnownHosts { hosts, file, known })
    }

    /// Asks the board for a key of a known type: if a known board sent a key of another type, libssh2 would report the
    /// key as changed.
    pub fn prefer_known_types(&self, connection: &Connection) {
        let kinds: Vec<&str> = self.known.iter().filter_map(|key| kind(key)).collect();
        let Ok(all) = connection.session.supported_algs(MethodType::HostKey) else { return };
        // An RSA key signs under three names.
        let is_known =
            |name: &str| kinds.iter().any(|kind| *kind == name || (*kind == "ssh-rsa" && name.starts_with("rsa-sha2")));
        let (mut first, rest): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| is_known(name));
        if !first.is_empty() {
            first.extend(rest);
            let _ = connection.session.method_pref(MethodType::HostKey, &first.join(","));
        }
    }

    /// Checks the key of the board, and stores a new one that is accepted.
    ///
    /// # Errors
    /// Fails if the key differs from the known one, or if it is new and not accepted.
    pub fn check(mut self, connection: &Connection) -> Result<(), SshError> {
        let (session, site) = (&connection.session, &connection.site);
        let to = site.to_string();
        let Some((key, key_type)) = session.host_key() else {
            let reason = "the board sent no host key".to_string();
            return Err(SshError::Connect { to, reason });
        };
        let name = if site.port == 22 { site.host.clone() } else { format!("[{}]:{}", site.host, site.port) };
        match self.hosts.check_port(&site.host, site.port, key) {
            CheckResult::Match => return Ok(()),
            CheckResult::NotFound => {}
            CheckResult::Mismatch | CheckResult::Failure => {
                let known: Vec<String> = self.known.iter().map(|key| fingerprint(key)).collect();
                let known = if known.is_empty() { "another".into() } else { known.join(", ") };
                return Err(SshError::HostKeyChanged { to, name, theirs: fingerprint(key), known, file: self.file });
            }
        }
        if !site.accept_new_host_key && !accepted(&to, &fingerprint(key)) {
            return Err(SshError::HostKeyUnknown { to, fingerprint: fingerprint(key) });
        }
        let failed = |e| connection.failed("storing the host key", e);
        self.hosts.add(&name, key, "", key_type.into()).map_err(failed)?;
        let hosts = self.hosts.hosts().map_err(failed)?;
        let added = hosts.iter().find(|host| host.name() == Some(&name) && host.key() == BASE64_STANDARD.encode(key));
        let Some(added) = added else { return Ok(()) };
        let line = self.hosts.write_string(added, KnownHostFileKind::OpenSSH).map_err(failed)?;
        let doing = format!("writing {}", self.file.display());
        remember(&self.file, line.trim_end()).map_err(|e| connection.broken(&doing, e))
    }
}

/// Appends a line and leaves the others as they are: libssh2 would rewrite the file and drop lines that it does not
/// understand.
fn remember(file: &std::path::Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{newline}{line}")
}

/// Asks on the terminal. Without a terminal, the answer is no.
fn accepted(to: &str, fingerprint: &str) -> bool {
    let ask = || {
        let question = format!("The host key of {to} is not known: {fingerprint}\nIs this the board's key?");
        Confirm::new().with_prompt(question).default(false).interact()
    };
    asks() && ask().unwrap_or(false)
}

/// Returns the fingerprint of a key, as `ssh-keygen -l` shows it.
fn fingerprint(key: &[u8]) -> String {
    format!("{} SHA256:{}", kind(key).unwrap_or("key"), BASE64_STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// Returns the type of a public key, which is its first field (RFC 4253, section 6.6).
fn kind(key: &[u8]) -> Option<&str> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    std::str::from_utf8(rest.get(..u32::from_be_bytes(*length) as usize)?).ok()
}
