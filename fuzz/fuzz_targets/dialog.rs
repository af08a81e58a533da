//! The script of the crash-report dialog: at most one place of it changes, nothing that a client sent can
//! end the literal it is put into, and the external URL follows from the fields of a request. The first
//! line is the client's, the rest the script.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::mirror::dialog;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (client, script) = data.split_at(end.unwrap_or(0));
    let (host, target) = client.split_at(client.len() / 2);
    let proto = Some(host).filter(|host| host.len().is_multiple_of(2));
    let url = dialog::external_url(host, proto, target);
    assert!(url.ends_with(client));
    let Some(redirected) = dialog::redirect(script, &url) else {
        return;
    };
    let safe = safe_text(&url);
    for byte in b"\"'<>&\n\r" {
        assert!(!safe.contains(byte));
    }
    // All in front of the URL and behind it is still there.
    let kept_bytes = redirected.len() - safe.len();
    assert!(kept_bytes < script.len());
    let is_there = (0..=kept_bytes).any(|at| {
        redirected[..at] == script[..at]
            && redirected[at..].starts_with(&safe)
            && script.ends_with(&redirected[at + safe.len()..])
    });
    assert!(is_there);
});

/// The URL as it is written into a script.
fn safe_text(url: &[u8]) -> Vec<u8> {
    let script = b"\"http://h/api/embed/error-page/\"";
    let redirected = dialog::redirect(script, url).expect("a script with an URL");
    redirected[1..redirected.len() - 1].to_vec()
}
