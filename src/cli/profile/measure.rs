use crate::cli::flags::{BoardFlags, MeasureFlags, SpaceFlags};
use crate::cli::output::{or_dash, percent, print, table};
use crate::profile::Wanted;
use crate::run::{Profile, Profiled, profile};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    space: SpaceFlags,
    /// Whole networks to fit the latency model to [default: three for each layer of the space, and 50]
    #[arg(long, value_parser = clap::value_parser!(u16).range(FEWEST..))]
    networks: Option<u16>,
    /// Measure lone layers only: predictions are then their plain sum, and miss by a third
    #[arg(long, conflicts_with = "networks")]
    isolated: bool,
    /// Measure again what throttling or load disturbed
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    measure: MeasureFlags,
    #[command(flatten)]
    board: BoardFlags,
}

/// A fit of fewer networks is no better than a sum.
const FEWEST: i64 = 20;

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let wanted = Wanted { networks: self.networks.map(usize::from), isolated: self.isolated };
        let (images, space, again) = (self.space.images(), self.space.space, self.again);
        let (measure, board) = (self.measure.settings(), self.board.settings());
        let profiled = profile(&Profile { space, images, wanted, again, measure, board })?;
        print(json, &profiled, || {
            let row = |p: &Profiled| {
                vec![
                    p.table.display().to_string(),
                    p.runtime_version.clone(),
                    p.measured.to_string(),
                    p.rows.to_string(),
                    or_dash(p.leave_one_out_error.map(percent)),
                ]
            };
            let header = ["table", "version", "measured now", "rows", "leave-one-out error"];
            table(&header, profiled.iter().map(row).collect())
        })
    }
}
