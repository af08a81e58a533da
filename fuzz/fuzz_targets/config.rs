//! Configurations: every accepted one can be served, and every error has a position. The text after a NUL,
//! which YAML cannot contain, holds environment variables, one per line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::config::Config;
use sentry_mirror::internals::mirror::routes::Routes;

fuzz_target!(|data: &str| {
    let (text, variables) = data.split_once('\0').unwrap_or((data, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("SENTRY_MIRROR_{name}"), value.into()));
    match Config::parse(text, "mirror.yml", variables) {
        Ok(config) => {
            let routes = Routes::new(1, &config, None);
            assert!(!config.routes.is_empty());
            for route in &config.routes {
                let made = routes.find(route.inbound.key().as_bytes());
                let outbound_count = made.map(|made| made.outbounds.len());
                assert_eq!(outbound_count, Some(route.outbounds.len()));
                assert_ne!(outbound_count, Some(0));
            }
            assert!(!config.describe().is_empty());
        }
        Err(errors) => {
            assert!(!errors.messages().is_empty());
            for message in errors.messages() {
                let names_place = ["mirror.yml", "SENTRY_MIRROR_"];
                assert!(
                    names_place.iter().any(|place| message.starts_with(place)),
                    "{message:?}"
                );
                assert!(!message.contains('\n'), "{message:?}");
            }
        }
    }
});
