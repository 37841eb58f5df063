//! The `file_watcher` certificate provider (gRFC A29): certificates from files that something else rotates.
//!
//! The files are read again every refresh interval. What cannot be read, parsed or paired leaves the last good material in
//! use. Certificate and key are taken only as a pair that belongs together; a rotation caught in the middle is read again at
//! the next interval. Roots are one list, or a SPIFFE bundle map with one for each trust domain (gRFC A87). Following the names each time sees symbolic links that are swapped, as Kubernetes does.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateSource, Demands, IdentityMaterial, Roots, TrustMaterial, bundle_map};
use crate::bootstrap::FileWatcherConfig;
use crate::error::{Code, Error};
use crate::model::Name;

/// Says whether a key belongs to a certificate. Cryptography is not this crate's: the TLS side gives the check.
pub type PairCheck = Arc<dyn Fn(&[CertificateDer<'static>], &PrivateKeyDer<'static>) -> bool + Send + Sync>;

/// The largest file that is read: a trust bundle of a thousand roots is far below it.
const MAX_FILE: u64 = 4 << 20;

/// A `file_watcher`.
pub struct FileWatcher {
    instance: Name,
    config: FileWatcherConfig,
    pair: PairCheck,
    identity: ArcSwapOption<IdentityMaterial>,
    trust: ArcSwapOption<TrustMaterial>,
    seen: Mutex<Seen>,
}

/// The bytes of the last good material, and why the newest is not good.
#[derive(Default)]
struct Seen {
    identity: Option<(Vec<u8>, Vec<u8>)>,
    trust: Option<Vec<u8>>,
    identity_error: Option<String>,
    trust_error: Option<String>,
    generation: u64,
}

impl std::fmt::Debug for FileWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWatcher")
            .field("instance", &self.instance)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl FileWatcher {
    /// A watcher that has read its files once. Files that are not there yet are no error: they are read again.
    pub fn new(instance: impl Into<Name>, config: FileWatcherConfig, pair: PairCheck) -> Self {
        let watcher = Self {
            instance: instance.into(),
            config,
            pair,
            identity: ArcSwapOption::empty(),
            trust: ArcSwapOption::empty(),
            seen: Mutex::default(),
        };
        watcher.refresh();
        watcher
    }

    /// How often [`refresh`](Self::refresh) is to be called.
    pub fn refresh_interval(&self) -> Duration {
        self.config.refresh_interval
    }

    /// Reads the files again; says whether anything changed.
    pub fn refresh(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = self.refresh_identity(&mut seen);
        let trust = self.refresh_trust(&mut seen);
        identity || trust
    }

    fn refresh_identity(&self, seen: &mut Seen) -> bool {
        let Some(files) = &self.config.identity else { return false };
        let read = read(&files.certificate_file).and_then(|chain| Ok((chain, read(&files.private_key_file)?)));
        let parsed = match read {
            Ok(bytes) if seen.identity.as_ref() == Some(&bytes) => {
                seen.identity_error = None;
                return false;
            }
            Ok(bytes) => self.parse_identity(&bytes.0, &bytes.1).map(|material| (bytes, material)),
            Err(error) => Err(error),
        };
        match parsed {
            Ok((bytes, (chain, key))) => {
                seen.generation += 1;
                seen.identity = Some(bytes);
                seen.identity_error = None;
                self.identity.store(Some(Arc::new(IdentityMaterial { chain, key, generation: seen.generation })));
                true
            }
            Err(error) => {
                self.say(&mut seen.identity_error, error);
                false
            }
        }
    }

    fn parse_identity(
        &self,
        chain: &[u8],
        key: &[u8],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let files = self.config.identity.as_ref().map_or("", |_| "certificate");
        let chain = certificates(chain).map_err(|error| format!("the {files} file {error}"))?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the private key cannot be read: {error}"))?;
        if !(self.pair)(&chain, &key) {
            return Err("the private key does not belong to the certificate".to_owned());
        }
        Ok((chain, key))
    }

    fn refresh_trust(&self, seen: &mut Seen) -> bool {
        // gRFC A87: the map beats the roots, which may trust more.
        let map = self.config.spiffe_trust_bundle_map_file.as_ref();
        let Some(file) = map.or(self.config.ca_certificate_file.as_ref()) else { return false };
        let parsed = match read(file) {
            Ok(bytes) if seen.trust.as_ref() == Some(&bytes) => {
                seen.trust_error = None;
                return false;
            }
            Ok(bytes) => {
                let roots = if map.is_some() {
                    bundle_map(&bytes).map(Roots::ByTrustDomain).map_err(|error| error.to_string())
                } else {
                    certificates(&bytes).map(Roots::Any)
                };
                roots.map(|roots| (bytes, roots)).map_err(|error| format!("{} {error}", file.display()))
            }
            Err(error) => Err(error),
        };
        match parsed {
            Ok((bytes, roots)) => {
                seen.generation += 1;
                seen.trust = Some(bytes);
                seen.trust_error = None;
                self.trust.store(Some(Arc::new(TrustMaterial {
                    roots,
                    demands: Demands::default(),
                    generation: seen.generation,
                })));
                true
            }
            Err(error) => {
                self.say(&mut seen.trust_error, error);
                false
            }
        }
    }

    /// Says once why material is not taken.
    fn say(&self, last: &mut Option<String>, error: String) {
        if last.as_ref() != Some(&error) {
            tracing::warn!(target: "mesh", "certificate provider `{}` keeps what it has: {error}", self.instance);
        }
        *last = Some(error);
    }

    fn missing(&self, what: &str, error: Option<&String>) -> Error {
        let why = error.map_or_else(|| format!("no {what} file is configured"), Clone::clone);
        Error::new(Code::NO_CERTIFICATE, format!("certificate provider `{}` has no {what}: {why}", self.instance))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(format!("{} has {size} bytes, and at most {MAX_FILE} are read", path.display()));
    }
    fs::read(path).map_err(failed)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("has no PEM certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("is not valid PEM: {error}")),
    }
}

impl CertificateSource for FileWatcher {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        self.identity.load_full().ok_or_else(|| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            self.missing("identity", seen.identity_error.as_ref())
        })
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        self.trust.load_full().ok_or_else(|| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            self.missing("roots", seen.trust_error.as_ref())
        })
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::bootstrap::IdentityFiles;
    use crate::identity::testing::{Authority, Issued, pair};

    /// A folder that goes with its owner.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("mesh-watcher-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        /// The files of one edition, as Kubernetes writes them: in a folder of their own.
        fn write(&self, edition: &str, issued: &Issued, roots: &Authority) {
            let folder = self.0.join(edition);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in
                [("chain", &issued.certificate_pem), ("key", &issued.key_pem), ("roots", &roots.root_pem())]
            {
                fs::write(folder.join(name), text).unwrap();
            }
        }

        /// Puts an edition in force, in one step.
        fn swap(&self, edition: &str) {
            symlink(edition, self.0.join("..next")).unwrap();
            fs::rename(self.0.join("..next"), self.0.join("..data")).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// gRFC A29. Secrets and projected volumes of Kubernetes: the files are links into a folder that is one itself.
    #[test]
    fn a_link_that_is_swapped_is_a_rotation_of_all_files_at_once() {
        let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new("links"));
        let day = Duration::from_secs(24 * 3600);
        let (first, second) = (authority.issue("spiffe://a/b", day), other.issue("spiffe://a/b", day));
        folder.write("..1", &first, &authority);
        folder.write("..2", &second, &other);
        symlink("..1", folder.0.join("..data")).unwrap();
        for name in ["chain", "key", "roots"] {
            symlink(format!("..data/{name}"), folder.0.join(name)).unwrap();
        }
        let config = FileWatcherConfig {
            identity: Some(IdentityFiles {
                certificate_file: folder.0.join("chain"),
                private_key_file: folder.0.join("key"),
            }),
            ca_certificate_file: Some(folder.0.join("roots")),
            spiffe_trust_bundle_map_file: None,
            refresh_interval: day,
        };
        let watcher = FileWatcher::new("default", config, pair());
        let held = watcher.identity().unwrap();
        assert_eq!((&held.chain[0], &held.key), (&first.certificate, &first.key));
        assert!(!watcher.refresh(), "nothing has changed");
        folder.swap("..2");
        assert!(watcher.refresh());
        let held = watcher.identity().unwrap();
        assert_eq!((&held.chain[0], &held.key), (&second.certificate, &second.key));
        assert_eq!(watcher.trust().unwrap().roots, Roots::Any(vec![other.root()]));
        // A link into nothing, as a volume that is being removed leaves it.
        fs::remove_dir_all(folder.0.join("..2")).unwrap();
        assert!(!watcher.refresh());
        assert_eq!(watcher.identity().unwrap().chain[0], second.certificate, "what was good is used on");
    }
}
