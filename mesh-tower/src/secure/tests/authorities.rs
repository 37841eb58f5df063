//! What a certificate must say of itself and of its issuer before its chain counts: what webpki asks of nobody, and what is asked
//! less of a PKI that is not the mesh's.

use std::sync::Arc;

use mesh_core::identity::StaticSource;
use mesh_core::model::{DownstreamTls, UpstreamTls};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;

use super::super::testing::{Ca, Leaf, authority, downstream, foreign, source, trusting, upstream};
use super::{client_leaf, client_of, server_leaf, server_of, shake};

/// What is changed of a certificate before it is signed.
type Change<'a> = &'a dyn Fn(&mut CertificateParams);

/// Whether a client that trusts what `near` does takes a server that shows what `far` does.
async fn is_taken(near: &Arc<StaticSource>, far: &Arc<StaticSource>) -> bool {
    let policy = DownstreamTls { client_roots: None, require_client_certificate: false, ..downstream() };
    let client = client_of(near, UpstreamTls { identity: None, ..upstream() });
    shake(&client, &server_of(far, policy)).await.client.is_ok()
}

/// Whether a server that trusts what `far` does takes a client that shows what `near` does.
async fn is_let_in(far: &Arc<StaticSource>, near: &Arc<StaticSource>) -> bool {
    shake(&client_of(near, upstream()), &server_of(far, downstream())).await.server.is_ok()
}

