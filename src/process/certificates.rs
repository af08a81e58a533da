//! The certificates of listeners, whose files are read again on SIGHUP and when they change.
//!
//! Files are looked at once a second, and not with inotify: certbot and Kubernetes replace a symbolic link on the way
//! to them, and network file systems tell of no change. They are read once they have not changed for a second,
//! because a certificate and its key are seldom replaced at the same moment.

use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{error, info, warn};

use crate::config::Config;
use crate::net::tls_server::{Certificate, FileStamp, TlsServer};
use crate::telemetry::timestamp::rfc3339;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

type Stamp = Vec<Option<FileStamp>>;

/// The certificates of all listeners.
#[derive(Default)]
pub(crate) struct Certificates {
    /// For each entry of `listen`.
    listeners: Vec<Option<Watched>>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

/// The certificates of one listener.
struct Watched {
    listener: String,
    server: Arc<TlsServer>,
    stamps: Mutex<Stamps>,
}

/// The states of the files when they were last looked at, and last read.
struct Stamps {
    seen: Stamp,
    read: Stamp,
}

impl Certificates {
    /// # Errors
    /// What is wrong with a file, for the operator.
    pub(crate) fn load(config: &Config) -> Result<Certificates, String> {
        let listeners = config.listen.iter().map(|listener| {
            let Some(settings) = &listener.tls else {
                return Ok(None);
            };
            let address = listener.address.to_string();
            let server = TlsServer::load(settings);
            let server = server.map_err(|error| format!("listen on {address}: {error}"))?;
            let stamp = server.stamp();
            Ok(Some(Watched {
                listener: address,
                server: Arc::new(server),
                stamps: Mutex::new(Stamps {
                    seen: stamp.clone(),
                    read: stamp,
                }),
            }))
        });
        Ok(Certificates {
            listeners: listeners.collect::<Result<_, String>>()?,
            ..Certificates::default()
        })
    }

    /// That of an entry of `listen`, if it has TLS.
    pub(crate) fn server(&self, index: usize) -> Option<Arc<TlsServer>> {
        let watched = self.listeners.get(index)?.as_ref()?;
        Some(Arc::clone(&watched.server))
    }

    /// The certificates in force, each with its listener.
    pub(crate) fn all(&self) -> Vec<(String, Certificate)> {
        let of_one = |watched: &Watched| {
            let certificates = watched.server.current().certificates.clone();
            let listener = watched.listener.clone();
            let named = certificates.into_iter();
            named
                .map(move |certificate| (listener.clone(), certificate))
                .collect::<Vec<_>>()
        };
        self.watched().flat_map(of_one).collect()
    }

    /// How often other certificates were put in force, and how often the old ones stayed because of an error.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (
            self.reloads.load(Ordering::Relaxed),
            self.failed_reloads.load(Ordering::Relaxed),
        )
    }

    /// Reads all files again.
    pub(crate) fn reload(&self) {
        self.watched().for_each(|watched| self.read(watched));
    }

    /// Looks at the files as long as somebody else has `certificates`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn watch(certificates: &Arc<Certificates>) -> io::Result<()> {
        if certificates.watched().next().is_none() {
            return Ok(());
        }
        let certificates = Arc::downgrade(certificates);
        thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || {
                while let Some(certificates) = certificates.upgrade() {
                    certificates.look();
                    drop(certificates);
                    thread::sleep(INTERVAL);
                }
            })?;
        Ok(())
    }

    /// Warnings of certificates that have expired at `now`.
    pub(crate) fn expired(&self, now: SystemTime) -> Vec<String> {
        let now = unix_seconds(now);
        let all = self.all().into_iter();
        let expired = all.filter(|(_, certificate)| certificate.not_after < now);
        let told = expired.map(|(listener, certificate)| {
            format!(
                "the certificate {} of the listener {listener} expired at {}",
                certificate.file.display(),
                time(certificate.not_after)
            )
        });
        told.collect()
    }

    /// The certificates, one on each line.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (listener, certificate) in self.all() {
            let file = certificate.file.display();
            let about = about(&certificate);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "certificate of {listener}: {file} {about}");
        }
        text
    }

    fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.listeners.iter().flatten()
    }

    fn look(&self) {
        for watched in self.watched() {
            let stamp = watched.server.stamp();
            let is_due = {
                let mut stamps = watched.lock();
                let is_settled = stamps.seen == stamp;
                stamps.seen.clone_from(&stamp);
                is_settled && stamps.read != stamp
            };
            if is_due {
                self.read(watched);
            }
        }
    }

    fn read(&self, watched: &Watched) {
        let listener = &watched.listener;
        // Before the files: if they change meanwhile, they are read again.
        watched.lock().read = watched.server.stamp();
        match watched.server.reload() {
            Ok(false) => {}
            Ok(true) => {
                self.reloads.fetch_add(1, Ordering::Relaxed);
                for certificate in &watched.server.current().certificates {
                    let file = certificate.file.display();
                    info!(
                        "the listener {listener} has another certificate, {file} {}",
                        about(certificate)
                    );
                }
                self.expired(SystemTime::now())
                    .iter()
                    .for_each(|expired| warn!("{expired}"));
            }
            Err(error) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                error!(%error, "the certificates of the listener {listener} cannot be read again, the old ones stay in force");
            }
        }
    }
}

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a certificate is for, and how long.
fn about(certificate: &Certificate) -> String {
    let names = match certificate.names.is_empty() {
        true => "no name".to_owned(),
        false => certificate.names.join(", "),
    };
    format!(
        "({}) for {names}, valid until {}",
        certificate.subject,
        time(certificate.not_after)
    )
}

fn time(unix_seconds: i64) -> String {
    let seconds = u64::try_from(unix_seconds).unwrap_or(0);
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    rfc3339(at.unwrap_or(UNIX_EPOCH)).replace(".000", "")
}

fn unix_seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
