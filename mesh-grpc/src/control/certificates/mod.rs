//! Development certificates: a root of our own, and leaves with SPIFFE identities.

mod files;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use mesh_core::error::{Code, Error};
use mesh_core::identity::SpiffeId;
use mesh_core::resource::{ResourceKey, SECRET};
use mesh_core::source::responder::EncodedResource;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};

/// The file of the leaf's certificate, as Istio calls it.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// The file of its key.
pub(super) const KEY: &str = "key.pem";
/// The file of the root's certificate.
pub(super) const ROOT: &str = "root-cert.pem";
/// The file of a CA: its key and its certificate.
const CA_FILE: &str = "dev-ca.pem";

/// The issuer's name. The same for all, so that one that is read again issues under the name its certificate has.
const CA_NAME: &str = "mesh development root";
/// A certificate is valid from so long ago: clocks of containers and their host differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// How long a root is valid.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a leaf is valid unless it says otherwise: Istio's default.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A certificate authority for development. Whoever has its file can be anyone in its mesh.
pub struct DevCa {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// Who a certificate is for.
///
/// ```
/// use mesh_grpc::control::Workload;
///
/// let greeter = Workload::new("spiffe://cluster.local/ns/default/sa/greeter".parse()?).dns_name("localhost");
/// # Ok::<(), mesh_core::identity::BadSpiffeId>(())
/// ```
#[derive(Debug, Clone)]
pub struct Workload {
    id: SpiffeId,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    lifetime: Duration,
    serial: Option<u64>,
}

impl Workload {
    /// A workload of this identity.
    pub fn new(id: SpiffeId) -> Self {
        Self { id, dns_names: Vec::new(), addresses: Vec::new(), lifetime: LEAF_LIFETIME, serial: None }
    }

    /// The identity of a Kubernetes service account as Istio writes it: `spiffe://<trust domain>/ns/<ns>/sa/<account>`.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when that is no SPIFFE ID.
    pub fn service_account(trust_domain: &str, namespace: &str, account: &str) -> Result<Self, Error> {
        let id = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}");
        let parsed = id.parse().map_err(|why| failed(format!("`{id}` is no identity: {why}")));
        parsed.map(Self::new)
    }

    /// Valid for this DNS name too.
    #[must_use]
    pub fn dns_name(mut self, name: impl Into<String>) -> Self {
        self.dns_names.push(name.into());
        self
    }

    /// Valid for this address too.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Valid for so long from now. Default: 24 hours, as Istio's.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// With this serial number, by which it may be [revoked](DevCa::revocation_list). Default: one that nobody knows before.
    #[must_use]
    pub fn serial(mut self, serial: u64) -> Self {
        self.serial = Some(serial);
        self
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.serial_number = self.serial.map(SerialNumber::from);
        params.distinguished_name = name(self.id.path().trim_start_matches('/'));
        let uri = SanType::URI(self.id.as_str().try_into()?);
        let dns = self.dns_names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        params.subject_alt_names = std::iter::once(Ok(uri)).chain(dns).collect::<Result<_, rcgen::Error>>()?;
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        valid_for(&mut params, self.lifetime);
        Ok(params)
    }
}

impl DevCa {
    /// A new one, which no file knows.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when the system has no randomness.
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(no_key)?;
        let params = root_params();
        let root = params.self_signed(&key).map_err(no_key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), root })
    }

    /// The one whose file is in `folder`; if there is none, a new one, whose file is put there. Several processes may do so at
    /// once and get the same.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when the file can be neither read nor written, or is not one of a CA.
    pub fn load_or_create(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let path = folder.as_ref().join(CA_FILE);
        if !path.exists() {
            let new = Self::new()?;
            let text = format!("{}{}", new.issuer.key().serialize_pem(), new.root);
            files::create(&path, &text).map_err(|error| cannot("write", &path, error))?;
        }
        let text = std::fs::read_to_string(&path).map_err(|error| cannot("read", &path, error))?;
        let not_a_ca = |why: &dyn fmt::Display| failed(format!("{} is no development CA: {why}", path.display()));
        let start = text.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| not_a_ca(&"it has no certificate"))?;
        let (key, root) = text.split_at(start);
        let key = KeyPair::from_pem(key).map_err(|error| not_a_ca(&error))?;
        Ok(Self { issuer: Issuer::new(root_params(), key), root: root.to_owned() })
    }

    /// The root's certificate, PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// A new key and its certificate for `workload`, both PEM: certificate, key.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when a DNS name is not ASCII, or the system has no randomness.
    pub fn issue(&self, workload: &Workload) -> Result<(String, String), Error> {
        let key = KeyPair::generate().map_err(no_key)?;
        let issued = workload.params().and_then(|params| params.signed_by(&key, &self.issuer));
        let certificate =
            issued.map_err(|error| failed(format!("no certificate for `{}` can be issued: {error}", workload.id)))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A list that revokes what has one of these serial numbers, PEM. It holds for as long as a leaf lives by default.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when it cannot be signed.
    pub fn revocation_list(&self, serials: &[u64]) -> Result<String, Error> {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - BACKDATE).into(),
            next_update: (now + LEAF_LIFETIME).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).and_then(|list| list.pem());
        signed.map_err(|error| failed(format!("no revocation list can be issued: {error}")))
    }
}

