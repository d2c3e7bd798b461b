use super::{LatencyTable, Method, Row, Summary, TableError, micro_model, model_digest};
use crate::device::{DeviceError, Session};
use crate::progress;
use crate::space::Layer;
use nas_probe::MeasurePlan;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Weights(#[from] nas_exporters::WeightsError),
    #[error("{failed} of {all} layers could not be measured, and the table has no rows of them: {reasons}")]
    Failed { failed: usize, all: usize, reasons: String },
}

/// Measures those of `layers` that the table has no row of, each as a model of its own, and adds the
/// rows one by one. Gives how many.
///
/// # Errors
/// Where the probe ends; and, after all others were measured, where a layer could not be.
pub fn profile(
    session: &mut Session,
    table: &mut LatencyTable,
    layers: &[Layer],
    plan: MeasurePlan,
) -> Result<usize, ProfileError> {
    let runtime = table.header.runtime;
    session.require(runtime)?;
    let missing = table.missing(layers);
    let bar = progress::bar("profile", runtime.name(), missing.len());
    let mut failures = vec![];
    for layer in &missing {
        match measure(session, table, *layer, plan) {
            Ok(row) => table.append(row)?,
            Err(ProfileError::Device(failure @ DeviceError::Failed { .. })) => {
                failures.push(failure.to_string())
            }
            Err(fatal) => return Err(fatal),
        }
        bar.inc(1);
    }
    bar.finish();
    if !failures.is_empty() {
        let (failed, all) = (failures.len(), missing.len());
        return Err(ProfileError::Failed { failed, all, reasons: failures.join("; ") });
    }
    Ok(missing.len())
}

fn measure(
    session: &mut Session,
    table: &LatencyTable,
    layer: Layer,
    plan: MeasurePlan,
) -> Result<Row, ProfileError> {
    let (runtime, threads) = (table.header.runtime, table.header.threads);
    let model = session.put(layer.to_string(), &micro_model(&layer.graph())?)?;
    let measurement = session.measure(&model, runtime, threads, plan)?;
    let Some(summary) = Summary::of(&measurement.ns) else {
        let reason = "the probe sent no samples".to_string();
        return Err(DeviceError::Failed { model: model.name, runtime, reason }.into());
    };
    Ok(Row {
        layer,
        method: Method::Isolated,
        model: model_digest(&layer),
        median_ns: summary.median,
        samples_ns: measurement.ns,
        batch: measurement.batch,
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        before: measurement.before,
        after: measurement.after,
    })
}
