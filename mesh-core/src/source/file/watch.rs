//! One file, read again when it changes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Loaded;
use crate::bootstrap::CertificateProvider;
use crate::decode::DecodeResource;
use crate::error::{Code, Error};
use crate::event::{Event, EventSink};
use crate::model::Name;
use crate::publish::{Publisher, Reader};
use crate::source::responder::ResourceSet;

/// How often the file is looked at. A change counts when two looks in a row see the same, so that a file that is being
/// written is not taken half.
const INTERVAL: Duration = Duration::from_millis(50);
/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;
/// Up to this size the content is compared at every look; above it only when the system says that the file changed.
const SMALL: u64 = 256 << 10;

/// Makes the decoder that a file's resources must pass, when its certificate providers are known.
pub(super) type MakeDecoder = Box<dyn FnOnce(&BTreeMap<Name, CertificateProvider>) -> Arc<dyn DecodeResource>>;

/// A file's resources, followed through its changes: what the file source and the local control plane have in common.
///
/// Changes are found by content, a few times in a second, so that symbolic links which are exchanged, as Kubernetes does
/// with its volumes, are seen too.
pub struct FileWatch {
    path: PathBuf,
    sets: Publisher<ResourceSet>,
    certificate_providers: BTreeMap<Name, CertificateProvider>,
    decoder: Option<Arc<dyn DecodeResource>>,
    /// What was last taken or refused.
    settled: Seen,
    /// What the last look saw.
    seen: Seen,
    refused: Option<String>,
}

/// What a look at the file sees.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    stamp: Option<Stamp>,
    content: Result<Arc<str>, String>,
}

/// What the system says about a file, changes of which mean that it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Where the path leads.
    file: Option<PathBuf>,
}

impl FileWatch {
    /// Reads the file at `path`. That its resources have the right shape is all that is checked: clients may know more
    /// extensions than this process does.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_FILE`], with file, line and reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), None)
    }

    pub(super) fn open_with(path: &Path, decoder: Option<MakeDecoder>) -> Result<Self, Error> {
        let seen = Seen::look(path, None);
        let loaded = load(&seen, path)?;
        let decoder = decoder.map(|make| make(&loaded.certificate_providers));
        if let Some(decoder) = &decoder {
            loaded.check(&**decoder)?;
        }
        let config = loaded.into_config();
        Ok(Self {
            path: path.to_owned(),
            sets: Publisher::new(Arc::new(ResourceSet::new(config.resources))),
            certificate_providers: config.certificate_providers,
            decoder,
            settled: seen.clone(),
            seen,
            refused: None,
        })
    }

    /// Its path, for events and errors.
    pub fn name(&self) -> Name {
        self.path.display().to_string().into()
    }

    /// The resources that are in force, now and after every good change.
    pub fn reader(&self) -> Reader<ResourceSet> {
        self.sets.reader()
    }

    /// Where certificates come from, as the file said when it was opened.
    pub fn certificate_providers(&self) -> &BTreeMap<Name, CertificateProvider> {
        &self.certificate_providers
    }

    /// Looks once, and takes the file if it has changed and was the same at the last look. Call it a few times in a second;
    /// [`run`](Self::run) does.
    pub fn look(&mut self, events: &dyn EventSink) {
        let now = Seen::look(&self.path, Some(&self.seen));
        let steady = now.content == self.seen.content;
        self.seen = now;
        if !steady || self.seen.content == self.settled.content {
            return;
        }
        self.settled = self.seen.clone();
        match self.take() {
            Ok(()) => self.refused = None,
            Err(error) => {
                let reason = error.message().to_owned();
                if self.refused.as_ref() != Some(&reason) {
                    events.event(&Event::FileRefused { reason: reason.clone() });
                    self.refused = Some(reason);
                }
            }
        }
    }

    fn take(&self) -> Result<(), Error> {
        let loaded = load(&self.seen, &self.path)?;
        if loaded.certificate_providers != self.certificate_providers {
            let text = format!("{}: certificate_providers changed, which needs a restart", self.path.display());
            return Err(Error::new(Code::BAD_FILE, text));
        }
        if let Some(decoder) = &self.decoder {
            loaded.check(&**decoder)?;
        }
        self.sets.publish(Arc::new(ResourceSet::new(loaded.into_config().resources)));
        Ok(())
    }

    /// Follows the file for as long as it is polled, inside a Tokio runtime with time. Reading blocks for as long as a local
    /// file takes, so a runtime that serves requests is the wrong one.
    pub async fn run(mut self, events: Arc<dyn EventSink>) {
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(&*events);
        }
    }
}

impl Seen {
    fn look(path: &Path, last: Option<&Self>) -> Self {
        let stamp = Stamp::of(path);
        if let (Some(stamp), Some(last)) = (&stamp, last)
            && stamp.length > SMALL
            && last.stamp.as_ref() == Some(stamp)
        {
            return last.clone();
        }
        let content = read(path).map(Arc::from);
        Self { stamp, content }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let file = std::fs::canonicalize(path).ok();
        Some(Self { length: metadata.len(), modified: metadata.modified().ok(), file })
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn load(seen: &Seen, path: &Path) -> Result<Loaded, Error> {
    let origin = path.display().to_string();
    match &seen.content {
        Ok(text) => Loaded::read(text, &origin),
        Err(why) => Err(Error::new(Code::BAD_FILE, format!("{origin}: {why}"))),
    }
}

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").field("path", &self.path).finish_non_exhaustive()
    }
}
