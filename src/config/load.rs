//! From the text of a configuration to a [`Config`].

use std::path::Path;

use serde_yaml::Value;

use super::diagnostics::{ConfigErrors, Diagnostics};
use super::environment;
use super::model::Config;
use super::proxy::EnvironmentProxies;
use super::references;
use super::schema;
use super::source::{self, Source};

impl Config {
    /// Reads the file at `path`, or standard input if `path` is `-`. `SENTRY_MIRROR_*` variables in
    /// `env` override its values.
    pub fn load(
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        Config::from_source(&Source::read(path), env)
    }

    pub fn from_source(
        source: &Source,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let text = source.text.as_deref().map_err(Clone::clone)?;
        Config::parse(text, &source.name, env)
    }

    /// Parses `text`. Messages call it `file_name`.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        let mut document = source::document(text, file_name)?;
        let diagnostics = Diagnostics::default();
        let env = env.collect();
        let variables = environment::overlay(&mut document, &env, &diagnostics);
        references::resolve(&mut document, &env, &diagnostics);
        let proxies = EnvironmentProxies::read(&env);
        let config = schema::config(&Value::Mapping(document), &proxies, &diagnostics);
        let text = source::without_byte_order_mark(text);
        let warnings = diagnostics.finish(file_name, text, &variables)?;
        Ok(Config { warnings, ..config })
    }
}
