//! Network namespaces of the benchmark's own, as root or in a user namespace.

use std::fs::{self, File};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tun;
use crate::engine::said;

const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The first one where there are few.
const FIRST_PORT: u16 = 20_000;

pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// The one that this thread is in.
    pub fn current() -> Result<Namespace, String> {
        let handle = File::open("/proc/thread-self/ns/net");
        Ok(Namespace {
            handle: handle.map_err(said("/proc/thread-self/ns/net"))?,
        })
    }

    /// Makes one and moves this thread into it; processes and sockets that it makes belong there.
    pub fn create() -> Result<Namespace, String> {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Err(Errno::EPERM) => {
                become_root()?;
                unshare(CloneFlags::CLONE_NEWNET).map_err(said("a network namespace"))?;
            }
            made => made.map_err(said("a network namespace"))?,
        }
        tun::loopback_up()?;
        tune();
        Namespace::current()
    }

    /// Moves this thread into it.
    pub fn enter(&self) -> Result<(), String> {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(said("cannot enter a network namespace"))
    }
}

/// Moves this process into a user namespace in which it may do what root may.
fn become_root() -> Result<(), String> {
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("this needs root or user namespaces: {error}"))?;
    // Without these entries it could not make files.
    for (file, text) in [
        ("uid_map", format!("0 {user} 1")),
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("0 {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(said("a user namespace"))?;
    }
    Ok(())
}

/// How TCP controls congestion in the namespace of this thread.
pub fn congestion_control() -> String {
    let name = fs::read_to_string(CONGESTION).unwrap_or_default();
    name.trim().to_owned()
}

/// Leaves so many local ports to the namespace of this thread.
pub fn limit_ports(count: u16) -> Result<(), String> {
    let (first, last) = (FIRST_PORT, FIRST_PORT + count - 1);
    fs::write(PORTS, format!("{first} {last}")).map_err(said(PORTS))
}

/// Gives it the settings of a common server: what is missing in a kernel has to be done without.
fn tune() {
    for (name, value) in [
        ("tcp_max_syn_backlog", "16384"),
        // A slot must not know what another one has learnt.
        ("tcp_no_metrics_save", "1"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    }
    let _ = fs::write("/proc/sys/net/core/somaxconn", "16384");
    let _ = fs::write(PORTS, "1024 65535");
    // A kernel may allow only some outside of its first namespace; Reno is always there.
    let _ = fs::write(CONGESTION, "cubic").or_else(|_| fs::write(CONGESTION, "reno"));
}
