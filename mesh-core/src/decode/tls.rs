//! TLS policy (gRFC A29): rules 40 to 51, 117 to 122 and 146 to 150. What cannot be honoured refuses the resource.

use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::google::protobuf::Any;
use pb::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use pb::subject_alt_name_matcher::SanType;

use super::Decoder;
use super::at::At;
use super::envelope::{bare, expect};
use super::{matcher, tls_checks};
use crate::model::{
    CertificateChecks, CertificateRef, DownstreamTls, SanKind, SanMatch, TlsParams, TrustRoots, UpstreamTls,
};

/// The longest SNI (gRFC A101).
const LONGEST_SNI: usize = 255;
/// What a server's transport socket is called.
const TLS: &str = "envoy.transport_sockets.tls";
/// Plaintext, said explicitly.
const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

impl Decoder {
    /// The TLS of the cluster `owner`, from its `transport_socket`; None is plaintext.
    pub(super) fn upstream_tls(&self, socket: &TransportSocket, owner: &str, at: &At<'_>) -> Option<UpstreamTls> {
        let at = at.field("typed_config");
        // Rule 117.
        let context: pb::UpstreamTlsContext = expect(config(socket, &at)?, &at)?;
        check_upstream(&context, &at);
        let common_at = at.field("common_tls_context");
        let Some(common) = &context.common_tls_context else {
            common_at.fault("is missing");
            return None;
        };
        check_common(common, &common_at);
        let identity = self.identity(common, &common_at);
        let mut validation = Validation::of(common, self.is_insecure(owner), &common_at);
        let roots = self.upstream_roots(&mut validation, &common_at);
        Some(UpstreamTls {
            identity,
            sans: validation.sans,
            checks: validation.checks,
            params: params(common, &common_at),
            roots: roots?,
            sni: (!context.sni.is_empty()).then(|| context.sni.clone()),
            auto_host_sni: context.auto_host_sni,
            auto_sni_san_validation: context.auto_sni_san_validation,
            alpn: common.alpn_protocols.clone(),
        })
    }

    /// The TLS of a filter chain of the Listener `owner`, from its `transport_socket`; None is plaintext.
    pub(super) fn downstream_tls(&self, socket: &TransportSocket, owner: &str, at: &At<'_>) -> Option<DownstreamTls> {
        let here = at;
        let at = at.field("typed_config");
        // Rule 40.
        let context: pb::DownstreamTlsContext = expect(config(socket, &at)?, &at)?;
        if socket.name != TLS {
            here.field("name").fault(format!("must be `{TLS}`"));
        }
        check_downstream(&context, &at);
        let common_at = at.field("common_tls_context");
        let Some(common) = &context.common_tls_context else {
            // Rule 41.
            common_at.fault("is missing");
            return None;
        };
        check_common(common, &common_at);
        let identity = self.identity(common, &common_at);
        if !has_instance(common) && common.tls_certificate_sds_secret_configs.is_empty() {
            // Rule 41.
            common_at.field("tls_certificate_provider_instance").fault("is missing: a server needs a certificate");
        }
        let mut validation = Validation::of(common, self.is_insecure(owner), &common_at);
        let required = context.require_client_certificate.is_some_and(|value| value.value);
        let client_roots = self.client_roots(&mut validation, required, &common_at);
        if required && client_roots.is_none() && validation.place.is_none() {
            // Rule 43.
            at.field("require_client_certificate").fault("is true, but no ca_certificate_provider_instance is given");
        }
        Some(DownstreamTls {
            identity: identity?,
            client_roots,
            // Names and hashes that must match ask for a certificate, as in Envoy: nobody has one without it.
            require_client_certificate: required || !validation.sans.is_empty() || !validation.checks.pins.is_empty(),
            sans: validation.sans,
            checks: validation.checks,
            params: params(common, &common_at),
        })
    }

    fn is_insecure(&self, owner: &str) -> bool {
        self.insecure.contains(owner)
    }

