//! What a device's runtimes are asked for.

use super::{Model, Session, garbage};
use crate::device::DeviceError;
use nas_probe::{MeasurePlan, Memory, ModelRef, Reply, Request, Runtime, Samples, TensorData};
use std::time::Duration;

/// A measurement that was asked for, and is to be waited for.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    model: String,
    runtime: Runtime,
    deadline: Duration,
}

impl Session {
    /// Asks for a model's timing. The probe does what it is asked in turn, so that it never waits for
    /// the link where one more is asked for before the last is [finished](Session::finish).
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

    /// Waits for a timing; those begun first come first.
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

    /// What a model takes of the device's memory, measured there in a process of its own.
    ///
    /// # Errors
    /// As [`Session::finish`]; where that process is killed, as by a device that has no more memory; and
    /// on a device that is not Linux.
    pub fn memory(&mut self, model: &Model, runtime: Runtime, threads: usize) -> Result<Memory, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let doing = format!("the memory of {} with {runtime}", model.name);
        let id = self.send(&doing, |id| Request::Memory { id, model: place })?;
        // The first for a runtime may load it twice.
        match self.answer(id, &doing, self.timeout.saturating_mul(2))? {
            Reply::Memory { memory, .. } => Ok(memory),
            Reply::Failed { error, .. } => {
                Err(DeviceError::Failed { model: model.name.clone(), runtime, reason: error })
            }
            other => Err(garbage(&doing, &other)),
        }
    }
}
