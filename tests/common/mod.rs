//! A working folder with a tiny data set and a tiny search space, and the real binaries.
#![allow(dead_code, clippy::unwrap_used)]

use assert_cmd::Command;
use edge_nas::artifact::{self, Digest};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

pub const NAS: &str = env!("CARGO_BIN_EXE_nas");
pub const NAS_PROFILE: &str = env!("CARGO_BIN_EXE_nas-profile");

/// Three layers that choose from all candidates.
pub const SPACE: &str = r#"
name = "tiny"
candidates = ["conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "skip", "zero", "avg_pool_3x3", "max_pool_3x3"]
layers = [{ ops = ["conv_3x3"], channels = 4 }, { channels = 4 }, { channels = 8, stride = 2 }, { channels = 8 }]
"#;

/// A space of 54 networks. Its second layer has two widths, which the third one follows. `skip` in the last layer has
/// weights after only one of them.
pub const WIDE: &str = r#"
name = "wide"
candidates = ["conv_3x3", "conv_5x5", "skip"]
layers = [
  { ops = ["conv_3x3"], channels = 4 },
  { ops = ["conv_3x3", "conv_5x5", "skip", "zero"], channels = [4, 8] },
  { channels = "same" },
  { ops = ["conv_3x3", "max_pool_3x3", "skip"], channels = 8 },
]
"#;

/// Classes of the data set: red, green and blue images with noise.
pub const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// The tables of [`SPACE`], by their names.
static TABLES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let names = ["profiles/host/tiny.3x8x8.tract.fp32.jsonl", "profiles/host/tiny.3x8x8.ort.fp32.jsonl"];
    measured(&Workspace::new(), "profile --space tiny.toml --data folder:images --networks 24", &names)
});

/// The table of [`WIDE`], with isolated layers, by its name.
static WIDE_TABLE: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let ws = Workspace::new();
    ws.write("wide.toml", WIDE);
    let profile = "profile --isolated --space wide.toml --data folder:images --runtime tract";
    measured(&ws, profile, &["profiles/host/wide.3x8x8.tract.fp32.jsonl"])
});

/// Returns the tables with these names that a command writes. They are kept for the other test programs until the
/// programs change or the machine restarts, since measuring takes a minute.
fn measured<'n>(ws: &Workspace, profile: &str, names: &[&'n str]) -> BTreeMap<&'n str, String> {
    let programs = [Path::new(NAS).into(), Path::new(NAS).with_file_name("nas-probe")];
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = Digest::of(&(programs.map(|program| Digest::of_file(&program).unwrap()), boot));
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tables");
    let kept = all.join(&key.as_str()[..12]);
    if names.iter().any(|name| !kept.join(name).exists()) {
        ws.nas(profile).assert().success();
        // The tables of earlier programs.
        let others = std::fs::read_dir(all).into_iter().flatten().map(|kept| kept.unwrap().path());
        others.filter(|other| *other != kept).for_each(|other| drop(std::fs::remove_dir_all(other)));
        names.iter().for_each(|name| artifact::write(&kept.join(name), ws.read(name).as_bytes()).unwrap());
    }
    names.iter().map(|name| (*name, std::fs::read_to_string(kept.join(name)).unwrap())).collect()
}

/// Files with their modification times and contents.
pub type Files = BTreeMap<PathBuf, (SystemTime, Vec<u8>)>;

/// A temporary folder in which commands run.
pub struct Workspace(tempfile::TempDir);

impl Workspace {
    /// Creates a folder with `images/`, a data set of 8×8 pixels, and `tiny.toml`, a search space.
    pub fn new() -> Workspace {
        let ws = Workspace(tempfile::tempdir().unwrap());
        ws.write("tiny.toml", SPACE);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for (part, images) in [("train", 32), ("test", 16)] {
            for (class, name) in CLASSES.iter().enumerate() {
                let dir = ws.path(&format!("images/{part}/{name}"));
                std::fs::create_dir_all(&dir).unwrap();
                for i in 0..images {
                    let image = image::RgbImage::from_fn(8, 8, |_, _| {
                        let mut pixel = [0; 3].map(|_| rng.random_range(0..160));
                        pixel[2 - class] += 80;
                        image::Rgb(pixel)
                    });
                    image.save(dir.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        ws
    }

    /// Creates a folder that also has the latency tables of the space.
    pub fn profiled() -> Workspace {
        let ws = Workspace::new();
        TABLES.iter().for_each(|(name, text)| ws.write(name, text));
        ws
    }

    /// Creates a folder that also has [`WIDE`] as `wide.toml`, and its table for tract.
    pub fn wide() -> Workspace {
        let ws = Workspace::new();
        ws.write("wide.toml", WIDE);
        WIDE_TABLE.iter().for_each(|(name, text)| ws.write(name, text));
        ws
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Returns the whole lines of a JSON lines file, without what differs between equal runs.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.read(name);
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let line = |line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds");
            line
        };
        whole.lines().map(line).collect()
    }

    /// Returns `nas` with arguments that are separated by blanks.
    pub fn nas(&self, args: &str) -> Command {
        self.command(NAS, args)
    }

    pub fn command(&self, program: &str, args: &str) -> Command {
        let mut command = Command::new(program);
        command.args(args.split_whitespace()).current_dir(self.dir()).env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Returns what a successful command writes to stdout, which must be JSON and nothing else.
    pub fn json(&self, args: &str) -> Value {
        let output = self.nas(args).arg("--json").assert().success().get_output().clone();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("nas {args}: {e}"))
    }

    /// Returns the error of a command that must fail with exit code 1, one line on stderr, and nothing on stdout.
    /// Warnings do not count.
    pub fn error(&self, args: &str) -> String {
        let output = self.nas(args).assert().code(1).stdout("").get_output().clone();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let error: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
        assert!(error.len() == 1 && error[0].starts_with("error: "), "nas {args}: {stderr}");
        error[0].to_string()
    }

    /// Returns all files below a folder.
    pub fn files(&self, name: &str) -> Files {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(self.path(name)).unwrap() {
            let entry = entry.unwrap();
            let below = format!("{name}/{}", entry.file_name().display());
            if entry.path().is_dir() {
                files.append(&mut self.files(&below));
            } else {
                let modified = entry.metadata().unwrap().modified().unwrap();
                files.insert(below.into(), (modified, std::fs::read(entry.path()).unwrap()));
            }
        }
        files
    }
}
