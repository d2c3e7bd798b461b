//! Files that the verbs pass to each other. Each is either complete or absent.
//!
//! A file is written under a temporary name (`NAME.part`) and then renamed. Only a JSON lines file grows, by whole
//! lines; an incomplete last line, left by an interrupted write, is ignored.

mod draft;
mod lock;

pub use draft::{Draft, check_output, write};
pub use lock::Lock;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Io { action: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{path} is missing; `{maker}` writes it", path = path.display())]
    Missing { path: PathBuf, maker: &'static str },
    #[error("{path}, line {line}: {reason}; move the file away and create it again", path = path.display())]
    Json { path: PathBuf, line: usize, reason: String },
    #[error(
        "{path} is in use{by}; wait for it to end", path = path.display(),
        by = holder.map_or(String::new(), |pid| format!(" by process {pid}"))
    )]
    Locked { path: PathBuf, holder: Option<u32> },
    #[error("{path} is there and is no regular file; name another file", path = path.display())]
    NotAFile { path: PathBuf },
    #[error("{path} is read by the same command and would be replaced; name another file", path = path.display())]
    Input { path: PathBuf },
    #[error("{path} exists already; move it away, or replace it with --force", path = path.display())]
    OtherKind { path: PathBuf },
    #[error("cannot read {path}: {reason}", path = path.display())]
    Toml { path: PathBuf, reason: String },
}

type Result<T> = std::result::Result<T, ArtifactError>;

fn io<T>(action: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|cause| ArtifactError::Io { action, path: path.into(), cause })
}

/// Creates a folder and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    io("create the folder", path, std::fs::create_dir_all(path))
}

fn create_parent(path: &Path) -> Result<()> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), create_dir)
}

/// Writes `value` as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, format!("{}\n", json(path, serde_json::to_string_pretty(value))?).as_bytes())
}

/// Removes a file if it exists.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => io("remove", path, other),
    }
}

/// Appends `value` as a line of JSON.
pub fn append_line(path: &Path, value: &impl Serialize) -> Result<()> {
    append_lines(path, std::slice::from_ref(value))
}

/// Appends a line of JSON for each of `values`, in one write.
pub fn append_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    let lines = json(path, lines(values))?;
    create_parent(path)?;
    let mut file = io("open", path, std::fs::OpenOptions::new().create(true).append(true).open(path))?;
    io("write", path, file.write_all(&lines))
}

/// Writes a complete JSON lines file.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    write(path, &json(path, lines(values))?)
}

fn lines<T: Serialize>(values: &[T]) -> serde_json::Result<Vec<u8>> {
    let mut lines = vec![];
    for value in values {
        serde_json::to_writer(&mut lines, value)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Reads the bytes of a file that the command `maker` writes.
pub fn read(path: &Path, maker: &'static str) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ArtifactError::Missing { path: path.into(), maker }),
        other => io("read", path, other),
    }
}

/// A BLAKE3 digest in hex, which identifies what a result was computed from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(String);

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Digest, String> {
        let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 64 && is_hex { Ok(Digest(text)) } else { Err(format!("{text:?} is not a digest")) }
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Digest {
        Digest(hash.to_hex().to_string())
    }
}

impl Digest {
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        blake3::hash(bytes).into()
    }

    /// Returns the digest of a value's JSON. Equal values have equal digests.
    pub fn of(value: &impl Serialize) -> Digest {
        // Serialising plain data into memory does not fail. If it did, the digest would match no other, and at worst a
        // stage would run again.
        Self::of_bytes(&serde_json::to_vec(value).unwrap_or_default())
    }

    /// Returns the digest of the file that [`write_lines`] writes.
    pub fn of_lines(values: &[impl Serialize]) -> Digest {
        Self::of_bytes(&lines(values).unwrap_or_default())
    }

    /// Returns the digest of a file, or `None` if there is no file.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Option<Digest>> {
        match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(Self::of_bytes(&io("read", path, read)?))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a JSON file that the command `maker` writes.
pub fn read_json<T: DeserializeOwned>(path: &Path, maker: &'static str) -> Result<T> {
    let bytes = read(path, maker)?;
    serde_json::from_slice(&bytes).map_err(|e| ArtifactError::Json {
        path: path.into(),
        line: e.line(),
        reason: json_reason(&e),
    })
}

/// Reads a JSON file if it exists.
pub fn read_json_if_any<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match read_json(path, "") {
        Err(ArtifactError::Missing { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes an incomplete last line from a JSON lines file, so that lines can be appended to it.
pub fn drop_torn_line(path: &Path) -> Result<()> {
    let bytes = io("read", path, std::fs::read(path))?;
    match bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1) {
        whole if whole < bytes.len() => write(path, &bytes[..whole]),
        _ => Ok(()),
    }
}

/// Reads the complete lines of a JSON lines file. Returns no lines if there is no file.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let lines = read_each_line(path)?.into_iter();
    lines.map(|(line, value)| value.map_err(|reason| ArtifactError::Json { path: path.into(), line, reason })).collect()
}

/// Reads the complete lines of a JSON lines file. Returns each with its number, counted from 1, and for a damaged line
/// the reason instead of its value. Returns no lines if there is no file.
pub fn read_each_line<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, std::result::Result<T, String>)>> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        other => io("read", path, other)?,
    };
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    Ok(lines.map(|(i, line)| (i + 1, serde_json::from_slice(line).map_err(|e| json_reason(&e)))).collect())
}

/// Formats a JSON error without its line, which is known from elsewhere: `column 5: expected value`.
fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or(text.clone(), |message| format!("column {}: {message}", error.column()))
}

/// Reads a TOML file that a person wrote.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_toml(path, &io("read", path, std::fs::read_to_string(path))?)
}

/// Parses TOML that came from `path`.
pub fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| ArtifactError::Toml { path: path.into(), reason: toml_reason(text, &e) })
}

/// Formats a TOML error as one line: `line 3: unknown field …`.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => format!("line {}: {message}", 1 + text[..span.start].matches('\n').count()),
        None => message,
    }
}

fn json<T>(path: &Path, result: serde_json::Result<T>) -> Result<T> {
    result.map_err(|e| ArtifactError::Json { path: path.into(), line: 0, reason: e.to_string() })
}
