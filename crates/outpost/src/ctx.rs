//! What a command needs to do its work: outputs, directories, and a way to the server.

use std::sync::Arc;

use outpost_client::{ApiKey, ClientConfig, HttpApi};
use outpost_types::{Api, Provider};

use crate::autostart;
use crate::error::CliError;
use crate::ui::Ui;
use outpost_args::{GlobalArgs, ServeArgs};
use outpost_config::Config;
use outpost_config::Secret;
use outpost_config::datadir::{self, DataDir};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// Outputs.
    pub(crate) ui: Ui,
    /// Flags of every command.
    pub(crate) global: GlobalArgs,
}

/// A server to talk to.
pub(crate) struct Connection {
    /// Its operations.
    pub(crate) api: Arc<dyn Api>,
    /// Its address.
    pub(crate) url: String,
    /// It runs on this machine and reads the same files.
    pub(crate) local: bool,
}

impl Ctx {
    /// The configuration, as a server started now would read it.
    pub(crate) fn config(&self) -> Result<Config, CliError> {
        let flags = ServeArgs::from_environment().map_err(CliError::usage)?;
        Ok(Config::load(&self.global, &flags)?)
    }

    /// The server named by flag or environment, else the one of the data directory, started now if
    /// none runs.
    pub(crate) async fn connect(&self) -> Result<Connection, CliError> {
        if let Some(url) = &self.global.server {
            return self.connect_to(url);
        }
        let config = self.config()?;
        let info = autostart::ensure(&self.ui, &self.global, &config).await?;
        self.connection(info.url, self.key_for_local(&config)?, true)
    }

    /// The server of the data directory, if one runs.
    pub(crate) fn connect_if_running(&self) -> Result<Option<Connection>, CliError> {
        if let Some(url) = &self.global.server {
            return self.connect_to(url).map(Some);
        }
        let config = self.config()?;
        let Some(info) = config.dir().running_server() else {
            return Ok(None);
        };
        self.connection(info.url, self.key_for_local(&config)?, true).map(Some)
    }

    /// What to do about a complaint that names a key's variable when that variable is set here: the
    /// running server was started without it.
    pub(crate) fn key_came_late(&self, complaint: &str) -> Option<String> {
        if self.global.server.is_some() {
            return None;
        }
        let config = self.config().ok()?;
        let info = config.dir().running_server()?;
        let variables = key_variables(&config);
        let late = late_variable(complaint, &variables, |name| {
            std::env::var(name).is_ok_and(|value| !value.trim().is_empty())
        })?;
        Some(format!(
            "the running server was started without {late}: `kill {}` ends it (running agents go on), \
             then try again",
            info.pid
        ))
    }

    fn connect_to(&self, url: &str) -> Result<Connection, CliError> {
        let config = self.config();
        let own = config.as_ref().ok().filter(|config| is_own_server(&config.dir(), url));
        let key = match (self.explicit_key()?, own) {
            (Some(key), _) => key,
            // The admin key is only ever sent to the server that holds the lock of its directory.
            (None, Some(config)) => datadir::read_key(&config.admin_key_file)?,
            (None, None) => {
                return Err(CliError::usage(format!("there is no API key for {url}")).with_hint(
                    "set OUTPOST_API_KEY, or name the file that holds it with --key-file",
                ));
            }
        };
        self.connection(url.to_owned(), key, is_loopback(url))
    }

    fn key_for_local(&self, config: &Config) -> Result<Secret, CliError> {
        match self.explicit_key()? {
            Some(key) => Ok(key),
            None => Ok(datadir::read_key(&config.admin_key_file)?),
        }
    }

    fn explicit_key(&self) -> Result<Option<Secret>, CliError> {
        if let Some(text) = std::env::var("OUTPOST_API_KEY").ok().filter(|text| !text.is_empty()) {
            let text = text.trim().to_owned();
            if datadir::is_key(&text) {
                return Ok(Some(Secret::new(text)));
            }
            return Err(CliError::usage(
                "OUTPOST_API_KEY holds no API key: expected otp_ and 64 hexadecimal digits",
            ));
        }
        Ok(self.global.key_file.as_deref().map(datadir::read_key).transpose()?)
    }

    fn connection(&self, url: String, key: Secret, local: bool) -> Result<Connection, CliError> {
        Ok(Connection { api: Arc::new(http_api(&url, &key)?), url, local })
    }
}

/// The HTTP client for one server.
pub(crate) fn http_api(url: &str, key: &Secret) -> Result<HttpApi, CliError> {
    let key = ApiKey::new(key.expose());
    HttpApi::new(ClientConfig::new(url, Some(key)))
        .map_err(|error| CliError::chain(&format!("{url} cannot be used as a server"), &error))
}

/// Every variable in which a key of a model provider may come.
fn key_variables(config: &Config) -> Vec<String> {
    Provider::ALL.into_iter().flat_map(|provider| config.key_variables(provider)).collect()
}

/// The first of `variables` that is set and that the complaint names.
fn late_variable<'a>(
    complaint: &str,
    variables: &'a [String],
    is_set: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let names = |variable: &&String| {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        complaint.split(word).any(|part| part == variable.as_str())
    };
    variables.iter().filter(names).map(String::as_str).find(|name| is_set(name))
}

fn is_own_server(dir: &DataDir, url: &str) -> bool {
    dir.running_server().is_some_and(|info| info.url.trim_end_matches('/') == url)
}

fn is_loopback(url: &str) -> bool {
    let host = url::Url::parse(url).ok().and_then(|url| match url.host() {
        Some(url::Host::Ipv4(address)) => Some(address.is_loopback()),
        Some(url::Host::Ipv6(address)) => Some(address.is_loopback()),
        Some(url::Host::Domain(name)) => Some(name == "localhost"),
        None => None,
    });
    host == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_came_late_is_the_one_complained_about() {
        let variables = ["A_KEY".to_owned(), "XA_KEY".to_owned()];
        let late = |complaint, set: &str| late_variable(complaint, &variables, |name| name == set);
        assert_eq!(late("set XA_KEY where it runs", "XA_KEY"), Some("XA_KEY"));
        assert_eq!(late("set XA_KEY where it runs", "A_KEY"), None);
        assert_eq!(late("set A_KEY or XA_KEY.", "XA_KEY"), Some("XA_KEY"));
        assert_eq!(late("not installed", "A_KEY"), None);
    }

    #[test]
    fn loopback_addresses() {
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "http://127.9.9.9"]
        {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://localhost.evil.test", "https://10.0.0.1", "http://127.0.0.1.nip.io"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