    /// The certificate to show. Rule 150: the newer spelling has priority over the older.
    fn identity(&self, common: &pb::CommonTlsContext, at: &At<'_>) -> Option<CertificateRef> {
        if let Some(instance) = &common.tls_certificate_provider_instance {
            let at = at.field("tls_certificate_provider_instance");
            return self.provider(&instance.instance_name, &instance.certificate_name, &at);
        }
        if let Some(instance) = &common.tls_certificate_certificate_provider_instance {
            let at = at.field("tls_certificate_certificate_provider_instance");
            return self.provider(&instance.instance_name, &instance.certificate_name, &at);
        }
        // Rule 121.
        match common.tls_certificate_sds_secret_configs.as_slice() {
            [] => None,
            [one] => self.secret(one, &at.item("tls_certificate_sds_secret_configs", 0)),
            more => {
                let at = at.field("tls_certificate_sds_secret_configs");
                at.fault(format!("has {} secrets, and one certificate can be shown", more.len()));
                None
            }
        }
    }

    /// Rules 118 and 119.
    fn upstream_roots(&self, validation: &mut Validation<'_>, at: &At<'_>) -> Option<TrustRoots> {
        if let Some(given) = self.given_roots(validation, true, at) {
            return given;
        }
        if validation.system_roots {
            return Some(TrustRoots::System);
        }
        validation.at(at).fault(
            "does not say whom to trust: give ca_certificate_provider_instance or system_root_certs in the validation \
             context, or name the cluster insecure",
        );
        None
    }

    /// Rules 44, 45 and 50.
    fn client_roots(&self, validation: &mut Validation<'_>, required: bool, at: &At<'_>) -> Option<TrustRoots> {
        if let Some(given) = self.given_roots(validation, required, at) {
            return given;
        }
        if validation.system_roots {
            validation.at(at).fault("asks for system_root_certs, which would let in every public certificate");
        } else if validation.place.is_some() {
            validation.at(at).fault("does not say whom to trust: give ca_certificate_provider_instance");
        }
        None
    }

    /// What the resource says of whom to trust; the outer None: nothing. A certificate is asked for anyway if it is `wanted`.
    fn given_roots(&self, validation: &mut Validation<'_>, wanted: bool, at: &At<'_>) -> Option<Option<TrustRoots>> {
        if let Some(spiffe) = validation.spiffe.take() {
            return Some(spiffe.map(TrustRoots::Spiffe));
        }
        if let Some(ca) = &validation.ca {
            return Some(self.ca(ca, at).map(TrustRoots::Provider));
        }
        if validation.system_roots {
            return None;
        }
        let pinned = !validation.checks.pins.is_empty();
        let anybody = validation.insecure && (wanted || validation.place.is_some());
        if (pinned || anybody) && !validation.sans.is_empty() {
            validation
                .at(at)
                .fault("asks for names, which anybody can write, and does not say whose word on them is trusted");
            return Some(None);
        }
        validation.checks.accept_untrusted |= anybody && !pinned;
        (pinned || anybody).then_some(Some(TrustRoots::Nobody))
    }

    fn ca(&self, (path, origin): &(String, Origin<'_>), at: &At<'_>) -> Option<CertificateRef> {
        let at = at.field(path);
        match origin {
            Origin::Instance { instance, certificate } => self.provider(instance, certificate, &at),
            // Rule 46.
            Origin::Secret(secret) => self.secret(secret, &at),
        }
    }

    /// Rules 42, 44 and 120: the bootstrap must have the instance.
    fn provider(&self, instance: &str, certificate: &str, at: &At<'_>) -> Option<CertificateRef> {
        if !self.providers.contains(instance) {
            at.field("instance_name")
                .fault(format!("is `{instance}`, which the bootstrap's certificate_providers do not have"));
            return None;
        }
        Some(CertificateRef { instance: instance.into(), certificate: certificate.into() })
    }
}

/// The configuration of a transport socket that is not explicitly plaintext.
fn config<'a>(socket: &'a TransportSocket, at: &At<'_>) -> Option<&'a Any> {
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
        at.fault("is missing");
        return None;
    };
    (bare(&any.type_url) != RAW_BUFFER).then_some(any)
}

fn check_upstream(context: &pb::UpstreamTlsContext, at: &At<'_>) {
    // Rule 122.
    if context.sni.len() > LONGEST_SNI {
        at.field("sni").fault(format!("has more than {LONGEST_SNI} bytes"));
    }
    if context.sni.bytes().any(|byte| !byte.is_ascii_graphic()) {
        at.field("sni").fault("has a character that no host name has");
    }
}

