use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The output channels of a layer, written as a number, a list of numbers, or `"same"`.
#[derive(Clone, Debug, PartialEq)]
pub enum Channels {
    /// Each of these numbers is a choice.
    Widths(Vec<usize>),
    /// As many as the layer's input has.
    Same,
}

const SAME: &str = "same";

impl From<Vec<usize>> for Channels {
    fn from(widths: Vec<usize>) -> Channels {
        Channels::Widths(widths)
    }
}

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Channels::Widths(widths) => widths.serialize(serializer),
            Channels::Same => serializer.serialize_str(SAME),
        }
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// Reads channels as a person writes them.
struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Channels;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number of channels, a list of such numbers, or \"same\" for as many as the layer's input has")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Channels, E> {
        let width = usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(Channels::Widths(vec![width]))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Channels, E> {
        let width = usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        Ok(Channels::Widths(vec![width]))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Channels, E> {
        if text == SAME { Ok(Channels::Same) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Channels, A::Error> {
        let mut widths = vec![];
        while let Some(width) = list.next_element()? {
            widths.push(width);
        }
        Ok(Channels::Widths(widths))
    }
}
