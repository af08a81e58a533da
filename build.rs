//! Finds out of which commit the program is made, for `--version`.
//!
//! `SENTRY_MIRROR_COMMIT` says it where there is no repository, as in the build of an image. Where
//! neither it nor git knows, the version stands alone: a build must not fail for that.

use std::env;
use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "SENTRY_MIRROR_COMMIT";

/// How many characters of a commit are shown.
const LENGTH: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let told = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(checked_out).unwrap_or_default();
    let is_commit = commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let version = match commit.get(..LENGTH.min(commit.len())) {
        Some(commit) if is_commit && !commit.is_empty() => {
            format!("{} ({commit})", env!("CARGO_PKG_VERSION"))
        }
        Some(_) | None => env!("CARGO_PKG_VERSION").to_owned(),
    };
    println!("cargo::rustc-env=SENTRY_MIRROR_VERSION={version}");
}

/// The commit that is checked out, if this folder is the root of a repository.
fn checked_out() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // It grows with every commit and with every change of the branch. Naming a file that is not
    // there would make each build start from here.
    let changes = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&changes).exists() {
        println!("cargo::rerun-if-changed={changes}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
