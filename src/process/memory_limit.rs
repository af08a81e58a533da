//! Finds the memory limit of the process, and fits `limits.memory_bytes` and the connection limits to it.
//!
//! A container with a limit of 256 MiB may run on a host with a thousand times as much. The effective limit
//! is the smallest of the process's control group and its ancestors (cgroup v1 and v2), or the memory of the
//! machine. The kernel kills a process that exceeds it, while a mirror at its own limit replies with 503. So
//! the default of `limits.memory_bytes` stays below the limit, and a configured value that does not fit
//! causes a warning.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, MountInfos};
use procfs::{FromBufRead, Meminfo, ProcessCGroups};

use crate::config::{Config, Outbound, Upstream};
use crate::sentry::dsn::Scheme;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The memory of a process, and of each of its workers, without the requests. One test checks these values
/// with a mirror under attack, another one with thousands of outbounds.
const PROCESS_BYTES: u64 = 24 * MIB;
const WORKER_BYTES: u64 = 32 * MIB;

/// The memory of access log lines that wait to be written.
const ACCESS_LOG_BYTES: u64 = 16 * MIB;

/// The memory of each route and each outbound, once and per worker: its texts, its counters, its history of
/// the last minutes, and the same again while a reload builds the next table.
const TARGET_BYTES: u64 = 12 * KIB;
const TARGET_WORKER_BYTES: u64 = 2 * KIB;

/// The memory of each origin, with the thread that resolves its host.
const ORIGIN_BYTES: u64 = 64 * KIB;

/// The memory of each SDK connection, and of each delivery with its connection or each idle connection.
const CONNECTION_BYTES: u64 = 24 * KIB;
const UPSTREAM_BYTES: u64 = 24 * KIB;
const TLS_UPSTREAM_BYTES: u64 = 88 * KIB;

/// The minimum for the requests of a worker, whatever the memory limit, and the minimum numbers of
/// connections and of deliveries per origin.
const WORKER_BUDGET_BYTES_MIN: u64 = 4 * MIB;
const CONNECTIONS_MIN: u64 = 64;
const IN_FLIGHT_MIN: u64 = 16;

/// How many thirds of the remaining memory the requests get. Connections and deliveries get the last third.
/// A control group also counts the kernel's socket buffers; they use what of all this is not in use.
const BUDGET_THIRDS: u64 = 2;

/// The files of a control group that limit its memory, in version 2 and 1. Above `memory.high` the kernel
/// kills nothing but slows everything down.
const LIMIT_FILES: [&str; 3] = ["memory.max", "memory.high", "memory.limit_in_bytes"];

/// Limits that fit the memory of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// `limits.memory_bytes`.
    pub(super) memory_bytes: usize,
    /// `limits.connections` of each worker.
    pub(super) connections: usize,
    /// `limits.in_flight` of each worker.
    pub(super) in_flight: usize,
    /// For the operator, if the configured `limits.memory_bytes` does not fit.
    pub(super) warning: Option<String>,
}

/// The memory in bytes that this process may use, from the files below `root`; `None` if it is unknown.
/// Only tests use another `root` than `/`.
pub(super) fn available(root: &Path) -> Option<u64> {
    let machine = read::<Meminfo>(&root.join("proc/meminfo")).map(|memory| memory.mem_total);
    let limits = groups(root).into_iter().flat_map(|(top, group)| {
        let groups = group.ancestors().map(Path::to_owned).collect::<Vec<_>>();
        let within = groups
            .into_iter()
            .take_while(move |dir| dir.starts_with(&top));
        within
            .flat_map(|dir| LIMIT_FILES.map(|file| limit(&dir.join(file))))
            .flatten()
    });
    limits.chain(machine).min()
}

