//! Files with what agents are told of how the operator and the tenants work.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use outpost_context::{CONTEXT_FILE_BYTES_MAX, PROFILES_COUNT_MAX, Profiles};
use outpost_types::TenantId;
use serde::Deserialize;

use super::Config;
use crate::error::ConfigError;

/// `[context]`: where the profiles are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextFile {
    /// For tenants without one of their own.
    profile: Option<PathBuf>,
    /// Of single tenants.
    profiles: BTreeMap<String, PathBuf>,
}

impl ContextFile {
    /// The same with absolute paths, and names that tenants can have.
    pub(crate) fn absolute(mut self) -> Result<Self, ConfigError> {
        if self.profiles.len() > PROFILES_COUNT_MAX {
            let message = format!("context.profiles has more than {PROFILES_COUNT_MAX} entries");
            return Err(ConfigError::usage(message));
        }
        if let Some(name) = self.profiles.keys().find(|name| name.parse::<TenantId>().is_err()) {
            let message = format!("context.profiles has an entry `{name}`, which no tenant can be");
            return Err(ConfigError::usage(message));
        }
        for path in self.profile.iter_mut().chain(self.profiles.values_mut()) {
            *path = std::path::absolute(&path)?;
        }
        Ok(self)
    }
}

impl Config {
    /// Reads the files that `[context]` names.
    ///
    /// # Errors
    /// The entry and file that cannot be read, or that is larger than [`CONTEXT_FILE_BYTES_MAX`].
    pub fn read_profiles(&self) -> Result<Profiles, ConfigError> {
        let of_all = self.context.profile.as_deref();
        let of_all = of_all.map(|path| read("context.profile", path)).transpose()?;
        let of_tenant = self.context.profiles.iter().map(|(name, path)| {
            let text = read(&format!("context.profiles.{name}"), path)?;
            let tenant = name.parse().map_err(|_| ConfigError::usage("no tenant"))?;
            Ok((tenant, text))
        });
        Ok(Profiles { of_all, of_tenant: of_tenant.collect::<Result<_, ConfigError>>()? })
    }
}

fn read(entry: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    let limit = CONTEXT_FILE_BYTES_MAX as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text)).map_err(|error| {
        ConfigError::usage(format!("{entry}: {} cannot be read: {error}", path.display()))
    })?;
    if text.len() > CONTEXT_FILE_BYTES_MAX {
        let message = format!("{entry}: {} is over {CONTEXT_FILE_BYTES_MAX} bytes", path.display());
        return Err(ConfigError::usage(message).with_hint("Shorten it; agents are told a page."));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::DataDir;

    #[test]
    fn files_are_read_whole_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let (small, large) = (dir.path().join("small"), dir.path().join("large"));
        std::fs::write(&small, "Use tabs.").unwrap();
        std::fs::write(&large, vec![b'x'; CONTEXT_FILE_BYTES_MAX + 1]).unwrap();
        let mut config = Config::for_dir(&DataDir::locate(Some(dir.path())).unwrap()).unwrap();
        assert_eq!(config.read_profiles().unwrap(), Profiles::default());
        let profiles = BTreeMap::from([("acme".to_owned(), small.clone())]);
        config.context = ContextFile { profile: Some(small), profiles };
        let read = config.read_profiles().unwrap();
        assert_eq!(read.of_all.as_deref(), Some(&b"Use tabs."[..]));
        assert_eq!(read.of_tenant.len(), 1);
        for (path, says) in [(large, "is over 65536 bytes"), (dir.path().join("no"), "cannot")] {
            config.context.profile = Some(path);
            let error = config.read_profiles().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("context.profile"), "{error}");
        }
    }
}
