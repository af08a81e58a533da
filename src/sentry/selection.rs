//! The selection of an outbound: the categories that it accepts, and the share of each.
//!
//! A selection is built once, from the configuration. Data of an unknown category is accepted only without a list of
//! categories, and sampled at the rate for all.

use std::fmt;

use super::category::{Category, CategorySet};
use super::sampling::SamplingKey;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// `None` for all, including unknown ones.
    categories: Option<CategorySet>,
    rates: Rates,
}

/// The share of each category, a number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    known: [f64; Category::ALL.len()],
    unknown: f64,
}

/// Why a selection drops data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// By category.
    Filtered,
    /// By sampling.
    Sampled,
    /// By a cap of the outbound.
    Capped,
}

impl Rates {
    /// Everything.
    pub const FULL: Rates = Rates::uniform(1.0);

    /// The same share of everything.
    pub const fn uniform(rate: f64) -> Rates {
        Rates {
            known: [rate; Category::ALL.len()],
            unknown: rate,
        }
    }

    pub fn set(&mut self, categories: CategorySet, rate: f64) {
        for (known, category) in self.known.iter_mut().zip(Category::ALL) {
            if categories.contains(category) {
                *known = rate;
            }
        }
    }

    pub fn get(&self, category: Option<Category>) -> f64 {
        let known = category.and_then(|category| {
            let index = Category::ALL.iter().position(|known| *known == category);
            self.known.get(index?)
        });
        known.copied().unwrap_or(self.unknown)
    }
}

impl Selection {
    /// Everything.
    pub const ALL: Selection = Selection {
        categories: None,
        rates: Rates::FULL,
    };

    /// `None` for a selection that accepts everything.
    pub fn new(categories: Option<CategorySet>, rates: Rates) -> Option<Selection> {
        let takes_all = categories.is_none() && rates == Rates::FULL;
        (!takes_all).then_some(Selection { categories, rates })
    }

    /// The accepted categories; `None` for all.
    pub fn categories(&self) -> Option<CategorySet> {
        self.categories
    }

    /// The share, if it is the same for all categories.
    pub fn uniform_rate(&self) -> Option<f64> {
        let rate = self.rates.unknown;
        (self.rates == Rates::uniform(rate)).then_some(rate)
    }

    /// The categories that are sampled, each with its share.
    pub fn sampled(&self) -> impl Iterator<Item = (Category, f64)> {
        let rates = Category::ALL.into_iter().zip(self.rates.known);
        rates.filter(|(_, rate)| *rate < 1.0)
    }

    /// Whether anything is sampled, so that sampling keys are needed.
    pub fn samples(&self) -> bool {
        self.rates != Rates::FULL
    }

    /// Whether it accepts data of unknown categories, and so an empty envelope.
    pub fn takes_unknown(&self) -> bool {
        self.categories.is_none()
    }

    /// The share of `category` that is kept. Meaningful only if the category is accepted.
    pub fn rate(&self, category: Option<Category>) -> f64 {
        self.rates.get(category)
    }

    /// Whether to keep data of `category` with this sampling key.
    pub fn take(&self, category: Option<Category>, key: SamplingKey) -> Result<(), Unwanted> {
        let is_wanted = self
            .categories
            .is_none_or(|wanted| category.is_some_and(|category| wanted.contains(category)));
        if !is_wanted {
            Err(Unwanted::Filtered)
        } else if key.is_within(self.rate(category)) {
            Ok(())
        } else {
            Err(Unwanted::Sampled)
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(categories) = self.categories {
            let names: Vec<&str> = categories.iter().map(Category::name).collect();
            write!(f, "categories {}", names.join(","))?;
        }
        let space = if self.categories.is_some() { " " } else { "" };
        match self.uniform_rate() {
            Some(rate) if rate < 1.0 => write!(f, "{space}sample_rate {rate}")?,
            Some(_) => {}
            None => {
                write!(f, "{space}sample_rate")?;
                for (category, rate) in self.sampled() {
                    write!(f, " {}:{rate}", category.name())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rate_for_all_equals_the_same_rate_for_each_category() {
        let all = Selection::new(None, Rates::uniform(0.1)).unwrap();
        let mut each = Rates::FULL;
        for category in Category::ALL {
            each.set(CategorySet::from_slice(&[category]), 0.1);
        }
        let each = Selection::new(None, each).unwrap();
        for number in 0..100_000 {
            let key = SamplingKey::new(format!("{number:032x}").as_bytes());
            for category in Category::ALL.map(Some) {
                assert_eq!(all.take(category, key), each.take(category, key));
            }
        }
        // Categories without a rate are not sampled.
        assert_eq!((all.rate(None), each.rate(None)), (0.1, 1.0));
    }

    #[test]
    fn a_filter_accepts_its_categories_and_nothing_unknown() {
        let errors = CategorySet::from_slice(&[Category::Error]);
        let selection = Selection::new(Some(errors), Rates::FULL).unwrap();
        let key = SamplingKey::new(b"");
        assert_eq!(selection.take(Some(Category::Error), key), Ok(()));
        for other in [Some(Category::Session), None] {
            assert_eq!(selection.take(other, key), Err(Unwanted::Filtered));
        }
        let none = Selection::new(None, Rates::uniform(0.0)).unwrap();
        assert_eq!(none.take(None, key), Err(Unwanted::Sampled));
        assert_eq!(Selection::new(None, Rates::FULL), None);
    }
}