/// Fits the limits of `config` for this many workers to `available` bytes.
pub(super) fn fit(config: &Config, workers: usize, available: u64) -> Fitted {
    let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
    let configured = config.limits.memory_bytes;
    let configured_bytes = u64::try_from(configured).unwrap_or(u64::MAX);
    let fixed = PROCESS_BYTES
        .saturating_add(WORKER_BYTES.saturating_mul(workers))
        .saturating_add(configured_parts(config, workers));
    if config.is_memory_configured {
        let sum = fixed.saturating_add(configured_bytes);
        let warning = (sum > available).then(|| {
            format!(
                "limits.memory_bytes is {} MiB, so the process may use up to {} MiB in all; the kernel kills it above {} MiB",
                configured_bytes / MIB,
                sum / MIB,
                available / MIB
            )
        });
        return Fitted {
            memory_bytes: configured,
            connections: config.limits.connections,
            in_flight: config.limits.in_flight,
            warning,
        };
    }
    let rest = available.saturating_sub(fixed);
    let memory_bytes = (rest / 3 * BUDGET_THIRDS)
        .max(WORKER_BUDGET_BYTES_MIN.saturating_mul(workers))
        .min(configured_bytes.saturating_mul(workers));
    let half = rest.saturating_sub(memory_bytes) / workers / 2;
    let upstream_bytes =
        upstreams(config)
            .into_iter()
            .map(|upstream| match upstream.origin.scheme {
                Scheme::Http => UPSTREAM_BYTES,
                Scheme::Https => TLS_UPSTREAM_BYTES,
            });
    let connections = (half / CONNECTION_BYTES).max(CONNECTIONS_MIN);
    let in_flight = (half / upstream_bytes.sum::<u64>().max(1)).max(IN_FLIGHT_MIN);
    let at_most = |limit: usize, bound: u64| limit.min(usize::try_from(bound).unwrap_or(limit));
    Fitted {
        memory_bytes: usize::try_from(memory_bytes).unwrap_or(configured),
        connections: at_most(config.limits.connections, connections),
        in_flight: at_most(config.limits.in_flight, in_flight),
        warning: None,
    }
}

fn upstreams(config: &Config) -> HashSet<Upstream> {
    let outbounds = config.routes.iter().flat_map(|route| &route.outbounds);
    outbounds.map(Outbound::upstream).collect()
}

/// The memory of the routes, outbounds, origins and the access log of `config`.
fn configured_parts(config: &Config, workers: u64) -> u64 {
    let outbounds = || config.routes.iter().flat_map(|route| &route.outbounds);
    let bytes_of = |count: usize, bytes: u64| {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        count.saturating_mul(bytes)
    };
    let target_bytes = TARGET_WORKER_BYTES
        .saturating_mul(workers)
        .saturating_add(TARGET_BYTES);
    let log_bytes = config.access_log.map_or(0, |_| ACCESS_LOG_BYTES);
    bytes_of(config.routes.len() + outbounds().count(), target_bytes)
        .saturating_add(bytes_of(upstreams(config).len(), ORIGIN_BYTES))
        .saturating_add(log_bytes)
}

/// The folders of the control groups that may limit the memory of this process, as pairs of the mount point
/// of the hierarchy and the folder of the group.
fn groups(root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let own = read::<ProcessCGroups>(&root.join("proc/self/cgroup"));
    let mounts = read::<MountInfos>(&root.join("proc/self/mountinfo"));
    let mut groups = Vec::new();
    for mount in mounts.iter().flat_map(|mounts| &mounts.0) {
        for group in own.iter().flat_map(|own| &own.0) {
            let is_memory = |name: &String| name == "memory";
            let is_here = match mount.fs_type.as_str() {
                "cgroup2" => group.hierarchy == 0,
                "cgroup" => {
                    mount.super_options.contains_key("memory")
                        && group.controllers.iter().any(is_memory)
                }
                _ => false,
            };
            if is_here {
                let top = below(root, &mount.mount_point);
                let group = top.join(within(mount, &group.pathname));
                groups.push((top, group));
            }
        }
    }
    groups
}

