use crate::cli::flags::{BoardFlags, MeasureFlags, SpaceFlags};
use crate::cli::output::{or_dash, percent, print, table};
use crate::model::{Accuracy, Validation};
use crate::run::{Profile, validate};
use nas_probe::Runtime;

/// Measure networks that no fit has seen, and report how well the table predicts them
///
/// Measures random networks, and a third as many that are derived as a search derives them; the accuracy is reported
/// separately for both. Stores the figures and a scatter plot beside the table. If it is interrupted, the same command
/// resumes.
#[derive(clap::Args)]
pub struct Args {
    /// Random networks to measure; a third as many derived networks are measured as well
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..))]
    networks: u16,
    /// Seed of the networks; another seed gives other networks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seed: u64,
    /// Measure those networks again that throttling or other programs disturbed
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    space: SpaceFlags,
    #[command(flatten)]
    measure: MeasureFlags,
    #[command(flatten)]
    board: BoardFlags,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let Args { networks, seed, again, space, measure, board } = self;
        let (images, measure, board) = (space.images(), measure.settings(), board.settings());
        let settings = Profile { space: space.space, images, measure, board };
        let validated = validate(&settings, networks.into(), seed, again)?;
        print(json, &validated, || {
            let rows = validated.iter().flat_map(|v| {
                let of = |what: &str, accuracy: Option<&Accuracy>| Some(cells(v.runtime, what, accuracy?));
                let Validation { random, derived, plain_sum, macs, .. } = &v.validation;
                [
                    of("latency model, random networks", Some(random)),
                    of("latency model, derived networks", derived.as_ref()),
                    of("plain sum of isolated layers", plain_sum.as_ref()),
                    of("MACs only", macs.as_ref()),
                ]
            });
            let header =
                ["runtime", "prediction", "networks", "MAPE", "bias", "±5 %", "±10 %", "RMSE", "Spearman", "Kendall"];
            let mut lines = table(&header, rows.flatten().collect());
            for v in &validated {
                if let Some(noise) = v.validation.noise {
                    let (runtime, plot) = (v.runtime, v.plot.display());
                    lines += &format!(
                        "\n{runtime}: two estimates of a network, each from every other row, differ by {} on average, so measured latencies are uncertain by about half of that; the scatter plot is {plot}",
                        percent(noise)
                    );
                }
            }
            lines
        })
    }
}

fn cells(runtime: Runtime, what: &str, accuracy: &Accuracy) -> Vec<String> {
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    let rank = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.4}")));
    vec![
        runtime.to_string(),
        what.into(),
        accuracy.networks.to_string(),
        percent(accuracy.mape),
        format!("{:+.2} %", 100.0 * accuracy.bias),
        share(accuracy.within_5),
        share(accuracy.within_10),
        accuracy.rmse_ns.to_string(),
        rank(accuracy.spearman),
        rank(accuracy.kendall),
    ]
}
