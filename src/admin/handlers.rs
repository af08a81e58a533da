//! The pages of the admin port, all read-only.
//!
//! `/health` says that the process is alive and depends on nothing else; `/ready` says whether to send it
//! requests.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Instant, SystemTime};

use super::history::{self, History};
use super::hour_keeper::HourKeeper;
use super::page::STATUS_PAGE;
use super::server::{Body, Handler, Request, Response};
use super::snapshot::MetricsSnapshot;
use super::{metrics, status};
use crate::process::status::MirrorStatus;
use crate::telemetry::prometheus::{self, Format};

pub(super) struct Pages {
    /// Empty until the mirror has started.
    pub(super) mirror_status: OnceLock<Arc<MirrorStatus>>,
    pub(super) history: History,
    /// Empty until the mirror has started.
    pub(super) hours: OnceLock<HourKeeper>,
}

impl Handler for Pages {
    fn handle(&self, request: &Request) -> Response<'_> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Response::text(405, "only GET and HEAD\n");
        }
        match (request.path.as_str(), self.mirror_status.get()) {
            ("/health", _) => Response::text(200, "ok\n"),
            ("/", _) => Response::page(&STATUS_PAGE.html, &STATUS_PAGE.policy),
            ("/ready", Some(mirror_status)) if !mirror_status.is_draining() => {
                Response::text(200, "ready\n")
            }
            ("/ready", Some(_)) => Response::text(503, "draining\n"),
            ("/metrics", Some(mirror_status)) => {
                let format = Format::from_accept(&request.accept);
                let write = move |out: &mut dyn io::Write| {
                    let snapshot =
                        MetricsSnapshot::live(mirror_status, mirror_status.current().table);
                    prometheus::write(metrics::families(mirror_status, &snapshot), format, out)
                };
                Response::ok(format.content_type(), Body::Streamed(Box::new(write)))
            }
            ("/status", Some(mirror_status)) => {
                let write = |out: &mut dyn io::Write| {
                    status::write(mirror_status, &self.history, Instant::now(), out)
                };
                Response::ok("application/json", Body::Streamed(Box::new(write)))
            }
            ("/hours", Some(_)) => {
                let json = self
                    .hours
                    .get()
                    .map(HourKeeper::to_json)
                    .unwrap_or_default();
                let write = move |out: &mut dyn io::Write| out.write_all(&json);
                Response::ok("application/json", Body::Streamed(Box::new(write)))
            }
            ("/config", Some(mirror_status)) => {
                let text = mirror_status.current().configuration;
                Response::ok("text/plain; charset=utf-8", Body::Shared(text))
            }
            ("/ready" | "/metrics" | "/status" | "/hours" | "/config", None) => {
                Response::text(503, "starting\n")
            }
            _ => Response::text(
                404,
                "not found; the pages are / /status /hours /metrics /config /health /ready\n",
            ),
        }
    }
}

impl Pages {
    /// Writes the last counts into the `state_file`.
    pub(super) fn finish(&self) {
        if let (Some(mirror_status), Some(hours)) = (self.mirror_status.get(), self.hours.get()) {
            hours.finish(&mirror_status.current().table, SystemTime::now());
        }
    }

    /// Samples the counters for the history and the hours, forever.
    pub(super) fn record_history(&self) {
        let Some(mirror_status) = self.mirror_status.get() else {
            return;
        };
        loop {
            thread::sleep(history::SAMPLE_INTERVAL);
            let table = mirror_status.current().table;
            let workers = &mirror_status.counters;
            self.history.sample(workers, &table, Instant::now());
            if let Some(hours) = self.hours.get() {
                hours.sample(&table, SystemTime::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_mirror_has_started_the_process_is_healthy_but_not_ready() {
        let pages = Pages {
            mirror_status: OnceLock::new(),
            history: History::default(),
            hours: OnceLock::new(),
        };
        let status = |path: &str| {
            let request = Request {
                method: "GET".to_owned(),
                path: path.to_owned(),
                accept: String::new(),
                takes_gzip: false,
                host: String::new(),
                takes_chunks: true,
            };
            pages.handle(&request).status
        };
        assert_eq!(status("/health"), 200);
        assert_eq!(status("/"), 200);
        for path in ["/ready", "/metrics", "/status", "/hours", "/config"] {
            assert_eq!(status(path), 503, "{path}");
        }
    }
}
