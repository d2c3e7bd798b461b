//! A program on a board, as a local socket. A thread moves the bytes between the socket and the SSH channel.

use super::super::stderr::StderrTail;
use super::{Connection, KEEP_ALIVE, SshError};
use nas_probe::printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

/// What [`ended`] returns for a program that succeeded.
pub const SUCCESS: &str = "exit status: 0";

/// Bytes that are moved at a time.
const CHUNK: usize = 64 << 10;

/// After this long without a byte from either side, the link is checked.
const IDLE: Duration = Duration::from_secs(1);

/// A program that runs on a board.
pub struct Remote {
    /// Its stdin and stdout.
    pub stream: UnixStream,
    /// Returns how the program ended, and its last line on stderr.
    pub pump: JoinHandle<String>,
}

impl Connection {
    /// Starts a program on the board. The connection serves this program from now on.
    ///
    /// # Errors
    /// Fails if the board does not start the program.
    pub fn start(self, command: &str) -> Result<Remote, SshError> {
        let doing = format!("starting `{command}`");
        let failed = |e| self.failed(&doing, e);
        let mut channel = self.session.channel_session().map_err(failed)?;
        channel.exec(command).map_err(failed)?;
        let socket = || -> std::io::Result<(UnixStream, UnixStream)> {
            let (ours, theirs) = UnixStream::pair()?;
            theirs.set_nonblocking(true)?;
            Ok((ours, theirs))
        };
        let (stream, local) = socket().map_err(|e| self.broken(&doing, e))?;
        self.session.set_blocking(false);
        let pump = std::thread::spawn(move || {
            let mut pump = Pump {
                connection: self,
                channel,
                local,
                down: VecDeque::new(),
                up: VecDeque::new(),
                up_ended: false,
                eof_sent: false,
                stderr: StderrTail::default(),
            };
            let broken = pump.run().err();
            let last = pump.stderr.last_line();
            // The reader asks for the reason as soon as the socket ends, so the reason must be known before.
            let ended = match broken {
                Some(error) => format!("the link to {} broke: {error}", pump.connection.site),
                None => ended(&pump.channel),
            };
            let _ = pump.local.shutdown(Shutdown::Both);
            format!("{ended}{last}")
        });
        Ok(Remote { stream, pump })
    }
}

struct Pump {
    connection: Connection,
    channel: Channel,
    local: UnixStream,
    /// Bytes from the board that the socket has not taken yet.
    down: VecDeque<u8>,
    /// Bytes for the board that the channel has not taken yet.
    up: VecDeque<u8>,
    up_ended: bool,
    eof_sent: bool,
    /// The end of stderr.
    stderr: StderrTail,
}

impl Pump {
    /// Moves bytes until the program ends.
    fn run(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut moved = false;
            if self.down.is_empty() {
                let got = some(self.channel.read(&mut buffer))?;
                self.down.extend(&buffer[..got]);
                moved |= got > 0;
            }
            let got = some(self.channel.stderr().read(&mut buffer))?;
            self.stderr.push(&buffer[..got]);
            moved |= got > 0;
            moved |= pass(&mut self.down, &mut self.local)?;
            if self.up.is_empty() && !self.up_ended {
                match self.local.read(&mut buffer) {
                    Ok(0) => self.up_ended = true,
                    read => self.up.extend(&buffer[..some(read)?]),
                }
                moved |= !self.up.is_empty();
            }
            if self.up.is_empty() && self.up_ended && !self.eof_sent {
                self.eof_sent = self.channel.send_eof().is_ok();
                moved |= self.eof_sent;
            }
            moved |= pass(&mut self.up, &mut self.channel)?;
            if self.channel.eof() && self.down.is_empty() && !moved {
                return self.close();
            }
            if !moved {
                self.wait()?;
            }
        }
    }

    /// Waits until a byte can be moved, or until the link must be checked.
    fn wait(&self) -> std::io::Result<()> {
        let outbound =
            matches!(self.connection.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        let mut remote = PollFlags::IN;
        remote.set(PollFlags::OUT, outbound);
        let mut local = PollFlags::empty();
        local.set(PollFlags::IN, self.up.is_empty() && !self.up_ended);
        local.set(PollFlags::OUT, !self.down.is_empty());
        let mut fds = [PollFd::new(&self.connection.stream, remote), PollFd::new(&self.local, local)];
        let idle = Timespec { tv_sec: IDLE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut fds, Some(&idle)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The socket was shut down in both directions. Closing the link tells the program to end.
        if fds[1].revents().contains(PollFlags::HUP) {
            return Err(std::io::Error::other("it was given up"));
        }
        // This sends nothing before KEEP_ALIVE has passed. A dead link acknowledges no message, and the kernel then
        // closes it (TCP_USER_TIMEOUT).
        match self.connection.session.keepalive_send() {
            Err(error) if error.code() != ssh2::ErrorCode::Session(AGAIN) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Closes the channel, after which it is known how the program ended.
    fn close(&mut self) -> std::io::Result<()> {
        self.connection.session.set_timeout(KEEP_ALIVE.as_millis() as u32);
        self.connection.session.set_blocking(true);
        self.channel.close().and_then(|()| self.channel.wait_close()).map_err(Into::into)
    }
}

/// libssh2's LIBSSH2_ERROR_EAGAIN.
const AGAIN: i32 = -37;

/// Returns how a program ended, in the format of `std::process::ExitStatus`. For a program that was ended by a signal,
/// libssh2 reports the exit status 0, so the signal is checked first.
pub fn ended(channel: &Channel) -> String {
    match channel.exit_signal() {
        Ok(ssh2::ExitSignal { exit_signal: Some(signal), .. }) => format!("signal: SIG{}", printable(&signal)),
        _ => match channel.exit_status() {
            Ok(status) => format!("exit status: {status}"),
            Err(error) => error.message().to_string(),
        },
    }
}

/// Returns the number of bytes that were moved, or 0 if none can be moved now.
fn some(read: std::io::Result<usize>) -> std::io::Result<usize> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        read => read,
    }
}

/// Writes as many bytes as are taken now, and returns whether there were any.
fn pass(bytes: &mut VecDeque<u8>, to: &mut impl Write) -> std::io::Result<bool> {
    let mut any = false;
    while !bytes.is_empty() {
        let taken = some(to.write(bytes.as_slices().0))?;
        if taken == 0 {
            break;
        }
        bytes.drain(..taken);
        any = true;
    }
    Ok(any)
}
