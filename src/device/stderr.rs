//! The end of what a program wrote to stderr.

use nas_probe::printable;
use std::io::Read;

/// The number of bytes that are kept.
const KEPT: usize = 64 << 10;

/// The last bytes of a stream.
#[derive(Default)]
pub struct StderrTail(Vec<u8>);

impl StderrTail {
    /// Reads a stream to its end.
    pub fn read(mut from: impl Read) -> StderrTail {
        let (mut tail, mut chunk) = (StderrTail::default(), [0; 4096]);
        while let Ok(got @ 1..) = from.read(&mut chunk) {
            tail.push(&chunk[..got]);
        }
        tail
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.drain(..self.0.len().saturating_sub(KEPT));
    }

    /// Returns the last line, after a colon, as a terminal can show it, or an empty text if there is none.
    pub fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        last.map(|line| format!(": {}", printable(&excerpt(line)))).unwrap_or_default()
    }
}

/// Returns the beginning of a text.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
