//! Why the system refuses something, in words for an operator.
//!
//! An error number has several causes, and the one that is named is the one that gets mended. So what can
//! be read is read: the limits, the sysctls, whether there is a seccomp filter.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};

/// Below which port a process needs a capability, where the system does not say.
const UNPRIVILEGED_PORT_DEFAULT: u16 = 1024;

/// Why nothing can listen on `address`. `key` is the configuration key of the address.
pub(crate) fn listen_error(address: SocketAddr, key: &str, error: &io::Error) -> String {
    let why = listen_error_cause(address, key, error);
    format!("cannot listen on {address}: {why}")
}

/// The same without the words that it is about listening, and where.
pub(crate) fn listen_error_cause(address: SocketAddr, key: &str, error: &io::Error) -> String {
    let first = setting("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.and_then(|first| first.parse().ok());
    let first = first.unwrap_or(UNPRIVILEGED_PORT_DEFAULT);
    let advice = listening_advice(address, key, error, first);
    format!("{error}{advice}")
}

fn listening_advice(address: SocketAddr, key: &str, error: &io::Error, first: u16) -> String {
    let port = address.port();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; is another process using the port?".to_owned(),
        Some(libc::EADDRNOTAVAIL) => format!("; `{key}` is not an address of this host"),
        Some(libc::EAFNOSUPPORT) => {
            format!("; this host has no IPv6, expected an IPv4 address for `{key}`")
        }
        Some(libc::EACCES) if port < first && port != 0 => format!(
            "; ports below {first} (sysctl net.ipv4.ip_unprivileged_port_start) need the capability CAP_NET_BIND_SERVICE: take a port from {first} on, or give the process the capability"
        ),
        Some(libc::EACCES | libc::EPERM) => {
            "; a security module such as SELinux, or a seccomp profile, forbids it".to_owned()
        }
        _ => String::new(),
    }
}

/// Why a thread could not be started.
pub(crate) fn thread_error(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            thread_advice(own_cgroup().as_deref(), getrlimit(Resource::Nproc).current)
        }
        Some(libc::ENOMEM) => "; there is no memory for it".to_owned(),
        _ => String::new(),
    };
    format!("cannot start a thread: {error}{advice}")
}

/// Which of the limits on processes and threads is reached: that of the `cgroup` or else that of the user.
fn thread_advice(cgroup: Option<&Path>, of_user: Option<u64>) -> String {
    let count = |name: &str| -> Option<u64> { setting(cgroup?.join(name))?.parse().ok() };
    match (count("pids.max"), count("pids.current"), of_user) {
        (Some(most), Some(now), _) if now >= most => format!(
            "; the cgroup allows {most} processes and threads (pids.max): raise it, for example with `--pids-limit` of Docker or `TasksMax=` of systemd"
        ),
        (_, _, Some(most)) => format!(
            "; the user may have {most} processes and threads: raise that, for example with `ulimit -u`, `--ulimit nproc=` of Docker or `LimitNPROC=` of systemd"
        ),
        _ => "; a limit of processes and threads is reached: pids.max of the cgroup, or the sysctls kernel.threads-max and kernel.pid_max".to_owned(),
    }
}

