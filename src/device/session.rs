mod runs;

pub use runs::Ticket;

use super::link::Link;
use super::stderr::excerpt;
use super::{Board, DeviceError};
use crate::progress;
use nas_exporters::{Graph, Precision, onnx};
use nas_probe::{
    Conditions, DeployedGraph, Hello, Line, MOST_REPLY_BYTES, MOST_REQUEST_BYTES, PROTOCOL, Reply, Request, Runtime,
    RuntimeInfo, printable, read_line, sha256,
};
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long a probe may take to end once its stdin is closed. It may have to restore a governor.
const PARTING: Duration = Duration::from_secs(3);
/// How much longer than the probe itself allows an answer may take before the host gives up.
const SLACK: Duration = Duration::from_secs(10);
/// The number of lines that are read ahead.
const AHEAD: usize = 16;

/// A probe process on a device, which ends when this is dropped.
pub struct Session {
    board: String,
    timeout: Duration,
    /// `None` once the probe has ended.
    link: Option<Link>,
    lines: Receiver<Line>,
    hello: Hello,
    ready: Ready,
    next_id: u64,
}

/// How the device is set up for measuring.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    pub conditions: Conditions,
    /// Cores that the probe is pinned to. If empty, it is not pinned.
    pub pinned: Vec<usize>,
}

/// A model that the device can run.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name for messages.
    pub name: String,
    /// SHA-256 of its ONNX bytes.
    digest: String,
}

/// The form in which a model is sent.
#[derive(Clone, Debug)]
pub enum Source {
    /// An untrained network: some kilobytes, from which the probe makes the ONNX file.
    Graph { graph: Graph, precision: Precision },
    /// An ONNX file.
    File(Vec<u8>),
}

