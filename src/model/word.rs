//! Enumerations whose Rust, wire and SQL names are one word, so that there is no table to keep in step.

/// Writes `as_str`, `Display`, `FromStr` and `ALL` for an enum whose wire, SQL and Rust names are the same word.
macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word, as it stands on the wire and in SQL.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::model::word::UnknownWord;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $(stringify!($variant) => Ok(Self::$variant),)+
                    _ => Err($crate::model::word::UnknownWord {
                        got: word.to_owned(),
                        known: &[$(stringify!($variant)),+],
                    }),
                }
            }
        }
    };
}
pub(crate) use word_enum;

/// A word that an enumeration does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is none of {}", known.join(", "))]
pub struct UnknownWord {
    /// What was got.
    pub got: String,
    /// What would have been understood.
    pub known: &'static [&'static str],
}
