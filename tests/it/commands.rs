//! Every command in the README and in `docs/`: those of the mirror itself are parsed as the program does it, and
//! all others stand in a list, with where they are run or why they cannot be run here.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use sentry_mirror::Arguments;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the same command, or its like, is run.
enum Proof {
    /// This file has this text.
    RunBy(&'static str, &'static str),
    NotRunnable(&'static str),
}
use Proof::{NotRunnable, RunBy};

/// How commands of others begin.
#[rustfmt::skip]
const OTHERS: &[(&str, Proof)] = &[
    ("cargo run --release -- demo --once", RunBy(".ci/run", "target/release/sentry-mirror demo --once")),
    ("cargo install --locked --path .", NotRunnable("builds what .ci/run builds, and puts it into the home of the user")),
    ("cargo run --release --locked --manifest-path benches/compare/Cargo.toml", RunBy(".ci/run", "--manifest-path benches/compare/Cargo.toml -- --check")),
    ("python3 -m venv venv && venv/bin/pip install sentry-sdk", RunBy("tests/sdk/run", "-m venv")),
    ("venv/bin/python -c 'import sentry_sdk", RunBy("tests/sdk/clients/python.py", "sentry_sdk.init(")),
    ("curl -s http://127.0.0.1:3001/status", NotRunnable("needs jq; tests/it/admin.rs and tests/it/metrics.rs read the same page")),
    ("docker build", RunBy("tests/container/run", "engine build")),
    ("docker run", RunBy("tests/container/mirror", "engine\" run")),
    ("openssl req -x509", RunBy("tests/container/drain.py", "req -x509")),
    ("kubectl apply", NotRunnable("needs a cluster; tests/deploy/run checks the manifests against the schemas")),
    ("{ printf", NotRunnable("needs a cluster")),
    ("sed 's/^/  /' deploy/prometheus-alerts.yml", NotRunnable("needs a cluster; tests/deploy/run parses the alerts")),
    ("apt install ./sentry-mirror_", RunBy("tests/packages/run", "dpkg -i /tmp/sentry-mirror.deb")),
    ("editor ", NotRunnable("a person edits")),
    ("systemctl ", NotRunnable("needs systemd as process 1; tests/deploy/run lets systemd check the units")),
    ("useradd --system", RunBy("deploy/debian/postinst", "adduser --quiet --system")),
    ("install ", RunBy("deploy/deb", "install -D -m")),
    ("sentry-cli sourcemaps inject", NotRunnable("needs a build of a web application")),
    ("deploy/upload-to-both", RunBy("tests/it/deploy.rs", "upload-to-both")),
];

/// The commands in the blocks for a shell, each on one line and without its comment.
fn commands(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_shell = false;
    let text = document.replace("\\\n", " ");
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_shell = !is_shell && language == "sh";
        } else if is_shell {
            let command = line.split("  #").next().unwrap_or_default().trim();
            if !command.is_empty() && !command.starts_with('#') {
                found.push(command.to_owned());
            }
        }
    }
    found
}

fn all_commands() -> Vec<String> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).expect("a folder");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    let readme = Path::new(ROOT).join("README.md");
    let texts = docs
        .chain([readme])
        .map(|path| fs::read_to_string(path).expect("a document"));
    texts.flat_map(|text| commands(&text)).collect()
}

#[test]
fn the_program_understands_its_commands_in_the_documents() {
    let commands = all_commands();
    let own = commands
        .iter()
        .filter(|command| command.starts_with("sentry-mirror "));
    let mut count = 0;
    for command in own {
        count += 1;
        // A shell takes the rest.
        let own = command.split(" >").next().unwrap_or_default();
        let words = own.split_whitespace().map(OsString::from).collect();
        let parsed = Arguments::from_words(words);
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
    }
    assert!(count >= 8, "only {count} were found");
}

#[test]
fn every_other_command_in_the_documents_is_run_or_cannot_be() {
    let commands = all_commands();
    let others = commands
        .iter()
        .filter(|command| !command.starts_with("sentry-mirror "));
    let unknown: Vec<&String> = others
        .filter(|command| !OTHERS.iter().any(|(start, _)| command.starts_with(start)))
        .collect();
    assert!(
        unknown.is_empty(),
        "add to the list in {}: {unknown:#?}",
        file!()
    );
    for (start, proof) in OTHERS {
        let is_there = commands.iter().any(|command| command.starts_with(start));
        assert!(is_there, "no document has {start:?}");
        match proof {
            RunBy(file, text) => {
                let content = fs::read_to_string(Path::new(ROOT).join(file)).expect("a file");
                assert!(content.contains(text), "{file} does not have {text:?}");
            }
            NotRunnable(reason) => assert!(!reason.is_empty()),
        }
    }
}

#[test]
fn files_that_commands_name_are_there() {
    for command in all_commands() {
        for word in command.split([' ', '=', ':', ';']) {
            let is_ours = ["deploy/", "tests/", "benches/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            let exists = Path::new(ROOT).join(word).exists();
            assert!(!is_ours || exists, "{word} in {command}");
        }
    }
}