impl Session {
    /// Connects to a board, uploads what is missing there, starts the probe and sets the board up.
    ///
    /// # Errors
    /// Fails if the board cannot be reached, if the probe does not answer or is of another version, or if the board
    /// cannot be set up as requested.
    pub fn open(board: &Board) -> Result<Session, DeviceError> {
        let timeout = board.timeout();
        let link = Link::open(board)?;
        let broken = |e: std::io::Error| DeviceError::Ended { doing: "starting".into(), reason: e.to_string() };
        link.stream.set_write_timeout(Some(timeout)).map_err(broken)?;
        let stdout = link.stream.try_clone().map_err(broken)?;
        let (send, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || read(stdout, &send));
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
        let (sensors, pin, governor) = (board.device.sensors.clone(), board.pin.clone(), board.governor.clone());
        let (timeout_ns, alone) = (u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX), board.alone);
        let doing = "setting the board up";
        let id = self.send(doing, |id| Request::Setup { id, sensors, pin, governor, timeout_ns, alone })?;
        // The probe waits a few seconds for another one that is about to end.
        match self.served(id, doing)? {
            Reply::Ready { conditions, pinned, notes, .. } => {
                notes.iter().for_each(|note| log::warn!("{}: {note}", self.board));
                self.ready = Ready { conditions, pinned };
                Ok(())
            }
            other => Err(garbage(doing, &other)),
        }
    }

    /// Returns what the probe reported about itself and the device.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Returns how the device is set up.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Returns the number of cores that the probe may use: the pinned ones, or else all.
    pub fn cores(&self) -> usize {
        if self.ready.pinned.is_empty() { self.hello.cores } else { self.ready.pinned.len() }
    }

    /// Returns the board's name and address.
    pub fn board(&self) -> &str {
        &self.board
    }

    /// Returns the version and execution providers of `runtime` on this device.
    ///
    /// # Errors
    /// Fails if the runtime cannot be used, with the reason that the probe gives.
    pub fn require(&self, runtime: Runtime) -> Result<&RuntimeInfo, DeviceError> {
        if let Some(info) = self.hello.runtimes.iter().find(|info| info.runtime == runtime) {
            return Ok(info);
        }
        let reasons = self.hello.unavailable.join("; ");
        let reason = if reasons.is_empty() { "this probe was built without it".into() } else { reasons };
        Err(DeviceError::NoRuntime { runtime, device: self.board.clone(), reason })
    }

    /// Sends models to the device, each with a name for messages: all graphs, and those files that are not stored there
    /// yet.
    ///
    /// # Errors
    /// Fails if a graph cannot be written as ONNX, or if a file cannot be stored on the device.
    pub fn place(&mut self, models: &[(String, Source)]) -> Result<Vec<Model>, DeviceError> {
        let (mut placed, mut graphs, mut files) = (vec![], vec![], vec![]);
        let mut graph_bytes = 0;
        for (name, source) in models {
            let digest = match source {
                Source::Graph { graph, precision } => {
                    let bytes = onnx::untrained(graph, *precision)?;
                    let (model, graph, precision) = (sha256(&bytes), graph.clone(), *precision);
                    graph_bytes += bytes.len() as u64;
                    graphs.push(DeployedGraph { model: model.clone(), graph, precision });
                    model
                }
                Source::File(bytes) => {
                    let digest = sha256(bytes);
                    files.push((name, digest.clone(), bytes));
                    digest
                }
            };
            placed.push(Model { name: name.clone(), digest });
        }
        if !graphs.is_empty() {
            self.place_graphs(graphs, graph_bytes)?;
        }
        if !files.is_empty() {
            self.place_files(&files)?;
        }
        Ok(placed)
    }

    fn place_graphs(&mut self, graphs: Vec<DeployedGraph>, bytes: u64) -> Result<(), DeviceError> {
        let doing = "sending graphs";
        let id = self.send(doing, |id| Request::Graphs { id, graphs })?;
        match self.served(id, doing)? {
            Reply::Known { room_bytes, .. } if room_bytes < bytes => {
                let mb = |bytes: u64| bytes.div_ceil(1_000_000);
                let (board, room, all) = (&self.board, mb(room_bytes), mb(bytes));
                log::info!(
                    "{board} keeps {room} of {all} MB of models loaded; it loads the others again when they are needed"
                );
                Ok(())
            }
            Reply::Known { .. } => Ok(()),
            other => Err(garbage(doing, &other)),
        }
    }

    /// Stores those files (name, digest and content) that are not on the device yet. All of them are sent before the
    /// first reply is read.
    fn place_files(&mut self, files: &[(&String, String, &Vec<u8>)]) -> Result<(), DeviceError> {
        let doing = "asking which models are stored";
        let digests = files.iter().map(|(_, digest, _)| digest.clone()).collect();
        let id = self.send(doing, |id| Request::Have { id, models: digests })?;
        let missing = match self.served(id, doing)? {
            Reply::Missing { models, .. } => models,
            other => return Err(garbage(doing, &other)),
        };
        let absent: Vec<_> = files.iter().filter(|(_, digest, _)| missing.contains(digest)).collect();
        let bytes = absent.iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
        let bar = progress::bytes("upload", "models", bytes);
        let mut sent = vec![];
        for (name, digest, bytes) in &absent {
            let (model, bytes) = (digest.clone(), bytes.to_vec());
            sent.push(self.send(name, |id| Request::Put { id, model, bytes })?);
        }
        for (id, (name, _, bytes)) in sent.into_iter().zip(&absent) {
            let doing = format!("storing {name}");
            match self.served(id, &doing)? {
                Reply::Stored { .. } => bar.inc(bytes.len() as u64),
                other => return Err(garbage(&doing, &other)),
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn send(&mut self, doing: &str, request: impl FnOnce(u64) -> Request) -> Result<u64, DeviceError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_string(&request(id)).unwrap_or_default();
        if line.len() as u64 > MOST_REQUEST_BYTES {
            // A model is sent as base64, in which four characters stand for three bytes.
            let (model, bytes, most) = (doing.into(), line.len() / 4 * 3, MOST_REQUEST_BYTES / 4 * 3);
            return Err(DeviceError::TooLarge { model, bytes, most });
        }
        line.push('\n');
        let Some(link) = &mut self.link else { return Err(self.ended(doing)) };
        match link.stream.write_all(line.as_bytes()) {
            Ok(()) => Ok(id),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(self.silent(doing, self.timeout)),
            Err(_) => Err(self.ended(doing)),
        }
    }

    /// Returns the reply to a request that runs no model. A failure is an error.
    fn served(&mut self, id: u64, doing: &str) -> Result<Reply, DeviceError> {
        match self.answer(id, doing, self.timeout.saturating_add(SLACK))? {
            Reply::Failed { error, .. } => {
                Err(DeviceError::Refused { device: self.board.clone(), doing: doing.into(), reason: error })
            }
            reply => Ok(reply),
        }
    }

    /// Returns the reply to the request `id`, which must be the oldest without a reply.
    fn answer(&mut self, id: u64, doing: &str, deadline: Duration) -> Result<Reply, DeviceError> {
        let reply = self.receive(doing, deadline)?;
        if reply.id() == Some(id) { Ok(reply) } else { Err(garbage(doing, &reply)) }
    }

    fn receive(&mut self, doing: &str, deadline: Duration) -> Result<Reply, DeviceError> {
        match self.lines.recv_timeout(deadline) {
            Ok(Line::Whole(line)) => serde_json::from_slice(&line).map_err(|error| {
                let text = printable(&excerpt(&String::from_utf8_lossy(&line)));
                DeviceError::Garbage { doing: doing.into(), line: format!("{text} ({error})") }
            }),
            Ok(Line::TooLong) => {
                let line = format!("a line of more than {MOST_REPLY_BYTES} bytes");
                Err(DeviceError::Garbage { doing: doing.into(), line })
            }
            Err(RecvTimeoutError::Timeout) => Err(self.silent(doing, deadline)),
            Ok(Line::Ended) | Err(RecvTimeoutError::Disconnected) => Err(self.ended(doing)),
        }
    }

    /// Gives up on a probe that does not answer, without waiting for it again.
    fn silent(&mut self, doing: &str, deadline: Duration) -> DeviceError {
        if let Some(link) = self.link.take() {
            link.abandon();
        }
        DeviceError::Deadline { seconds: deadline.as_secs(), doing: doing.into() }
    }

    fn ended(&mut self, doing: &str) -> DeviceError {
        let reason = self.link.take().map_or_else(|| "it had already ended".into(), Link::ended);
        DeviceError::Ended { doing: doing.into(), reason }
    }
}

fn garbage(doing: &str, reply: &Reply) -> DeviceError {
    DeviceError::Garbage { doing: doing.into(), line: excerpt(&format!("{reply:?}")) }
}

/// Passes on the lines of a probe until it ends, or writes a line that is too long. Lines that nobody takes are not
/// read.
fn read(stdout: UnixStream, send: &SyncSender<Line>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let line = read_line(&mut stdout, MOST_REPLY_BYTES).unwrap_or(Line::Ended);
        let last = !matches!(line, Line::Whole(_));
        if send.send(line).is_err() || last {
            return;
        }
    }
}

impl Drop for Session {
    /// Closes the stdin of the probe, which then ends. Waits for it, since it may have to restore a governor.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let _ = link.stream.shutdown(Shutdown::Write);
        // One deadline for everything that it may still say.
        let until = Instant::now() + PARTING;
        while let Ok(Line::Whole(_)) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {}
        link.abandon();
    }
}
