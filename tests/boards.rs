//! Boards over SSH: a fault is reported in one line, no row is lost, and the same command then completes the table. The
//! board is this machine's own userland behind a real sshd; `board_end_to_end` has an AArch64 board.
#![allow(clippy::unwrap_used)]

mod board;
mod common;
#[path = "../devices/probe/tests/onnx/mod.rs"]
mod onnx;

use board::Board;
use common::{NAS, NAS_PROFILE, Workspace};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEVICE: &str = r#"
description = "an sshd on this machine"
link = "ssh"
target = "x86_64-unknown-linux-gnu"
runtimes = ["tract"]
"#;
const TABLE: &str = "profiles/plain/tiny.3x8x8.tract.fp32.jsonl";
const SPACE: &str = r#"
name = "tiny"
candidates = ["conv_3x3", "sep_conv_3x3", "skip"]
layers = [{ ops = ["conv_3x3"], channels = 4 }, { channels = 4 }, { channels = 8, stride = 2 }, { channels = 8 }]
"#;
/// A bare call, stem, head, and three candidates in three layers, two of which are a skip that does nothing.
const MODELS: usize = 10;
/// The least number of rows that each model has.
const ROUNDS: usize = 6;

/// A board, and a folder with its device file, in which commands run.
struct Rig {
    board: Board,
    ws: Workspace,
}

impl Rig {
    fn new(options: &[&str]) -> Option<Rig> {
        let ws = Workspace::new();
        ws.write("plain.toml", DEVICE);
        ws.write("tiny.toml", SPACE);
        Some(Rig { board: Board::plain(options)?, ws })
    }

    /// Returns a program with the environment of the board's owner.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.ws.dir()).env("HOME", self.board.home());
        command.env_remove("XDG_CONFIG_HOME").env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Returns `nas-profile` for the tiny space, on the board at `port`.
    fn profile(&self, port: u16) -> Command {
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
    fn error(&self, command: &mut Command) -> String {
        error_of(command.output().unwrap())
    }

    /// Returns the complete rows of the table.
    fn rows(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.ws.path(TABLE)).unwrap_or_default();
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        complete.lines().skip(1).map(Into::into).collect()
    }

    /// Runs the command again. It must keep the rows `before` and complete the table.
    fn assert_completes(&self, before: &[String]) {
        let output = self.profile(self.board.port()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = self.rows();
        assert_complete(&rows);
        assert_eq!(rows[..before.len()], *before, "earlier rows were lost");
    }

    /// Starts a profile, and waits until it has measured some rows.
    fn measuring(&self, port: u16) -> Child {
        let mut child = self.profile(port).spawn().unwrap();
        wait_for(|| self.rows().len() >= 3, || assert_eq!(child.try_wait().unwrap(), None, "it ended early"));
        child
    }

    /// Writes an entry for the board to `sites.toml`.
    fn site(&self, toml: &str) {
        let folder = self.board.home().join(".config/edge-nas");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("sites.toml"), format!("[plain]\n{toml}\n")).unwrap();
    }

