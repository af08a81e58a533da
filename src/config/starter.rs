//! The first configuration, for `sentry-mirror init`: the routes of DSNs, and what there is to decide.

use super::Config;
use super::diagnostics::ConfigErrors;

/// What messages call the configuration before it is in a file.
const NAME: &str = "the configuration of these DSNs";

/// A configuration that mirrors `inbound` to `outbounds`, the first of which is the primary.
///
/// # Errors
/// The configuration would be invalid: for example, a DSN is malformed, or leads back to the mirror. The
/// errors name the key paths of the DSNs.
pub(crate) fn starter(inbound: &str, outbounds: &[String]) -> Result<String, ConfigErrors> {
    let text = text(inbound, outbounds);
    let config = Config::parse(&text, NAME, std::iter::empty())?;
    debug_assert_eq!(config.routes.len(), 1, "{text}");
    Ok(text)
}

fn text(inbound: &str, outbounds: &[String]) -> String {
    let outbounds = outbounds.iter().enumerate().map(|(index, dsn)| {
        let note = match index {
            0 => "  # the primary: while it is healthy, SDKs receive its response",
            _ => "",
        };
        let dsn = quoted(dsn);
        format!(
            "      - dsn: {dsn}{note}\n        # name: outbound-{}\n",
            index + 1
        )
    });
    let outbounds: String = outbounds.collect();
    let inbound = quoted(inbound);
    format!(
        "\
# Configuration of sentry-mirror. `sentry-mirror -c FILE --check` checks it; config.example.yml has every key.
# `sentry-mirror schema >config.schema.json` lets an editor that reads the next line check it, too.
# yaml-language-server: $schema=config.schema.json

# Where SDKs, or the load balancer in front of them, connect.
ip: 0.0.0.0
port: 3000

# Decide: should the outbounds know the addresses of your users? With false, Sentry sees the address of the
# mirror. With true, also say below where your load balancers connect from, or [] if SDKs connect directly:
# otherwise clients can forge their address.
forward_client_ip: false
# client_address:
#   trusted_proxies: []

# Decide: names. They stand for the DSNs in metrics, logs and the status page. Without them, these show
# shortened DSNs.
keys:
  - # name: my-application
    # SDKs use this DSN. Its key selects the route; its host and project only lead SDKs to the mirror.
    inbound: {inbound}
    outbound:
{outbounds}
# Metrics and the status page. Do not expose them to the internet.
admin:
  ip: 127.0.0.1
  port: 3001
"
    )
}

/// The text as a YAML scalar on one line. A DSN needs no quotes; what is none is reported as it is.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/@._-[]%".contains(&byte);
    match text.starts_with("http") && text.bytes().all(is_plain) {
        true => text.to_owned(),
        // A JSON string is a YAML scalar.
        false => serde_json::to_string(text).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INBOUND: &str = "http://11111111111111111111111111111111@mirror.example.com/1";
    const OUTBOUND: &str = "https://22222222222222222222222222222222@o1.ingest.us.sentry.io/2";

    fn outbounds(dsns: &[&str]) -> Vec<String> {
        dsns.iter().map(|dsn| (*dsn).to_owned()).collect()
    }

    #[test]
    fn the_configuration_is_valid_without_a_warning_and_has_the_routes() {
        let second = "http://33333333333333333333333333333333@[::1]:9000/prefix/3";
        let text = starter(INBOUND, &outbounds(&[OUTBOUND, second])).unwrap();
        let config = Config::parse(&text, "c.yml", std::iter::empty()).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        let [route] = config.routes.as_slice() else {
            panic!("{:?}", config.routes);
        };
        assert_eq!(route.inbound.to_string(), INBOUND);
        let dsns = route
            .outbounds
            .iter()
            .map(|outbound| outbound.dsn.to_string());
        assert_eq!(dsns.collect::<Vec<_>>(), [OUTBOUND, second]);
    }

    #[test]
    fn the_comments_become_names_and_values_by_removing_their_sign() {
        let text = starter(INBOUND, &outbounds(&[OUTBOUND])).unwrap();
        let text = text
            .replace(
                "- # name: my-application\n    ",
                "- name: my-application\n    ",
            )
            .replace("# name: outbound-1", "name: outbound-1")
            .replace(
                "# client_address:\n#   trusted_proxies",
                "client_address:\n  trusted_proxies",
            );
        let config = Config::parse(&text, "c.yml", std::iter::empty()).unwrap();
        assert_eq!(config.routes[0].name.as_deref(), Some("my-application"));
        let outbound = &config.routes[0].outbounds[0];
        assert_eq!(outbound.name.as_deref(), Some("outbound-1"));
        assert_eq!(config.client_address.trusted_proxies, Some(Vec::new()));
    }

    #[test]
    fn what_is_no_dsn_is_an_error_without_its_key() {
        for bad in [
            "22222222222222222222222222222222@host/2",
            "https://host/2",
            "https://k@h/2 # \"quoted\"\nport: 1",
            "${HOME}",
            "",
            "http://44444444444444444444444444444444@127.0.0.1:3000/2\n",
        ] {
            let error = starter(INBOUND, &outbounds(&[OUTBOUND, bad])).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("keys[0].outbound[1]"), "{text}");
            assert!(!text.contains("222222222"), "{text}");
        }
        let error = starter(INBOUND, &outbounds(&[INBOUND])).unwrap_err();
        assert!(error.to_string().contains("leads back"), "{error}");
        assert!(starter("mirror", &outbounds(&[OUTBOUND])).is_err());
    }
}
