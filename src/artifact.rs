//! Files that the verbs pass to each other: they are either complete or absent.
//!
//! A file is written under a temporary name (`NAME.part`) and then renamed. Only a JSON lines file grows, by whole
//! lines; an incomplete last line, left by an interrupted write, is ignored.

use serde::{Serialize, de::DeserializeOwned};
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

/// Where to write a file before [`publish`]: `NAME.part` beside `path`. Creates the folder.
///
/// # Errors
/// If the folder cannot be created.
pub fn part(path: &Path) -> Result<PathBuf> {
    create_parent(path)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    Ok(path.with_file_name(name))
}

/// Renames the file that was written to [`part`] to `path`.
pub fn publish(path: &Path) -> Result<()> {
    io("write", path, std::fs::rename(part(path)?, path))
}

/// Removes a file if it exists.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if path.exists() => io("remove", path, Err(e)),
        _ => Ok(()),
    }
}

/// Writes a complete file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = part(path)?;
    io("write", path, std::fs::write(&part, bytes))?;
    publish(path)
}

/// Writes `value` as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, format!("{}\n", json(path, serde_json::to_string_pretty(value))?).as_bytes())
}

/// Appends `value` as a line of JSON.
pub fn append_line(path: &Path, value: &impl Serialize) -> Result<()> {
    let line = format!("{}\n", json(path, serde_json::to_string(value))?);
    create_parent(path)?;
    let mut file = io("open", path, std::fs::OpenOptions::new().create(true).append(true).open(path))?;
    io("write", path, file.write_all(line.as_bytes()))
}

/// Writes a complete JSON lines file.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    let lines: Result<Vec<String>> = values.iter().map(|v| json(path, serde_json::to_string(v))).collect();
    write(path, lines?.iter().map(|l| format!("{l}\n")).collect::<String>().as_bytes())
}

/// The bytes of a file that the command `maker` writes.
pub fn read(path: &Path, maker: &'static str) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ArtifactError::Missing { path: path.into(), maker }),
        other => io("read", path, other),
    }
}

/// BLAKE3 digest, in hex, of a value's JSON: equal for equal values.
pub fn digest(value: &impl Serialize) -> String {
    // Serialising plain data into memory does not fail. If it did, the digest would match no other, and at worst a
    // stage would run again.
    let json = serde_json::to_vec(value).unwrap_or_default();
    blake3::hash(&json).to_hex().to_string()
}

/// BLAKE3 digest, in hex, of a file that an earlier stage wrote.
pub fn digest_file(path: &Path) -> Result<String> {
    Ok(blake3::hash(&io("read", path, std::fs::read(path))?).to_hex().to_string())
}

/// Reads a JSON file that the command `maker` writes.
pub fn read_json<T: DeserializeOwned>(path: &Path, maker: &'static str) -> Result<T> {
    let bytes = read(path, maker)?;
    serde_json::from_slice(&bytes).map_err(|e| ArtifactError::Json {
        path: path.into(),
        line: e.line(),
        reason: e.to_string(),
    })
}

/// Removes an incomplete last line from a JSON lines file, so that lines can be appended to it.
pub fn drop_torn_line(path: &Path) -> Result<()> {
    let bytes = io("read", path, std::fs::read(path))?;
    match bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1) {
        whole if whole < bytes.len() => write(path, &bytes[..whole]),
        _ => Ok(()),
    }
}

/// Reads the complete lines of a JSON lines file. If there is no file, there are none.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        other => io("read", path, other)?,
    };
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    text[..whole]
        .split(|b| *b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|e| ArtifactError::Json {
                path: path.into(),
                line: i + 1,
                reason: e.to_string(),
            })
        })
        .collect()
}

/// Reads a TOML file that a person wrote.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_toml(path, &io("read", path, std::fs::read_to_string(path))?)
}

/// Parses TOML that came from `path`.
pub fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| ArtifactError::Toml { path: path.into(), reason: toml_reason(text, &e) })
}

/// A TOML error in one line: `line 3: unknown field …`.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => format!("line {}: {message}", 1 + text[..span.start].matches('\n').count()),
        None => message,
    }
}

fn json(path: &Path, result: serde_json::Result<String>) -> Result<String> {
    result.map_err(|e| ArtifactError::Json { path: path.into(), line: 0, reason: e.to_string() })
}
