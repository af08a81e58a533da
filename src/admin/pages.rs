//! What is where on the admin port.
//!
//! Everything is read only. `/health` says that the process is alive and asks nobody; `/ready` says
//! whether it should be sent requests.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use super::history::{self, History};
use super::http::Request;
use super::numbers::Numbers;
use super::{metrics, status};
use crate::observe::prometheus::{self, Format};
use crate::server::sight::{Sight, Stage};

/// The status page: one file, without anything from elsewhere.
const STATUS_PAGE: &str = include_str!("page.html");

/// What the pages tell of.
pub(super) struct Pages {
    /// The mirror, once it has started.
    pub(super) sight: OnceLock<Arc<Sight>>,
    /// How it did in the last minutes.
    pub(super) history: History,
}

/// An answer.
pub(super) struct Page<'p> {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Body<'p>,
}

/// What an answer says.
pub(super) enum Body<'p> {
    /// A text that is there already.
    Text(&'static str),
    /// One that others have, too.
    Shared(Arc<str>),
    /// One that is written piece by piece, because it may be long.
    Pieces(Writing<'p>),
}

/// Writes a text.
pub(super) type Writing<'p> = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + 'p>;

impl<'p> Page<'p> {
    /// Plain text.
    pub(super) fn text(status: u16, text: &'static str) -> Page<'p> {
        Page {
            status,
            content_type: "text/plain; charset=utf-8",
            body: Body::Text(text),
        }
    }

    fn of(content_type: &'static str, body: Body<'p>) -> Page<'p> {
        Page {
            status: 200,
            content_type,
            body,
        }
    }
}

impl Pages {
    /// The answer to `request`.
    pub(super) fn page(&self, request: &Request) -> Page<'_> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Page::text(405, "only GET and HEAD\n");
        }
        match (request.path.as_str(), self.sight.get()) {
            ("/health", _) => Page::text(200, "ok\n"),
            ("/", _) => Page::of("text/html; charset=utf-8", Body::Text(STATUS_PAGE)),
            ("/ready", Some(sight)) if sight.stage() == Stage::Ready => Page::text(200, "ready\n"),
            ("/ready", Some(_)) => Page::text(503, "draining\n"),
            ("/metrics", Some(sight)) => {
                let format = Format::accepted(&request.accept);
                let write = move |out: &mut dyn io::Write| {
                    let numbers = Numbers::live(sight, sight.current().plan);
                    prometheus::write(metrics::families(sight, &numbers), format, out)
                };
                Page::of(format.content_type(), Body::Pieces(Box::new(write)))
            }
            ("/status", Some(sight)) => {
                let write = |out: &mut dyn io::Write| {
                    status::write(sight, &self.history, Instant::now(), out)
                };
                Page::of("application/json", Body::Pieces(Box::new(write)))
            }
            ("/config", Some(sight)) => {
                let text = sight.current().configuration;
                Page::of("text/plain; charset=utf-8", Body::Shared(text))
            }
            ("/ready" | "/metrics" | "/status" | "/config", None) => Page::text(503, "starting\n"),
            _ => Page::text(
                404,
                "not found; there are / /status /metrics /config /health /ready\n",
            ),
        }
    }

    /// Looks at the mirror again and again, so that the last minutes can be told.
    pub(super) fn remember(&self) {
        let Some(sight) = self.sight.get() else {
            return;
        };
        loop {
            thread::sleep(history::PERIOD);
            let plan = sight.current().plan;
            self.history.look(&plan, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_mirror_has_started_it_is_alive_and_not_ready() {
        let pages = Pages {
            sight: OnceLock::new(),
            history: History::default(),
        };
        let status = |path: &str| {
            let request = Request {
                method: "GET".to_owned(),
                path: path.to_owned(),
                accept: String::new(),
                host: String::new(),
                takes_chunks: true,
            };
            pages.page(&request).status
        };
        assert_eq!(status("/health"), 200);
        assert_eq!(status("/"), 200);
        for path in ["/ready", "/metrics", "/status", "/config"] {
            assert_eq!(status(path), 503, "{path}");
        }
    }
}
