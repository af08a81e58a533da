//! The subcommand that checks a running mirror.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::process::{file, run};
use crate::support::{KEY_A, Process, Reloadable, Upstream, config, is_skipped};

/// Checks the mirror that runs with the file at `path`, with these environment variables.
fn ask(path: &Path, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"));
    command.args(["health", "-c"]).arg(path);
    outcome(command.envs(env.iter().copied()).output().unwrap())
}

fn outcome(output: Output) -> (Option<i32>, String) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn health_finds_the_running_mirror_by_its_configuration() {
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
fn an_unhealthy_mirror_gives_exit_code_1_and_the_reason() {
    // Nothing listens on port 1.
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

/// A mirror whose file names its port.
fn on_a_named_port(upstream: &Upstream) -> (Reloadable, String) {
    let text = config(&[upstream.dsn(KEY_A, 11)], "admin: {port: 0}");
    let mirror = Reloadable::start(&text);
    let port = mirror.process.address.port();
    let text = text.replace("port: 0\n", &format!("port: {port}\n"));
    std::fs::write(&mirror.path, &text).unwrap();
    (mirror, text)
}

#[test]
fn a_mirror_is_healthy_after_its_file_was_changed_or_removed() {
    let upstream = Upstream::ok();
    let (mirror, good) = on_a_named_port(&upstream);
    let path = mirror.path.as_path();
    assert_eq!(ask(path, &[]), (Some(0), String::new()));
    for (text, told) in [
        (format!("{good}prot: 3\n"), "prot: unknown key"),
        (format!("{good}a: [\n"), "invalid YAML"),
        (good.replace("http://", "http//"), "expected a DSN"),
        (good.replace("port: ", "port: x"), "port: found"),
        (String::new(), "found nothing"),
    ] {
        std::fs::write(path, text).unwrap();
        let (code, stderr) = ask(path, &[]);
        assert_eq!(code, Some(0), "{told}: {stderr}");
        assert!(stderr.contains(told), "{told}: {stderr}");
        assert!(stderr.contains("changing.yml"), "{stderr}");
    }
    std::fs::remove_file(path).unwrap();
    let (code, stderr) = ask(path, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("changing.yml: cannot be read"), "{stderr}");
}

#[test]
fn health_asks_the_port_in_use_instead_of_the_port_in_the_changed_file() {
    let upstream = Upstream::ok();
    let (mirror, good) = on_a_named_port(&upstream);
    let port = mirror.process.address.port().to_string();
    let elsewhere = good.replace(&format!("port: {port}\n"), "port: 1\n");
    std::fs::write(&mirror.path, elsewhere).unwrap();
    let (code, stderr) = ask(&mirror.path, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for told in ["has 127.0.0.1:1", &port, "need a restart"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    // A mirror with the same text in another file is not checked.
    let other = file("changing.yml", &good.replace(&port, "1"));
    let (code, stderr) = ask(&other, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    // If the kernel chose the port, only the process knows it.
    std::fs::write(&mirror.path, good.replace(&port, "0")).unwrap();
    assert_eq!(ask(&mirror.path, &[]), (Some(0), String::new()));
}

#[test]
fn a_mirror_is_healthy_whatever_the_environment_of_the_health_command() {
    let upstream = Upstream::ok();
    let (mirror, _) = on_a_named_port(&upstream);
    for (variable, value) in [
        ("SENTRY_MIRROR_WORKERS", "many"),
        ("SENTRY_MIRROR_PORT", "http"),
        ("SENTRY_MIRROR_PORT", "1"),
    ] {
        let (code, stderr) = ask(&mirror.path, &[(variable, value)]);
        assert_eq!(code, Some(0), "{variable}={value}: {stderr}");
        let told = if value == "1" {
            "need a restart"
        } else {
            variable
        };
        assert!(stderr.contains(told), "{variable}={value}: {stderr}");
    }
}

#[test]
fn a_mirror_that_has_ended_is_unhealthy() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "");
    let mirror = Reloadable::start(&text);
    let path = mirror.path.clone();
    mirror.process.signal("TERM");
    assert_eq!(mirror.process.wait().0.code(), Some(0));
    // Nothing listens on port 1.
    let good = text.replace("port: 0\n", "port: 1\n");
    for text in [good.clone(), format!("{good}a: [\n"), String::new()] {
        std::fs::write(&path, &text).unwrap();
        let (code, stderr) = ask(&path, &[]);
        assert_eq!(code, Some(1), "{text}: {stderr}");
    }
}

#[test]
fn without_a_configuration_health_asks_the_only_mirror() {
    let upstream = Upstream::ok();
    let text = config(&[upstream.dsn(KEY_A, 11)], "");
    let path = file("elsewhere.yml", &text);
    // A mount namespace hides the mirrors of other tests.
    let alone = ["--mount", "--map-root-user", "--propagation=private"];
    let can = Command::new("unshare").args(alone).arg("true").output();
    let can_run = can.is_ok_and(|output| output.status.success());
    if is_skipped(can_run, "to make namespaces") {
        return;
    }
    let mirror = Process::start_with("", |command| {
        let mut unshare = Command::new("unshare");
        unshare.args(alone).arg(env!("CARGO_BIN_EXE_sentry-mirror"));
        unshare.arg("-c").arg(&path);
        *command = unshare;
    });
    let asked = Command::new("nsenter")
        .args(["--user", "--mount", "--preserve-credentials", "--target"])
        .arg(mirror.id().to_string())
        .args([env!("CARGO_BIN_EXE_sentry-mirror"), "health"])
        .output();
    assert_eq!(outcome(asked.unwrap()), (Some(0), String::new()));
}
