//! The requests that run models on a device.

use super::{AHEAD, Model, SLACK, Session, garbage};
use crate::device::DeviceError;
use nas_probe::{MeasurePlan, ModelRef, Reply, Request, Runtime, Samples, TensorData};
use std::collections::VecDeque;
use std::time::Duration;

/// The total size, in bytes, of the inputs that may be on their way to a model at a time.
const AHEAD_BYTES: usize = 1 << 20;

/// A request that runs a model.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    model: String,
    runtime: Runtime,
    /// What is requested, for messages.
    doing: String,
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
        let doing = doing(model, runtime);
        self.request(model, runtime, threads, doing, plan.longest(), |id, model| Request::Measure { id, model, plan })
    }

    /// Sends a request that runs a model and takes as long as `planned`, beyond the time for loading the model and for
    /// its first inference. The probe has a deadline for each of the three, and ends if one of them is missed.
    fn request(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        doing: String,
        planned: Duration,
        request: impl FnOnce(u64, ModelRef) -> Request,
    ) -> Result<Ticket, DeviceError> {
        let place = ModelRef { model: model.digest.clone(), runtime, threads };
        let id = self.send(&doing, |id| request(id, place))?;
        let deadline = self.timeout.saturating_mul(3).saturating_add(planned).saturating_add(2 * SLACK);
        Ok(Ticket { id, model: model.name.clone(), runtime, doing, deadline })
    }

    /// Waits for the reply to a request. `expected` returns its content, or the reply itself if it is another one.
    fn reply<T>(
        &mut self,
        ticket: Ticket,
        expected: impl FnOnce(Reply) -> Result<T, Box<Reply>>,
    ) -> Result<T, DeviceError> {
        let Ticket { id, model, runtime, doing, deadline } = ticket;
        match self.answer(id, &doing, deadline)? {
            Reply::Failed { error, .. } => Err(DeviceError::Failed { model, runtime, reason: error }),
            reply => expected(reply).map_err(|other| garbage(&doing, &other)),
        }
    }

    /// Waits for a measurement. Measurements must be finished in the order in which they were begun.
    ///
    /// # Errors
    /// Fails if the runtime rejects the model, or if the probe ends or does not answer in time.
    pub fn finish(&mut self, ticket: Ticket) -> Result<Samples, DeviceError> {
        self.reply(ticket, |reply| match reply {
            Reply::Samples { samples, .. } => Ok(samples),
            other => Err(other.into()),
        })
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
        let doing = doing(model, runtime);
        self.request(model, runtime, 1, doing, Duration::ZERO, |id, model| Request::Infer { id, model, inputs })
    }

    fn finish_inference(&mut self, ticket: Ticket) -> Result<Vec<TensorData>, DeviceError> {
        self.reply(ticket, |reply| match reply {
            Reply::Outputs { outputs, .. } => Ok(outputs),
            other => Err(other.into()),
        })
    }

    /// Returns the peak memory, in bytes, of a process on the device that runs only this model.
    ///
    /// # Errors
    /// Same as [`Session::finish`]. Also fails if that process is killed, as on a device that runs out of memory, and
    /// on devices without Linux.
    pub fn memory(&mut self, model: &Model, runtime: Runtime, threads: usize) -> Result<u64, DeviceError> {
        let doing = format!("the memory of {}", doing(model, runtime));
        let memory = |id, model| Request::Memory { id, model };
        let ticket = self.request(model, runtime, threads, doing, Duration::ZERO, memory)?;
        self.reply(ticket, |reply| match reply {
            Reply::Memory { peak_bytes, .. } => Ok(peak_bytes),
            other => Err(other.into()),
        })
    }
}

fn doing(model: &Model, runtime: Runtime) -> String {
    format!("{} with {runtime}", model.name)
}
