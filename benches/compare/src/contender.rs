//! The contenders, and how each is configured and run.
//!
//! A contender is a separate process, bound to its cores before it starts. All get the same outbounds in the
//! same order; those that understand the mirror's configuration get the same file.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::audience::{Audience, datagrams};
use crate::cases::Case;
use crate::engine::said;
use crate::kernel;
use crate::ledger::Ability;
use crate::wire::{INBOUND_DSN, Target};

/// The timeout of starts and stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that is measured.
#[derive(Clone)]
pub struct Contender {
    pub name: String,
    pub way: Way,
    /// Whether its outbounds have no fault, to show the cost of the fault.
    pub is_spared: bool,
    /// Whether its upstreams get HTTP/2. It takes part only in cases with TLS.
    pub is_http2: bool,
    /// Further lines of its configuration.
    pub settings: String,
}

/// How it is run.
#[derive(Clone, PartialEq, Eq)]
pub enum Way {
    /// `BIN -c FILE`, with the mirror's configuration.
    Mirror(PathBuf),
    /// The same with an [`Audience`].
    Watched {
        mirror: PathBuf,
        /// Whether it also writes an access log, to /dev/null.
        logs: bool,
    },
    Nginx,
    Floor {
        inflate: bool,
    },
}

/// What a contender needs to know.
pub struct Setup<'s> {
    pub case: &'s Case,
    pub targets: &'s [Target],
    pub sinks: &'s [SocketAddr],
    /// A folder for its files.
    pub folder: &'s Path,
    pub ca_file: &'s Path,
}

/// A running contender; it is stopped on drop.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    audience: Option<Audience>,
}

impl Contender {
    pub fn new(name: &str, way: Way) -> Contender {
        Contender {
            name: name.to_owned(),
            way,
            is_spared: false,
            is_http2: false,
            settings: String::new(),
        }
    }

    /// The same with further lines of configuration.
    pub fn with(&self, settings: &str) -> Contender {
        Contender {
            name: settings.to_owned(),
            settings: format!("{settings}\n"),
            ..self.clone()
        }
    }

    /// The same with HTTP/2 to the upstreams.
    pub fn over_http2(&self) -> Contender {
        Contender {
            name: format!("{}, HTTP/2", self.name),
            is_http2: true,
            settings: format!("{}http2: auto\n", self.settings),
            ..self.clone()
        }
    }

    /// The same without the fault of a case.
    pub fn spared(&self) -> Contender {
        Contender {
            name: format!("{}, spared", self.name),
            is_spared: true,
            ..self.clone()
        }
    }

    /// The case as this contender runs it.
    pub fn own(&self, case: &Case) -> Case {
        let trouble = case.trouble.filter(|_| !self.is_spared);
        // The floor has no TLS.
        let is_floor = matches!(self.way, Way::Floor { .. });
        Case {
            trouble,
            is_tls: case.is_tls && !is_floor,
            ..case.clone()
        }
    }

    /// Whether it takes part in a case.
    pub fn takes(&self, case: &Case) -> bool {
        if self.is_spared && case.trouble.is_none() || self.is_http2 && !case.is_tls {
            return false;
        }
        match &self.way {
            Way::Mirror(_) | Way::Watched { .. } => true,
            // nginx answers after all mirrored requests, and would wait for the silent outbound.
            Way::Nginx => case.trouble.is_none(),
            Way::Floor { inflate } => case.has_floor && *inflate == case.is_gzip(),
        }
    }

    pub fn ability(&self) -> Ability {
        match &self.way {
            Way::Mirror(_) | Way::Watched { .. } => Ability::Full,
            Way::Nginx => Ability::Head,
            Way::Floor { inflate: true } => Ability::Decode,
            Way::Floor { inflate: false } => Ability::Copy,
        }
    }

