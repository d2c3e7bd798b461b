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

pub(crate) use named;
