//! Repository directories written by hand: the few files git needs, with objects borrowed from a mirror.
//!
//! Writing them costs one millisecond and runs nothing; `git clone --shared` would start five processes and copy names and paths
//! that have no place in a sandbox (the origin's address, hooks, the template). Deliberately absent: anything that changes an
//! existing repository.

use std::io;
use std::path::Path;

/// What a repository directory holds.
#[derive(Debug)]
pub(crate) struct GitDir<'a> {
    /// The commit its refs name; its length tells the object format.
    pub(crate) commit: &'a str,
    /// Content of `HEAD`: `refs/heads/...`, or none for the commit itself.
    pub(crate) head: Option<&'a str>,
    /// Refs that name the commit, sorted.
    pub(crate) refs: &'a [String],
    /// Object directories it borrows from; absolute.
    pub(crate) borrows: &'a [&'a Path],
    /// A `shallow` file to copy, if it exists.
    pub(crate) shallow: Option<&'a Path>,
    /// More lines of the configuration.
    pub(crate) settings: &'a str,
}

impl GitDir<'_> {
    /// Writes it to `dir`, which must not exist.
    pub(crate) fn write(&self, dir: &Path, bare: bool) -> io::Result<()> {
        for part in [
            "",
            "objects",
            "objects/info",
            "objects/pack",
            "refs",
            "refs/heads",
            "refs/tags",
            "info",
        ] {
            std::fs::create_dir(dir.join(part))?;
        }
        let head =
            self.head.map_or_else(|| format!("{}\n", self.commit), |name| format!("ref: {name}\n"));
        std::fs::write(dir.join("HEAD"), head)?;
        let sha256 = self.commit.len() == 64;
        let version = u8::from(sha256);
        let mut config = format!(
            "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = {bare}\n"
        );
        if sha256 {
            config.push_str("[extensions]\n\tobjectFormat = sha256\n");
        }
        config.push_str(self.settings);
        std::fs::write(dir.join("config"), config)?;
        let mut alternates = String::new();
        for objects in self.borrows {
            let text = objects
                .to_str()
                .filter(|text| !text.contains('\n') && !text.starts_with(['#', '"']));
            alternates.push_str(text.ok_or_else(|| {
                io::Error::other("the path of the repository cache is not plain text")
            })?);
            alternates.push('\n');
        }
        std::fs::write(dir.join("objects/info/alternates"), alternates)?;
        let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        for name in self.refs {
            packed.push_str(&format!("{} {name}\n", self.commit));
        }
        std::fs::write(dir.join("packed-refs"), packed)?;
        if let Some(shallow) = self.shallow
            && shallow.is_file()
        {
            std::fs::copy(shallow, dir.join("shallow"))?;
        }
        Ok(())
    }
}
