//! nginx as a mirror, as well as it can be set up for this.
//!
//! One worker, connections to upstreams kept alive, no access log, bodies in memory. It replaces the
//! project in the path and the key in the query and in `X-Sentry-Auth`; it has nothing to decode a
//! request body with, nor to rewrite one.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::contender::Setup;
use crate::engine::said;

/// Whether it is installed, and which it is.
pub fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.trim().rsplit('/').next()?.to_owned())
}

pub fn write_config(setup: &Setup<'_>, address: SocketAddr) -> Result<PathBuf, String> {
    let folder = setup.folder.display();
    let workers = setup.case.workers;
    let mut text = format!(
        "daemon off;\nuser root;\nworker_processes {workers};\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log error;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 16384; multi_accept on; }}\n\
         http {{\n\
         access_log off; tcp_nodelay on; sendfile off;\n\
         client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         client_body_buffer_size 2m; client_max_body_size 200m;\n\
         keepalive_timeout 75s; keepalive_requests 100000000;\n\
         proxy_http_version 1.1; proxy_buffering on;\n"
    );
    for (index, (target, sink)) in setup.targets.iter().zip(setup.sinks).enumerate() {
        let key = &target.key;
        let _ = write!(
            text,
            "upstream up{index} {{ server {sink}; keepalive 64; keepalive_requests 100000000; }}\n\
             map $http_x_sentry_auth $auth{index} {{ default $http_x_sentry_auth;\n\
             \"~^(?<a{index}>.*sentry_key=)[^,]*(?<b{index}>.*)$\" \"${{a{index}}}{key}${{b{index}}}\"; }}\n\
             map $request_uri $uri{index} {{ default $request_uri;\n\
             \"~^/api/[0-9]+(?<c{index}>/.*sentry_key=)[^&]*(?<d{index}>.*)$\" \
             \"/api/{project}${{c{index}}}{key}${{d{index}}}\";\n\
             \"~^/api/[0-9]+(?<e{index}>/.*)$\" \"/api/{project}${{e{index}}}\"; }}\n",
            project = target.project,
        );
    }
    let _ = writeln!(
        text,
        "server {{ listen {address} backlog=4096 {};",
        if workers > 1 { "reuseport" } else { "" }
    );
    text.push_str("location / {\n");
    for index in 1..setup.targets.len() {
        let _ = writeln!(text, "mirror /mirror{index};");
    }
    text.push_str("mirror_request_body on;\n");
    text.push_str(&proxy(setup, 0));
    text.push_str("}\n");
    for index in 1..setup.targets.len() {
        let _ = writeln!(text, "location = /mirror{index} {{ internal;");
        text.push_str(&proxy(setup, index));
        text.push_str("}\n");
    }
    text.push_str("}\n}\n");
    let path = setup.folder.join("nginx.conf");
    fs::write(&path, text).map_err(said("a configuration file"))?;
    Ok(path)
}

/// What sends a request to the upstream with this index.
fn proxy(setup: &Setup<'_>, index: usize) -> String {
    let scheme = if setup.case.is_tls { "https" } else { "http" };
    format!(
        "proxy_pass {scheme}://up{index}$uri{index};\n\
         proxy_set_header Host {host};\n\
         proxy_set_header Connection \"\";\n\
         proxy_set_header Accept-Encoding \"\";\n\
         proxy_set_header X-Sentry-Auth $auth{index};\n",
        host = setup.sinks[index],
    )
}
