//! Values as base64 in JSON: raw bytes, and f32 as their little-endian bytes.

use ::base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub mod bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

pub mod f32s {
    use super::*;

    pub fn serialize<S: Serializer>(values: &[f32], s: S) -> Result<S::Ok, S::Error> {
        let le: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes::serialize(&le, s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
        let le = bytes::deserialize(d)?;
        let (words, []) = le.as_chunks::<4>() else {
            return Err(D::Error::custom("the number of bytes of a tensor is not a multiple of four"));
        };
        Ok(words.iter().map(|w| f32::from_le_bytes(*w)).collect())
    }
}
