//! Closed sets of words for what is counted.
//!
//! A set is an enum whose variants, words and positions come from one list, so that they cannot get
//! out of step: a variant without a word does not compile. Nothing that a peer sent can become a
//! label.

/// One of a closed set of words.
pub trait Label: Copy + 'static {
    /// The whole set; each stands at its own [`Label::index`].
    const ALL: &'static [Self];

    /// Its position in the set.
    fn index(self) -> usize;

    /// The word, for logs and metrics.
    fn word(self) -> &'static str;
}

/// Makes an enum that is a [`Label`] from a list of `Variant => "word"`.
macro_rules! labels {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[$what:meta])* $variant:ident => $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$what])* $variant,)+
        }

        impl $crate::observe::label::Label for $name {
            const ALL: &'static [$name] = &[$($name::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
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
        /// For the test.
        enum Fruit {
            /// Round.
            Apple => "apple",
            /// Long.
            Banana => "banana",
        }
    }

    #[test]
    fn each_label_stands_at_its_index() {
        for (index, fruit) in Fruit::ALL.iter().enumerate() {
            assert_eq!(fruit.index(), index);
        }
        assert_eq!(Fruit::Banana.word(), "banana");
        assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Banana]);
    }
}
