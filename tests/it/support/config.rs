//! Configurations, built key by key.

use serde_yaml::{Mapping, Value};

use super::process::file;
use super::tls::Authority;
use super::{IN_KEY, Process};

/// A configuration that listens on a free port of the loopback.
pub(crate) struct Config {
    settings: Mapping,
    routes: Vec<Value>,
}

impl Config {
    /// One route from [`IN_KEY`] to `outbounds`: DSNs, or mappings made by [`outbound`].
    pub(crate) fn new<O: Into<Value>>(outbounds: impl IntoIterator<Item = O>) -> Config {
        Config::without_routes().route(IN_KEY, 42, outbounds)
    }

    pub(crate) fn without_routes() -> Config {
        let config = Config {
            settings: Mapping::new(),
            routes: Vec::new(),
        };
        config.set("ip", "127.0.0.1").set("port", 0)
    }

    /// Adds a route from an inbound DSN with this key and project.
    pub(crate) fn route<O: Into<Value>>(
        mut self,
        key: &str,
        project: u32,
        outbounds: impl IntoIterator<Item = O>,
    ) -> Config {
        let inbound = format!("http://{key}@mirror.example.com/{project}");
        let outbounds: Vec<Value> = outbounds.into_iter().map(Into::into).collect();
        let route = [
            ("inbound".into(), inbound.into()),
            ("outbound".into(), outbounds.into()),
        ];
        self.routes.push(Mapping::from_iter(route).into());
        self
    }

    /// Sets a key; `a.b` is the key `b` of the section `a`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Config {
        match key.split_once('.') {
            None => self.settings.insert(key.into(), value.into()),
            Some((section, key)) => self
                .settings
                .entry(section.into())
                .or_insert_with(|| Mapping::new().into())
                .as_mapping_mut()
                .expect("a section")
                .insert(key.into(), value.into()),
        };
        self
    }

    /// Sets all that stands in some lines of YAML.
    pub(crate) fn with(mut self, lines: &str) -> Config {
        let lines: Mapping = serde_yaml::from_str(lines).expect("lines of a configuration");
        for (key, value) in lines {
            let key = key.as_str().expect("a key").to_owned();
            match value {
                Value::Mapping(section) => {
                    for (inner, value) in section {
                        let inner = inner.as_str().expect("a key");
                        self = self.set(&format!("{key}.{inner}"), value);
                    }
                }
                value => self = self.set(&key, value),
            }
        }
        self
    }

    /// Trusts the certificates of `authority`.
    pub(crate) fn trust(self, authority: &Authority) -> Config {
        let path = file("ca.pem", &authority.pem());
        self.set("tls.ca_file", path.to_str().expect("a path of text"))
    }

    /// Has one worker, and the admin pages on a free port.
    pub(crate) fn with_metrics(self) -> Config {
        self.set("workers", 1).set("admin.port", 0)
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let mut all = self.settings.clone();
        all.insert("keys".into(), self.routes.clone().into());
        serde_yaml::to_string(&all).expect("a mapping")
    }

    pub(crate) fn start(&self) -> Process {
        Process::start(&self.text())
    }
}

/// An outbound with options, which are written as in a configuration.
pub(crate) fn outbound(dsn: &str, options: &str) -> Value {
    let mut outbound: Mapping = serde_yaml::from_str(options).expect("options");
    outbound.insert("dsn".into(), dsn.into());
    outbound.into()
}
