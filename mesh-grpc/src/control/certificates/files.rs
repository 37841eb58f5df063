//! Files that appear as a whole.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Puts a file in the place of the one of this name. A `secret` one can be read by its owner only.
pub(super) fn replace(path: &Path, text: &str, secret: bool) -> Result<()> {
    let temporary = write_beside(path, text, secret)?;
    remove_unless(&temporary, fs::rename(&temporary, path))
}

/// Makes a secret file of this name, unless there is one by now.
pub(super) fn create(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = write_beside(path, text, true)?;
    // A link, unlike a renaming, fails where there is a file: of two processes the first one wins.
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let removed = fs::remove_file(&temporary);
    linked.and(removed)
}

fn write_beside(path: &Path, text: &str, secret: bool) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}-{count}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    let mut file = match options.open(&temporary) {
        // A process of the same number left it when it was killed.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary)?;
            options.open(&temporary)?
        }
        opened => opened?,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    remove_unless(&temporary, written)?;
    Ok(temporary)
}

fn remove_unless(temporary: &Path, result: Result<()>) -> Result<()> {
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(temporary);
    }
    result
}