    /// Returns `nas bench` on the board, for a model whose first inference never ends.
    fn bench_endless(&self, args: &str) -> Command {
        std::fs::write(self.ws.path("endless.onnx"), onnx::endless()).unwrap();
        let mut command = self.program(NAS);
        command.args("bench endless.onnx --device plain.toml --runtime ort --run none --ssh".split(' '));
        command.arg(self.board.ssh_arg()).args(args.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns the process ids of the probe and its children on the board.
    fn probes(&self) -> String {
        self.board
            .run("for p in /proc/[0-9]*; do case $(readlink $p/exe) in *nas-probe*) echo ${p#/proc/};; esac; done")
    }

    /// Writes a script that can be uploaded in place of the probe.
    fn fake_probe(&self, script: &str) -> PathBuf {
        self.ws.write("fake", &format!("#!/bin/sh\n{script}\n"));
        let path = self.ws.path("fake");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn assert_complete(rows: &[String]) {
    let mut by_model = std::collections::BTreeMap::<String, usize>::new();
    for row in rows {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        *by_model.entry(row["key"].to_string()).or_default() += 1;
    }
    assert_eq!(by_model.len(), MODELS, "{by_model:?}");
    assert!(by_model.values().all(|rows| *rows >= ROUNDS), "{by_model:?}");
}

/// Makes a key pair that the board does not know.
fn make_key(file: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
    assert!(made.unwrap().success());
}

fn wait_for(done: impl Fn() -> bool, mut check: impl FnMut()) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "timed out");
        check();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the error line of a command that must fail with exit code 1 and with nothing on stdout.
fn error_of(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: "), "{stderr}");
    errors[0].to_string()
}

macro_rules! rig {
    ($options:expr) => {
        match Rig::new($options) {
            Some(rig) => rig,
            None => return,
        }
    };
    () => {
        rig!(&[])
    };
}

#[test]
fn a_table_is_measured_over_ssh_and_the_same_command_then_adds_nothing() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let before = rig.rows();
    rig.assert_completes(&before);
    assert_eq!(rig.rows(), before);
}

#[test]
fn a_refused_connection_is_reported() {
    let rig = rig!();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = rig.error(&mut rig.profile(free));
    assert!(error.contains("cannot reach") && error.contains("refused"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn a_failed_login_names_the_keys_that_were_tried() {
    let rig = rig!();
    let other = rig.board.home().join(".ssh/other");
    make_key(&other);
    rig.site("key = \"~/.ssh/other\"");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains(".ssh/other") && error.contains("ssh-copy-id"), "{error}");
    rig.site("");
    rig.assert_completes(&[]);
}

#[test]
fn a_changed_host_key_is_refused_and_a_new_one_must_be_accepted() {
    let rig = rig!();
    let known_hosts = rig.board.home().join(".ssh/known_hosts");
    let right = std::fs::read_to_string(&known_hosts).unwrap();
    let other = rig.ws.path("other");
    make_key(&other);
    let key = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let key: Vec<&str> = key.split(' ').collect();
    let port = rig.board.port();
    std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {} {}\n", key[0], key[1])).unwrap();
    let error = rig.error(&mut rig.profile(port));
    assert!(error.contains("another machine") && error.matches("SHA256:").count() == 2, "{error}");
    let error = rig.error(rig.profile(port).arg("--accept-new-host-key"));
    assert!(error.contains("another machine"), "{error}");

    std::fs::write(&known_hosts, "# mine\n").unwrap();
    let error = rig.error(&mut rig.profile(port));
    assert!(error.contains("--accept-new-host-key") && error.contains("SHA256:"), "{error}");
    let output = rig.profile(port).arg("--accept-new-host-key").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let remembered = std::fs::read_to_string(&known_hosts).unwrap();
    assert!(remembered.starts_with("# mine\n") && remembered.contains(right.split(' ').nth(2).unwrap().trim()));
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_known_host_is_found_in_hashed_entries_and_among_keys_of_other_types() {
    let rig = rig!();
    let known_hosts = rig.board.home().join(".ssh/known_hosts");
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known_hosts).output().unwrap();
    assert!(hashed.status.success());
    assert!(std::fs::read_to_string(&known_hosts).unwrap().starts_with("|1|"));
    rig.assert_completes(&[]);
}

#[test]
fn an_interrupted_upload_is_repeated() {
    let rig = rig!();
    let proxy = rig.board.proxy(&["--reset-after", "3000000"]);
    let error = rig.error(&mut rig.profile(proxy.port()));
    assert!(error.contains("uploading nas-probe"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn no_row_is_lost_if_the_ssh_server_dies() {
    let rig = rig!();
    let child = rig.measuring(rig.board.port());
    rig.board.kill_sshd();
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("the probe ended"), "{error}");
    let before = rig.rows();
    assert!(before.len() < ROUNDS * MODELS);
    wait_for(|| std::net::TcpStream::connect(("127.0.0.1", rig.board.port())).is_ok(), || ());
    rig.assert_completes(&before);
}

#[test]
fn a_silent_board_is_given_up_after_the_timeout() {
    let rig = rig!();
    rig.site("timeout = 2");
    let child = rig.measuring(rig.board.port());
    rig.board.freeze();
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("did not answer within") || error.contains("silent"), "{error}");
    rig.board.thaw();
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_full_disk_is_reported_with_its_free_bytes() {
    let rig = rig!(&["--disk", "4"]);
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("bytes free") && error.contains("nas-probe"), "{error}");
    assert_eq!(rig.board.run("ls .cache/edge-nas"), "", "a partial file was left there");
}

#[test]
fn a_probe_that_is_killed_by_a_signal_is_an_error() {
    let rig = rig!();
    let child = rig.measuring(rig.board.port());
    rig.board
        .run("for p in /proc/[0-9]*; do case $(readlink $p/exe) in *nas-probe*) kill -KILL ${p#/proc/};; esac; done");
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("SIGKILL"), "{error}");
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_missing_incompatible_or_wrong_probe_is_reported() {
    let rig = rig!();
    let profile = |probe: &Path| rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", probe));
    let error = profile(&rig.ws.path("nowhere"));
    assert!(error.contains("there is no probe at") && error.contains("nowhere"), "{error}");
    let hello = r#"echo '{"type":"hello","protocol":99,"probe":"9","runtimes":[],"unavailable":[],"arch":"x86_64","os":"linux","libc":"","cpu":"","cores":1,"conditions":{"governor":null,"khz":null,"millicelsius":null,"load1":null,"free_bytes":null,"throttled":null,"power_mw":null}}'; cat"#;
    let error = profile(&rig.fake_probe(hello));
    assert!(error.contains("protocol 99"), "{error}");
    let error = profile(&rig.fake_probe("echo Welcome to this board; cat"));
    assert!(error.contains("Welcome to this board"), "{error}");
    let error = profile(&rig.fake_probe("echo /lib/libc.so.6: version GLIBC_2.99 not found >&2; exit 1"));
    assert!(error.contains("exit status: 1") && error.contains("GLIBC_2.99"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn a_model_that_a_runtime_rejects_does_not_prevent_other_rows() {
    let rig = rig!();
    // tract supports only one thread.
    let error = rig.error(rig.profile(rig.board.port()).args("--runtime ort --runtime tract --threads 2".split(' ')));
    assert!(error.contains(&format!("{MODELS} of {MODELS} models")) && error.contains("1 thread"), "{error}");
    let measured = rig.ws.read("profiles/plain/tiny.3x8x8.ort.fp32.2threads.jsonl");
    assert_complete(&measured.lines().skip(1).map(String::from).collect::<Vec<_>>());
    rig.assert_completes(&[]);
}

#[test]
fn killing_the_host_keeps_rows_and_restores_the_governor() {
    let rig = rig!();
    let governor = "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    let was = rig.board.run(governor);
    let mut command = rig.profile(rig.board.port());
    let mut child = command.args(["--governor", "performance"]).spawn().unwrap();
    wait_for(|| rig.rows().len() >= 3, || assert_eq!(child.try_wait().unwrap(), None));
    assert_eq!(rig.board.run(governor), "performance");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = rig.rows();
    wait_for(|| rig.board.run(governor) == was, || ());
    rig.assert_completes(&before);
}

#[test]
fn a_host_that_is_killed_leaves_no_probe_and_no_child() {
    let rig = rig!();
    for signal in ["KILL", "TERM", "HUP", "INT"] {
        let mut child = rig.bench_endless("--timeout 1h").spawn().unwrap();
        // The probe, and the process that measures the memory of the model.
        wait_for(|| rig.probes().lines().count() == 2, || assert_eq!(child.try_wait().unwrap(), None));
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        child.wait().unwrap();
        let start = Instant::now();
        while !rig.probes().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(5), "after SIG{signal}: {}", rig.probes());
        }
    }
}

#[test]
fn a_model_that_never_ends_fails_with_its_deadline() {
    let rig = rig!();
    let error = rig.error(&mut rig.bench_endless("--timeout 2s"));
    assert!(error.contains("the first inference took longer than 2 s") && error.contains("--timeout"), "{error}");
    assert_eq!(rig.probes(), "");
}

#[test]
fn one_measurement_runs_on_a_board_at_a_time() {
    let rig = rig!();
    let mut first = rig.measuring(rig.board.port());
    let error = rig.error(rig.profile(rig.board.port()).args(["--profiles", "other"]));
    let running = first.try_wait().unwrap().is_none();
    let process = error.split("process ").nth(1).and_then(|rest| rest.split([' ', ',', ';']).next());
    assert!(
        error.contains("another measurement runs") && (rig.probes().contains(process.unwrap()) || !running),
        "{error}"
    );
    let check = rig.program(NAS).args(["devices", "check", "plain.toml", "--ssh", &rig.board.ssh_arg()]).output();
    assert!(check.unwrap().status.success(), "a check times nothing");
    first.wait().unwrap();
    rig.assert_completes(&rig.rows());
}

#[test]
fn an_evaluation_is_as_on_this_machine_and_does_not_wait_for_the_link() {
    let rig = rig!();
    let train = "train --run r --data folder:images --space tiny.toml --genotype conv_3x3,skip,skip --arithmetic fp32";
    rig.ws.nas(&format!("{train} --epochs 2 --batch-size 16")).assert().success();
    rig.ws.nas("export --run r --data folder:images --images 1 --runtime tract").assert().success();
    let here = rig.ws.json("eval --run r --data folder:images --runtime tract");
    let eval = |port: u16, images: usize| -> (serde_json::Value, Duration) {
        let mut command = rig.program(NAS);
        command.args("eval --run r --data folder:images --device plain.toml --json".split(' '));
        command.args(["--ssh", &format!("pi@127.0.0.1:{port}"), "--images", &images.to_string()]);
        let started = Instant::now();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (serde_json::from_slice(&output.stdout).unwrap(), started.elapsed())
    };
    let (there, _) = eval(rig.board.port(), 48);
    assert_eq!((&there[0]["device"], &there[0]["runtime"]), (&"plain".into(), &"tract".into()));
    assert_eq!((&there[0]["digest"], &there[0]["metrics"]), (&here[0]["digest"], &here[0]["metrics"]));

    // A round trip takes 0.1 s.
    let slow = rig.board.proxy(&["--delay", "50"]);
    let ((_, one), (_, all)) = (eval(slow.port(), 1), eval(slow.port(), 48));
    let more = all.saturating_sub(one);
    assert!(more < Duration::from_millis(47 * 100 / 2), "47 more images took {more:?}");
}

#[test]
fn a_damaged_probe_is_uploaded_again() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let sum = "cd .cache/edge-nas; sha256sum nas-probe-*";
    let before = rig.board.run(sum);
    rig.board.run("cd .cache/edge-nas; printf XXXX | dd of=$(echo nas-probe-*) conv=notrunc seek=100 2>/dev/null");
    assert_ne!(rig.board.run(sum), before);
    rig.assert_completes(&rig.rows());
    assert_eq!(rig.board.run(sum), before);
}

#[test]
fn a_probe_that_talks_without_end_is_left() {
    let rig = rig!();
    let hello = format!(
        r#"echo '{{"type":"hello","protocol":{},"probe":"9","runtimes":[],"unavailable":[],"arch":"x86_64","os":"linux","libc":"","cpu":"","cores":1,"conditions":{{}}}}'"#,
        nas_probe::PROTOCOL
    );
    let profile = |talk: &str| {
        let start = Instant::now();
        let error =
            rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", rig.fake_probe(&format!("{hello}; {talk}"))));
        assert!(start.elapsed() < Duration::from_secs(60), "{error}");
        error
    };
    let error = profile("yes '{\"type\":\"stored\",\"id\":7}'");
    assert!(error.contains("not a reply"), "{error}");
    let error = profile("tr '\\0' x </dev/zero");
    assert!(error.contains("a line of more than"), "{error}");
    let error = profile("printf '\\033]0;owned\\007\\n'; cat");
    assert!(error.contains(r"\u{1b}]0;owned\u{7}"), "{error}");
    let error = profile("printf '\\033[2J gone' >&2; exit 3");
    assert!(error.contains(r"exit status: 3: \u{1b}[2J gone"), "{error}");
}

#[test]
fn wrong_sites_are_reported() {
    let rig = rig!();
    let port = rig.board.port();
    for (entry, why) in [("folder = \"\"", "`folder` is empty"), ("timeout = 0", "at least 1 second")] {
        rig.site(entry);
        let error = rig.error(&mut rig.profile(port));
        assert!(error.contains("sites.toml") && error.contains("[plain]") && error.contains(why), "{error}");
    }
    rig.site("");
    let host = format!("Host plain\n  HostName localhost\n  Port {port}\n  User pi\n");
    std::fs::write(rig.board.home().join(".ssh/config"), host).unwrap();
    for again in [format!("pi@127.0.0.1:{port}"), "plain".into()] {
        let error = rig.error(rig.profile(port).args(["--ssh", &again]));
        assert!(error.contains("are the same board"), "{error}");
    }
    let error = rig.error(rig.profile(port).env_remove("HOME"));
    assert!(error.contains("HOME is not set"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_reported() {
    let rig = rig!();
    rig.site("folder = \"/proc/nowhere\"");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("cannot write /proc/nowhere") && error.contains("`folder`"), "{error}");
    rig.site("");
    rig.assert_completes(&[]);
}

#[test]
fn a_board_is_found_in_sites_toml_and_in_the_configuration_of_ssh() {
    let rig = rig!();
    let nas = |args: &str| {
        let mut command = rig.program(NAS);
        command.args(args.split(' '));
        assert_cmd::Command::from_std(command)
    };
    let nobody = nas("devices check plain.toml").assert().code(1).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&nobody).contains("--ssh user@host"));
    rig.site(&format!("ssh = \"pi@127.0.0.1:{}\"", rig.board.port()));
    nas("devices check plain.toml").assert().success();
    std::fs::remove_file(rig.board.home().join(".config/edge-nas/sites.toml")).unwrap();
    let host = format!("Host plain\n  HostName 127.0.0.1\n  Port {}\n  User pi\n", rig.board.port());
    std::fs::write(rig.board.home().join(".ssh/config"), host).unwrap();
    nas("devices check plain.toml").assert().success();
    nas("devices check plain.toml --ssh plain").assert().success();
}

#[test]
fn questions_can_be_answered_on_a_terminal() {
    let rig = rig!(&["--password", "open sesame"]);
    let ssh = rig.board.home().join(".ssh");
    let check = || {
        let mut command = rig.program(NAS);
        command.args(["devices", "check", "plain.toml", "--ssh", &rig.board.ssh_arg()]);
        rexpect::session::spawn_command(command, Some(60_000)).unwrap()
    };
    let lock = ["-q", "-p", "-N", "a passphrase", "-f"];
    let locked = Command::new("ssh-keygen").args(lock).arg(ssh.join("id_ed25519")).status();
    assert!(locked.unwrap().success());
    let mut terminal = check();
    terminal.exp_string("Passphrase of").unwrap();
    terminal.send_line("a passphrase").unwrap();
    terminal.exp_string("glibc").unwrap();
    terminal.exp_eof().unwrap();

    std::fs::remove_file(ssh.join("id_ed25519")).unwrap();
    std::fs::remove_file(ssh.join("known_hosts")).unwrap();
    let mut terminal = check();
    terminal.exp_string("Is this the board's key?").unwrap();
    terminal.send("y").unwrap();
    terminal.flush().unwrap();
    terminal.exp_string("Password of").unwrap();
    terminal.send_line("open sesame").unwrap();
    terminal.exp_string("glibc").unwrap();
    terminal.exp_eof().unwrap();

    let mut terminal = check();
    terminal.exp_string("Password of").unwrap();
    terminal.send_line("open barley").unwrap();
    terminal.exp_string("accepts none of").unwrap();
}

#[test]
fn no_row_is_lost_if_the_disk_is_full_when_models_are_written() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let before = rig.rows();
    rig.ws.write("tiny.toml", &SPACE.replace("tiny", "wide").replace("channels = 8", "channels = 16"));
    rig.board.run("dd if=/dev/zero of=fill bs=4k 2>/dev/null; true");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(rig.rows(), before);
    rig.board.run("rm fill");
    let output = rig.profile(rig.board.port()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rig.rows(), before);
    let wide = rig.ws.read(&TABLE.replace("tiny", "wide"));
    assert_complete(&wide.lines().skip(1).map(String::from).collect::<Vec<_>>());
}

#[test]
fn a_wrong_architecture_is_reported_before_anything_is_uploaded() {
    let rig = rig!();
    rig.ws.write("plain.toml", &DEVICE.replace("x86_64", "aarch64"));
    let probe = rig.fake_probe("exit 1");
    let error = rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", probe));
    assert!(error.contains("x86_64") && error.contains("aarch64-unknown-linux-gnu"), "{error}");
}

#[test]
fn boards_of_one_kind_share_the_work() {
    let (Some(rig), Some(other)) = (Rig::new(&[]), Board::plain(&[])) else { return };
    let known_hosts = rig.board.home().join(".ssh/known_hosts");
    let both: String = [rig.board.home(), other.home()]
        .map(|home| std::fs::read_to_string(home.join(".ssh/known_hosts")).unwrap())
        .concat();
    std::fs::write(&known_hosts, both).unwrap();
    let key = rig.board.home().join(".ssh/other");
    std::fs::copy(other.home().join(".ssh/id_ed25519"), &key).unwrap();
    let config =
        format!("Host other\n  HostName 127.0.0.1\n  Port {}\n  User pi\n  IdentityFile ~/.ssh/other\n", other.port());
    std::fs::write(rig.board.home().join(".ssh/config"), config).unwrap();
    let nowhere = "pi@127.0.0.1:1";
    let output = rig.profile(rig.board.port()).args(["--ssh", nowhere, "--ssh", "other"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_complete(&rig.rows());
    assert!(stderr.contains("one board is left out: cannot reach pi@127.0.0.1:1"), "{stderr}");
    // On a busy machine, the boards may seem to differ in speed. A warning then names the one that is left out.
    let left_out = stderr.contains("is left out");
    // The folder is created for the first model that is measured there.
    assert_eq!(other.run("ls -d .cache/edge-nas/models").trim(), ".cache/edge-nas/models", "{stderr}");
    assert!(other.run("ls .cache/edge-nas/models").is_empty() || left_out, "{stderr}");
}
