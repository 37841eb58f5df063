//! Which names a peer's certificate must have, whatever a policy's matchers say of them.

use std::sync::Arc;

use mesh_core::identity::{BadSpiffeId, IdentityMaterial, Sans, SpiffeId};
use mesh_core::model::{Pattern, SanKind, SanMatch};

const SPIFFE: &str = "spiffe://";
/// Separators of `x-forwarded-client-cert`, in which Envoy's form has URIs without quotes.
const SEPARATORS: [char; 3] = [',', ';', '"'];

/// What peers are to whoever trusts the roots that vouch for them.
#[derive(Debug, Clone)]
pub(super) enum Peers {
    /// Of a foreign PKI, whose certificates are no identities of the mesh: nothing is asked of their names.
    Foreign,
    /// Of a mesh that knows its members by any kind of name (gRFC A29). A SPIFFE ID, if there is one, is the only URI.
    Named,
    /// Of a mesh of SPIFFE workloads: each has exactly one URI, which is its SPIFFE ID (SPIFFE X.509-SVID, sections 2 and 5.2).
    /// Without that a peer has no identity that policies by SPIFFE ID could go by, and they would fall back to names which
    /// anybody's certificate may have (gRFC A41).
    Workloads {
        /// Matchers that the operator has written for peers which are known otherwise: who meets one needs no SPIFFE ID.
        otherwise: Vec<SanMatch>,
        /// The only trust domains; None: the roots or the matchers say whose.
        domains: Option<Domains>,
    },
}

/// Trust domains that are one mesh.
#[derive(Debug, Clone)]
pub(super) struct Domains {
    own: String,
    aliases: Arc<[String]>,
}

impl Peers {
    /// Those that `sans` are asked of, by whoever shows `own`. `by_id` says that the origin of the roots vouches for SPIFFE
    /// workloads only. With `aliases` a workload must be of our own trust domain or of one of these, if we are of one.
    pub(super) fn of_mesh(
        own: Option<&IdentityMaterial>,
        by_id: bool,
        sans: &[SanMatch],
        aliases: Option<&Arc<[String]>>,
    ) -> Self {
        let own = own.and_then(workload);
        if !by_id && own.is_none() && !sans.iter().any(is_of_workloads) {
            return Self::Named;
        }
        let otherwise = sans.iter().filter(|matcher| is_of_others(matcher)).cloned().collect();
        let domains = own
            .zip(aliases)
            .map(|(id, aliases)| Domains { own: id.trust_domain().to_owned(), aliases: aliases.clone() });
        Self::Workloads { otherwise, domains }
    }

    /// Whether `sans` may be a peer's; the error says what they must be.
    pub(super) fn check(&self, sans: &Sans) -> Result<(), String> {
        self.check_form(sans)?;
        let Self::Workloads { otherwise, domains } = self else { return Ok(()) };
        match sans.uris.first().and_then(|uri| uri.parse::<SpiffeId>().ok()) {
            Some(id) => domains.as_ref().map_or(Ok(()), |domains| domains.check(&id)),
            None if !otherwise.is_empty() && sans.match_any(otherwise) => Ok(()),
            None => Err("and a workload's certificate has exactly one URI, which is its SPIFFE ID".to_owned()),
        }
    }

    /// What is asked of names also where the policy says which name it must be.
    pub(super) fn check_form(&self, sans: &Sans) -> Result<(), String> {
        if matches!(self, Self::Foreign) {
            return Ok(());
        }
        // A name with a NUL byte is read in two ways by two parsers.
        if !sans.is_plain() {
            return Err("and a certificate of the mesh has no name with a control character".to_owned());
        }
        // With several URIs, which one is the identity is anyone's guess (SPIFFE X.509-SVID, section 2).
        if sans.uris.len() > 1 {
            return Err("and a certificate of the mesh has one URI only".to_owned());
        }
        sans.uris.iter().try_for_each(|uri| check_uri(uri))
    }
}

impl Domains {
    fn check(&self, id: &SpiffeId) -> Result<(), String> {
        let theirs = id.trust_domain();
        if theirs == self.own || self.aliases.iter().any(|alias| alias == theirs) {
            return Ok(());
        }
        let own = &self.own;
        Err(format!("and its trust domain must be ours, `{own}`, or one of the mesh's trust_domain_aliases"))
    }
}

fn check_uri(uri: &str) -> Result<(), String> {
    if uri.contains(SEPARATORS) {
        return Err("and a certificate of the mesh has no URI with a comma, a semicolon or a quotation mark".to_owned());
    }
    if !has_scheme(uri, "spiffe:") {
        return Ok(());
    }
    match uri.parse::<SpiffeId>() {
        Ok(id) if !id.path().is_empty() => Ok(()),
        Ok(_) => Err("and the SPIFFE ID of a workload has a path".to_owned()),
        Err(BadSpiffeId::Scheme) => Err(format!("and a SPIFFE ID begins with {SPIFFE}, in lower case")),
        Err(error) => Err(format!("and its SPIFFE ID is none: {error}")),
    }
}

