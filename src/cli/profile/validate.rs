use super::measure::PLAN;
use super::space::SpaceArgs;
use crate::cli::measure::{BoardArgs, MeasureArgs};
use crate::cli::output::{print, table};
use crate::latency::fit::Accuracy;
use crate::latency::{Header, LatencyModel, Networks, Plan, Validation, profile};
use nas_probe::Runtime;
use serde::Serialize;
use std::path::PathBuf;

/// Measure networks that no fit has seen, and how well the table predicts them
///
/// Writes the figures into the table's header, and a scatter plot beside the table. The same command
/// goes on where a cut left it.
#[derive(clap::Args)]
pub struct Args {
    /// Networks to measure
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..))]
    pub networks: u16,
    /// Seed of the networks; another one for other networks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seed: u64,
    #[command(flatten)]
    pub space: SpaceArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub board: BoardArgs,
}

/// What predictions are held against is to be known better than what they are made of.
const THOROUGH: Plan = Plan { fewest: 2 * PLAN.fewest, most: 2 * PLAN.most, ..PLAN };

#[derive(Serialize)]
pub struct Validated {
    table: PathBuf,
    runtime: Runtime,
    validation: Validation,
    plot: PathBuf,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let validated = self.execute()?;
        print(json, &validated, || {
            let rows = validated.iter().flat_map(|v| {
                let of = |what: &str, accuracy: Option<&Accuracy>| Some(cells(v.runtime, what, accuracy?));
                let Validation { accuracy, plain_sum, macs, .. } = &v.validation;
                [
                    of("latency model", Some(accuracy)),
                    of("plain sum of isolated layers", plain_sum.as_ref()),
                    of("MACs alone", macs.as_ref()),
                ]
            });
            let header = ["runtime", "prediction by", "MAPE", "±5 %", "±10 %", "RMSE", "Spearman", "Kendall"];
            let mut lines = table(&header, rows.flatten().collect());
            for v in &validated {
                if let Some(noise) = v.validation.noise {
                    lines += &format!(
                        "\n{}: half of the rows differ from the other half by {:.2} %; {}",
                        v.runtime,
                        100.0 * noise,
                        v.plot.display()
                    );
                }
            }
            lines
        })
    }

    pub fn execute(&self) -> anyhow::Result<Vec<Validated>> {
        let device = self.measure.device()?;
        let (space, images) = self.space.load()?;
        let networks = Networks { space: &space, images };
        let runtimes = self.measure.runtimes(&device);
        let mut sessions = self.board.open(&device, &runtimes)?;
        let mut validated = vec![];
        for runtime in runtimes {
            let mut table = self.measure.table(
                &device,
                (&space.name, &self.space.space),
                &self.space.words(),
                runtime,
            )?;
            table.check(&Header::of(&device.name, &sessions, runtime, self.measure.threads.get())?)?;
            LatencyModel::new(&table, &networks)?;
            let fresh = networks.fresh(self.networks.into(), self.seed, &table);
            let Some(anchor) = table.anchor(&networks).or(fresh.first()).cloned() else {
                anyhow::bail!("{} has no networks that the table's model was not fitted to", space.name)
            };
            let unseen = fresh.iter().cloned().collect();
            profile(&mut sessions, &mut table, &fresh, &anchor, &unseen, THOROUGH)?;
            let Some((validation, unseen)) = Validation::of(&table, &networks)? else {
                anyhow::bail!("{} has no unseen networks", space.name)
            };
            table.set_validation(validation.clone())?;
            let path = self.measure.table_path(&device, &space.name, runtime);
            let plot = path.with_extension("svg");
            crate::report::scatter(&plot, &unseen, &validation)?;
            validated.push(Validated { table: path, runtime, validation, plot });
        }
        Ok(validated)
    }
}

fn cells(runtime: Runtime, what: &str, accuracy: &Accuracy) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rank = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.4}"));
    vec![
        runtime.to_string(),
        what.into(),
        format!("{:.2} %", 100.0 * accuracy.mape),
        percent(accuracy.within_5),
        percent(accuracy.within_10),
        accuracy.rmse_ns.to_string(),
        rank(accuracy.spearman),
        rank(accuracy.kendall),
    ]
}
