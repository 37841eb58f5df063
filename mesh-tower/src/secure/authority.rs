//! What webpki doesn't ask of an issuer, and BoringSSL, and so Envoy and gRPC's C-core, does: that its key may sign certificates,
//! that it is the issuer whose key the certificate names, that a root's time has not passed, and that constraints on names see the
//! names they are about.

use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{Error, VerifiedPath};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Roots, with what of them a [`TrustAnchor`] leaves out.
pub(super) struct Authorities {
    store: RootCertStore,
    /// In the store's order.
    roots: Vec<(CertificateDer<'static>, Issuer)>,
}

impl Authorities {
    /// Those of `certificates` that can be read, and how many cannot.
    pub(super) fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> (Self, usize) {
        let (mut this, mut unreadable) = (Self { store: RootCertStore::empty(), roots: Vec::new() }, 0);
        for certificate in certificates {
            let read = read(&certificate).and_then(|parsed| Issuer::new(&parsed));
            match (read, this.store.add(certificate.clone())) {
                (Ok(issuer), Ok(())) => this.roots.push((certificate, issuer)),
                (Err(_), Ok(())) => {
                    this.store.roots.pop();
                    unreadable += 1;
                }
                (_, Err(_)) => unreadable += 1,
            }
        }
        (this, unreadable)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.store.roots
    }

    #[cfg(feature = "server")]
    pub(super) fn subjects(&self) -> Vec<rustls::DistinguishedName> {
        self.store.subjects()
    }

    /// Whether this very certificate is one of them.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.roots.iter().any(|(root, _)| root == certificate)
    }

    /// Asks every issuer of `path`, whose leaf is `leaf`, or `parsed`; a root's time counts at `now`.
    pub(super) fn check(
        &self,
        path: &VerifiedPath<'_>,
        (leaf, parsed): (&CertificateDer<'_>, &X509Certificate<'_>),
        now: Option<UnixTime>,
    ) -> Result<(), Error> {
        let issuers: Vec<_> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let mut below = parsed.clone();
        for issuer in &issuers {
            let certificate = read(issuer)?;
            let issuer = Issuer::new(&certificate)?;
            issuer.check(&below)?;
            issuer.check_names(parsed)?;
            below = certificate;
        }
        let (der, root) = self.root(path).ok_or(Error::UnknownIssuer)?;
        if der == issuers.last().unwrap_or(leaf) {
            return Ok(());
        }
        root.check(&below)?;
        root.check_names(parsed)?;
        now.map_or(Ok(()), |now| root.times.check(now))
    }

    /// Whether the root of `path` has an issuer of its own, who might have revoked it.
    pub(super) fn has_issuer(&self, path: &VerifiedPath<'_>) -> bool {
        self.root(path).is_none_or(|(_, root)| !root.is_own_issuer)
    }

    /// The identifier of the key of `path`'s root.
    pub(super) fn root_key(&self, path: &VerifiedPath<'_>) -> Option<&[u8]> {
        self.root(path)?.1.key.as_deref()
    }

    fn root(&self, path: &VerifiedPath<'_>) -> Option<&(CertificateDer<'static>, Issuer)> {
        let index = self.store.roots.iter().position(|root| std::ptr::eq(root, path.anchor()))?;
        self.roots.get(index)
    }
}

fn read<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::BadDer),
    }
}

/// What an issuer's certificate says of itself.
struct Issuer {
    /// Whether its key may sign certificates.
    signs: bool,
    key: Option<Vec<u8>>,
    /// Who has issued it, and as which number.
    issuer: Vec<u8>,
    number: Vec<u8>,
    is_own_issuer: bool,
    /// Its constraints on names, if it has any.
    constrains: Option<Constraints>,
    times: Times,
}

impl Issuer {
    fn new(certificate: &X509Certificate<'_>) -> Result<Self, Error> {
        let usage = certificate.key_usage().map_err(|_| Error::BadDer)?;
        Ok(Self {
            signs: usage.is_none_or(|usage| usage.value.key_cert_sign()),
            key: key_identifier(certificate),
            issuer: certificate.issuer().as_raw().to_vec(),
            number: certificate.raw_serial().to_vec(),
            is_own_issuer: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            constrains: constraints(certificate),
            times: Times::of(certificate),
        })
    }

    /// Whether `leaf` has its names where constraints on names are held against them: not in its subject alone. Of constraints on
    /// addresses BoringSSL knows nothing, and lets no certificate pass that has an address.
    fn check_names(&self, leaf: &X509Certificate<'_>) -> Result<(), Error> {
        let Some(Constraints { of_email, of_address }) = self.constrains else { return Ok(()) };
        let is_named = |extension: &X509Extension<'_>| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME;
        let has_email = leaf.subject().iter_email().next().is_some();
        let unseen = !leaf.iter_extensions().any(is_named) || (of_email && has_email);
        if unseen || (of_address && has_address(leaf)) { Err(Error::NameConstraintViolation) } else { Ok(()) }
    }

    /// Whether this, which has signed `certificate`, may have done so, and is whom that one names (RFC 5280, 4.2.1.1 and
    /// 4.2.1.3).
    fn check(&self, certificate: &X509Certificate<'_>) -> Result<(), Error> {
        if !self.signs {
            return Err(Error::EndEntityUsedAsCa);
        }
        let named = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(named) => Some(named),
            _ => None,
        });
        let Some(named) = named else { return Ok(()) };
        let keys = self.key.as_deref().zip(named.key_identifier.as_ref());
        let other_key = keys.is_some_and(|(key, named)| key != named.0);
        let other_number = named.authority_cert_serial.is_some_and(|number| number != self.number);
        let mut names = named.authority_cert_issuer.iter().flatten().filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name.as_raw()),
            _ => None,
        });
        let other_name = names.next().is_some_and(|name| name != self.issuer);
        if other_key || other_number || other_name { Err(Error::UnknownIssuer) } else { Ok(()) }
    }
}

/// What an issuer's constraints on names are about.
#[derive(Debug, Clone, Copy)]
struct Constraints {
    of_email: bool,
    of_address: bool,
}

fn constraints(certificate: &X509Certificate<'_>) -> Option<Constraints> {
    let constraints = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::NameConstraints(constraints) => Some(constraints),
        _ => None,
    })?;
    let all = || constraints.permitted_subtrees.iter().chain(&constraints.excluded_subtrees).flatten();
    Some(Constraints {
        of_email: all().any(|subtree| matches!(subtree.base, GeneralName::RFC822Name(_))),
        of_address: all().any(|subtree| matches!(subtree.base, GeneralName::IPAddress(_))),
    })
}

fn has_address(leaf: &X509Certificate<'_>) -> bool {
    let is_address = |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress(_));
    leaf.iter_extensions().any(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().any(is_address),
        _ => false,
    })
}

/// The identifier of a certificate's key, where it says one.
pub(super) fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
        _ => None,
    })
}

/// From and until when a certificate is good, in seconds.
#[derive(Clone, Copy)]
pub(super) struct Times {
    since: i64,
    until: i64,
}

impl Times {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { since: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
    }

    pub(super) fn check(self, now: UnixTime) -> Result<(), Error> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at = |time: i64| UnixTime::since_unix_epoch(Duration::from_secs(time.try_into().unwrap_or(0)));
        if seconds > self.until {
            return Err(Error::CertExpired { time: now, not_after: at(self.until) });
        }
        if seconds < self.since {
            return Err(Error::CertNotValidYet { time: now, not_before: at(self.since) });
        }
        Ok(())
    }
}
