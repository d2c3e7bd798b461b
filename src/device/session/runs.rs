//! What a device's runtimes are asked to do.

use super::{Model, Session, garbage};
use crate::device::DeviceError;
use nas_probe::{MeasurePlan, ModelRef, Reply, Request, Runtime, Samples, TensorData};
use std::time::Duration;

/// A measurement that was requested.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    model: String,
    runtime: Runtime,
    deadline: Duration,
}

impl Session {
    /// Requests a model's timing. The probe serves requests in turn, so that it never waits for the link if the next one
    /// is sent before the last is [finished](Session::finish).
    ///
    /// # Errors
    /// Where the probe ended.
    pub fn begin(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        plan: MeasurePlan,
    ) -> Result<Ticket, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let id = self.send(&model.name, |id| Request::Measure { id, model: place, plan })?;
        let deadline = plan.longest().saturating_add(self.timeout);
        Ok(Ticket { id, model: model.name.clone(), runtime, deadline })
    }

    /// Waits for a timing, in the order in which they were begun.
    ///
    /// # Errors
    /// Where the runtime rejects the model, or the probe ends or is silent for too long.
    pub fn finish(&mut self, ticket: Ticket) -> Result<Samples, DeviceError> {
        let Ticket { id, model, runtime, deadline } = ticket;
        let doing = format!("{model} with {runtime}");
        match self.answer(id, &doing, deadline)? {
            Reply::Samples { samples, .. } => Ok(samples),
            Reply::Failed { error, .. } => Err(DeviceError::Failed { model, runtime, reason: error }),
            other => Err(garbage(&doing, &other)),
        }
    }

    /// Times a model.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn measure(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        plan: MeasurePlan,
    ) -> Result<Samples, DeviceError> {
        let ticket = self.begin(model, runtime, threads, plan)?;
        self.finish(ticket)
    }

    /// Runs `inputs`, N×C×H×W each, through a model.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn infer(
        &mut self,
        model: &Model,
        runtime: Runtime,
        inputs: Vec<TensorData>,
    ) -> Result<Vec<TensorData>, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads: 1 };
        let doing = format!("{} with {runtime}", model.name);
        let id = self.send(&doing, |id| Request::Infer { id, model: place, inputs })?;
        match self.answer(id, &doing, self.timeout)? {
            Reply::Outputs { outputs, .. } => Ok(outputs),
            Reply::Failed { error, .. } => {
                Err(DeviceError::Failed { model: model.name.clone(), runtime, reason: error })
            }
            other => Err(garbage(&doing, &other)),
        }
    }

    /// Bytes that a process takes at most which only runs this model, measured there.
    ///
    /// # Errors
    /// As [`Session::finish`]; where that process is killed, as on a device that has no more memory; and on a device
    /// that is not Linux.
    pub fn memory(&mut self, model: &Model, runtime: Runtime, threads: usize) -> Result<u64, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let doing = format!("the memory of {} with {runtime}", model.name);
        let id = self.send(&doing, |id| Request::Memory { id, model: place })?;
        match self.answer(id, &doing, self.timeout)? {
            Reply::Memory { peak_bytes, .. } => Ok(peak_bytes),
            Reply::Failed { error, .. } => {
                Err(DeviceError::Failed { model: model.name.clone(), runtime, reason: error })
            }
            other => Err(garbage(&doing, &other)),
        }
    }
}
