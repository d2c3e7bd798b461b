//! Mutations of JSON lines that keep them valid JSON, so that they get past the parser.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// Mutates one value in one of the lines, or now and then only bytes. `data`, `size` and `max_size` are those of
/// libFuzzer's `LLVMFuzzerCustomMutator`.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mutated = if super::of_bytes(seed) { None } else { mutated(&data[..size], &mut super::rng(seed)) };
    super::replace(data, size, mutated, max_size)
}

fn mutated(input: &[u8], rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let json: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].starts_with(['{', '['])).collect();
    let &at = json.choose(rng)?;
    match rng.random_range(0..16) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines.swap(at, *json.choose(rng)?),
        _ => {
            let mut value: Value = serde_json::from_str(&lines[at]).ok()?;
            let donor = serde_json::from_str(&lines[*json.choose(rng)?]).unwrap_or(Value::Null);
            let donor = part(&donor, rng).clone();
            mutate_value(part_mut(&mut value, rng), donor, rng);
            lines[at] = value.to_string();
        }
    }
    Some((lines.join("\n") + "\n").into_bytes())
}

/// A random part of a value, large or small.
fn part<'v>(value: &'v Value, rng: &mut ChaCha8Rng) -> &'v Value {
    let inner: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => vec![],
    };
    if rng.random_ratio(1, 6) {
        return value;
    }
    inner.choose(rng).copied().map_or(value, |inner| part(inner, rng))
}

fn part_mut<'v>(value: &'v mut Value, rng: &mut ChaCha8Rng) -> &'v mut Value {
    let inner = match value {
        Value::Array(values) => values.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    if inner == 0 || rng.random_ratio(1, 6) {
        return value;
    }
    let at = rng.random_range(0..inner);
    match value {
        Value::Array(values) => part_mut(&mut values[at], rng),
        Value::Object(members) => match members.values_mut().nth(at) {
            Some(member) => part_mut(member, rng),
            None => unreachable!("there are {inner} members"),
        },
        _ => unreachable!("only arrays and objects have parts"),
    }
}

fn mutate_value(value: &mut Value, donor: Value, rng: &mut ChaCha8Rng) {
    match value {
        _ if rng.random_ratio(1, 5) => *value = donor,
        Value::Array(values) if rng.random_ratio(3, 4) => mutate_array(values, donor, rng),
        Value::Object(members) if rng.random_ratio(3, 4) => mutate_object(members, donor, rng),
        Value::Number(number) if rng.random_ratio(1, 2) => *value = near(number.as_f64().unwrap_or(0.0), rng),
        Value::String(text) if rng.random_ratio(1, 2) => mutate_text(text, rng),
        _ => *value = interesting(rng),
    }
}

fn mutate_array(values: &mut Vec<Value>, donor: Value, rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=values.len());
    match rng.random_range(0..5) {
        0 => values.insert(at, donor),
        1 => values.truncate(at),
        2 if at < values.len() => drop(values.remove(at)),
        3 if at < values.len() => values.insert(at, values[at].clone()),
        _ => values.reverse(),
    }
}

fn mutate_object(members: &mut Map<String, Value>, donor: Value, rng: &mut ChaCha8Rng) {
    let keys: Vec<String> = members.keys().cloned().collect();
    let Some(key) = keys.choose(rng) else { return };
    match rng.random_range(0..3) {
        0 => drop(members.remove(key)),
        1 => drop(members.insert(key.clone(), donor)),
        _ => drop(members.insert(format!("{key}_"), donor)),
    }
}

fn mutate_text(text: &mut String, rng: &mut ChaCha8Rng) {
    const PIECES: [&str; 10] = ["", "/", "../", "\u{1b}[2J", "<b>", "\"", "\n", "3x3", "_e16", "\u{202e}"];
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let at = starts.choose(rng).copied().unwrap_or(0);
    match rng.random_range(0..3) {
        0 => text.truncate(at),
        1 => text.insert_str(at, PIECES[rng.random_range(0..PIECES.len())]),
        _ => *text = text.repeat(2),
    }
}

/// A number that is a little, or much, different.
fn near(number: f64, rng: &mut ChaCha8Rng) -> Value {
    let changed = match rng.random_range(0..6) {
        0 => number + 1.0,
        1 => number - 1.0,
        2 => -number,
        3 => number * 2.0,
        4 => number * 1e9,
        _ => number / 2.0,
    };
    if changed.fract() == 0.0 && changed.abs() < 9e15 { json!(changed as i64) } else { json!(changed) }
}

fn interesting(rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..20) {
        0 => json!(null),
        1 => json!(true),
        2 => json!([]),
        3 => json!({}),
        4 => json!(""),
        5 => json!(0),
        6 => json!(1),
        7 => json!(-1),
        8 => json!(i64::MIN),
        9 => json!(i64::MAX),
        10 => json!(u64::MAX),
        11 => json!(1e308),
        12 => json!(-1e308),
        13 => json!(5e-324),
        14 => json!(-0.0),
        15 => json!(1u64 << 32),
        16 => json!(1u64 << rng.random_range(0..64)),
        17 => json!(rng.random_range(0..1000)),
        18 => json!(1e19),
        _ => json!(0.5),
    }
}
