use super::output::{print, table};
use crate::device::{Device, Session};
use nas_probe::Hello;

/// List devices, or check one
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the devices that ship
    List,
    /// Start the probe on a device and show what it finds there
    Check {
        /// A name that `nas devices` lists, or a TOML file
        device: String,
    },
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Some(Verb::Check { device }) = self.verb else {
            let devices = Device::built_in();
            let row = |d: &Device| vec![d.name.clone(), d.description.clone()];
            return print(json, &devices, || {
                table(&["device", "what it is"], devices.iter().map(row).collect())
            });
        };
        let session = Session::open(&Device::load(&device)?)?;
        let hello = session.hello();
        print(json, hello, || describe(hello))
    }
}

fn describe(hello: &Hello) -> String {
    let absent = || "not told".to_string();
    let Hello { conditions: now, .. } = hello;
    let mut rows = vec![
        vec!["CPU".into(), format!("{}, {} cores, {}", hello.cpu, hello.cores, hello.arch)],
        vec!["libc".into(), hello.libc.clone()],
        vec!["governor".into(), now.governor.clone().unwrap_or_else(absent)],
        vec!["clock".into(), now.khz.map_or_else(absent, |khz| format!("{} MHz", khz / 1000))],
        vec!["temperature".into(), now.millicelsius.map_or_else(absent, |m| format!("{} °C", m / 1000))],
        vec!["load".into(), now.load1.map_or_else(absent, |load| load.to_string())],
    ];
    rows.extend(hello.runtimes.iter().map(|r| vec![r.runtime.to_string(), r.version.clone()]));
    rows.extend(hello.unavailable.iter().map(|reason| vec!["missing".into(), reason.clone()]));
    table(&["what", "found"], rows)
}
