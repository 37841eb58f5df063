//! Keys in a file: read when the Listener comes, looked at again every second, and kept when it cannot be read.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::policy::jwt::{Jwks, JwtStatus};

use super::live::{Keys, MOST_BYTES};

/// How often the file is read. It is small, and reading it finds every way in which it can be replaced: in place, by a rename,
/// by a symbolic link of a directory above it (`watched_directory`).
const PERIOD: Duration = Duration::from_secs(1);

/// What the file holds.
///
/// # Errors
///
/// It is not there, cannot be read, is no file, or is larger than any set of keys.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let other = |why: &str| std::io::Error::other(why.to_owned());
    // A pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(other("it is no file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MOST_BYTES {
        return Err(other("it is too large"));
    }
    Ok(bytes)
}

/// What bytes say, as requests ask for it.
pub(super) fn parsed(bytes: &[u8]) -> Result<Arc<Jwks>, JwtStatus> {
    Jwks::parse(bytes).map(Arc::new)
}

/// Reads again for as long as somebody wants the keys. `last` is what was read last.
pub(super) async fn keep(path: PathBuf, mut last: Vec<u8>, keys: Keys) {
    let mut trouble = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let from = path.clone();
        let read = tokio::task::spawn_blocking(move || read(&from)).await;
        let read = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
        let taken = match read {
            Ok(bytes) if bytes == last => Ok(()),
            Ok(bytes) => {
                let found = parsed(&bytes);
                last = bytes;
                found.map(|jwks| keys.store(Arc::new(Ok(jwks)))).map_err(|status| status.to_string())
            }
            Err(why) => Err(why),
        };
        let now = taken.err();
        // Once for each trouble, and not every second.
        if let Some(why) = now.as_ref().filter(|_| now != trouble) {
            tracing::warn!(target: "mesh", "no keys from {}, the last good ones stay: {why}", path.display());
        }
        trouble = now;
    }
}
