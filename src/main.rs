//! Command line to exit code; all else is in the library, so that tests, benches and fuzzers reach it.

use std::io::{self, Write};
use std::process::ExitCode;

use sentry_mirror::{Arguments, RunError};

/// The mirror cannot run.
const FAILED: u8 = 1;

/// The configuration cannot be used.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let Err(error) = sentry_mirror::run(&Arguments::from_process()) else {
        return ExitCode::SUCCESS;
    };
    // Where standard error is closed, the code still says it.
    let _ = writeln!(io::stderr(), "sentry-mirror: {error}");
    ExitCode::from(match error {
        RunError::Failed(_) => FAILED,
        RunError::Config(_) => BAD_CONFIG,
    })
}
