//! The sub-command that asks a running mirror whether it is well.

use std::process::Command;

use crate::support::process::{file, run};
use crate::support::{KEY_A, Process, Upstream, config};

#[test]
fn a_running_mirror_is_found_by_its_configuration() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "");
    let mirror = Process::start(&text);
    let port = mirror.address.port();
    let known = text.replace("port: 0", &format!("port: {port}"));
    let path = file("config.yml", &known);
    let ended = run(&["health", "-c", path.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));

    let everywhere = file("config.yml", &known.replace("127.0.0.1", "0.0.0.0"));
    let ended = run(&["health", "-c", everywhere.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let elsewhere = file("config.yml", &text.replace("port: 0", "port: 1"));
    let asked = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"))
        .args(["health", "-c", elsewhere.to_str().unwrap()])
        .env("SENTRY_MIRROR_PORT", port.to_string())
        .status();
    assert!(asked.unwrap().success());
}

#[test]
fn what_is_not_well_is_told_with_exit_code_1() {
    // Nobody listens there: only root may, and nobody does.
    let upstream = Upstream::start(|_, _| crate::support::Action::Answer(503, "{}"));
    let at = |port: u16| {
        let text = config(&[upstream.dsn(KEY_A, 11)], "");
        file(
            "config.yml",
            &text.replace("port: 0", &format!("port: {port}")),
        )
    };
    let missing = file("config.yml", "").with_file_name("missing.yml");
    for (path, expected) in [
        (at(1), "no answer from 127.0.0.1:1"),
        (at(upstream.address.port()), "503"),
        (missing, "missing.yml"),
    ] {
        let ended = run(&["health", "-c", path.to_str().unwrap()]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
}
