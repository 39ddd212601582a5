//! Where the key of the secrets is: apart from the data, and one file for each data directory.
//!
//! Two installs of one user must not share a file, or a rekey of the one would take the key of the
//! other away. So the short default name belongs to the default data directory, and any other one has
//! a name of its own.

use std::path::{Path, PathBuf};

use outpost_engine::KeyFile;
use outpost_types::hex;
use sha2::{Digest as _, Sha256};

use super::Config;
use crate::datadir::DataDir;

/// Name of the key in a service manager's directory of credentials, and of the default file.
const KEY_NAME: &str = "secrets.key";
/// Bytes of the hash that tells data directories apart in the names of their key files.
const NAME_HASH_BYTES: usize = 8;

impl Config {
    /// The key file of the secrets in `data_dir`, which is free of links; `None` when none is
    /// configured and there is no home directory. Nothing is made yet.
    pub fn secrets_key_file(&self, data_dir: &Path) -> Option<KeyFile> {
        let variable = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let usual = DataDir::locate(None).ok().and_then(|dir| dir.root().canonicalize().ok());
        let is_usual = usual.as_deref() == Some(data_dir);
        place(self.secrets_key_file.as_deref(), data_dir, is_usual, variable)
    }
}

/// Configured, else a credential of the service manager, else the user's own.
fn place(
    configured: Option<&Path>,
    data_dir: &Path,
    is_usual: bool,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Option<KeyFile> {
    if let Some(path) = configured {
        return Some(match variable("CREDENTIALS_DIRECTORY") {
            Some(credentials) if path.starts_with(&credentials) => {
                KeyFile::credential(path, data_dir)
            }
            _ => KeyFile::new(path, data_dir),
        });
    }
    let credential = variable("CREDENTIALS_DIRECTORY").map(|dir| dir.join(KEY_NAME));
    if let Some(path) = credential.filter(|path| path.exists()) {
        return Some(KeyFile::credential(path, data_dir));
    }
    let config = variable("XDG_CONFIG_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".config")))?
        .join("outpost");
    let name = if is_usual {
        KEY_NAME.to_owned()
    } else {
        let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        format!("secrets-{}.key", hex(&hash[..NAME_HASH_BYTES]))
    };
    Some(KeyFile::new(config.join(name), data_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(
        configured: Option<&str>,
        data_dir: &str,
        is_usual: bool,
        variables: &[(&str, &Path)],
    ) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, path)| path.to_path_buf())
        };
        let file = place(configured.map(Path::new), Path::new(data_dir), is_usual, variable);
        file.map(|file| file.path().to_owned())
    }

    #[test]
    fn the_key_is_apart_from_the_data_and_each_data_directory_has_its_own() {
        let home = [("HOME", Path::new("/h"))];
        let usual = path(None, "/h/.local/share/outpost", true, &home).unwrap();
        assert_eq!(usual, Path::new("/h/.config/outpost/secrets.key"));
        let (one, two) = (path(None, "/one", false, &home), path(None, "/two", false, &home));
        assert!(one != two && one == path(None, "/one", false, &home));
        assert!(one.unwrap().starts_with("/h/.config/outpost"));
        let xdg = [("HOME", Path::new("/h")), ("XDG_CONFIG_HOME", Path::new("/x"))];
        assert_eq!(path(None, "/d", true, &xdg).unwrap(), Path::new("/x/outpost/secrets.key"));
        assert_eq!(path(None, "/d", true, &[]), None);
    }

    #[test]
    fn what_is_configured_wins_over_a_credential_and_that_over_the_default() {
        let credentials = tempfile::tempdir().unwrap();
        let variables = [("HOME", Path::new("/h")), ("CREDENTIALS_DIRECTORY", credentials.path())];
        let usual = path(None, "/d", true, &variables).unwrap();
        assert_eq!(usual, Path::new("/h/.config/outpost/secrets.key"));
        let credential = credentials.path().join("secrets.key");
        std::fs::write(&credential, "").unwrap();
        assert_eq!(path(None, "/d", true, &variables), Some(credential));
        assert_eq!(path(Some("/k"), "/d", true, &variables).unwrap(), Path::new("/k"));
    }
}
