//! Programs that the probe starts. Each runs in its own process group, which never outlives the probe, and with limits
//! on its time and output.

use std::{
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Only this many bytes at the end of a child's stdout and stderr are kept.
const KEPT: usize = 64 << 10;
/// How often to check whether a child that has closed its output has ended.
const ENDING: Duration = Duration::from_millis(5);

/// Process groups of the children that run now.
static RUNNING: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// How a child ended, and the end of what it wrote.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Errors
/// Fails if it cannot be started; [`io::ErrorKind::TimedOut`] if it takes longer than `limit`, after it was killed.
pub fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    end_with_this(command);
    let mut child = Running::start(command)?;
    let until = Instant::now().checked_add(limit);
    let mut out = Tail::of(child.0.stdout.take())?;
    let mut err = Tail::of(child.0.stderr.take())?;
    while out.is_open() || err.is_open() {
        wait(&[out.fd(), err.fd()], left(until)?)?;
        out.read();
        err.read();
    }
    let status = loop {
        match child.0.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(ENDING.min(left(until)?)),
        }
    };
    Ok(Output { status, stdout: out.text(), stderr: err.text() })
}

/// Kills all children with everything that they have started. No child is started while the guard is alive.
pub fn kill_all() -> impl Drop {
    let running = running();
    running.iter().for_each(|group| kill(*group));
    running
}

fn running() -> MutexGuard<'static, Vec<libc::pid_t>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: libc::pid_t) {
    // SAFETY: the call takes plain numbers. The group exists at least until its leader, our child, is waited for.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

/// A child, which is killed with its group and waited for when this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> io::Result<Running> {
        // Under the lock, so that no child can be missed by `kill_all`.
        let mut running = running();
        let child = command.spawn()?;
        running.push(child.id() as libc::pid_t);
        Ok(Running(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.0.id() as libc::pid_t;
        let mut running = running();
        // Programs that the child started may still be in its group.
        kill(group);
        let _ = self.0.wait();
        running.retain(|other| *other != group);
    }
}

/// Returns the time that is left.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] if there is none.
fn left(until: Option<Instant>) -> io::Result<Duration> {
    let Some(until) = until else { return Ok(Duration::MAX) };
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// The end of a stream.
struct Tail<R> {
    from: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsRawFd> Tail<R> {
    fn of(from: Option<R>) -> io::Result<Tail<R>> {
        if let Some(from) = &from {
            // SAFETY: the call takes plain numbers; the descriptor is open.
            if unsafe { libc::fcntl(from.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Tail { from, bytes: vec![] })
    }

    fn is_open(&self) -> bool {
        self.from.is_some()
    }

    /// poll(2) ignores the -1 of a stream that has ended.
    fn fd(&self) -> RawFd {
        self.from.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Reads what is there, without waiting.
    fn read(&mut self) {
        let mut chunk = [0; 4096];
        while let Some(from) = &mut self.from {
            match from.read(&mut chunk) {
                Ok(0) => self.from = None,
                Ok(got) => {
                    self.bytes.extend_from_slice(&chunk[..got]);
                    self.bytes.drain(..self.bytes.len().saturating_sub(KEPT));
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.from = None,
            }
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Waits until one of the descriptors can be read, or has ended.
fn wait(fds: &[RawFd], limit: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let millis = i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the number are those of a vector.
    match unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) } {
        -1 if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes the kernel kill the child when this process ends, even if nothing in it can kill the group any more.
#[cfg(target_os = "linux")]
fn end_with_this(child: &mut Command) {
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: both calls take plain numbers and are safe between fork and exec.
        let (asked, has) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong), libc::getppid()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the call.
        if has as u32 == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { child.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_this(_: &mut Command) {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> io::Result<Output> {
        output(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn output_and_status_of_a_child_are_those_it_ends_with() {
        let done = sh("echo out; echo err >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((done.status.code(), &*done.stdout, &*done.stderr), (Some(3), "out\n", "err\n"));
        let much = sh("yes | head -c 1000000; echo end", Duration::from_secs(10)).unwrap();
        assert!(much.stdout.len() <= KEPT && much.stdout.ends_with("\nend\n"));
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed_with_what_it_started() {
        let start = Instant::now();
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("sleep 100 & echo $! >{}; wait", file.path().display());
        let late = sh(&script, Duration::from_millis(500)).err().unwrap();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let grandchild = std::fs::read_to_string(file.path()).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim()));
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(start.elapsed() < Duration::from_secs(10), "{grandchild} is left");
            std::thread::sleep(ENDING);
        }
    }
}
