//! Generated parts of the documents match the code.
//!
//! A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. To generate another one, put
//! these lines into a document and add a row to [`parts`].

use std::fs;

use sentry_mirror::internals;

const UPDATE: &str = "UPDATE_DOCS=1 cargo test --locked --test it documents";

struct Part {
    file: &'static str,
    name: &'static str,
    text: String,
}

fn parts() -> Vec<Part> {
    vec![Part {
        file: "docs/metrics.md",
        name: "metrics",
        text: internals::admin::reference::markdown(),
    }]
}

#[test]
fn generated_parts_of_the_documents_match_the_code() {
    let should_update = std::env::var_os("UPDATE_DOCS").is_some();
    for Part { file, name, text } in parts() {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let document = fs::read_to_string(&path).expect("the document exists");
        let start = format!("<!-- generated: {name} -->\n");
        let (before, rest) = document.split_once(&start).expect("the part has a start");
        let (_, after) = rest
            .split_once("<!-- end -->")
            .expect("the part has an end");
        let expected = format!("{before}{start}\n{text}\n<!-- end -->{after}");
        if should_update {
            fs::write(&path, &expected).expect("the document is writable");
        } else {
            assert!(
                document == expected,
                "{file} is out of date; run `{UPDATE}` and commit the result"
            );
        }
    }
}
