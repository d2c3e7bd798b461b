//! Emulated boards (`scripts/board`), which run until their value is dropped. Each has its own folder and port, so that
//! tests can run in parallel. No board outlives the process of the test, however that process ends.
#![allow(dead_code, clippy::unwrap_used)]

use edge_nas::device::Site;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/board");
/// Exit status of `scripts/board` if this machine cannot run the board.
const CANNOT: i32 = 3;

/// A board that answers on 127.0.0.1.
pub struct Board {
    dir: TempDir,
    home: TempDir,
    options: Vec<String>,
    /// The board goes down when this end of its standard input closes.
    tie: Option<ChildStdin>,
}

impl Board {
    /// Starts a board with an AArch64 userland (qemu-user). `options` are those of `scripts/board up`, e.g.
    /// `["--disk", "4"]`. If this machine cannot run it, prints the reason on stderr and returns `None`; in
    /// CI (`CI=true`), panics instead.
    pub fn up(options: &[&str]) -> Option<Board> {
        let dir = tempfile::tempdir().unwrap();
        let options = options.iter().map(|option| option.to_string()).collect();
        let mut board = Board { dir, home: tempfile::tempdir().unwrap(), options, tie: None };
        if let Err(why) = board.start() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be able to run the board: {why}");
            // Not eprintln!, which the test harness captures.
            std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
            return None;
        }
        let ssh = board.home().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::copy(board.dir().join("known_hosts"), ssh.join("known_hosts")).unwrap();
        fs::copy(board.dir().join("id"), ssh.join("id_ed25519")).unwrap();
        Some(board)
    }

    /// Starts a board with the userland and the CPU of this machine, and thus with its speed.
    pub fn plain(options: &[&str]) -> Option<Board> {
        Board::up(&[&["--plain"], options].concat())
    }

    /// Starts a whole virtual machine, whose clock counts instructions.
    pub fn vm(options: &[&str]) -> Option<Board> {
        Board::up(&[&["--vm"], options].concat())
    }

    /// `Err` is the reason why this machine cannot run the board, as one line.
    fn start(&mut self) -> Result<(), String> {
        let mut up = Command::new(SCRIPT)
            .arg("up")
            .arg(self.dir())
            .arg("--tied")
            .args(&self.options)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.tie = up.stdin.take();
        let output = up.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(CANNOT) => Err(message),
            _ => panic!("scripts/board up failed: {message}"),
        }
    }

    pub fn port(&self) -> u16 {
        fs::read_to_string(self.dir().join("port")).unwrap().trim().parse().unwrap()
    }

    /// Returns the argument for `--ssh`.
    pub fn ssh_arg(&self) -> String {
        format!("pi@127.0.0.1:{}", self.port())
    }

    /// Returns how the library reaches the board at `port`, which is that of the board or of a proxy.
    pub fn site(&self, port: u16) -> Site {
        Site {
            host: "127.0.0.1".into(),
            port,
            user: "pi".into(),
            keys: vec![],
            folder: ".cache/edge-nas".into(),
            timeout: Duration::from_secs(120),
            accept_new_host_key: false,
            home: self.home().into(),
        }
    }

    /// Returns the script's folder for the board: `log`, `clock`, `sys/` (the board's /sys), `proc/`...
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a folder for `HOME`, whose `.ssh` has the board's host key (`known_hosts`) and a key that the board
    /// accepts (`id_ed25519`).
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below [`Board::dir`]. Changes below `sys/` are visible on the board at once.
    pub fn write(&self, file: &str, text: &str) {
        let path: PathBuf = self.dir().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir().join(file)).unwrap()
    }

    /// Runs a shell command on the board.
    pub fn try_run(&self, command: &str) -> Output {
        self.script("ssh").arg(command).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a shell command on the board and returns its trimmed output. Panics if it fails.
    pub fn run(&self, command: &str) -> String {
        text(self.try_run(command), command)
    }

    /// Simulates a power failure: all processes and the content of the disk are lost.
    pub fn crash(&self) {
        self.manage("crash");
    }

    /// Starts a crashed board again, on the same port, with an empty disk.
    pub fn boot(&mut self) {
        self.start().unwrap();
    }

    /// Kills the SSH server, which restarts within a second, and its sessions. Processes that the sessions
    /// started continue.
    pub fn kill_sshd(&self) {
        self.manage("kill-sshd");
    }

    /// Stops every process on the board, so that connections stall.
    pub fn freeze(&self) {
        self.manage("freeze");
    }

    pub fn thaw(&self) {
        self.manage("thaw");
    }

    /// Starts a faulty link to the board, whose host key [`Board::home`] knows too. `options` are those of
    /// `scripts/board proxy`.
    pub fn proxy(&self, options: &[&str]) -> Proxy {
        let mut child = self
            .script("proxy")
            .arg("--tied")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let proxy = Proxy { port: line.trim().parse().unwrap(), child };
        let key = fs::read_to_string(self.dir().join("host_key.pub")).unwrap();
        let known_hosts = self.home().join(".ssh/known_hosts");
        let mut known_hosts = OpenOptions::new().append(true).create(true).open(known_hosts).unwrap();
        writeln!(known_hosts, "[127.0.0.1]:{} {}", proxy.port, key.trim()).unwrap();
        proxy
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg(verb).arg(self.dir());
        command
    }

    fn manage(&self, verb: &str) {
        text(self.script(verb).output().unwrap(), verb);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // The board must be down before its folder is removed. The result is ignored, so that a failed test
        // reports its own error.
        let _ = self.script("down").output();
    }
}

/// A link to a board that delays data, stalls, or resets connections.
pub struct Proxy {
    port: u16,
    child: Child,
}

impl Proxy {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ssh_arg(&self) -> String {
        format!("pi@127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(output: Output, what: &str) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
