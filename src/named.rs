/// Declares the names of an enum's variants, as they are written in flags and in files.
macro_rules! named {
    ($kind:ident, $what:literal: $($name:literal = $variant:ident),* $(,)?) => {
        impl $kind {
            pub const ALL: &[$kind] = &[$($kind::$variant),*];
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $($kind::$variant => $name),* })
            }
        }

        impl std::str::FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<$kind, String> {
                match text {
                    $($name => Ok($kind::$variant),)*
                    _ => Err(format!("`{text}` is not {}: {}", $what, [$($name),*].join(", "))),
                }
            }
        }
    };
}

/// A text in a file. A number stands for its digits, so that the type which is parsed from them accepts the number or
/// says what is missing, such as a unit.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a text or a number")]
pub(crate) enum Text {
    String(String),
    Integer(i64),
    Float(f64),
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        match text {
            Text::String(text) => text,
            Text::Integer(number) => number.to_string(),
            Text::Float(number) => number.to_string(),
        }
    }
}

/// Reads a value, or a list of values, that a file has as text.
pub(crate) fn one_or_more<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<Text>,
    T::Error: std::fmt::Display,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a list of texts")]
    enum Written {
        One(Text),
        More(Vec<Text>),
    }
    let texts = match <Written as serde::Deserialize>::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::More(more) => more,
    };
    texts.into_iter().map(|text| text.try_into().map_err(serde::de::Error::custom)).collect()
}

/// Converts a type to and from the text that flags and files have for it, so that serde can read it from [`Text`] and
/// write it as that text.
macro_rules! as_text {
    ($kind:ident, $error:ty) => {
        impl TryFrom<crate::named::Text> for $kind {
            type Error = $error;

            fn try_from(text: crate::named::Text) -> Result<$kind, $error> {
                String::from(text).parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    };
}

pub(crate) use {as_text, named};