fn check_downstream(context: &pb::DownstreamTlsContext, at: &At<'_>) {
    // Rule 47.
    if context.require_sni.is_some_and(|value| value.value) {
        at.field("require_sni").fault("is true, which is not supported");
    }
    // Rule 48.
    if context.ocsp_staple_policy != 0 {
        at.field("ocsp_staple_policy").fault("must be LENIENT_STAPLING");
    }
    // Rule 51: what is about sessions and ALPN is not read.
}

/// What no side can honour. Rules 121, 146, 147.
fn check_common(common: &pb::CommonTlsContext, at: &At<'_>) {
    let refused = [
        ("custom_handshaker", common.custom_handshaker.is_some()),
        ("custom_tls_certificate_selector", common.custom_tls_certificate_selector.is_some()),
        ("key_log", common.key_log.is_some()),
        ("tls_certificate_certificate_provider", common.tls_certificate_certificate_provider.is_some()),
    ];
    for (name, _) in refused.into_iter().filter(|(_, present)| *present) {
        at.field(name).fault("is not supported");
    }
    if !common.tls_certificates.is_empty() && !has_instance(common) {
        at.field("tls_certificates").fault(
            "is not supported; certificates come from tls_certificate_provider_instance or \
             tls_certificate_sds_secret_configs",
        );
    }
}

fn params(common: &pb::CommonTlsContext, at: &At<'_>) -> TlsParams {
    common.tls_params.as_ref().map(|value| tls_checks::params(value, &at.field("tls_params"))).unwrap_or_default()
}

fn has_instance(common: &pb::CommonTlsContext) -> bool {
    common.tls_certificate_provider_instance.is_some() || common.tls_certificate_certificate_provider_instance.is_some()
}

/// Where roots come from.
enum Origin<'a> {
    /// A provider instance, in either spelling.
    Instance { instance: &'a str, certificate: &'a str },
    /// SDS.
    Secret(&'a pb::SdsSecretConfig),
}

/// What a `CommonTlsContext` says about the peer's certificate: rule 150.
#[derive(Default)]
struct Validation<'a> {
    /// Where the validation context is, if there is one.
    place: Option<&'static str>,
    /// Where the roots are, with the path of the field that says so.
    ca: Option<(String, Origin<'a>)>,
    system_roots: bool,
    sans: Vec<SanMatch>,
    /// The SPIFFE validator's roots; the inner None: there is a validator, and a fault.
    spiffe: Option<Option<tls_checks::Domains>>,
    checks: CertificateChecks,
    /// Whether the operator has named the resource insecure.
    insecure: bool,
}

impl<'a> Validation<'a> {
    const OLDER: &'static str = "validation_context_certificate_provider_instance";
    const SECRET: &'static str = "validation_context_sds_secret_config";

