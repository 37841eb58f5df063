//! The file itself: where it is, what is in it, and what is believed of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prost::Message;
use twox_hash::XxHash64;

use super::secrets::holds_secret;
use crate::ads::{Engine, LastGood};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey};

/// How a file begins; the digit is the format's version.
const MAGIC: &[u8; 8] = b"MESHLKG1";
/// A file of over 256 MiB is not read: 100,000 endpoints take about 10 MiB.
const LARGEST: u64 = 256 * 1024 * 1024;
/// What was confirmed longer ago is not used: endpoints of yesterday are other processes today.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// How far ahead another clock may have been.
const AHEAD: Duration = Duration::from_secs(300);
/// The types that are kept. Secrets have a type of their own, which is not among them.
const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// Where the last good configuration of a node is kept: a directory that only its owner may write to, made if it is not there.
#[derive(Debug, Clone)]
pub(in crate::source) struct LastGoodDirectory {
    directory: PathBuf,
    node_id: String,
    /// When each resource of the file was confirmed.
    confirmed: Arc<Mutex<BTreeMap<ResourceKey, u64>>>,
}

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) resources: Vec<LastGood>,
    /// The age of the newest of them.
    pub(super) age: Duration,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(string, tag = "1")]
    node_id: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Kept>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "bytes", tag = "4")]
    value: bytes::Bytes,
    #[prost(string, tag = "5")]
    server: String,
    /// Seconds of Unix time.
    #[prost(uint64, tag = "6")]
    confirmed: u64,
}

impl LastGoodDirectory {
    /// `directory`, for the node of this `node.id`.
    pub(in crate::source) fn new(directory: impl Into<PathBuf>, node_id: impl Into<String>) -> Self {
        Self { directory: directory.into(), node_id: node_id.into(), confirmed: Arc::default() }
    }

    /// The file. Nodes that share a directory have one each.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(format!("{:016x}.last-good", digest(self.node_id.as_bytes())))
    }

    /// What is in the file; nothing if there is none.
    pub(super) fn load(&self, now: SystemTime) -> Result<Loaded, String> {
        let path = self.path();
        let because = |why: String| format!("{}: {why}", path.display());
        let Some(bytes) = self.read(&path).map_err(because)? else { return Ok(Loaded::default()) };
        let contents = open(&bytes).map_err(because)?;
        let loaded = self.check(contents, now).map_err(because)?;
        let confirmed = loaded.resources.iter().map(|resource| (resource.key.clone(), resource.confirmed)).collect();
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = confirmed;
        Ok(loaded)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        let say = |error: io::Error| error.to_string();
        let entry = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(say)?,
        };
        if !entry.is_file() {
            return Err("is not a plain file".to_owned());
        }
        self.check_directory()?;
        let file = File::open(path).map_err(say)?;
        let opened = file.metadata().map_err(say)?;
        check_owner(&entry, &opened, self.own_user().map_err(say)?)?;
        if opened.len() > LARGEST {
            return Err(format!("has {} bytes, and {LARGEST} are the limit", opened.len()));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(say)?;
        Ok(Some(bytes))
    }

    /// Believes of the file what is this node's and young enough.
    fn check(&self, contents: Contents, now: SystemTime) -> Result<Loaded, String> {
        if contents.node_id != self.node_id {
            return Err(format!("is of node `{}`, and this is `{}`", contents.node_id, self.node_id));
        }
        let now = seconds(now);
        let mut resources = Vec::new();
        let mut age = None;
        let held = contents.resources.len();
        for kept in contents.resources {
            if !TYPES.contains(&&*kept.type_url) || kept.name.is_empty() {
                return Err(format!("has a resource `{}` of type `{}`, which is not kept", kept.name, kept.type_url));
            }
            if kept.confirmed > now + AHEAD.as_secs() {
                return Err("is from the future: the clock was set back".to_owned());
            }
            let since = Duration::from_secs(now.saturating_sub(kept.confirmed));
            if since > OLDEST {
                continue;
            }
            age = Some(age.map_or(since, |age: Duration| age.min(since)));
            resources.push(LastGood {
                key: ResourceKey::new(kept.type_url, kept.name),
                version: kept.version,
                bytes: kept.value,
                server: kept.server.into(),
                confirmed: kept.confirmed,
            });
        }
        if resources.is_empty() && held > 0 {
            return Err(format!("is over {} h old", OLDEST.as_secs() / 3600));
        }
        Ok(Loaded { resources, age: age.unwrap_or_default() })
    }

    /// Writes what a later process may start on in the place of what was there: either is there at any moment.
    pub(super) fn save(&self, engine: &Engine, now: SystemTime) -> Result<(), String> {
        let now = seconds(now);
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resources = engine.last_good(now, |key| confirmed.get(key).copied());
        resources.retain(|resource| {
            TYPES.contains(&&*resource.key.type_url)
                && now.saturating_sub(resource.confirmed) <= OLDEST.as_secs()
                && !holds_secret(&resource.key.type_url, &resource.bytes)
        });
        *confirmed = resources.iter().map(|resource| (resource.key.clone(), resource.confirmed)).collect();
        drop(confirmed);
        self.write(&seal(&encode(&self.node_id, resources))).map_err(|why| format!("{}: {why}", self.path().display()))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 > LARGEST {
            return Err(format!("would have {} bytes, and {LARGEST} are the limit", bytes.len()));
        }
        self.make_directory().map_err(|error| error.to_string())?;
        self.check_directory()?;
        let replace = || -> io::Result<()> {
            let temporary = self.temporary();
            let mut file = create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, self.path())?;
            // So that the name lasts, too.
            File::open(&self.directory)?.sync_all()
        };
        replace().map_err(|error| error.to_string())
    }

    fn temporary(&self) -> PathBuf {
        self.path().with_extension(format!("{}.new", std::process::id()))
    }
}

