//! The script of the crash-report dialog: only its URLs change, no text of a client can end the literal that it
//! is put into, and the external URL follows from the fields of a request. The first line is the client's, the
//! rest is the script.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::mirror::crash_dialog;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (client, script) = data.split_at(end.unwrap_or(0));
    let (host, target) = client.split_at(client.len() / 2);
    let proto = Some(host).filter(|host| host.len().is_multiple_of(2));
    let url = crash_dialog::external_url(host, proto, script.len().is_multiple_of(2), target);
    assert!(url.ends_with(client));
    let Some(safe) = crash_dialog::literal(&url) else {
        return;
    };
    for byte in b"\"'<>&\n\r" {
        assert!(!safe.contains(byte));
    }
    let Some(redirected) = crash_dialog::redirect(script, &safe) else {
        return;
    };
    // What it posts to is there now.
    assert!(
        redirected
            .windows(safe.len().max(1))
            .any(|text| text == safe)
            || safe.is_empty()
    );
});