    fn of(common: &'a pb::CommonTlsContext, insecure: bool, at: &At<'_>) -> Self {
        let nothing = Self { insecure, ..Self::default() };
        match &common.validation_context_type {
            None => nothing,
            Some(ValidationContextType::ValidationContext(context)) => {
                nothing.with_context("validation_context", context, at)
            }
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                check_combined(combined, &at.field("combined_validation_context"));
                nothing.combined(combined, at)
            }
            Some(ValidationContextType::ValidationContextCertificateProviderInstance(older)) => {
                nothing.with_older(Self::OLDER, Self::OLDER.to_owned(), older)
            }
            Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => Self {
                place: Some(Self::SECRET),
                ca: Some((Self::SECRET.to_owned(), Origin::Secret(secret))),
                ..nothing
            },
            Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
                at.field("validation_context_certificate_provider").fault("is not supported");
                nothing
            }
        }
    }

    fn combined(self, combined: &'a CombinedCertificateValidationContext, at: &At<'_>) -> Self {
        const PLACE: &str = "combined_validation_context";
        let mut validation = Self { place: Some(PLACE), ..self };
        if let Some(older) = &combined.validation_context_certificate_provider_instance {
            validation = validation.with_older(PLACE, format!("{PLACE}.{}", Self::OLDER), older);
        }
        if let Some(context) = &combined.default_validation_context {
            validation = validation.with_context("combined_validation_context.default_validation_context", context, at);
        }
        if let Some(secret) = &combined.validation_context_sds_secret_config {
            // Rule 46.
            let path = format!("{PLACE}.{}", Self::SECRET);
            if validation.ca.is_some() || validation.system_roots {
                at.field(&path).fault("stands beside roots of another origin, and which to trust is anyone's guess");
            }
            validation.ca = Some((path, Origin::Secret(secret)));
        }
        validation
    }

    /// With what the context at `place` says, which has priority over what an older field said.
    fn with_context(mut self, place: &'static str, context: &'a pb::CertificateValidationContext, at: &At<'_>) -> Self {
        let here = at.field(place);
        self.checks = tls_checks::checks(context, self.insecure, &here);
        if let Some(validator) = &context.custom_validator_config {
            self.spiffe = Some(tls_checks::spiffe(validator, &here.field("custom_validator_config")));
        }
        if let Some(newer) = &context.ca_certificate_provider_instance {
            let instance = Origin::Instance { instance: &newer.instance_name, certificate: &newer.certificate_name };
            self.ca = Some((format!("{place}.ca_certificate_provider_instance"), instance));
        }
        let system_roots = context.system_root_certs.is_some();
        Self { place: Some(place), system_roots, sans: sans(context, &here), ..self }
    }

    fn with_older(self, place: &'static str, path: String, older: &'a CertificateProviderInstance) -> Self {
        let instance = Origin::Instance { instance: &older.instance_name, certificate: &older.certificate_name };
        Self { place: Some(place), ca: Some((path, instance)), ..self }
    }

    /// The place to blame for what the context does not say.
    fn at<'b>(&self, common: &'b At<'b>) -> At<'b> {
        self.place.map_or(*common, |place| common.field(place))
    }
}

fn check_combined(combined: &CombinedCertificateValidationContext, at: &At<'_>) {
    if combined.validation_context_certificate_provider.is_some() {
        at.field("validation_context_certificate_provider").fault("is not supported");
    }
}

/// Rule 148. The typed list is the newer one, and has priority where both are there, as in Envoy.
pub(super) fn sans(context: &pb::CertificateValidationContext, at: &At<'_>) -> Vec<SanMatch> {
    if context.match_typed_subject_alt_names.is_empty() {
        return matcher::strings(&context.match_subject_alt_names, "match_subject_alt_names", at)
            .into_iter()
            .map(|matcher| SanMatch { kind: None, matcher })
            .collect();
    }
    let typed = context.match_typed_subject_alt_names.iter().enumerate();
    typed.filter_map(|(index, value)| san(value, &at.item("match_typed_subject_alt_names", index))).collect()
}

/// One name of a certificate, of one kind.
pub(super) fn san(value: &pb::SubjectAltNameMatcher, at: &At<'_>) -> Option<SanMatch> {
    let kind = match SanType::try_from(value.san_type) {
        Ok(SanType::Email) => Some(SanKind::Email),
        Ok(SanType::Dns) => Some(SanKind::Dns),
        Ok(SanType::Uri) => Some(SanKind::Uri),
        Ok(SanType::IpAddress) => Some(SanKind::IpAddress),
        Ok(SanType::OtherName) if is_oid(&value.oid) => Some(SanKind::OtherName(value.oid.as_str().into())),
        Ok(SanType::OtherName) => {
            at.field("oid").fault("must be an object identifier in dotted decimal: it says which other name is meant");
            None
        }
        Ok(SanType::Unspecified) | Err(_) => {
            at.field("san_type").fault("must be EMAIL, DNS, URI, IP_ADDRESS or OTHER_NAME");
            None
        }
    };
    let Some(value) = &value.matcher else {
        at.field("matcher").fault("is missing");
        return None;
    };
    let matcher = matcher::string(value, &at.field("matcher"))?;
    Some(SanMatch { kind: Some(kind?), matcher })
}

/// In the only spelling that is compared with: no number begins with a zero.
fn is_oid(text: &str) -> bool {
    let is_plain = |number: &str| number == "0" || !number.starts_with('0');
    text.split('.').all(|number| number.parse::<u64>().is_ok() && is_plain(number)) && text.contains('.')
}