/// The folder of this process's cgroup (version 2).
fn own_cgroup() -> Option<PathBuf> {
    let cgroups = Process::myself().ok()?.cgroups().ok()?;
    let unified = cgroups.into_iter().find(|group| group.hierarchy == 0)?;
    let path = unified.pathname.trim_start_matches('/').to_owned();
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// Why there is no io_uring.
pub(crate) fn io_uring_error(error: &io::Error) -> String {
    let disabled = setting("/proc/sys/kernel/io_uring_disabled");
    let seccomp = Process::myself().and_then(|process| process.status());
    let is_filtered = seccomp.is_ok_and(|status| status.seccomp == Some(2));
    let advice = io_uring_advice(error, disabled.as_deref(), is_filtered);
    format!("io_uring refused ({error}); {advice}")
}

fn io_uring_advice(error: &io::Error, disabled: Option<&str>, is_filtered: bool) -> &'static str {
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some("2")) => {
            "the sysctl kernel.io_uring_disabled is 2, which forbids it to all: set it to 0"
        }
        (Some(libc::EPERM), Some("1")) => {
            "the sysctl kernel.io_uring_disabled is 1, which allows it only to the group of the sysctl kernel.io_uring_group and with CAP_SYS_ADMIN: set it to 0, or let the mirror run in that group"
        }
        (Some(libc::EPERM | libc::EACCES), _) if is_filtered => {
            "a seccomp profile forbids it: allow io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a security module such as SELinux or AppArmor forbids it: its policy has to allow it"
        }
        (Some(libc::ENOSYS), _) if is_filtered => {
            "a seccomp profile hides it, or the kernel has none: allow io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        (Some(libc::ENOSYS), _) => "the kernel has none: it was built without CONFIG_IO_URING",
        (Some(libc::ENOMEM), _) => {
            "too little locked memory: raise it, for example with `--ulimit memlock=67108864`, or run as a user of its own"
        }
        _ => "see the error",
    }
}

/// What a file of the kernel says.
fn setting(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_port_that_cannot_be_had_has_the_cause_that_holds() {
        let told = |address: &str, number, first| {
            listening_advice(address.parse().unwrap(), "ip", &of(number), first)
        };
        assert!(told("0.0.0.0:80", libc::EADDRINUSE, 1024).contains("another process"));
        assert!(told("0.0.0.0:80", libc::EACCES, 1024).contains("below 1024"));
        assert!(told("0.0.0.0:80", libc::EACCES, 80).contains("security module"));
        assert!(told("0.0.0.0:3000", libc::EACCES, 1024).contains("security module"));
        let elsewhere = told("192.0.2.1:80", libc::EADDRNOTAVAIL, 1024);
        assert_eq!(elsewhere, "; `ip` is not an address of this host");
        assert_eq!(told("0.0.0.0:80", libc::EINVAL, 1024), "");
    }

    #[test]
    fn a_limit_of_threads_is_named_where_it_is() {
        let folder =
            std::env::temp_dir().join(format!("sentry-mirror-pids-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let told = |most: &str, now: &str, of_user| {
            fs::write(folder.join("pids.max"), most).unwrap();
            fs::write(folder.join("pids.current"), now).unwrap();
            thread_advice(Some(&folder), of_user)
        };
        assert!(told("9\n", "9\n", Some(5)).contains("the cgroup allows 9"));
        assert!(told("9\n", "8\n", Some(5)).contains("the user may have 5"));
        assert!(told("max\n", "8\n", Some(5)).contains("the user may have 5"));
        assert!(told("max\n", "8\n", None).contains("kernel.threads-max"));
        assert!(thread_advice(None, Some(5)).contains("the user may have 5"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_refuses_io_uring_is_named_alone() {
        let told =
            |number, disabled, is_filtered| io_uring_advice(&of(number), disabled, is_filtered);
        for (advice, expected, other) in [
            (
                told(libc::EPERM, Some("2"), true),
                "io_uring_disabled is 2",
                "seccomp",
            ),
            (
                told(libc::EPERM, Some("1"), false),
                "io_uring_group",
                "seccomp",
            ),
            (
                told(libc::EPERM, Some("0"), true),
                "seccomp profile",
                "sysctl",
            ),
            (told(libc::EPERM, None, true), "seccomp profile", "sysctl"),
            (
                told(libc::EPERM, Some("0"), false),
                "security module",
                "sysctl",
            ),
            (
                told(libc::ENOSYS, None, false),
                "CONFIG_IO_URING",
                "seccomp",
            ),
            (told(libc::ENOSYS, None, true), "seccomp profile", "sysctl"),
            (
                told(libc::ENOMEM, Some("0"), true),
                "locked memory",
                "seccomp",
            ),
        ] {
            assert!(
                advice.contains(expected) && !advice.contains(other),
                "{advice}"
            );
        }
    }
}