/// The same, as SDS serves it.
impl DevCa {
    /// A new key and its certificate for `workload`, as the secret `name`. Served by a [`ControlPlane`](super::ControlPlane),
    /// anyone who reaches it gets the key.
    ///
    /// # Errors
    ///
    /// As [`issue`](Self::issue).
    pub fn secret(&self, name: &str, workload: &Workload) -> Result<EncodedResource, Error> {
        let (chain, key) = self.issue(workload)?;
        let certificate = TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(key)),
            ..TlsCertificate::default()
        };
        Ok(secret(name, Type::TlsCertificate(certificate)))
    }

    /// The root's certificate, as the secret `name`.
    pub fn root_secret(&self, name: &str) -> EncodedResource {
        let trusted_ca = Some(inline(self.root.clone()));
        secret(name, Type::ValidationContext(CertificateValidationContext { trusted_ca, ..Default::default() }))
    }
}

fn inline(pem: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineString(pem)), ..DataSource::default() }
}

fn secret(name: &str, content: Type) -> EncodedResource {
    let secret = Secret { name: name.to_owned(), r#type: Some(content) };
    EncodedResource::new(ResourceKey::new(SECRET, name), secret.encode_to_vec())
}

/// The certificate files of one workload: `cert-chain.pem`, `key.pem` (readable by the owner only) and `root-cert.pem`.
#[derive(Debug, Clone)]
pub struct DevCertificates {
    ca: Arc<DevCa>,
    workload: Workload,
    folder: PathBuf,
}

impl DevCertificates {
    /// Issues a certificate and writes its files to `folder`, which is made if need be.
    ///
    /// # Errors
    ///
    /// `NO_CERTIFICATE` when it cannot be issued or written.
    pub fn write(ca: Arc<DevCa>, workload: Workload, folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let written = Self { ca, workload, folder: folder.into() };
        std::fs::create_dir_all(&written.folder).map_err(|error| cannot("make", &written.folder, error))?;
        written.rotate()?;
        Ok(written)
    }

    /// Writes a new key and certificate in the place of the last. Each file is replaced as a whole; between the key's
    /// replacement and the certificate's there is a moment in which they do not belong together, as with every rotation of
    /// two files, and a `file_watcher` reads them again.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn rotate(&self) -> Result<(), Error> {
        let (chain, key) = self.ca.issue(&self.workload)?;
        for (name, text) in [(ROOT, self.ca.root()), (KEY, &key), (CHAIN, &chain)] {
            let path = self.folder.join(name);
            files::replace(&path, text, name == KEY).map_err(|error| cannot("write", &path, error))?;
        }
        tracing::info!(target: "mesh", "issued a certificate for {} to {}", self.workload.id, self.folder.display());
        Ok(())
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, ROOT_LIFETIME);
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
}

fn no_key(error: rcgen::Error) -> Error {
    failed(format!("no key can be made: {error}")).with_source(error)
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> Error {
    failed(format!("cannot {what} {}: {error}", path.display())).with_source(error)
}

fn failed(message: String) -> Error {
    Error::new(Code::NO_CERTIFICATE, message).with_next_step("check the folder and the identity of the certificates")
}

impl fmt::Debug for DevCa {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa").finish_non_exhaustive()
    }
}
