//! What an unknown category should have been.

use super::suggest::suggest;
use crate::sentry::category::{Category, CategorySet};

pub(super) fn expected_category(name: &str) -> String {
    let known: Vec<&str> = CategorySet::names().collect();
    match suggest(name, &known) {
        Some(suggestion) => format!("a category, did you mean {suggestion}?"),
        None => {
            let names = Category::ALL.map(Category::name);
            format!("a category, one of {}", names.join(", "))
        }
    }
}