/// Who shows `material`, if that is a SPIFFE workload's.
fn workload(material: &IdentityMaterial) -> Option<SpiffeId> {
    let sans = Sans::read(material.chain.first()?).ok()?;
    let [uri] = sans.uris.as_slice() else { return None };
    uri.parse().ok().filter(|id: &SpiffeId| !id.path().is_empty())
}

/// Whether the author of `matcher` means SPIFFE workloads.
fn is_of_workloads(matcher: &SanMatch) -> bool {
    matches!(matcher.kind, None | Some(SanKind::Uri))
        && match &matcher.matcher.pattern {
            Pattern::Exact(text) | Pattern::Prefix(text) => has_scheme(text, "spiffe:"),
            Pattern::Suffix(_) | Pattern::Contains(_) | Pattern::Regex(_) => false,
        }
}

/// Whether no SPIFFE ID can meet `matcher`, so that its author means somebody else.
fn is_of_others(matcher: &SanMatch) -> bool {
    if !matches!(matcher.kind, None | Some(SanKind::Uri)) {
        return true;
    }
    match &matcher.matcher.pattern {
        Pattern::Exact(text) => !has_scheme(text, SPIFFE),
        Pattern::Prefix(text) => !has_scheme(text, SPIFFE) && !has_scheme(SPIFFE, text),
        Pattern::Suffix(_) | Pattern::Contains(_) | Pattern::Regex(_) => false,
    }
}

fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use mesh_core::model::StringMatch;

    use super::*;
    use crate::secure::testing::exactly;

    fn uris(uris: &[&str]) -> Sans {
        Sans { uris: uris.iter().map(|&uri| uri.to_owned()).collect(), ..Sans::default() }
    }

    fn begins(kind: Option<SanKind>, text: &str) -> SanMatch {
        SanMatch { kind, matcher: StringMatch { pattern: Pattern::Prefix(text.to_owned()), ignore_case: false } }
    }

    /// SPIFFE-ID, section 2: what begins as a SPIFFE ID and is none must be nobody's name.
    #[test]
    fn what_begins_as_a_spiffe_id_must_be_one() {
        for peers in [Peers::Named, Peers::of_mesh(None, true, &[], None)] {
            peers.check(&uris(&["spiffe://td/a"])).unwrap();
            for bad in [
                "spiffe://td/a/../b",
                "spiffe://td/a?x",
                "spiffe://td/a#x",
                "spiffe://td/a//b",
                "spiffe://td/a%2fb",
                "spiffe://td",
                "spiffe:td/a",
                "SPIFFE://td/a",
                "spiffe://TD/a",
                "spiffe://u@td/a",
                "spiffe://td:1/a",
                "https://td/a;URI=spiffe://td/b",
                "https://td/a,By=b",
                "https://td/\0",
            ] {
                assert!(peers.check(&uris(&[bad])).is_err(), "{bad} {peers:?}");
            }
            assert!(peers.check(&uris(&["spiffe://td/a", "spiffe://td/b"])).is_err(), "{peers:?}");
            assert!(peers.check(&uris(&["spiffe://td/a", "https://td/b"])).is_err(), "{peers:?}");
        }
        Peers::Foreign.check(&uris(&["spiffe://td/a/../b", "spiffe://td/b"])).unwrap();
    }

    #[test]
    fn who_is_known_by_spiffe_ids_has_one_unless_a_matcher_is_for_others() {
        let web = Sans { dns: vec!["web.test".to_owned()], ..Sans::default() };
        let dns = exactly(SanKind::Dns, "web.test");
        let id = exactly(SanKind::Uri, "spiffe://td/a");
        for (sans, by_id, web_may, https_may) in [
            // A29's mesh by any name.
            (vec![], false, true, true),
            (vec![dns.clone()], false, true, true),
            (vec![begins(None, "web")], false, true, true),
            // By SPIFFE IDs, as the origin or the matchers say.
            (vec![], true, false, false),
            (vec![id.clone()], false, false, false),
            (vec![begins(None, "SPIFFE://td/")], false, false, false),
            (vec![begins(None, "spiffe:")], true, false, false),
            (vec![begins(None, "")], true, false, false),
            // The operator's own word on others.
            (vec![id.clone(), dns.clone()], false, true, false),
            (vec![dns], true, true, false),
            (vec![begins(None, "web")], true, true, false),
            (vec![begins(Some(SanKind::Uri), "https://td/")], true, false, true),
        ] {
            let peers = Peers::of_mesh(None, by_id, &sans, None);
            peers.check(&uris(&["spiffe://td/a"])).unwrap();
            assert_eq!(peers.check(&web).is_ok(), web_may, "{sans:?} {by_id}");
            assert_eq!(peers.check(&uris(&["https://td/a"])).is_ok(), https_may, "{sans:?} {by_id}");
        }
    }
}
