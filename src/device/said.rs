//! The end of what a program wrote to stderr.

use nas_probe::printable;
use std::io::Read;

/// The number of bytes that are kept.
const KEPT: usize = 64 << 10;

/// The last bytes of a stream.
#[derive(Default)]
pub struct Said(Vec<u8>);

impl Said {
    /// Reads a stream to its end.
    pub fn all(mut from: impl Read) -> Said {
        let (mut said, mut chunk) = (Said::default(), [0; 4096]);
        while let Ok(got @ 1..) = from.read(&mut chunk) {
            said.push(&chunk[..got]);
        }
        said
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.drain(..self.0.len().saturating_sub(KEPT));
    }

    /// Returns the last line, after a colon, as a terminal can show it, or an empty text if there is none.
    pub fn last_line(&self) -> String {
        let said = String::from_utf8_lossy(&self.0);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
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
