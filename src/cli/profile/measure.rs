use crate::bounded::FittedNetworks;
use crate::cli::flags::{BoardFlags, MeasureFlags, SpaceFlags};
use crate::cli::output::{or_dash, percent, print, table};
use crate::profile::Wanted;
use crate::run::{Profile, Profiled, profile};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    space: SpaceFlags,
    /// Whole networks to fit the latency model to, at least 20 [default: 60 plus three for each isolated layer]
    #[arg(long)]
    networks: Option<FittedNetworks>,
    /// Measure isolated layers only; predictions are then their plain sum, which is off by 6 to 60 %
    #[arg(long, conflicts_with = "networks")]
    isolated: bool,
    /// Measure those models again that throttling or other programs disturbed
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    measure: MeasureFlags,
    #[command(flatten)]
    board: BoardFlags,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<()> {
        let wanted = Wanted { networks: self.networks, isolated: self.isolated, again: self.again };
        let (images, space) = (self.space.images(), self.space.space);
        let (measure, board) = (self.measure.settings(), self.board.settings());
        let profiled = profile(&Profile { space, images, measure, board }, wanted)?;
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
            let header = ["table", "runtime version", "measured now", "rows", "leave-one-out error"];
            table(&header, profiled.iter().map(row).collect())
        })
    }
}
