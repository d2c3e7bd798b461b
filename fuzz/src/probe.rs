use super::Folder;
use nas_probe::{Reply, Request, Runtime, Sensors};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The memory that the probe, and the process in which it first loads a model, may each take.
const MOST_BYTES: u64 = 1 << 30;
/// The limit that the probe is given for each part of a request.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The time within which the probe must answer: a request has three parts, and opening a runtime may take ten seconds.
const DEADLINE: Duration = Duration::from_secs(13);

/// The number of requests after which another probe is started.
const MOST_REQUESTS: usize = 1000;

/// A real probe, `NAS_PROBE` or `target/release/nas-probe`, which is killed when this process ends.
pub struct Probe {
    child: Child,
    replies: Receiver<String>,
    runtimes: Vec<Runtime>,
    asked: usize,
    failed_to_measure: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.processes().iter().for_each(|process| drop(kill(*process)));
        let _ = self.child.wait();
    }
}

impl Probe {
    /// Starts a probe.
    ///
    /// # Panics
    /// Panics if the probe does not start.
    pub fn start(folder: &Folder) -> Probe {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let named = |variable: &str, usual: &str| std::env::var_os(variable).map_or(root.join(usual), PathBuf::from);
        // This resembles a board with little memory. Allocations of a model fail there, and must not end the probe.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d 1048576; exec \"$@\"", "sh"]);
        command.arg(named("NAS_PROBE", "target/release/nas-probe"));
        command.arg("--models").arg(folder.path("models"));
        command.arg("--ort").arg(named("ORT_DYLIB_PATH", ".deps/onnxruntime/libonnxruntime.so"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{e}: build the probe with `cargo build --release`"));
        let Some(stdout) = child.stdout.take() else { panic!("the probe has no stdout") };
        let (send, replies) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        let mut probe = Probe { child, replies, runtimes: vec![], asked: 0, failed_to_measure: false };
        match probe.answer("starting") {
            Reply::Hello(hello) => probe.runtimes = hello.runtimes.iter().map(|info| info.runtime).collect(),
            other => panic!("{other:?}"),
        }
        let timeout_ns = TIMEOUT.as_nanos() as u64;
        let (sensors, pin, governor) = (Sensors::default(), vec![], None);
        assert!(probe.ask(&Request::Setup { id: 1, sensors, pin, governor, timeout_ns, alone: false }));
        probe
    }

    /// Returns the runtimes that the probe has found.
    pub fn runtimes(&self) -> Vec<Runtime> {
        self.runtimes.clone()
    }

    /// Sends a request, and returns whether the probe served it.
    ///
    /// # Panics
    /// Panics if the probe ends, does not answer in time, or takes too much memory.
    pub fn ask(&mut self, request: &Request) -> bool {
        let line = serde_json::to_string(request).unwrap_or_default() + "\n";
        let doing = match request {
            Request::Put { .. } => "storing a model".into(),
            Request::Memory { model, .. } => format!("loading it with {} in a new process", model.runtime),
            Request::Measure { model, .. } => format!("measuring with {}", model.runtime),
            other => format!("{other:?}"),
        };
        let sent = self.child.stdin.as_mut().map(|stdin| stdin.write_all(line.as_bytes()));
        assert!(matches!(sent, Some(Ok(()))), "{doing}: the probe has ended: {:?}", self.child.try_wait());
        let reply = self.answer(&doing);
        assert_eq!(reply.id(), Some(request.id()), "{doing}");
        let served = !matches!(reply, Reply::Failed { .. });
        self.asked += 1;
        self.failed_to_measure |= !served && matches!(request, Request::Measure { .. });
        served
    }

    fn answer(&mut self, doing: &str) -> Reply {
        let start = Instant::now();
        loop {
            match self.replies.recv_timeout(Duration::from_millis(5)) {
                Ok(line) => return serde_json::from_str(&line).unwrap_or_else(|e| panic!("{doing}: {e}: {line}")),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("{doing}: the probe ended: {:?}", self.child.wait())
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
            for process in self.processes() {
                let bytes = peak_bytes(process);
                self.check(bytes < MOST_BYTES, || format!("{doing}: process {process} took {bytes} bytes"));
            }
            self.check(start.elapsed() < DEADLINE, || format!("{doing}: no answer within {DEADLINE:?}"));
        }
    }

    /// Returns whether the probe may be asked again. A probe that is late says so and ends, and one that has many
    /// models loaded takes memory for them.
    pub fn goes_on(&self) -> bool {
        self.asked < MOST_REQUESTS && !self.failed_to_measure
    }

    /// Panics if `holds` is false, after killing the probe and its children.
    fn check(&mut self, holds: bool, message: impl Fn() -> String) {
        if !holds {
            // The panic ends this process without dropping anything.
            self.processes().iter().for_each(|process| drop(kill(*process)));
            panic!("{}", message());
        }
    }

    /// Returns the probe and its children, children first.
    fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let children: String = children.collect();
        children.split_whitespace().filter_map(|id| id.parse().ok()).chain([id]).collect()
    }
}

fn kill(process: u32) -> std::io::Result<std::process::ExitStatus> {
    Command::new("kill").args(["-KILL", &process.to_string()]).status()
}

/// Returns the peak memory of a process, or 0 if it has ended.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kb.unwrap_or(0) * 1024
}
