//! Certificate revocation lists: of a resource, or of a file that is read again as it changes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{fs, io};

use arc_swap::ArcSwapOption;
use mesh_core::error::{Code, Error};
use mesh_core::identity::revocation_lists;
use mesh_core::model::CrlSource;

use super::revocation::List;

/// The largest file that is read: a million revocations.
const MAX_FILE: u64 = 64 << 20;

/// Revocation lists that can be asked.
pub(super) struct Lists {
    lists: Vec<List>,
    /// Grows as their file changes.
    pub(super) generation: u64,
}

impl Lists {
    fn read(lists: &[Vec<u8>], generation: u64) -> Result<Self, String> {
        let lists: Option<Vec<_>> = lists.iter().map(|list| List::read(list)).collect();
        Ok(Self { lists: lists.ok_or("cannot be read")?, generation })
    }

    /// Those that are inline.
    ///
    /// # Errors
    ///
    /// One cannot be read, or they are in a file, which is followed by [`CrlFiles`] alone.
    pub(super) fn of(source: &CrlSource) -> Result<Arc<Self>, Error> {
        let lists = match source {
            CrlSource::Inline(lists) => Self::read(lists, 0),
            CrlSource::File(path) => Err(format!("{} is a file, and none may come with a secret", path.display())),
        };
        lists.map(Arc::new).map_err(|why| {
            Error::new(Code::NO_CERTIFICATE, format!("the revocation list {why}, so that nobody is trusted"))
        })
    }

    pub(super) fn all(&self) -> &[List] {
        &self.lists
    }
}

/// Where a policy's lists come from.
#[derive(Clone)]
pub(super) enum Crl {
    Inline(Result<Arc<Lists>, Error>),
    File(Arc<CrlFile>),
}

impl Crl {
    /// The newest good lists.
    ///
    /// # Errors
    ///
    /// There have never been any: who is revoked is not known, so that nobody is trusted.
    pub(super) fn current(&self) -> Result<Arc<Lists>, Error> {
        match self {
            Self::Inline(lists) => lists.clone(),
            Self::File(file) => file.current(),
        }
    }
}

/// A file of lists.
pub(super) struct CrlFile {
    path: PathBuf,
    current: ArcSwapOption<Lists>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    error: Option<String>,
    generation: u64,
}

impl CrlFile {
    fn new(path: &Path) -> Self {
        let file = Self { path: path.to_owned(), current: ArcSwapOption::empty(), seen: Mutex::default() };
        file.refresh();
        file
    }

    /// Reads it again; says whether it has changed. What cannot be read leaves the last good lists in use.
    fn refresh(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = read(&self.path).map_err(|error| format!("cannot be read: {error}"));
        let lists = match read {
            Ok(bytes) if bytes == seen.bytes && seen.error.is_none() => return false,
            Ok(bytes) => {
                let lists = revocation_lists(&bytes).and_then(|lists| Lists::read(&lists, seen.generation + 1));
                lists.map(|lists| (bytes, lists))
            }
            Err(error) => Err(error),
        };
        match lists {
            Ok((bytes, lists)) => {
                *seen = Seen { bytes, error: None, generation: lists.generation };
                self.current.store(Some(Arc::new(lists)));
                true
            }
            Err(error) => {
                if seen.error.as_ref() != Some(&error) {
                    tracing::warn!(target: "mesh", "the revocation list {} {error}; what was read before is kept", self.path.display());
                }
                seen.error = Some(error);
                false
            }
        }
    }

    fn current(&self) -> Result<Arc<Lists>, Error> {
        self.current.load_full().ok_or_else(|| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let why = seen.error.as_deref().unwrap_or("has not been read");
            let text = format!("the revocation list {} {why}, so that nobody is trusted", self.path.display());
            Error::new(Code::NO_CERTIFICATE, text).with_next_step("put a PEM or DER CRL there, or take `crl` out")
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE {
        return Err(io::Error::other(format!("it has {size} bytes, and at most {MAX_FILE} are read")));
    }
    fs::read(path)
}

/// The files that policies in use name.
#[derive(Default)]
pub(super) struct CrlFiles(Mutex<BTreeMap<PathBuf, Weak<CrlFile>>>);

impl CrlFiles {
    /// The lists of `source`. It reads the file, if nobody has yet.
    pub(super) fn open(&self, source: &CrlSource) -> Crl {
        match source {
            CrlSource::Inline(_) => Crl::Inline(Lists::of(source)),
            CrlSource::File(path) => {
                let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(file) = files.get(path).and_then(Weak::upgrade) {
                    return Crl::File(file);
                }
                let file = Arc::new(CrlFile::new(path));
                files.insert(path.clone(), Arc::downgrade(&file));
                Crl::File(file)
            }
        }
    }

    /// Reads every file again; says whether one has changed.
    pub(super) fn refresh(&self) -> bool {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, file| file.strong_count() > 0);
        let files: Vec<_> = files.values().filter_map(Weak::upgrade).collect();
        files.iter().filter(|file| file.refresh()).count() > 0
    }
}

impl fmt::Debug for CrlFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrlFiles").finish_non_exhaustive()
    }
}