#[tokio::test]
async fn an_issuer_may_sign_is_in_its_time_and_is_the_one_that_is_named() {
    let named = |params: &mut CertificateParams| params.use_authority_key_identifier_extension = true;
    let other_key =
        |params: &mut CertificateParams| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    let ca = Ca::new();
    let no_signer = Ca::with(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let unsaid = Ca::with(|params| params.key_usages = Vec::new());
    let past = Ca::with(|params| params.not_after = date_time_ymd(2001, 1, 1));
    let future = Ca::with(|params| params.not_before = date_time_ymd(2120, 1, 1));
    let twin = ca.twin(other_key);
    let below = ca.intermediate();
    let below_no_signer = ca.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let below_of_another = twin.intermediate_with(named);
    for (root, issuer, good, what) in [
        (&ca, &ca, true, "itself"),
        (&unsaid, &unsaid, true, "a root that does not say what its key is for"),
        (&no_signer, &no_signer, false, "a root whose key is not for certificates"),
        (&past, &past, false, "a root of the past"),
        (&future, &future, false, "a root of the future"),
        (&ca, &twin, false, "another certificate of the root's name and key"),
        (&twin, &twin, true, "that one, where it is trusted"),
        (&ca, &below, true, "an authority below"),
        (&ca, &below_no_signer, false, "one whose key is not for certificates"),
        (&ca, &below_of_another, false, "one that names another issuer"),
        (&twin, &below_of_another, true, "that one, under its issuer"),
    ] {
        let (near, far) = (trusting(root), trusting(&ca));
        issuer.show_with(&far, &server_leaf(), named);
        assert_eq!(is_taken(&near, &far).await, good, "a server of {what}");
        let (near, far) = (trusting(&ca), source(&ca, &server_leaf()));
        far.set_trust(vec![root.root()]);
        issuer.show_with(&near, &client_leaf(), named);
        assert_eq!(is_let_in(&far, &near).await, good, "a client of {what}");
    }
}

#[tokio::test]
async fn a_leaf_is_in_its_time_and_its_key_may_sign() {
    let ca = Ca::new();
    let of = |usage: KeyUsagePurpose| move |params: &mut CertificateParams| params.key_usages = vec![usage];
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2120, 1, 1);
    let (encipherment, agreement) = (of(KeyUsagePurpose::KeyEncipherment), of(KeyUsagePurpose::KeyAgreement));
    let rows: [(Change<'_>, bool); 5] = [
        (&|_| {}, true),
        (&|params| params.key_usages.clear(), true),
        (&encipherment, false),
        (&agreement, false),
        (&future, false),
    ];
    for (index, (change, good)) in rows.iter().enumerate() {
        let (near, far) = (source(&ca, &client_leaf()), source(&ca, &server_leaf()));
        ca.show_with(&far, &server_leaf(), change);
        assert_eq!(is_taken(&near, &far).await, *good, "server {index}");
        ca.show(&far, &server_leaf());
        ca.show_with(&near, &client_leaf(), change);
        assert_eq!(is_let_in(&far, &near).await, *good, "client {index}");
    }
}

/// A certificate that it has signed itself: as `openssl req -x509` makes it, an authority's.
fn of_itself(is_authority: bool, change: impl FnOnce(&mut CertificateParams)) -> Arc<StaticSource> {
    let mut params = CertificateParams::new(vec!["self.test".to_owned()]).unwrap();
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let source = StaticSource::foreign();
    source.set_trust(vec![certificate.clone()]);
    source.set_identity(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    Arc::new(source)
}

/// Envoy's verdict; the mesh's own peers are workloads, and no authorities.
#[tokio::test]
async fn an_authoritys_certificate_is_a_leaf_of_a_foreign_pki_alone() {
    let (ca, other) = (Ca::new(), Ca::new());
    let forger = ca.twin(|_| {});
    let impostor = ca.impostor();
    let client_only = |params: &mut CertificateParams| {
        authority(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let past = |params: &mut CertificateParams| {
        authority(params);
        params.not_after = date_time_ymd(2001, 1, 1);
    };
    let near = foreign(&ca, &client_leaf());
    let far = trusting(&ca);
    ca.show_with(&far, &server_leaf(), authority);
    assert!(is_taken(&near, &far).await);
    assert!(!is_taken(&source(&ca, &client_leaf()), &far).await, "of the mesh");
    forger.show_with(&far, &server_leaf(), authority);
    assert!(is_taken(&near, &far).await, "the same key and name are the same authority");
    for (issuer, change) in [
        (&other, &authority as &dyn Fn(&mut CertificateParams)),
        (&impostor, &authority),
        (&ca, &client_only),
        (&ca, &past),
    ] {
        issuer.show_with(&far, &server_leaf(), change);
        assert!(!is_taken(&near, &far).await, "its chain is judged as any other leaf's");
    }
    ca.intermediate().show_with(&far, &server_leaf(), authority);
    assert!(is_taken(&near, &far).await, "below another authority");
}

#[tokio::test]
async fn a_certificate_that_is_itself_trusted_needs_no_issuer() {
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    for is_authority in [true, false] {
        let one = of_itself(is_authority, |_| {});
        assert!(is_taken(&one, &one).await && is_let_in(&one, &one).await);
        let gone = of_itself(is_authority, past);
        assert!(!is_taken(&gone, &gone).await && !is_let_in(&gone, &gone).await, "its time has passed");
        let stranger = of_itself(is_authority, |_| {});
        assert!(!is_taken(&one, &stranger).await && !is_let_in(&one, &stranger).await);
    }
}

/// BoringSSL's: a name in the subject is one that constraints on names do not see.
#[tokio::test]
async fn a_constrained_authority_says_nothing_of_who_has_no_alternative_name() {
    let constrained = |name: GeneralSubtree| {
        move |params: &mut CertificateParams| {
            let (permitted_subtrees, excluded_subtrees) = (Vec::new(), vec![name]);
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        }
    };
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let by_mail = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "me@a.test");
    };
    let by_address = |params: &mut CertificateParams| {
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    };
    let dns = || GeneralSubtree::DnsName("other.test".to_owned());
    let address = || GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
    let mail = || GeneralSubtree::Rfc822Name("a.test".to_owned());
    let (free, of_dns, of_mail) = (Ca::new(), Ca::with(constrained(dns())), Ca::with(constrained(mail())));
    let of_address = Ca::with(constrained(address()));
    let below = free.intermediate_with(constrained(dns()));
    for (root, issuer, change, good) in [
        (&free, &free, &nameless as Change<'_>, true),
        (&of_dns, &of_dns, &|_: &mut CertificateParams| {}, true),
        (&of_dns, &of_dns, &nameless, false),
        (&free, &below, &nameless, false),
        (&of_dns, &of_dns, &by_mail, true),
        (&of_mail, &of_mail, &by_mail, false),
        (&of_dns, &of_dns, &by_address, true),
        (&of_address, &of_address, &|_: &mut CertificateParams| {}, true),
        // It is not one of those that are excluded; BoringSSL does not know.
        (&of_address, &of_address, &by_address, false),
    ] {
        let (near, far) = (foreign(root, &client_leaf()), trusting(root));
        issuer.show_with(&far, &Leaf::web("a.test"), change);
        assert_eq!(is_taken(&near, &far).await, good);
    }
}
