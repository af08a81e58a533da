//! The mirror's own errors, reported to a Sentry of the operator's choice.
//!
//! Whatever is logged as an error goes through a bounded queue to a thread of its own, which does all that
//! may take time or fail; what does not fit is dropped. Only what the code itself says is sent, and where
//! in the code it was: never what a panic said, since that may quote what came from outside. Where the
//! reports cannot be delivered nothing else changes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sentry::protocol::{Event, Value};
use sentry::transports::UreqHttpTransport;
use sentry::{Client, ClientOptions, Level};
use tracing::field::{Field, Visit};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::causes;
use crate::config::SelfReport;

/// How many errors may wait to be reported.
const QUEUE_LENGTH: usize = 64;

/// How long the same error is not reported again, and how many are remembered for that.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 256;

/// How long the end of the process waits for the last reports.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// The fields of a log line that are reported besides its message; the code alone says what is in them.
const REPORTED_FIELDS: [&str; 2] = ["place", "worker"];

/// The way to the thread that reports.
#[derive(Clone)]
pub(crate) struct Reports {
    queue: SyncSender<Errand>,
}

enum Errand {
    Report(Problem),
    /// Send what is left, then answer.
    Flush(mpsc::Sender<()>),
}

/// An error as it was logged.
#[derive(Default, PartialEq, Eq, Hash)]
struct Problem {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Reports {
    /// Starts the thread that reports as `settings` say.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(settings: &SelfReport) -> Result<Reports, String> {
        let (queue, errands) = sync_channel(QUEUE_LENGTH);
        let dsn = settings.dsn.to_string();
        let environment = settings.environment.clone().map(Cow::Owned);
        thread::Builder::new()
            .name("self-report".to_owned())
            .spawn(move || run(&client(&dsn, environment), &errands))
            .map_err(|error| causes::thread_error(&error))?;
        Ok(Reports { queue })
    }

    /// The part of the log that hands errors on.
    pub(crate) fn layer<S: Subscriber>(&self) -> impl Layer<S> + use<S> {
        ErrorLayer {
            queue: self.queue.clone(),
        }
    }

    /// Waits a while until the last reports are on their way.
    pub(crate) fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        if self.queue.try_send(Errand::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

fn client(dsn: &str, environment: Option<Cow<'static, str>>) -> Client {
    let mut options = ClientOptions::new()
        .release(concat!("sentry-mirror@", env!("CARGO_PKG_VERSION")))
        .default_integrations(false)
        .transport(|options: &ClientOptions| {
            #[expect(
                deprecated,
                reason = "its successor wants options that a factory does not get"
            )]
            let transport = UreqHttpTransport::new(options);
            Arc::new(transport) as Arc<dyn sentry::Transport>
        });
    options.dsn = dsn.parse().ok();
    options.environment = environment;
    let client = Client::from(options);
    if !client.is_enabled() {
        warn!("errors are not reported: sentry_dsn is none that its own library understands");
    }
    client
}

fn run(client: &Client, errands: &Receiver<Errand>) {
    let mut reported: HashMap<Problem, Instant> = HashMap::new();
    // Ends with the process: the log keeps the other end.
    for errand in errands {
        match errand {
            Errand::Report(problem) => {
                let now = Instant::now();
                reported.retain(|_, at| now.duration_since(*at) < REPEAT_PAUSE);
                if !reported.contains_key(&problem) && reported.len() < REMEMBERED_MAX {
                    client.capture_event(event(&problem), None);
                    reported.insert(problem, now);
                }
            }
            Errand::Flush(done) => {
                client.flush(Some(FLUSH_PATIENCE));
                // Whoever asked may have lost patience.
                let _ = done.send(());
            }
        }
    }
}

fn event(problem: &Problem) -> Event<'static> {
    let fields = problem.fields.iter();
    let fields = fields.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
    Event {
        level: Level::Error,
        message: Some(problem.message.clone()),
        extra: fields.collect(),
        ..Event::default()
    }
}

/// Hands errors of this program on.
struct ErrorLayer {
    queue: SyncSender<Errand>,
}

impl<S: Subscriber> Layer<S> for ErrorLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        // Others log too, the library that reports among them.
        let is_own = metadata.target().split("::").next() == Some("sentry_mirror");
        if *metadata.level() != tracing::Level::ERROR || !is_own {
            return;
        }
        let mut problem = Problem::default();
        event.record(&mut problem);
        match self.queue.try_send(Errand::Report(problem)) {
            // What does not fit is dropped: it is in the log.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Visit for Problem {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if REPORTED_FIELDS.contains(&field.name()) {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}
