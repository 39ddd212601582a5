//! `outpost backup` and `outpost restore`: they work on the data directory itself, with or without a server on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outpost_args::{BackupArgs, RestoreArgs};
use outpost_backup::{
    BackupError, BackupRequest, KeyFiles, Manifest, Progress, RestoreRequest, backup, restore,
};

use crate::clock::now;
use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Time between two notes on how far it is, seconds.
const TELL_SECONDS: u64 = 2;

/// Makes a backup.
pub(crate) async fn make(ctx: &Ctx, args: BackupArgs) -> Result<Exit, CliError> {
    let config = ctx.config()?;
    let data_dir = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
    let keys = args.include_keys.then(|| KeyFiles {
        admin: Some(config.admin_key_file.clone()),
        secrets: config.secrets_key_file(&data_dir).map(|file| file.path().to_owned()),
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let request = BackupRequest { data_dir, to: args.dir.clone(), keys, now: now(), version };
    let manifest = told(ctx, move |tell| backup(&request, tell)).await?;
    let kept = if manifest.includes_keys { "with its keys: keep it safe" } else { "without keys" };
    say(&ctx.ui, &manifest, &format!("{} is a backup, {kept}", args.dir.display()))
}

/// Restores one.
pub(crate) async fn put_back(ctx: &Ctx, args: RestoreArgs) -> Result<Exit, CliError> {
    let config = ctx.config()?;
    config.dir().create()?;
    let data_dir = config.data_dir.canonicalize()?;
    let keys = KeyFiles {
        admin: Some(within(&config.admin_key_file, &config.data_dir, &data_dir)),
        secrets: config.secrets_key_file(&data_dir).map(|file| file.path().to_owned()),
    };
    let request = RestoreRequest { from: args.dir, data_dir: data_dir.clone(), keys };
    let manifest = told(ctx, move |tell| restore(&request, tell)).await?;
    say(&ctx.ui, &manifest, &format!("{} is restored", data_dir.display()))
}

/// A path below a directory, by the directory's name without links.
fn within(path: &Path, dir: &Path, canonical: &Path) -> PathBuf {
    path.strip_prefix(dir).map_or_else(|_| path.to_owned(), |rest| canonical.join(rest))
}

/// Does the work beside the runtime, and says now and then how far it is.
async fn told(
    ctx: &Ctx,
    work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<Manifest, BackupError> + Send + 'static,
) -> Result<Manifest, CliError> {
    let (tell, mut told) = tokio::sync::watch::channel(Progress::default());
    let task = tokio::task::spawn_blocking(move || {
        let mut last = Instant::now();
        work(&mut |progress| {
            if last.elapsed() >= Duration::from_secs(TELL_SECONDS) {
                last = Instant::now();
                tell.send_replace(progress);
            }
        })
    });
    while told.changed().await.is_ok() {
        let progress = *told.borrow_and_update();
        ctx.ui.note(&format!("  {}", words(progress.files, progress.bytes)));
    }
    let done = task.await.map_err(|error| CliError::chain("it was not done", &error))?;
    done.map_err(|error| CliError::chain("nothing was changed", &error))
}

fn say(ui: &Ui, manifest: &Manifest, what: &str) -> Result<Exit, CliError> {
    if ui.verbosity.json {
        ui.json(manifest)?;
    } else {
        ui.note(&format!("{what}: {}.", words(manifest.files, manifest.bytes)));
    }
    Ok(Exit::Ok)
}

fn words(files: u64, bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes < MIB {
        format!("{files} files, {} KB", bytes.div_ceil(1024))
    } else {
        format!("{files} files, {} MB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_data_directory_go_where_it_really_is() {
        let (dir, real) = (Path::new("/a/link"), Path::new("/b/real"));
        assert_eq!(within(Path::new("/a/link/admin.key"), dir, real), real.join("admin.key"));
        assert_eq!(within(Path::new("/etc/admin.key"), dir, real), Path::new("/etc/admin.key"));
    }

    #[test]
    fn sizes_are_told_in_words() {
        assert_eq!(words(1, 1), "1 files, 1 KB");
        assert_eq!(words(3, 5 << 20), "3 files, 5 MB");
    }
}