    /// Starts it on `cores` and waits until it listens.
    pub fn start(
        &self,
        setup: &Setup<'_>,
        cores: &[usize],
        own: &[usize],
    ) -> Result<Running, String> {
        let address = free_address()?;
        let log = fs::File::create(setup.folder.join("log")).map_err(said("a log file"))?;
        let errors = log.try_clone().map_err(said("a log file"))?;
        let mut output = Stdio::from(log);
        let mut audience = None;
        let mut command = match &self.way {
            Way::Watched { mirror, logs } => {
                let admin = free_address()?;
                let watching = audience.insert(Audience::gather(admin)?);
                let mut extra = format!(
                    "admin: {{ip: {}, port: {}}}\nstatsd_addr: {}\n",
                    admin.ip(),
                    admin.port(),
                    watching.statsd,
                );
                if *logs {
                    extra.push_str("access_log: json\n");
                    output = Stdio::null();
                }
                let mut command = Command::new(mirror);
                command.arg("-c").arg(write_config(setup, address, &extra)?);
                command
            }
            Way::Mirror(binary) => {
                let mut command = Command::new(binary);
                command
                    .arg("-c")
                    .arg(write_config(setup, address, &self.settings)?);
                // Another mirror on this machine may have its port. Older builds ignore the variable.
                command.env("SENTRY_MIRROR_ADMIN", "off");
                command
            }
            Way::Nginx => {
                let mut command = Command::new("nginx");
                let config = crate::nginx::write_config(setup, address)?;
                command.arg("-p").arg(setup.folder).arg("-c").arg(config);
                command
            }
            Way::Floor { inflate } => {
                let program = std::env::current_exe().map_err(said("this program"))?;
                let mut command = Command::new(program);
                command.args(["floor", "--listen", &address.to_string()]);
                for sink in setup.sinks {
                    command.args(["--upstream", &sink.to_string()]);
                }
                if *inflate {
                    command.arg("--inflate");
                }
                command
            }
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // A process inherits the cores of the thread that starts it.
        kernel::bind(cores)?;
        let child = command.spawn();
        kernel::bind(own)?;
        let child = child.map_err(|error| format!("cannot start {}: {error}", self.name))?;
        let mut running = Running {
            child,
            address,
            audience,
        };
        running.await_listening().map_err(|error| {
            let log = fs::read_to_string(setup.folder.join("log")).unwrap_or_default();
            format!("{}: {error}: {log}", self.name)
        })?;
        Ok(running)
    }
}

impl Running {
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Stops it, and checks that its audience got the metrics.
    pub fn stop(mut self) -> Result<(), String> {
        let Some(audience) = self.audience.take() else {
            return Ok(());
        };
        let statsd = audience.leave()?;
        // It pushes once more at the end.
        drop(self);
        match datagrams(&statsd) {
            0 => Err("nothing was pushed to statsd".to_owned()),
            _ => Ok(()),
        }
    }

    fn await_listening(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}"));
            }
            if begin.elapsed() > PATIENCE {
                return Err("it does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kernel::terminate(self.child.id());
        let begin = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begin.elapsed() > PATIENCE {
                // An error means that it has ended meanwhile.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The configuration of the mirror, with the lines of `extra`.
fn write_config(setup: &Setup<'_>, address: SocketAddr, extra: &str) -> Result<PathBuf, String> {
    let mut text = format!(
        "ip: {}\nport: {}\n{extra}workers: {}\ntls:\n  ca_file: {}\n  system_roots: false\n\
         timeouts:\n  drain: 1s\nkeys:\n  - inbound: {INBOUND_DSN}\n    outbound:\n",
        address.ip(),
        address.port(),
        setup.case.workers,
        setup.ca_file.display(),
    );
    for target in setup.targets {
        text.push_str(&format!("      - {}\n", target.dsn));
    }
    let path = setup.folder.join("config.yml");
    fs::write(&path, text).map_err(said("a configuration file"))?;
    Ok(path)
}

/// A free address.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said("a free port"))?;
    listener.local_addr().map_err(said("a free port"))
}
