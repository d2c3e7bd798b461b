//! Ends the probe, with everything that it has started, once nobody waits for it or a request takes too long, whatever
//! it is doing at that moment.

use crate::{
    children,
    deadline::{Deadline, Late},
    governor::Governor,
    temporary,
};
use nas_probe::Reply;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    io::{self, Write},
    mem::ManuallyDrop,
    os::fd::{FromRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a part of a request may take, unless a setup says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often the parent and the deadline are checked. A closed stdout is noticed at once.
const PERIOD: Duration = Duration::from_secs(1);
/// A model that returns within this time after its deadline fails only its request.
const GRACE: Duration = Duration::from_secs(1);
const STDOUT: RawFd = 1;

/// Watches the request that is being served, and its deadline.
pub struct Watchdog(Mutex<State>);

struct State {
    timeout: Duration,
    request: Option<(u64, Deadline)>,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog(Mutex::new(State { timeout: TIMEOUT, request: None }))
    }
}

impl Watchdog {
    /// Starts the threads that end the process: on SIGTERM, SIGHUP or SIGINT; when the reader of stdout is gone, or the
    /// parent; and when a request is late, with a reply that says so if `replies`. Whatever the reason, the governor is
    /// restored, the children are killed, and temporary files are removed. SIGPIPE needs no handler: Rust ignores it.
    ///
    /// # Errors
    /// Fails if the signal handlers cannot be installed.
    pub fn start(governor: &Arc<Governor>, replies: bool) -> io::Result<Arc<Watchdog>> {
        let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
        let ends = Arc::clone(governor);
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                undo(&ends, || drop(emulate_default_handler(signal)));
            }
        });
        let watchdog = Arc::new(Watchdog::default());
        let (watched, ends) = (Arc::clone(&watchdog), Arc::clone(governor));
        let parent = parent();
        std::thread::spawn(move || {
            loop {
                watched.end_if_late(&ends, replies);
                if is_closed(STDOUT, watched.pause()) || self::parent() != parent {
                    undo(&ends, || exit("the host is gone"));
                }
            }
        });
        Ok(watchdog)
    }

    /// Sets how long a part of a request may take, beyond the time that was planned for it.
    pub fn set_timeout(&self, timeout: Duration) {
        self.state().timeout = timeout;
    }

    pub fn timeout(&self) -> Duration {
        self.state().timeout
    }

    /// Begins a request.
    pub fn begin(&self, id: u64) {
        let mut state = self.state();
        state.request = Some((id, Deadline::new("the request", state.timeout)));
    }

    /// Begins the next part of the request, which is planned to take `planned`.
    pub fn part(&self, doing: &'static str, planned: Duration) -> Deadline {
        let mut state = self.state();
        let deadline = Deadline::new(doing, planned.saturating_add(state.timeout));
        if let Some((_, until)) = &mut state.request {
            *until = deadline;
        }
        deadline
    }

    /// Ends the request, whose reply is about to be sent.
    pub fn done(&self) {
        self.state().request = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> Duration {
        let left = |(_, deadline): &(u64, Deadline)| (deadline.until + GRACE).saturating_duration_since(Instant::now());
        self.state().request.as_ref().map_or(PERIOD, left).min(PERIOD)
    }

    fn end_if_late(&self, governor: &Governor, replies: bool) {
        // While this is locked, the request cannot be answered in another way.
        let state = self.state();
        let Some((id, deadline)) = state.request else { return };
        if Instant::now() > deadline.until + GRACE {
            undo(governor, || {
                if replies {
                    reply_late(id, deadline.late());
                }
                exit(&deadline.late().to_string());
            });
        }
    }
}

/// Undoes everything that must not outlive the process, and then ends it.
fn undo(governor: &Governor, end: impl FnOnce()) -> ! {
    // The locks are held until the process ends, so that nothing is started or set in the meantime.
    let _children = children::kill_all();
    let _files = temporary::remove_all();
    let _governor = governor.end();
    end();
    exit("")
}

/// Ends the process even if another thread runs a model. Exit handlers of the runtimes would wait for that thread.
fn exit(why: &str) -> ! {
    if !why.is_empty() {
        // It is possible that nobody reads stderr any more.
        let _ = writeln!(io::stderr(), "nas-probe: {why}");
    }
    // SAFETY: the call takes a plain number and does not return.
    unsafe { libc::_exit(1) }
}

/// Answers a request for the thread that is still busy with it, if the reader takes the line at once.
fn reply_late(id: u64, late: Late) {
    let error = format!("{late}; the probe had to end");
    let Ok(mut line) = serde_json::to_vec(&Reply::Failed { id, error }) else { return };
    line.push(b'\n');
    if poll(STDOUT, libc::POLLOUT, PERIOD) & libc::POLLOUT != 0 {
        // SAFETY: the descriptor is open for as long as the process runs, and is not closed here. Rust's own handle is
        // not used: its lock may be held.
        let mut stdout = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(STDOUT) });
        let _ = stdout.write_all(&line);
    }
}

/// Waits for a time. Returns true, at once, if nobody can read any more what is written to this descriptor.
fn is_closed(fd: RawFd, wait: Duration) -> bool {
    poll(fd, 0, wait) & (libc::POLLHUP | libc::POLLERR) != 0
}

/// Returns the events of a descriptor, or 0 if there are none in the given time.
fn poll(fd: RawFd, events: libc::c_short, wait: Duration) -> libc::c_short {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    let millis = i32::try_from(wait.as_millis() + 1).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to one pollfd.
    match unsafe { libc::poll(&mut polled, 1, millis) } {
        1 => polled.revents,
        _ => 0,
    }
}

fn parent() -> libc::pid_t {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::getppid() }
}