impl From<LastGood> for Kept {
    fn from(resource: LastGood) -> Self {
        Self {
            type_url: resource.key.type_url.to_string(),
            name: resource.key.name.to_string(),
            version: resource.version,
            value: resource.bytes,
            server: resource.server.to_string(),
            confirmed: resource.confirmed,
        }
    }
}

/// The contents of a file.
pub(super) fn encode(node_id: &str, resources: Vec<LastGood>) -> Vec<u8> {
    let resources = resources.into_iter().map(Kept::from).collect();
    Contents { node_id: node_id.to_owned(), resources }.encode_to_vec()
}

/// Magic, checksum, contents. The checksum finds what a disk did; whoever can write here could make one.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + 8 + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&digest(body).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn open(bytes: &[u8]) -> Result<Contents, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("is not of this kind, or of another version of it")?;
    let (sum, body) = rest.split_first_chunk::<8>().ok_or("is cut off")?;
    if u64::from_be_bytes(*sum) != digest(body) {
        return Err("is damaged: its checksum is wrong".to_owned());
    }
    Contents::decode(body).map_err(|error| format!("is damaged: {error}"))
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(bytes);
    hasher.finish()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(unix)]
mod owner {
    //! Who owns what, and who else may use it.

    use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use super::LastGoodDirectory;

    /// The permissions that others than the owner may have.
    const OTHERS: u32 = 0o077;
    const OTHERS_WRITE: u32 = 0o022;

    impl LastGoodDirectory {
        pub(super) fn make_directory(&self) -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
        }

        /// Whoever can write to the directory can put another file in the place of ours.
        pub(super) fn check_directory(&self) -> Result<(), String> {
            let mode = fs::metadata(&self.directory).map_err(|error| error.to_string())?.mode();
            if mode & OTHERS_WRITE != 0 {
                let mode = mode & 0o7777;
                return Err(format!(
                    "others may write to the directory (mode {mode:o}); take it from them (chmod go-w)"
                ));
            }
            Ok(())
        }

        /// The user we are: the owner of a file that we make.
        pub(super) fn own_user(&self) -> io::Result<u32> {
            let temporary = self.temporary();
            let user = create(&temporary)?.metadata()?.uid();
            fs::remove_file(&temporary)?;
            Ok(user)
        }
    }

    /// That the file is ours alone, and the one that was looked at.
    pub(super) fn check_owner(entry: &Metadata, opened: &Metadata, user: u32) -> Result<(), String> {
        if (entry.dev(), entry.ino()) != (opened.dev(), opened.ino()) {
            return Err("was exchanged while it was opened".to_owned());
        }
        if opened.uid() != user {
            return Err(format!("belongs to user {}, and this process is {user}", opened.uid()));
        }
        if opened.mode() & OTHERS != 0 {
            return Err(format!("others may use it (mode {:o}); it must have mode 600", opened.mode() & 0o7777));
        }
        Ok(())
    }

    /// A new file for its owner alone. One that an earlier process left unfinished goes.
    pub(super) fn create(path: &Path) -> io::Result<File> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }
}

#[cfg(not(unix))]
mod owner {
    //! Where nobody can say who may read a file, none is written or believed.

    use std::fs::{File, Metadata};
    use std::io;
    use std::path::Path;

    use super::LastGoodDirectory;

    fn unsupported() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, "files that only their owner may read are known on Unix only")
    }

    impl LastGoodDirectory {
        pub(super) fn make_directory(&self) -> io::Result<()> {
            Err(unsupported())
        }

        pub(super) fn check_directory(&self) -> Result<(), String> {
            Err(unsupported().to_string())
        }

        pub(super) fn own_user(&self) -> io::Result<u32> {
            Err(unsupported())
        }
    }

    pub(super) fn check_owner(_: &Metadata, _: &Metadata, _: u32) -> Result<(), String> {
        Err(unsupported().to_string())
    }

    pub(super) fn create(_: &Path) -> io::Result<File> {
        Err(unsupported())
    }
}

use owner::{check_owner, create};
