//! Boards over SSH, through libssh2.

mod host_key;
mod login;
mod pump;
mod upload;

pub use upload::Upload;

use super::Site;
use nas_probe::printable;
use rustix::net::sockopt;
use ssh2::Session;
use std::io::{IsTerminal, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("cannot reach {to}: {reason}; is the board on, its sshd running, and the address right?")]
    Connect { to: String, reason: String },
    #[error(
        "the host key of {to} is {theirs}, but {file} has {known}: this is another machine, or one between it and you; \
         if the board was reinstalled, remove the old key with `ssh-keygen -R '{name}'`",
        file = file.display()
    )]
    HostKeyChanged { to: String, name: String, theirs: String, known: String, file: PathBuf },
    #[error(
        "the host key of {to} is not known: {fingerprint}; compare it with the board's, then give --accept-new-host-key, or connect with `ssh` once"
    )]
    HostKeyUnknown { to: String, fingerprint: String },
    #[error(
        "{to} accepts none of: {tried}; copy a key there with `ssh-copy-id`, or name another key with `key` in sites.toml"
    )]
    Login { to: String, tried: String },
    #[error("{to}: {doing}: {reason}")]
    Failed { to: String, doing: String, reason: String },
    #[error("{to} was silent for {seconds} s: {doing}; is it still on, and on the network?", seconds = timeout.as_secs())]
    Silent { to: String, doing: String, timeout: Duration },
    #[error(
        "the disk of {to} has {free} bytes free at {path}, but {name} needs {needed}; free some space, or set another `folder` in sites.toml"
    )]
    DiskFull { to: String, path: String, name: String, free: u64, needed: u64 },
    #[error("{to}: cannot write {path}: {reason}; set a `folder` in sites.toml that {user} can write to")]
    Folder { to: String, path: String, user: String, reason: String },
    #[error("{name} arrived damaged at {to}; run the same command again")]
    Damaged { to: String, name: String },
}

/// A connection to a board, after the login.
pub struct Connection {
    site: Site,
    session: Session,
    stream: TcpStream,
}

impl Connection {
    /// Connects, checks the host key, and logs in. Every call to the board has `site.timeout`.
    ///
    /// # Errors
    /// Fails if the board cannot be reached, has another host key than before, or refuses the login.
    pub fn open(site: &Site) -> Result<Connection, SshError> {
        let unreached = |reason: String| SshError::Connect { to: site.to_string(), reason };
        let stream = dial(site).map_err(|e| unreached(e.to_string()))?;
        let mut session = Session::new().map_err(|e| unreached(e.message().into()))?;
        session.set_tcp_stream(stream.try_clone().map_err(|e| unreached(e.to_string()))?);
        let mut connection = Connection { site: site.clone(), session, stream };
        connection.session.set_timeout(u32::try_from(site.timeout.as_millis()).unwrap_or(u32::MAX).max(1));
        // Graphs and replies are repetitive text.
        connection.session.set_compress(true);
        let hosts = host_key::KnownHosts::read(&connection)?;
        hosts.prefer_known_types(&connection);
        let handshake = connection.session.handshake();
        handshake.map_err(|e| connection.failed("the SSH handshake", e))?;
        hosts.check(&connection)?;
        login::login(&connection)?;
        connection.session.set_keepalive(true, KEEP_ALIVE.as_secs() as u32);
        Ok(connection)
    }

    /// Runs a command to its end, and returns its stdout.
    ///
    /// # Errors
    /// Fails if the command fails. The error contains its last line on stderr.
    pub fn run(&self, command: &str) -> Result<String, SshError> {
        let doing = format!("`{command}`");
        let failed = |e| self.failed(&doing, e);
        let broken = |e| self.broken(&doing, e);
        let mut channel = self.session.channel_session().map_err(failed)?;
        channel.exec(command).map_err(failed)?;
        let (mut out, mut err) = (String::new(), String::new());
        channel.by_ref().take(MOST_OUTPUT).read_to_string(&mut out).map_err(broken)?;
        channel.stderr().take(MOST_OUTPUT).read_to_string(&mut err).map_err(broken)?;
        channel.wait_close().map_err(failed)?;
        let ended = pump::ended(&channel);
        if ended != pump::SUCCESS {
            let last = err.lines().last().unwrap_or("no message on stderr");
            let (to, reason) = (self.site.to_string(), format!("{ended}: {}", printable(last)));
            return Err(SshError::Failed { to, doing, reason });
        }
        Ok(out)
    }

    /// Closes the link, since libssh2 would otherwise wait for the timeout once more when it ends the session.
    fn silent(&self, doing: &str) -> SshError {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        SshError::Silent { to: self.site.to_string(), doing: doing.into(), timeout: self.site.timeout }
    }

    fn broken(&self, doing: &str, error: std::io::Error) -> SshError {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return self.silent(doing);
        }
        SshError::Failed { to: self.site.to_string(), doing: doing.into(), reason: printable(&error.to_string()) }
    }

    fn failed(&self, doing: &str, error: ssh2::Error) -> SshError {
        let (to, doing) = (self.site.to_string(), doing.to_string());
        match error.code() {
            ssh2::ErrorCode::Session(SOCKET_TIMEOUT | TIMED_OUT) => self.silent(&doing),
            _ => SshError::Failed { to, doing, reason: printable(error.message()) },
        }
    }
}

/// The most bytes of a command's output that are read.
const MOST_OUTPUT: u64 = 1 << 20;
/// How often an idle link is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// libssh2's LIBSSH2_ERROR_TIMEOUT and LIBSSH2_ERROR_SOCKET_TIMEOUT.
const TIMED_OUT: i32 = -9;
const SOCKET_TIMEOUT: i32 = -30;

/// Returns whether there is a terminal on which questions can be asked.
fn asks() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Opens a TCP connection that the kernel closes if the board acknowledges nothing for the timeout of the site.
fn dial(site: &Site) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (site.host.as_str(), site.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, site.timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let millis = u32::try_from(site.timeout.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_user_timeout(&stream, millis)?;
                // While a probe is compiled, nothing else shows whether the board is still there.
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
