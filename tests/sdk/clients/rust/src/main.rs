//! What an application with the Rust SDK sends, DSN in `SENTRY_DSN`.
//!
//! Each step says what it is about to send (see README.md) and flushes, so that one step is one
//! envelope. The SDK writes event ids with dashes, puts a session into the envelope of the error
//! that changed it, and never compresses.

use std::env;
use std::time::Duration;

use sentry::protocol::{
    Attachment, Envelope, EnvelopeItem, Event, MonitorCheckIn, MonitorCheckInStatus, MonitorConfig,
    MonitorSchedule, Unit,
};
use sentry::{ClientOptions, Hub, Level, SessionMode, TransactionContext, metrics};

/// Flushes what is there and announces what comes next.
fn step(name: &str, items: &str) {
    flush();
    println!("{}", serde_json::json!([name, items, "identity", "length"]));
}

fn flush() {
    let client = Hub::current().client().expect("the SDK is initialised");
    assert!(
        client.flush(Some(Duration::from_secs(10))),
        "flushed in time"
    );
}

fn main() {
    let dsn = env::var("SENTRY_DSN").expect("SENTRY_DSN is set");
    let key = dsn["http://".len()..][..32].to_owned();
    let options = ClientOptions::new()
        .dsn(&dsn)
        .release("app@1.2.3")
        .environment("prod")
        .traces_sample_rate(1.0)
        .session_mode(SessionMode::Application)
        .before_send(|event| (event.message.as_deref() != Some("dropped")).then_some(event));
    let _guard = sentry::init(options);
    // Text that looks like a key site where there is none: it must pass unchanged.
    let look_alike = format!("\n{{\"dsn\":\"{dsn}\"}}\r\n\n\"public_key\":\"{key}\"\0");

    step("error, session", "event+session");
    sentry::start_session();
    sentry::configure_scope(|scope| scope.set_tag("look-alike", &key));
    sentry::capture_error(&"größer".parse::<u32>().expect_err("no number"));

    step("session end", "session");
    sentry::end_session();

    step("transaction", "transaction");
    let context = TransactionContext::new(&format!("checkout {key}"), "test");
    let transaction = sentry::start_transaction(context);
    transaction.start_child("db", "select 1").finish();
    transaction.finish();

    step("attachment", "event+attachment+attachment");
    sentry::with_scope(
        |scope| {
            for (filename, buffer) in [
                ("look-alike.bin", look_alike.clone().into_bytes()),
                ("all-bytes.bin", (0..=255).cycle().take(300_000).collect()),
            ] {
                scope.add_attachment(Attachment {
                    filename: filename.to_owned(),
                    buffer,
                    ..Attachment::default()
                });
            }
        },
        || sentry::capture_message("with attachments", Level::Info),
    );

    step("logs", "log");
    sentry::logger_info!(thing = "ü", "one");
    sentry::logger_error!("two");

    step("metrics", "trace_metric");
    metrics::counter("orders", 1).capture();
    metrics::distribution("latency", 12.5)
        .unit(Unit::Millisecond)
        .capture();

    step("check-in", "check_in");
    let mut envelope = Envelope::new();
    envelope.add_item(check_in());
    Hub::current()
        .client()
        .expect("it is still there")
        .send_envelope(envelope);

    // The SDK has no envelope of its own for its report: it goes with the next one.
    step("client report", "event+client_report");
    sentry::capture_event(Event {
        message: Some("dropped".to_owned()),
        ..Event::default()
    });
    sentry::capture_message("after the dropped one", Level::Info);

    flush();
}

fn check_in() -> EnvelopeItem {
    let schedule = MonitorSchedule::from_crontab("0 * * * *").expect("a schedule");
    EnvelopeItem::MonitorCheckIn(MonitorCheckIn {
        check_in_id: sentry::types::random_uuid(),
        monitor_slug: "nightly".to_owned(),
        status: MonitorCheckInStatus::InProgress,
        environment: Some("prod".to_owned()),
        duration: None,
        monitor_config: Some(MonitorConfig {
            schedule,
            checkin_margin: None,
            max_runtime: None,
            timezone: None,
            failure_issue_threshold: None,
            recovery_threshold: None,
        }),
    })
}
