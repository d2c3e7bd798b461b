//! A board with the userland of this machine, and a folder in which commands measure a tiny space on it.
#![allow(dead_code, clippy::unwrap_used)]

use crate::board::Board;
use crate::common::{NAS, NAS_PROFILE, Workspace};
use crate::onnx;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const DEVICE: &str = r#"
description = "an sshd on this machine"
link = "ssh"
target = "x86_64-unknown-linux-gnu"
runtimes = ["tract"]
"#;
pub const TABLE: &str = "profiles/plain/tiny.3x8x8.tract.fp32.jsonl";
pub const SPACE: &str = r#"
name = "tiny"
candidates = ["conv_3x3", "sep_conv_3x3", "skip"]
layers = [{ ops = ["conv_3x3"], channels = 4 }, { channels = 4 }, { channels = 8, stride = 2 }, { channels = 8 }]
"#;
/// A bare call, stem, head, and three candidates in three layers, two of which are a skip that does nothing.
pub const MODELS: usize = 10;
/// The least number of rows that each model has.
pub const ROUNDS: usize = edge_nas::profile::PLAN.fewest;

/// A board, and a folder with its device file, in which commands run.
pub struct Rig {
    pub board: Board,
    pub ws: Workspace,
}

impl Rig {
    pub fn new(options: &[&str]) -> Option<Rig> {
        let ws = Workspace::new();
        ws.write("plain.toml", DEVICE);
        ws.write("tiny.toml", SPACE);
        Some(Rig { board: Board::plain(options)?, ws })
    }

    /// Returns a program with the environment of the board's owner.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.ws.dir()).env("HOME", self.board.home());
        command.env_remove("XDG_CONFIG_HOME").env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Returns `nas-profile` for the tiny space, on the board at `port`.
    pub fn profile(&self, port: u16) -> Command {
        let mut command = self.program(NAS_PROFILE);
        command
            .args("--device plain.toml --space tiny.toml --input 3x8x8 --classes 3 --isolated --ssh".split(' '))
            .arg(format!("pi@127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Returns the error line of a command that must fail.
    pub fn error(&self, command: &mut Command) -> String {
        error_of(command.output().unwrap())
    }

    /// Returns the complete rows of the table.
    pub fn rows(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.ws.path(TABLE)).unwrap_or_default();
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        complete.lines().skip(1).map(Into::into).collect()
    }

    /// Runs the command again. It must keep the rows `before` and complete the table.
    pub fn assert_completes(&self, before: &[String]) {
        let output = self.profile(self.board.port()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = self.rows();
        assert_complete(&rows);
        assert_eq!(rows[..before.len()], *before, "earlier rows were lost");
    }

    /// Starts a profile, and waits until it has measured some rows.
    pub fn measuring(&self, port: u16) -> Child {
        let mut child = self.profile(port).spawn().unwrap();
        wait_for(|| self.rows().len() >= 3, || assert_eq!(child.try_wait().unwrap(), None, "it ended early"));
        child
    }

    /// Writes an entry for the board to `sites.toml`.
    pub fn site(&self, toml: &str) {
        let folder = self.board.home().join(".config/edge-nas");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("sites.toml"), format!("[plain]\n{toml}\n")).unwrap();
    }

    /// Returns `nas bench` on the board, for a model whose first inference never ends.
    pub fn bench_endless(&self, args: &str) -> Command {
        std::fs::write(self.ws.path("endless.onnx"), onnx::endless()).unwrap();
        let mut command = self.program(NAS);
        command.args("bench endless.onnx --device plain.toml --runtime ort --run none --ssh".split(' '));
        command.arg(self.board.ssh_arg()).args(args.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns the process ids of the probe and its children on the board.
    pub fn probes(&self) -> String {
        self.board
            .run("for p in /proc/[0-9]*; do case $(readlink $p/exe) in *nas-probe*) echo ${p#/proc/};; esac; done")
    }

    /// Writes a script that can be uploaded in place of the probe.
    pub fn fake_probe(&self, script: &str) -> PathBuf {
        self.ws.write("fake", &format!("#!/bin/sh\n{script}\n"));
        let path = self.ws.path("fake");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub fn assert_complete(rows: &[String]) {
    let mut by_model = std::collections::BTreeMap::<String, usize>::new();
    for row in rows {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        *by_model.entry(row["key"].to_string()).or_default() += 1;
    }
    assert_eq!(by_model.len(), MODELS, "{by_model:?}");
    assert!(by_model.values().all(|rows| *rows >= ROUNDS), "{by_model:?}");
}

/// Makes a key pair that the board does not know.
pub fn make_key(file: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
    assert!(made.unwrap().success());
}

pub fn wait_for(done: impl Fn() -> bool, mut check: impl FnMut()) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "timed out");
        check();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the error line of a command that must fail with exit code 1 and with nothing on stdout.
pub fn error_of(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: "), "{stderr}");
    errors[0].to_string()
}