/// The path of a control group below the mount point of its hierarchy. In a container, the mount may begin
/// at the container's own group, while the name of the group is still the whole path on the host.
fn within<'g>(mount: &MountInfo, group: &'g str) -> &'g Path {
    let group = Path::new(group);
    let below = group.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    below.strip_prefix("/").unwrap_or(below)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The limit in a file, in bytes; `None` for `max`. Version 1 has a number above any memory instead.
fn limit(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.trim().parse().ok()
}

fn read<T: FromBufRead>(path: &Path) -> Option<T> {
    let file = File::open(path).ok()?;
    T::from_buf_read(BufReader::new(file)).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GIB: u64 = 1024 * MIB;
    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n";

    /// A folder like the root of a system with 8 GiB of memory, with additional files.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let name = format!("sentry-mirror-memory-{name}-{}", std::process::id());
            let root = Root(std::env::temp_dir().join(name));
            let _ = fs::remove_dir_all(&root.0);
            let others = "MemFree Buffers Cached SwapCached Active Inactive SwapTotal SwapFree Dirty \
                          Writeback Mapped Slab Committed_AS VmallocTotal VmallocUsed VmallocChunk";
            let others = others.split_ascii_whitespace();
            let lines = others
                .map(|name| format!("{name}: 1 kB\n"))
                .collect::<String>();
            root.write(
                "proc/meminfo",
                &format!("MemTotal:        8388608 kB\n{lines}"),
            );
            for (file, text) in files {
                root.write(file, text);
            }
            root
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn available(&self) -> Option<u64> {
            available(&self.0)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn without_a_cgroup_limit_the_limit_is_the_memory_of_the_machine() {
        assert_eq!(Root::new("none", &[]).available(), Some(8 * GIB));
        let max = Root::new(
            "max",
            &[
                ("proc/self/cgroup", "0::/a\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/a/memory.max", "max\n"),
            ],
        );
        assert_eq!(max.available(), Some(8 * GIB));
    }

    #[test]
    fn the_limit_is_the_smallest_of_a_group_and_its_ancestors() {
        let root = Root::new(
            "v2",
            &[
                (
                    "proc/self/cgroup",
                    "0::/kubepods.slice/pod1.slice/box.scope\n",
                ),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/kubepods.slice/memory.max", "4294967296\n"),
                (
                    "sys/fs/cgroup/kubepods.slice/pod1.slice/memory.max",
                    "268435456\n",
                ),
                (
                    "sys/fs/cgroup/kubepods.slice/pod1.slice/box.scope/memory.max",
                    "536870912\n",
                ),
                // Another pod.
                (
                    "sys/fs/cgroup/kubepods.slice/pod2.slice/memory.max",
                    "1048576\n",
                ),
                // Above the hierarchy.
                ("sys/fs/memory.max", "1048576\n"),
            ],
        );
        assert_eq!(root.available(), Some(256 * MIB));
        root.write(
            "sys/fs/cgroup/kubepods.slice/pod1.slice/box.scope/memory.high",
            "134217728\n",
        );
        assert_eq!(root.available(), Some(128 * MIB));
    }

    #[test]
    fn the_limit_of_a_container_is_at_the_root_of_the_mount() {
        // With a private cgroup namespace, which is Docker's default.
        let private = Root::new(
            "private",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/memory.max", "134217728\n"),
            ],
        );
        assert_eq!(private.available(), Some(128 * MIB));
        // Version 1 in Docker: the path of the group is that on the host, and the mount begins there.
        let docker = Root::new(
            "v1",
            &[
                (
                    "proc/self/cgroup",
                    "9:cpu,cpuacct:/docker/c1\n4:memory:/docker/c1\n0::/system.slice\n",
                ),
                (
                    "proc/self/mountinfo",
                    "40 30 0:28 /docker/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n\
                     41 30 0:29 /docker/c1 /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n",
                ),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
                ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
            ],
        );
        assert_eq!(docker.available(), Some(256 * MIB));
        docker.write(
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(docker.available(), Some(8 * GIB));
    }

    fn config(limits: &str) -> Config {
        let text = format!(
            "keys:\n- inbound: https://{key}@a/1\n  outbound: ['https://{key}@b/2']\n{limits}",
            key = "a".repeat(32)
        );
        Config::parse(&text, "c.yml", std::iter::empty()).unwrap()
    }

    #[test]
    fn requests_get_two_thirds_of_the_remaining_memory_and_at_most_a_gibibyte_per_worker() {
        let config = config("");
        let fitted = |workers, available| {
            let fitted = fit(&config, workers, available);
            assert_eq!(fitted.warning, None);
            fitted.memory_bytes as u64
        };
        // A route, an outbound and its origin.
        let parts = |workers: u64| 2 * (12 + 2 * workers) * KIB + 64 * KIB;
        let rest = (256 - 24 - 32) * MIB - parts(1);
        assert_eq!(fitted(1, 256 * MIB), rest / 3 * 2);
        let rest = (256 - 24 - 64) * MIB - parts(2);
        assert_eq!(fitted(2, 256 * MIB), rest / 3 * 2);
        assert_eq!(fitted(2, 64 * GIB), 2 * GIB);
        assert_eq!(fitted(4, 64 * MIB), 4 * WORKER_BUDGET_BYTES_MIN);
    }

    #[test]
    fn a_configured_budget_is_kept_and_causes_a_warning_if_it_does_not_fit() {
        let config = config("limits: {memory_bytes: 300MiB}\n");
        let kept = |warning| Fitted {
            memory_bytes: 300 << 20,
            connections: 20_000,
            in_flight: 8192,
            warning,
        };
        assert_eq!(fit(&config, 1, 400 * MIB), kept(None));
        let warning = "limits.memory_bytes is 300 MiB, so the process may use up to 388 MiB in all; the kernel kills it above 384 MiB";
        assert_eq!(fit(&config, 2, 384 * MIB), kept(Some(warning.to_owned())));
    }

    #[test]
    fn connections_and_deliveries_share_the_last_third() {
        let fitted = |workers, mib| {
            let fitted = fit(&config(""), workers, mib * MIB);
            (fitted.connections, fitted.in_flight)
        };
        // One origin with TLS.
        assert_eq!(fitted(1, 128), (511, 139));
        assert_eq!(fitted(1, 256), (1421, 387));
        assert_eq!(fitted(2, 512), (1507, 411));
        assert_eq!(fitted(1, 8192), (20_000, 8192));
        assert_eq!(fitted(4, 64), (64, 16));
        let mut plain = config("limits: {connections: 1000}\n");
        for outbound in plain
            .routes
            .iter_mut()
            .flat_map(|route| &mut route.outbounds)
        {
            outbound.dsn = "http://a@b/1".parse().unwrap();
        }
        let plain = fit(&plain, 1, 256 * MIB);
        assert_eq!((plain.connections, plain.in_flight), (1000, 1421));
    }

    #[test]
    fn thousands_of_outbounds_and_an_access_log_leave_less_for_requests() {
        let (one, two) = (config(""), config("access_log: json\n"));
        let budget = |config: &Config| fit(config, 1, 256 * MIB).memory_bytes as u64;
        assert_eq!((budget(&one) - budget(&two)).div_ceil(MIB), 16 * 2 / 3 + 1);
        let mut many = one.clone();
        for route in &mut many.routes {
            let outbounds = std::mem::take(&mut route.outbounds);
            route.outbounds = outbounds.iter().cycle().take(3001).cloned().collect();
        }
        let less = 3000 * (12 + 2) * KIB / 3 * 2;
        assert_eq!(budget(&one) - budget(&many), less);
    }
}
