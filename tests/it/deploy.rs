//! The seccomp profiles, the image, the units.
//!
//! These tests read the profiles independently of the script that generates them, so that its mistakes
//! show. Checks that need other programs, such as the schemas of Kubernetes, are in `tests/deploy` and
//! `tests/container`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::file;

const CALLS: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

fn text(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

fn profile(path: &str) -> Value {
    serde_json::from_str(&text(path)).expect("JSON")
}

fn names(rule: &Value) -> Vec<&str> {
    let names = rule["names"].as_array().expect("a list");
    names.iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn the_seccomp_profile_is_dockers_default_plus_io_uring() {
    let default = profile("deploy/seccomp/docker-default.json");
    let mut ours = profile("deploy/seccomp-io_uring.json");
    let all: Vec<&str> = default["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(names)
        .collect();
    assert!(all.len() > 350, "{} names", all.len());
    assert!(!all.iter().any(|name| name.starts_with("io_uring")));

    let added = ours["syscalls"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(ours, default, "apart from the last rule nothing differs");
    assert_eq!(names(&added), CALLS);
    assert_eq!(added["action"], json!("SCMP_ACT_ALLOW"));
    let keys: Vec<&String> = added.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["action", "comment", "names"]);
}

/// What a profile decides for a process without capabilities on an architecture, one line for each
/// system call and condition on its arguments.
fn decisions(profile: &Value, architecture: &str) -> BTreeSet<String> {
    let has = |conditions: &Value, key: &str, value: &str| {
        let list = conditions[key].as_array();
        list.is_some_and(|list| list.contains(&json!(value)))
    };
    let is_for_us = |rule: &Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let needs_capability = includes["caps"]
            .as_array()
            .is_some_and(|caps| !caps.is_empty());
        let is_elsewhere = includes["arches"].is_array() && !has(includes, "arches", architecture);
        !needs_capability && !is_elsewhere && !has(excludes, "arches", architecture)
    };
    let rules = profile["syscalls"].as_array().unwrap().iter();
    rules
        .filter(|rule| is_for_us(rule))
        .flat_map(|rule| {
            names(rule).into_iter().map(move |name| {
                let conditions = rule["args"].as_array().cloned().unwrap_or_default();
                let (action, errno) = (&rule["action"], &rule["errnoRet"]);
                format!("{name} {action} {errno} {conditions:?}")
            })
        })
        .collect()
}

#[test]
fn the_kubernetes_profile_equals_the_docker_profile() {
    let ours = profile("deploy/seccomp-io_uring.json");
    let flat = profile("deploy/seccomp/kubernetes.json");
    for key in ["defaultAction", "defaultErrnoRet"] {
        assert_eq!(ours[key], flat[key]);
    }
    let of_both: BTreeSet<String> = ["amd64", "arm64"]
        .iter()
        .flat_map(|architecture| decisions(&ours, architecture))
        .collect();
    // In this format a rule holds on every architecture; unknown calls are ignored.
    assert_eq!(decisions(&flat, "any"), of_both);
    assert!(of_both.iter().any(|line| line.starts_with("clone3 ")));
    assert!(!of_both.iter().any(|line| line.starts_with("mount ")));
    for (rule, key) in flat["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule.as_object().unwrap().keys().map(move |key| (rule, key)))
    {
        let known = ["names", "action", "errnoRet", "args"];
        assert!(
            known.contains(&key.as_str()),
            "{key} of {rule} would be ignored"
        );
    }
    for name in ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"] {
        let listed = flat["architectures"].as_array().unwrap();
        assert!(listed.contains(&json!(name)));
    }
}

#[test]
fn documents_and_manifests_state_the_same_numbers() {
    let dockerfile = text("Dockerfile");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(dockerfile.contains(&format!("RUST_IMAGE=rust:{rust}-")));
    assert!(dockerfile.contains("EXPOSE 3000\n") && dockerfile.contains("STOPSIGNAL SIGTERM\n"));
    let deployment = text("deploy/kubernetes/base/deployment.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(deployment.contains(&format!("image: sentry-mirror:{version}\n")));
    assert!(text("deploy/compose.yml").contains("seccomp=./seccomp-io_uring.json"));
    assert!(dockerfile.contains(&format!("ARG VERSION={version}\n")));
    assert!(text("deploy/sentry-mirror.socket").contains("ListenStream=0.0.0.0:3000\n"));
    for call in CALLS {
        assert!(text("deploy/sentry-mirror.service").contains(call));
    }
}

#[test]
fn every_deployment_restarts_the_mirror_and_needs_a_configuration() {
    let unit = text("deploy/sentry-mirror.service");
    // All processes that share a passed socket need it in the same mode.
    for line in [
        "RestartSec=2",
        "StartLimitIntervalSec=0",
        "RestartPreventExitStatus=2",
        "NonBlocking=yes",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    let compose: serde_yaml::Value = serde_yaml::from_str(&text("deploy/compose.yml")).unwrap();
    let service = &compose["services"]["sentry-mirror"];
    let mount = &service["volumes"][0];
    // A file mounted on its own would still be the old one after it was replaced.
    assert_eq!(mount["target"].as_str(), Some("/etc/sentry-mirror"));
    let path = service["command"][1].as_str();
    assert_eq!(path, Some("/etc/sentry-mirror/config.yml"));
    assert_eq!(mount["read_only"].as_bool(), Some(true));
    assert_eq!(mount["bind"]["create_host_path"].as_bool(), Some(false));
    let dockerfile = text("Dockerfile");
    let arguments = service["build"]["args"].as_mapping().unwrap();
    assert!(!arguments.is_empty());
    for name in arguments.keys() {
        let line = format!("ARG {}=", name.as_str().unwrap());
        assert!(dockerfile.contains(&line), "{line}");
    }
}

/// The instructions of the Dockerfile, each in one line.
fn instructions() -> Vec<String> {
    let joined = text("Dockerfile").replace("\\\n", " ");
    let is_instruction = |line: &&str| !line.is_empty() && !line.starts_with('#');
    joined
        .lines()
        .filter(is_instruction)
        .map(str::to_owned)
        .collect()
}

/// What an instruction copies from the build context.
fn copied(instruction: &str) -> Vec<&str> {
    let words: Vec<&str> = instruction.split_whitespace().collect();
    match words.as_slice() {
        ["COPY", first, ..] if first.starts_with("--from=") => Vec::new(),
        ["COPY", sources @ .., _] => sources.to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn the_sources_of_the_image_are_not_ignored() {
    let ignored = text(".dockerignore");
    let instructions = instructions();
    let sources: Vec<&str> = instructions.iter().flat_map(|line| copied(line)).collect();
    assert!(sources.contains(&"src"), "{sources:?}");
    for source in sources {
        let exception = format!("!{source}");
        assert!(ignored.lines().any(|line| line == exception), "{source}");
    }
}

#[test]
fn the_image_builds_its_dependencies_without_the_sources() {
    const BUILD: &str = "cargo build --release --locked";
    let instructions = instructions();
    let is_build = |line: &String| line.starts_with("RUN ") && line.contains(BUILD);
    let at = instructions.iter().position(is_build).unwrap();
    let (before, rest) = instructions.split_at(at);
    let folder = file("Dockerfile", "").parent().unwrap().to_owned();
    for source in before.iter().flat_map(|line| copied(line)) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        fs::copy(from, folder.join(source)).expect("a file");
    }
    // The build step without the compilation: cargo reads the manifest, which must name no missing file,
    // and the lock file, which must match. (`cargo metadata` overlooks missing files.)
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let look = format!("\"$CARGO\" fetch --offline --locked --target {host}");
    let script = rest[0].strip_prefix("RUN ").unwrap().replace(BUILD, &look);
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("CARGO", env!("CARGO"))
        .current_dir(&folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

/// Runs the script with a file for each side; the command shows what it was called with, and fails for
/// the sides that are named.
fn upload(failing: &str) -> (Option<i32>, String, String) {
    let old = file(
        "old.env",
        "# the old side\nSENTRY_URL=https://old\nSENTRY_AUTH_TOKEN=a=b c\n",
    );
    let new = file("new.env", "SENTRY_AUTH_TOKEN=new");
    const COMMAND: &str = r#"echo "${SENTRY_URL-none} $SENTRY_AUTH_TOKEN ${SENTRY_DSN-none} $1"
        [[ $SENTRY_AUTH_TOKEN != "$2" ]]"#;
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/upload-to-both"))
        .args([old.as_os_str(), new.as_os_str()])
        .args(["--", "bash", "-c", COMMAND, "bash", "two words", failing])
        .env("SENTRY_DSN", "of the shell")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn an_upload_runs_for_every_side_with_the_settings_of_that_side() {
    let (code, shown, _) = upload("none");
    assert_eq!(code, Some(0));
    assert_eq!(
        shown,
        "https://old a=b c none two words\nnone new none two words\n"
    );
}

#[test]
fn an_upload_that_fails_for_one_side_names_it_and_runs_for_the_other() {
    let (code, shown, told) = upload("a=b c");
    assert_eq!(code, Some(1));
    assert_eq!(shown.lines().count(), 2);
    let last = told.lines().last().unwrap();
    assert!(
        last.contains("FAILED for") && last.contains("old.env (exit code 1)"),
        "{last}"
    );
    assert!(!last.contains("new.env"), "{last}");
}

/// The commands of the workflows: what stands behind `run:`, on one line each.
fn workflow_commands() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let files = fs::read_dir(folder).expect("a folder");
    let texts = files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut commands = Vec::new();
    for text in texts {
        let starts = text.lines().filter_map(|line| line.split_once("run: "));
        commands.extend(starts.map(|(_, command)| command.to_owned()));
    }
    commands
}

#[test]
fn the_workflows_call_scripts_that_are_there_and_filters_that_name_tests() {
    let tests = text("tests/it/command_line.rs") + &text("tests/it/os_errors.rs");
    let mut scripts = 0;
    for command in workflow_commands() {
        let words: Vec<&str> = command.split_whitespace().collect();
        for word in &words {
            let is_script = [".ci/", "deploy/", "fuzz/", "tests/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            if is_script && !word.ends_with(".json") {
                scripts += 1;
                let mode = fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(word));
                assert!(mode.is_ok_and(|file| file.is_file()), "{word} in {command}");
            }
        }
        for pair in words.windows(2).filter(|pair| pair[0] == "--skip") {
            let named = tests
                .lines()
                .any(|line| line.starts_with("fn ") && line.contains(pair[1]));
            assert!(named, "{} in {command}", pair[1]);
        }
    }
    assert!(scripts >= 10, "only {scripts} scripts were found");
}
