//! Files with what agents are told of how the operator and the tenants work.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use outpost_context::{CONTEXT_FILE_BYTES_MAX, PROFILES_COUNT_MAX, Profiles};
use outpost_types::TenantId;
use serde::Deserialize;

use super::{Config, absolute};
use crate::error::ConfigError;

/// `[context]`: where the profiles are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContextFile {
    /// For tenants without one of their own.
    profile: Option<PathBuf>,
    /// Of single tenants.
    profiles: BTreeMap<String, PathBuf>,
}

/// The same with absolute paths, and names that tenants can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFiles {
    /// For tenants without one of their own.
    of_all: Option<PathBuf>,
    /// Of single tenants.
    of_tenant: BTreeMap<TenantId, PathBuf>,
}

impl ContextFile {
    /// Checks what the file says.
    pub(crate) fn files(self) -> Result<ProfileFiles, ConfigError> {
        if self.profiles.len() > PROFILES_COUNT_MAX {
            let message = format!("context.profiles has more than {PROFILES_COUNT_MAX} entries");
            return Err(ConfigError::usage(message));
        }
        let of_tenant = self.profiles.into_iter().map(|(name, path)| {
            let tenant = name.parse().map_err(|_| {
                let message = "which no tenant can be";
                ConfigError::usage(format!("context.profiles has an entry `{name}`, {message}"))
            })?;
            Ok((tenant, std::path::absolute(path)?))
        });
        let of_tenant = of_tenant.collect::<Result<_, ConfigError>>()?;
        Ok(ProfileFiles { of_all: absolute(self.profile)?, of_tenant })
    }
}

impl Config {
    /// Reads the files that `[context]` names.
    ///
    /// # Errors
    /// The entry and file that cannot be read, or that is larger than [`CONTEXT_FILE_BYTES_MAX`].
    pub fn read_profiles(&self) -> Result<Profiles, ConfigError> {
        let of_all = self.profiles.of_all.as_deref();
        let of_all = of_all.map(|path| read("context.profile", path)).transpose()?;
        let of_tenant = self.profiles.of_tenant.iter().map(|(tenant, path)| {
            Ok((tenant.clone(), read(&format!("context.profiles.{tenant}"), path)?))
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
        let of_tenant = BTreeMap::from([("acme".parse().unwrap(), small.clone())]);
        config.profiles = ProfileFiles { of_all: Some(small), of_tenant };
        let read = config.read_profiles().unwrap();
        assert_eq!(read.of_all.as_deref(), Some(&b"Use tabs."[..]));
        assert_eq!(read.of_tenant.len(), 1);
        for (path, says) in [(large, "is over 65536 bytes"), (dir.path().join("no"), "cannot")] {
            config.profiles.of_all = Some(path);
            let error = config.read_profiles().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("context.profile"), "{error}");
        }
    }
}
