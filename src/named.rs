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

/// Converts a type to and from the text that flags and files have for it, so that serde can write it as that text.
macro_rules! as_text {
    ($kind:ident, $error:ty) => {
        impl TryFrom<String> for $kind {
            type Error = $error;

            fn try_from(text: String) -> Result<$kind, $error> {
                text.parse()
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
