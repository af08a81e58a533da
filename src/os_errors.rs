//! Advice for operators on errors of the operating system.
//!
//! An error number can have several causes, and an operator will fix the one that the message names. The
//! actual cause is therefore read from the system: limits, sysctls, and whether there is a seccomp filter.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};

/// The default of the sysctl `net.ipv4.ip_unprivileged_port_start`.
const UNPRIVILEGED_PORT_DEFAULT: u16 = 1024;

/// The message that listening on `address` failed. `key` is the configuration key of the address.
pub(crate) fn listen_error(address: SocketAddr, key: &str, error: &io::Error) -> String {
    let cause = listen_error_cause(address, key, error);
    format!("cannot listen on {address}: {cause}")
}

/// The error with advice.
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
            "; ports below {first} (sysctl net.ipv4.ip_unprivileged_port_start) need the capability CAP_NET_BIND_SERVICE: use port {first} or above, or give the process the capability"
        ),
        Some(libc::EACCES | libc::EPERM) => {
            "; a security module such as SELinux, or a seccomp profile, forbids it".to_owned()
        }
        _ => String::new(),
    }
}

/// The message that starting a thread failed.
pub(crate) fn thread_error(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            thread_advice(own_cgroup().as_deref(), getrlimit(Resource::Nproc).current)
        }
        Some(libc::ENOMEM) => "; out of memory".to_owned(),
        _ => String::new(),
    };
    format!("cannot start a thread: {error}{advice}")
}

/// Names the limit that was reached: that of `cgroup`, or otherwise that of the user.
fn thread_advice(cgroup: Option<&Path>, user_limit: Option<u64>) -> String {
    let count = |name: &str| -> Option<u64> { setting(cgroup?.join(name))?.parse().ok() };
    match (count("pids.max"), count("pids.current"), user_limit) {
        (Some(most), Some(now), _) if now >= most => format!(
            "; the cgroup allows {most} processes and threads (pids.max): raise the limit, for example with `--pids-limit` of Docker or `TasksMax=` of systemd"
        ),
        (_, _, Some(most)) => format!(
            "; the user is limited to {most} processes and threads: raise the limit, for example with `ulimit -u`, `--ulimit nproc=` of Docker or `LimitNPROC=` of systemd"
        ),
        _ => "; a limit on processes and threads was reached: pids.max of the cgroup, or the sysctls kernel.threads-max and kernel.pid_max".to_owned(),
    }
}

/// The directory of this process's cgroup (version 2).
fn own_cgroup() -> Option<PathBuf> {
    let cgroups = Process::myself().ok()?.cgroups().ok()?;
    let unified = cgroups.into_iter().find(|group| group.hierarchy == 0)?;
    let path = unified.pathname.trim_start_matches('/').to_owned();
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// The message that io_uring cannot be used.
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
            "the sysctl kernel.io_uring_disabled is 2, which forbids it to every process: set it to 0"
        }
        (Some(libc::EPERM), Some("1")) => {
            "the sysctl kernel.io_uring_disabled is 1, which allows it only to the group in the sysctl kernel.io_uring_group and with CAP_SYS_ADMIN: set it to 0, or run the mirror in that group"
        }
        (Some(libc::EPERM | libc::EACCES), _) if is_filtered => {
            "a seccomp profile forbids it: allow io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a security module such as SELinux or AppArmor forbids it: allow it in its policy"
        }
        (Some(libc::ENOSYS), _) if is_filtered => {
            "a seccomp profile hides it, or the kernel does not support it: allow io_uring_setup, io_uring_enter and io_uring_register in the profile"
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel does not support it: it was built without CONFIG_IO_URING"
        }
        (Some(libc::ENOMEM), _) => {
            "the limit on locked memory is too low: raise it, for example with `--ulimit memlock=67108864`, or run the mirror as a separate user"
        }
        _ => "see the error",
    }
}

/// The trimmed content of a small file of the kernel, such as a sysctl; `None` if it cannot be read.
fn setting(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os_error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_listen_error_names_its_actual_cause() {
        let advice = |address: &str, number, first| {
            listening_advice(address.parse().unwrap(), "ip", &os_error(number), first)
        };
        assert!(advice("0.0.0.0:80", libc::EADDRINUSE, 1024).contains("another process"));
        assert!(advice("0.0.0.0:80", libc::EACCES, 1024).contains("below 1024"));
        assert!(advice("0.0.0.0:80", libc::EACCES, 80).contains("security module"));
        assert!(advice("0.0.0.0:3000", libc::EACCES, 1024).contains("security module"));
        let elsewhere = advice("192.0.2.1:80", libc::EADDRNOTAVAIL, 1024);
        assert_eq!(elsewhere, "; `ip` is not an address of this host");
        assert_eq!(advice("0.0.0.0:80", libc::EINVAL, 1024), "");
    }

    #[test]
    fn the_thread_limit_that_was_reached_is_named() {
        let folder =
            std::env::temp_dir().join(format!("sentry-mirror-pids-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let advice = |most: &str, now: &str, user_limit| {
            fs::write(folder.join("pids.max"), most).unwrap();
            fs::write(folder.join("pids.current"), now).unwrap();
            thread_advice(Some(&folder), user_limit)
        };
        assert!(advice("9\n", "9\n", Some(5)).contains("the cgroup allows 9"));
        assert!(advice("9\n", "8\n", Some(5)).contains("the user is limited to 5"));
        assert!(advice("max\n", "8\n", Some(5)).contains("the user is limited to 5"));
        assert!(advice("max\n", "8\n", None).contains("kernel.threads-max"));
        assert!(thread_advice(None, Some(5)).contains("the user is limited to 5"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_the_cause_of_an_io_uring_error_is_named() {
        let advice = |number, disabled, is_filtered| {
            io_uring_advice(&os_error(number), disabled, is_filtered)
        };
        for (advice, expected, other) in [
            (
                advice(libc::EPERM, Some("2"), true),
                "io_uring_disabled is 2",
                "seccomp",
            ),
            (
                advice(libc::EPERM, Some("1"), false),
                "io_uring_group",
                "seccomp",
            ),
            (
                advice(libc::EPERM, Some("0"), true),
                "seccomp profile",
                "sysctl",
            ),
            (advice(libc::EPERM, None, true), "seccomp profile", "sysctl"),
            (
                advice(libc::EPERM, Some("0"), false),
                "security module",
                "sysctl",
            ),
            (
                advice(libc::ENOSYS, None, false),
                "CONFIG_IO_URING",
                "seccomp",
            ),
            (
                advice(libc::ENOSYS, None, true),
                "seccomp profile",
                "sysctl",
            ),
            (
                advice(libc::ENOMEM, Some("0"), true),
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
