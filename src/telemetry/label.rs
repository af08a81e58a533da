//! Closed sets of label values.
//!
//! A set is an enum that is defined together with the word and the meaning of each variant, so that they
//! cannot get out of step. Nothing that a peer sends can become a label.

/// A value of a closed set.
pub trait Label: Copy + 'static {
    /// The whole set, ordered by [`Label::index`].
    const ALL: &'static [Self];

    fn index(self) -> usize;

    /// The word for logs and metrics.
    fn word(self) -> &'static str;

    /// The meaning, for the reference of metrics.
    fn meaning(self) -> &'static str;
}

/// Defines an enum that is a [`Label`] from a list of `Variant => "word"`. The doc comment of a variant
/// is its meaning, and users read it in `docs/metrics.md`.
macro_rules! labels {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[doc = $meaning:literal])* $variant:ident => $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $meaning])* $variant,)+
        }

        impl $crate::telemetry::label::Label for $name {
            const ALL: &'static [$name] = &[$($name::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            fn meaning(self) -> &'static str {
                match self {
                    $($name::$variant => concat!($($meaning),*).trim_ascii(),)+
                }
            }
        }
    };
}

pub(crate) use labels;

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        enum Fruit {
            /// A round
            /// fruit.
            Apple => "apple",
            Banana => "banana",
        }
    }

    #[test]
    fn the_set_is_ordered_by_index() {
        for (index, fruit) in Fruit::ALL.iter().enumerate() {
            assert_eq!(fruit.index(), index);
        }
        assert_eq!(Fruit::Banana.word(), "banana");
        assert_eq!(Fruit::Apple.meaning(), "A round fruit.");
        assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Banana]);
    }
}
