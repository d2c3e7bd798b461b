use std::io::{self, BufRead, Read};

/// Maximum length of a request. A model is sent as one request, in base64.
pub const MOST_REQUEST_BYTES: u64 = 1 << 30;
/// Maximum length of a reply.
pub const MOST_REPLY_BYTES: u64 = 64 << 20;

/// What was read from a stream of lines.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// The beginning of a line longer than the limit, whose rest was not read.
    TooLong,
    /// The stream ended. What followed the end of the last line is lost.
    Ended,
}

/// Reads a line of at most `most` bytes, without ever keeping more.
///
/// # Errors
/// The error of the stream.
pub fn read_line(from: &mut impl BufRead, most: u64) -> io::Result<Line> {
    let mut line = vec![];
    let limit = most.saturating_add(1);
    from.by_ref().take(limit).read_until(b'\n', &mut line)?;
    Ok(match line.pop_if(|last| *last == b'\n') {
        Some(_) => Line::Whole(line),
        None if line.len() as u64 == limit => Line::TooLong,
        None => Line::Ended,
    })
}

/// Returns a text from elsewhere as a terminal can show it. Control characters, and characters that reorder or hide
/// text, are written as `\u{…}`, since a terminal would obey them.
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        let hides =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        c.is_control() || hides
    };
    let shown = |c: char| if obeyed(c) { c.escape_unicode().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}
