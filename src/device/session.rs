mod runs;

pub use runs::Ticket;

use super::link::Link;
use super::{Board, DeviceError};
use crate::progress;
use nas_probe::{Conditions, Hello, PROTOCOL, Reply, Request, Runtime, RuntimeInfo, sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// What the probe of this machine may take for anything but measuring: loading a runtime or a model.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(120);
/// What a probe may take to end once it is told to: it has a governor to put back.
const PARTING: Duration = Duration::from_secs(3);

/// One probe process on a device, for as long as this lives.
pub struct Session {
    board: String,
    timeout: Duration,
    /// None once the probe has ended.
    link: Option<Link>,
    lines: Receiver<std::io::Result<String>>,
    hello: Hello,
    ready: Ready,
    next_id: u64,
}

/// How the device is set for measuring.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    pub conditions: Conditions,
    /// Cores that the probe stays on; any where empty.
    pub pinned: Vec<usize>,
}

/// A model that lies on the device.
#[derive(Clone, Debug)]
pub struct Model {
    /// For messages.
    pub name: String,
    /// SHA-256 of its ONNX bytes.
    digest: String,
}

impl Session {
    /// Reaches a board, lays there what is missing, starts the probe and sets the board up.
    ///
    /// # Errors
    /// Where the board is not reached, the probe does not answer or is of another version, or the
    /// board cannot be set as asked.
    pub fn open(board: &Board) -> Result<Session, DeviceError> {
        let timeout = board.site.as_ref().map_or(LOCAL_TIMEOUT, |site| site.timeout);
        let link = Link::open(board)?;
        let broken =
            |e: std::io::Error| DeviceError::Ended { doing: "starting".into(), reason: e.to_string() };
        link.stream.set_write_timeout(Some(timeout)).map_err(broken)?;
        let stdout = link.stream.try_clone().map_err(broken)?;
        let (send, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| send.send(line)));
        let mut session = Session {
            board: board.to_string(),
            timeout,
            link: Some(link),
            lines,
            hello: Hello::default(),
            ready: Ready::default(),
            next_id: 1,
        };
        match session.receive("starting", timeout)? {
            Reply::Hello(hello) if hello.protocol == PROTOCOL => session.hello = hello,
            Reply::Hello(hello) => {
                return Err(DeviceError::Protocol { theirs: hello.protocol, ours: PROTOCOL });
            }
            other => return Err(garbage("starting", &other)),
        }
        session.set_up(board)?;
        Ok(session)
    }

    fn set_up(&mut self, board: &Board) -> Result<(), DeviceError> {
        let (sensors, pin, governor) =
            (board.device.sensors.clone(), board.pin.clone(), board.governor.clone());
        let doing = "setting the board up";
        let id = self.send(doing, |id| Request::Setup { id, sensors, pin, governor })?;
        match self.served(id, doing)? {
            Reply::Ready { conditions, pinned, notes, .. } => {
                notes.iter().for_each(|note| eprintln!("warning: {}: {note}", self.board));
                self.ready = Ready { conditions, pinned };
                Ok(())
            }
            other => Err(garbage(doing, &other)),
        }
    }

    /// What the probe said of itself and the device.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// How the device is set.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Cores that the probe may use, as it is set.
    pub fn cores(&self) -> usize {
        if self.ready.pinned.is_empty() { self.hello.cores } else { self.ready.pinned.len() }
    }

    /// The board's name and address.
    pub fn board(&self) -> &str {
        &self.board
    }

    /// What the probe runs `runtime` with here.
    ///
    /// # Errors
    /// Where it cannot, with its reason.
    pub fn require(&self, runtime: Runtime) -> Result<&RuntimeInfo, DeviceError> {
        if let Some(info) = self.hello.runtimes.iter().find(|info| info.runtime == runtime) {
            return Ok(info);
        }
        let reasons = self.hello.unavailable.join("; ");
        let reason = if reasons.is_empty() { "this probe was built without it".into() } else { reasons };
        Err(DeviceError::NoRuntime { runtime, device: self.board.clone(), reason })
    }

    /// Lays models, ONNX bytes by name, on the device: those that are not there yet, without waiting
    /// for one before the next is sent.
    ///
    /// # Errors
    /// Where they cannot be written there.
    pub fn put(&mut self, models: &[(String, Vec<u8>)]) -> Result<Vec<Model>, DeviceError> {
        let model = |(name, bytes): &(String, Vec<u8>)| Model { name: name.clone(), digest: sha256(bytes) };
        let placed: Vec<Model> = models.iter().map(model).collect();
        let doing = "asking for models";
        let digests = placed.iter().map(|model| model.digest.clone()).collect();
        let id = self.send(doing, |id| Request::Have { id, models: digests })?;
        let missing = match self.served(id, doing)? {
            Reply::Missing { models, .. } => models,
            other => return Err(garbage(doing, &other)),
        };
        let all = placed.iter().zip(models);
        let absent: Vec<_> = all.filter(|(model, _)| missing.contains(&model.digest)).collect();
        let bar = progress::bytes(
            "upload",
            "models",
            absent.iter().map(|(_, (_, bytes))| bytes.len() as u64).sum(),
        );
        let mut sent = vec![];
        for (model, (name, bytes)) in &absent {
            let (digest, bytes) = (model.digest.clone(), bytes.clone());
            sent.push(self.send(name, |id| Request::Put { id, model: digest, bytes })?);
        }
        for (id, (_, (name, bytes))) in sent.into_iter().zip(&absent) {
            let doing = format!("laying down {name}");
            match self.served(id, &doing)? {
                Reply::Stored { .. } => bar.inc(bytes.len() as u64),
                other => return Err(garbage(&doing, &other)),
            }
        }
        bar.finish_and_clear();
        Ok(placed)
    }

    fn send(&mut self, doing: &str, request: impl FnOnce(u64) -> Request) -> Result<u64, DeviceError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_string(&request(id)).unwrap_or_default();
        line.push('\n');
        let Some(link) = &mut self.link else { return Err(self.ended(doing)) };
        match link.stream.write_all(line.as_bytes()) {
            Ok(()) => Ok(id),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(self.silent(doing, self.timeout))
            }
            Err(_) => Err(self.ended(doing)),
        }
    }

    /// The reply to a request that has nothing to do with a runtime; that it failed is an error.
    fn served(&mut self, id: u64, doing: &str) -> Result<Reply, DeviceError> {
        match self.answer(id, doing, self.timeout)? {
            Reply::Failed { error, .. } => {
                Err(DeviceError::Refused { device: self.board.clone(), doing: doing.into(), reason: error })
            }
            reply => Ok(reply),
        }
    }

    /// The reply to the request that is next in turn.
    fn answer(&mut self, id: u64, doing: &str, deadline: Duration) -> Result<Reply, DeviceError> {
        let reply = self.receive(doing, deadline)?;
        if reply.id() == Some(id) { Ok(reply) } else { Err(garbage(doing, &reply)) }
    }

    fn receive(&mut self, doing: &str, deadline: Duration) -> Result<Reply, DeviceError> {
        match self.lines.recv_timeout(deadline) {
            Ok(Ok(line)) => {
                serde_json::from_str(&line).map_err(|_| DeviceError::Garbage { doing: doing.into(), line })
            }
            Err(RecvTimeoutError::Timeout) => Err(self.silent(doing, deadline)),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended(doing)),
        }
    }

    /// Gives up on a probe that does not answer: nothing waits for it once more.
    fn silent(&mut self, doing: &str, deadline: Duration) -> DeviceError {
        if let Some(link) = self.link.take() {
            link.abandon();
        }
        DeviceError::Deadline { seconds: deadline.as_secs(), doing: doing.into() }
    }

    fn ended(&mut self, doing: &str) -> DeviceError {
        let reason = self.link.take().map_or_else(|| "before".into(), Link::ended);
        DeviceError::Ended { doing: doing.into(), reason }
    }
}

fn garbage(doing: &str, reply: &Reply) -> DeviceError {
    DeviceError::Garbage { doing: doing.into(), line: format!("{reply:?}") }
}

impl Drop for Session {
    /// The probe ends with its stdin, and is waited for, since it may have a governor to put back.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let _ = link.stream.shutdown(Shutdown::Write);
        while self.lines.recv_timeout(PARTING).is_ok() {}
        link.abandon();
    }
}
