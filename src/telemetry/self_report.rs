//! Reports the mirror's own errors to the Sentry project of `sentry_dsn`.
//!
//! Errors that are logged go through a bounded queue to a thread of its own; if the queue is full, they are
//! dropped. A report contains only the message and the location in the code, never the text of a panic,
//! which could quote a request. If reports cannot be delivered, nothing else is affected.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use sentry::protocol::{Event, Value};
use sentry::transports::UreqHttpTransport;
use sentry::{Client, ClientOptions, Level};
use tracing::field::{Field, Visit};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::config::SelfReport;
use crate::os_errors;

const QUEUE_LENGTH: usize = 64;

/// The minimum time between two reports of the same error, and how many errors are remembered for that.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 256;

/// How long the end of the process waits for the last reports.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The log fields that are reported with the message. Their values never come from a request.
const REPORTED_FIELDS: [&str; 2] = ["location", "worker"];

/// A handle to the thread that reports.
#[derive(Clone)]
pub(crate) struct Reports {
    queue: SyncSender<Message>,
}

enum Message {
    Report(ErrorEvent),
    /// Send what is left, then reply.
    Flush(mpsc::Sender<()>),
}

/// An error that was logged.
#[derive(Default, PartialEq, Eq, Hash)]
struct ErrorEvent {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Reports {
    /// # Errors
    /// If no thread can be created.
    pub(crate) fn start(settings: &SelfReport) -> Result<Reports, String> {
        let (queue, messages) = sync_channel(QUEUE_LENGTH);
        let dsn = settings.dsn.to_string();
        let environment = settings.environment.clone().map(Cow::Owned);
        thread::Builder::new()
            .name("self-report".to_owned())
            .spawn(move || run(&client(&dsn, environment), &messages))
            .map_err(|error| os_errors::thread_error(&error))?;
        Ok(Reports { queue })
    }

    /// The layer of the log that passes errors on.
    pub(crate) fn layer<S: Subscriber>(&self) -> impl Layer<S> + use<S> {
        ErrorLayer {
            queue: self.queue.clone(),
        }
    }

    /// Waits until the last reports are sent, for [`FLUSH_TIMEOUT`] at most.
    pub(crate) fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn client(dsn: &str, environment: Option<Cow<'static, str>>) -> Client {
    // The transport takes the provider of the process. It fails only if there is one.
    let _ = aws_lc_rs::default_provider().install_default();
    let mut options = ClientOptions::new()
        .release(concat!("sentry-mirror@", env!("CARGO_PKG_VERSION")))
        .default_integrations(false)
        .transport(|options: &ClientOptions| {
            #[expect(
                deprecated,
                reason = "its successor needs options that a transport factory does not receive"
            )]
            let transport = UreqHttpTransport::new(options);
            Arc::new(transport) as Arc<dyn sentry::Transport>
        });
    options.dsn = dsn.parse().ok();
    options.environment = environment;
    let client = Client::from(options);
    if !client.is_enabled() {
        warn!("self-reporting is disabled: the Sentry SDK rejects sentry_dsn");
    }
    client
}

fn run(client: &Client, messages: &Receiver<Message>) {
    let mut reported: HashMap<ErrorEvent, Instant> = HashMap::new();
    // Never ends by itself: the log keeps the sender.
    for message in messages {
        match message {
            Message::Report(error) => {
                let now = Instant::now();
                reported.retain(|_, at| now.duration_since(*at) < REPEAT_INTERVAL);
                if !reported.contains_key(&error) && reported.len() < REMEMBERED_MAX {
                    client.capture_event(event(&error), None);
                    reported.insert(error, now);
                }
            }
            Message::Flush(done) => {
                client.flush(Some(FLUSH_TIMEOUT));
                // The caller may have timed out.
                let _ = done.send(());
            }
        }
    }
}

fn event(error: &ErrorEvent) -> Event<'static> {
    let fields = error.fields.iter();
    let fields = fields.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
    Event {
        level: Level::Error,
        message: Some(error.message.clone()),
        extra: fields.collect(),
        ..Event::default()
    }
}

/// Passes errors of this program on.
struct ErrorLayer {
    queue: SyncSender<Message>,
}

impl<S: Subscriber> Layer<S> for ErrorLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        // Not those of dependencies, such as the Sentry SDK itself.
        let is_own = metadata.target().split("::").next() == Some("sentry_mirror");
        if *metadata.level() != tracing::Level::ERROR || !is_own {
            return;
        }
        let mut error = ErrorEvent::default();
        event.record(&mut error);
        match self.queue.try_send(Message::Report(error)) {
            // The error is in the log already, so it can be dropped here.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Visit for ErrorEvent {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if REPORTED_FIELDS.contains(&field.name()) {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}
