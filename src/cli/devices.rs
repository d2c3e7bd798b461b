use super::flags::ReachFlags;
use super::output::{print, table};
use crate::device::{Device, Finding, Session, findings};
use crate::run::Reach;
use nas_probe::Runtime;
use serde::Serialize;

/// List the built-in devices, or check a device
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the built-in devices
    List,
    /// Start the probe on a device, and show what is fine, what is not, and how to fix it
    Check {
        /// A name that `nas devices` lists, or a TOML file
        device: String,
        /// Inference runtime to check; may be repeated [default: those of the device]
        #[arg(long = "runtime")]
        runtimes: Vec<Runtime>,
        #[command(flatten)]
        reach: ReachFlags,
    },
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        match self.verb.unwrap_or(Verb::List) {
            Verb::List => list(json),
            Verb::Check { device, runtimes, reach } => {
                check(&Device::load(&device)?, &runtimes, &reach.settings(), json)
            }
        }
    }
}

fn list(json: bool) -> anyhow::Result<()> {
    let devices = Device::built_in()?;
    let row = |d: &Device| vec![d.name.clone(), d.description.clone()];
    print(json, &devices, || table(&["device", "description"], devices.iter().map(row).collect()))
}

/// A board, and what the probe reports about it.
#[derive(Serialize)]
struct Checked {
    board: String,
    findings: Vec<Finding>,
}

fn check(device: &Device, runtimes: &[Runtime], reach: &Reach, json: bool) -> anyhow::Result<()> {
    let runtimes = if runtimes.is_empty() { &device.runtimes } else { runtimes };
    let (mut checked, mut failed) = (vec![], vec![]);
    for board in reach.boards(device, runtimes)? {
        match Session::open(&board) {
            Ok(session) => checked.push(Checked { board: board.to_string(), findings: findings(&session, &board) }),
            Err(why) => failed.push((board.to_string(), why)),
        }
    }
    if !checked.is_empty() {
        print(json, &checked, || checked.iter().map(describe).collect::<Vec<_>>().join("\n"))?;
    }
    if let [(_, why)] = failed.as_slice()
        && checked.is_empty()
    {
        anyhow::bail!("{why}");
    }
    failed.iter().for_each(|(board, why)| log::warn!("{board}: {why}"));
    let all = failed.len() + checked.len();
    anyhow::ensure!(failed.is_empty(), "{} of {all} boards cannot be used", failed.len());
    Ok(())
}

fn describe(checked: &Checked) -> String {
    let row = |f: &Finding| {
        let mark = if f.fix.is_some() { "!" } else { "" };
        vec![f.what.clone(), f.found.clone(), mark.to_string()]
    };
    let found = table(&["what", "found", ""], checked.findings.iter().map(row).collect());
    let fix = |f: &Finding| Some(format!("! {}: {}", f.what, f.fix.as_ref()?));
    let fixes = checked.findings.iter().filter_map(fix);
    [checked.board.clone(), found].into_iter().chain(fixes).collect::<Vec<_>>().join("\n")
}
