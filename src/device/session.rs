use super::{Device, DeviceError, Link};
use nas_probe::{Conditions, Hello, MeasurePlan, ModelRef, PROTOCOL, Reply, Request, Runtime, TensorData};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a probe may take for anything but measuring: loading a runtime or a model.
const GRACE: Duration = Duration::from_secs(120);

/// One probe process on a device, for as long as this lives.
pub struct Session {
    device: String,
    link: Link,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Gives the last line that the probe wrote to stderr, once it has ended.
    stderr: Option<JoinHandle<Option<String>>>,
    lines: Receiver<std::io::Result<String>>,
    hello: Hello,
    next_id: u64,
}

/// A model that lies on the device.
#[derive(Clone, Debug)]
pub struct Model {
    /// For messages.
    pub name: String,
    path: String,
}

/// Raw timings of one model.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Nanoseconds of one inference, a sample.
    pub ns: Vec<f64>,
    /// Inferences in a sample.
    pub batch: u64,
    pub before: Conditions,
    pub after: Conditions,
}

impl Session {
    /// Reaches the device and starts the probe there.
    ///
    /// # Errors
    /// Where there is no probe, it does not answer, or it is of another version.
    pub fn open(device: &Device) -> Result<Session, DeviceError> {
        Self::over(Link::open(device), &device.name)
    }

    /// Starts the probe at the other end of `link`; `device` is for messages.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn over(link: Link, device: &str) -> Result<Session, DeviceError> {
        let mut child = link.start_probe()?;
        let (send, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| send.send(line)));
        }
        let last_line = |stderr| BufReader::new(stderr).lines().map_while(Result::ok).last();
        let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || last_line(stderr)));
        let stdin = child.stdin.take();
        let mut session = Session {
            device: device.into(),
            link,
            child,
            stdin,
            stderr,
            lines,
            hello: Hello::default(),
            next_id: 1,
        };
        match session.receive("starting", GRACE)? {
            Reply::Hello(hello) if hello.protocol == PROTOCOL => session.hello = hello,
            Reply::Hello(hello) => {
                return Err(DeviceError::Protocol { theirs: hello.protocol, ours: PROTOCOL });
            }
            other => {
                return Err(DeviceError::Garbage { doing: "starting".into(), line: format!("{other:?}") });
            }
        }
        Ok(session)
    }

    /// What the probe said of itself and the device.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// # Errors
    /// Where the probe cannot run `runtime` here, with its reason.
    pub fn require(&self, runtime: Runtime) -> Result<(), DeviceError> {
        if self.hello.version(runtime).is_some() {
            return Ok(());
        }
        let reasons = self.hello.unavailable.join("; ");
        let reason = if reasons.is_empty() { "this probe was built without it".into() } else { reasons };
        Err(DeviceError::NoRuntime { runtime, device: self.device.clone(), reason })
    }

    /// Lays a model on the device.
    ///
    /// # Errors
    /// Where it cannot be written there.
    pub fn put(&self, name: impl Into<String>, onnx: &[u8]) -> Result<Model, DeviceError> {
        Ok(Model { name: name.into(), path: self.link.put(onnx, ".onnx")? })
    }

    /// Times a model.
    ///
    /// # Errors
    /// Where the runtime rejects it, or the probe ends or is silent for too long.
    pub fn measure(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        plan: MeasurePlan,
    ) -> Result<Measurement, DeviceError> {
        let longest = Duration::from_nanos(plan.warmup_ns + plan.limit_ns) + GRACE;
        let request = |id, model| Request::Measure { id, model, plan };
        match self.ask(model, runtime, threads, request, longest)? {
            Reply::Samples { ns, batch, before, after, .. } => Ok(Measurement { ns, batch, before, after }),
            other => Err(DeviceError::Garbage { doing: model.name.clone(), line: format!("{other:?}") }),
        }
    }

    /// Runs `inputs`, N×C×H×W each, through a model.
    ///
    /// # Errors
    /// As [`Session::measure`].
    pub fn infer(
        &mut self,
        model: &Model,
        runtime: Runtime,
        inputs: Vec<TensorData>,
    ) -> Result<Vec<TensorData>, DeviceError> {
        let request = |id, model| Request::Infer { id, model, inputs };
        match self.ask(model, runtime, 1, request, GRACE)? {
            Reply::Outputs { outputs, .. } => Ok(outputs),
            other => Err(DeviceError::Garbage { doing: model.name.clone(), line: format!("{other:?}") }),
        }
    }

    fn ask(
        &mut self,
        model: &Model,
        runtime: Runtime,
        threads: usize,
        request: impl FnOnce(u64, ModelRef) -> Request,
        deadline: Duration,
    ) -> Result<Reply, DeviceError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = request(id, ModelRef { path: model.path.clone(), runtime, threads });
        let doing = format!("{} with {runtime}", model.name);
        self.send(&request, &doing)?;
        match self.receive(&doing, deadline)? {
            Reply::Failed { id: of, error } if of == id => {
                Err(DeviceError::Failed { model: model.name.clone(), runtime, reason: error })
            }
            reply @ (Reply::Samples { id: of, .. } | Reply::Outputs { id: of, .. }) if of == id => Ok(reply),
            other => Err(DeviceError::Garbage { doing, line: format!("{other:?}") }),
        }
    }

    fn send(&mut self, request: &Request, doing: &str) -> Result<(), DeviceError> {
        let line = serde_json::to_string(request).unwrap_or_default();
        let sent = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(self.ended(doing)) }
    }

    fn receive(&mut self, doing: &str, deadline: Duration) -> Result<Reply, DeviceError> {
        match self.lines.recv_timeout(deadline) {
            Ok(Ok(line)) => {
                serde_json::from_str(&line).map_err(|_| DeviceError::Garbage { doing: doing.into(), line })
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(DeviceError::Deadline { seconds: deadline.as_secs(), doing: doing.into() })
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended(doing)),
        }
    }

    /// Why the probe ended: how, and the last that it said on stderr.
    fn ended(&mut self, doing: &str) -> DeviceError {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).flatten();
        let last = said.map(|line| format!(": {line}")).unwrap_or_default();
        DeviceError::Ended { doing: doing.into(), reason: format!("{status}{last}") }
    }
}

impl Drop for Session {
    /// The probe ends with its stdin.
    fn drop(&mut self) {
        self.stdin = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
