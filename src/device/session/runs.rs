//! The requests that run models on a device.

use super::{AHEAD, Model, SLACK, Session, garbage};
use crate::device::DeviceError;
use nas_probe::{MeasurePlan, ModelRef, Reply, Request, Runtime, Samples, TensorData};
use std::collections::VecDeque;
use std::time::Duration;

/// The total size, in bytes, of the inputs that may be on their way to a model at a time.
const AHEAD_BYTES: usize = 1 << 20;

/// A requested measurement, or inference.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    model: String,
    runtime: Runtime,
    deadline: Duration,
}

impl Session {
    /// Requests a measurement of a model. The probe serves requests in order, so it never waits for the link if the
    /// next request is sent before the last one is [finished](Session::finish).
    ///
    /// # Errors
    /// Fails if the probe has ended.
    pub fn begin(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        plan: MeasurePlan,
    ) -> Result<Ticket, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let id = self.send(&model.name, |id| Request::Measure { id, model: place, plan })?;
        let deadline = self.of_model(plan.longest());
        Ok(Ticket { id, model: model.name.clone(), runtime, deadline })
    }

    /// Returns how long the host waits for a request that runs a model. The probe has a deadline for loading it, for
    /// its first inference, and for the rest, and ends if one of them is missed.
    fn of_model(&self, planned: Duration) -> Duration {
        self.timeout.saturating_mul(3).saturating_add(planned).saturating_add(2 * SLACK)
    }

    /// Waits for a measurement. Measurements must be finished in the order in which they were begun.
    ///
    /// # Errors
    /// Fails if the runtime rejects the model, or if the probe ends or does not answer in time.
    pub fn finish(&mut self, ticket: Ticket) -> Result<Samples, DeviceError> {
        let Ticket { id, model, runtime, deadline } = ticket;
        let doing = format!("{model} with {runtime}");
        match self.answer(id, &doing, deadline)? {
            Reply::Samples { samples, .. } => Ok(samples),
            Reply::Failed { error, .. } => Err(DeviceError::Failed { model, runtime, reason: error }),
            other => Err(garbage(&doing, &other)),
        }
    }

    /// Measures a model.
    ///
    /// # Errors
    /// Same as [`Session::finish`].
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

    /// Runs a model on `inputs`, each N×C×H×W.
    ///
    /// # Errors
    /// Same as [`Session::finish`].
    pub fn infer(
        &mut self,
        model: &Model,
        runtime: Runtime,
        inputs: Vec<TensorData>,
    ) -> Result<Vec<TensorData>, DeviceError> {
        let ticket = self.begin_inference(model, runtime, inputs)?;
        self.finish_inference(ticket)
    }

    /// Runs a model with one input, N×C×H×W, on each of `inputs`, and passes the outputs on in the same order. Up to 1
    /// MiB of inputs, and at least one, are sent ahead, so that the probe does not wait for the link. After an error,
    /// nothing else can be requested.
    ///
    /// # Errors
    /// Same as [`Session::finish`]. Also returns the errors of `take`.
    pub fn infer_each<E: From<DeviceError>>(
        &mut self,
        model: &Model,
        runtime: Runtime,
        inputs: impl Iterator<Item = TensorData>,
        mut take: impl FnMut(Vec<TensorData>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut sent = VecDeque::new();
        // The first input is sent alone: while its model is being loaded, the probe would not read others.
        let mut ahead = 0;
        for input in inputs {
            let bytes = size_of_val(input.values.as_slice()).max(1);
            sent.push_back(self.begin_inference(model, runtime, vec![input])?);
            if sent.len() > ahead
                && let Some(oldest) = sent.pop_front()
            {
                take(self.finish_inference(oldest)?)?;
                ahead = (AHEAD_BYTES / bytes).clamp(1, AHEAD - 1);
            }
        }
        sent.into_iter().try_for_each(|ticket| take(self.finish_inference(ticket)?))
    }

    fn begin_inference(
        &mut self,
        model: &Model,
        runtime: Runtime,
        inputs: Vec<TensorData>,
    ) -> Result<Ticket, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads: 1 };
        let id = self.send(&model.name, |id| Request::Infer { id, model: place, inputs })?;
        Ok(Ticket { id, model: model.name.clone(), runtime, deadline: self.of_model(Duration::ZERO) })
    }

    fn finish_inference(&mut self, ticket: Ticket) -> Result<Vec<TensorData>, DeviceError> {
        let Ticket { id, model, runtime, deadline } = ticket;
        let doing = format!("{model} with {runtime}");
        match self.answer(id, &doing, deadline)? {
            Reply::Outputs { outputs, .. } => Ok(outputs),
            Reply::Failed { error, .. } => Err(DeviceError::Failed { model, runtime, reason: error }),
            other => Err(garbage(&doing, &other)),
        }
    }

    /// Returns the peak memory, in bytes, of a process on the device that runs only this model.
    ///
    /// # Errors
    /// Same as [`Session::finish`]. Also fails if that process is killed, as on a device that runs out of memory, and
    /// on devices without Linux.
    pub fn memory(&mut self, model: &Model, runtime: Runtime, threads: usize) -> Result<u64, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let doing = format!("the memory of {} with {runtime}", model.name);
        let id = self.send(&doing, |id| Request::Memory { id, model: place })?;
        match self.answer(id, &doing, self.of_model(Duration::ZERO))? {
            Reply::Memory { peak_bytes, .. } => Ok(peak_bytes),
            Reply::Failed { error, .. } => {
                Err(DeviceError::Failed { model: model.name.clone(), runtime, reason: error })
            }
            other => Err(garbage(&doing, &other)),
        }
    }
}
