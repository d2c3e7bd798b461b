//! A running probe, which answers requests line by line.
// Each test program uses a part of it.
#![allow(dead_code)]

use nas_probe::{Hello, Reply, Request, Sensors};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

const MINUTE: u64 = 60_000_000_000;

/// A running probe. It is killed when this is dropped.
pub struct Probe {
    pub child: Child,
    /// Setting this to `None` closes it.
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub hello: Hello,
}

impl Probe {
    pub fn start(models: &Path) -> Probe {
        Probe::spawn(Command::new(env!("CARGO_BIN_EXE_nas-probe")).arg("--models").arg(models))
    }

    pub fn spawn(command: &mut Command) -> Probe {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut probe = Probe { child, stdin, stdout, hello: Hello::default() };
        let Reply::Hello(hello) = probe.receive() else { panic!("the first line is not a hello") };
        probe.hello = hello;
        probe
    }

    pub fn send(&mut self, request: &Request) {
        let line = serde_json::to_string(request).unwrap() + "\n";
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    pub fn receive(&mut self) -> Reply {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    pub fn ask(&mut self, request: &Request) -> Reply {
        self.send(request);
        self.receive()
    }

    pub fn set_up(&mut self, sensors: Sensors, pin: &[usize], governor: Option<&str>) -> Reply {
        let governor = governor.map(str::to_owned);
        self.ask(&Request::Setup { id: 1, sensors, pin: pin.to_vec(), governor, timeout_ns: MINUTE, alone: false })
    }

    /// Sets the probe up with a limit for each part of a request.
    pub fn limit(&mut self, timeout: Duration, alone: bool) -> Reply {
        let timeout_ns = timeout.as_nanos() as u64;
        self.ask(&Request::Setup { id: 1, sensors: Sensors::default(), pin: vec![], governor: None, timeout_ns, alone })
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    pub fn ended(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the probe is still running");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream that has ended.
pub fn nothing() -> BufReader<ChildStdout> {
    let mut other = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let stdout = other.stdout.take().unwrap();
    other.wait().unwrap();
    BufReader::new(stdout)
}

pub fn error(reply: &Reply) -> &str {
    match reply {
        Reply::Failed { error, .. } => error,
        other => panic!("not a failure: {other:?}"),
    }
}
