//! Emulated boards (`scripts/board`) that live as long as the value. Each has its own folder and port, so that
//! tests run side by side; none outlives the test's process, however that ends.
#![allow(dead_code, clippy::unwrap_used)]

use edge_nas::device::Site;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/board");
/// What `scripts/board` exits with where the machine can't.
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
    /// AArch64, through qemu-user. `options` are those of `scripts/board up`, e.g. `["--disk", "4"]`.
    /// None, after a line on stderr, where this machine can't; in CI (`CI=true`) that is a panic.
    pub fn up(options: &[&str]) -> Option<Board> {
        let dir = tempfile::tempdir().unwrap();
        let options = options.iter().map(|option| option.to_string()).collect();
        let mut board = Board { dir, home: tempfile::tempdir().unwrap(), options, tie: None };
        if let Err(why) = board.start() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have the board: {why}");
            // Not eprintln!, which the test harness swallows.
            std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
            return None;
        }
        let ssh = board.home().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::copy(board.dir().join("known_hosts"), ssh.join("known_hosts")).unwrap();
        fs::copy(board.dir().join("id"), ssh.join("id_ed25519")).unwrap();
        Some(board)
    }

    /// This machine's own userland and CPU: as fast as they are.
    pub fn plain(options: &[&str]) -> Option<Board> {
        Board::up(&[&["--plain"], options].concat())
    }

    /// A whole virtual machine, whose clock counts instructions.
    pub fn vm(options: &[&str]) -> Option<Board> {
        Board::up(&[&["--vm"], options].concat())
    }

    /// `Err` is the line that says why the machine can't.
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
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(CANNOT) => Err(said),
            _ => panic!("scripts/board up failed: {said}"),
        }
    }

    pub fn port(&self) -> u16 {
        fs::read_to_string(self.dir().join("port")).unwrap().trim().parse().unwrap()
    }

    /// What `--ssh` takes.
    pub fn ssh_arg(&self) -> String {
        format!("pi@127.0.0.1:{}", self.port())
    }

    /// The board, or a bad link to it, as the library reaches it.
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

    /// What the script keeps of the board: `log`, `clock`, `sys/` (the board's /sys), `proc/`...
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A `HOME` whose `.ssh` knows the board (`known_hosts`) and is known to it (`id_ed25519`).
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below [`Board::dir`]; the board sees at once what is below `sys/`.
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

    /// What a shell command on the board prints, trimmed; panics where it fails.
    pub fn run(&self, command: &str) -> String {
        text(self.try_run(command), command)
    }

    /// A power cut: all processes and the disk are gone.
    pub fn crash(&self) {
        self.manage("crash");
    }

    /// Switches a crashed board on again, on the same port, with an empty disk.
    pub fn boot(&mut self) {
        self.start().unwrap();
    }

    /// Kills the server and its sessions; it starts again within a second. What sessions ran lives on.
    pub fn kill_sshd(&self) {
        self.manage("kill-sshd");
    }

    /// Stops every process on the board: what is connected hears nothing any more.
    pub fn freeze(&self) {
        self.manage("freeze");
    }

    pub fn thaw(&self) {
        self.manage("thaw");
    }

    /// A bad link to the board, known to [`Board::home`] too. `options` are those of `scripts/board proxy`.
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
        // Asked for, so that it is gone before its folder is; a failed test reports its own reason, not this.
        let _ = self.script("down").output();
    }
}

/// A link to a board that delays, stalls or resets.
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
