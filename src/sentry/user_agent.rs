//! Which clients run on a device of a user: browsers and SDKs for apps.
//!
//! The address of such a client says where a user is. That of any other says where a server is.

/// How the `User-Agent` of browsers begins, and of SDKs that only apps use. SDKs in browsers cannot set the field.
const DEVICES: [&[u8]; 7] = [
    b"Mozilla/",
    b"sentry.cocoa",
    b"sentry.java.android",
    b"sentry.native.android",
    b"sentry.dart",
    b"sentry.javascript.react-native",
    b"sentry.dotnet.maui",
];

/// Whether a request with this `User-Agent` is from a user's device.
pub(crate) fn is_on_device(user_agent: &[u8]) -> bool {
    DEVICES.iter().any(|start| user_agent.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_and_apps_run_on_devices_and_servers_do_not() {
        for device in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "sentry.cocoa/9.26.0",
            "sentry.cocoa.react-native/8.0.0",
            "sentry.java.android/8.53.0",
            "sentry.java.android.flutter/8.53.0",
            "sentry.dart.flutter/9.27.0",
        ] {
            assert!(is_on_device(device.as_bytes()), "{device}");
        }
        for server in [
            "",
            "sentry.python/2.75.0",
            "sentry.javascript.node/11.12.0",
            "sentry.java.spring-boot/8.53.0",
            "sentry.native/0.16.3",
            "sentry-ruby/6.6.2",
            "curl/8.5.0 Mozilla/5.0",
        ] {
            assert!(!is_on_device(server.as_bytes()), "{server}");
        }
    }
}
