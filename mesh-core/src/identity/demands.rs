//! What is asked of a peer's certificate beside roots, by a resource and by the secret that its roots come from.

use crate::model::{CertificateChecks, SanMatch};

/// What a `CertificateValidationContext` asks of a certificate beside roots. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// `match_typed_subject_alt_names`, or the older `match_subject_alt_names`: one of the names must match one of these.
    pub sans: Vec<SanMatch>,
    /// Revocation, hashes and the length of chains.
    pub checks: CertificateChecks,
}

impl Demands {
    /// What a resource asks for (`combined_validation_context.default_validation_context`) with what `secret` does, as Envoy
    /// merges them: lists are joined, and of what there can be one of, the secret's counts.
    ///
    /// What would trust more, such as `allow_expired_certificate`, is never taken from a secret.
    #[must_use]
    pub fn merged(&self, secret: &Self) -> Self {
        let mut sans = [&self.sans[..], &secret.sans].concat();
        // The typed list has priority wherever it comes from: the older one is not read beside it. In one place there is one.
        let mixed = !self.sans.is_empty() && !secret.sans.is_empty();
        if mixed && sans.iter().any(|one| one.kind.is_some()) {
            sans.retain(|one| one.kind.is_some());
        }
        let (own, other) = (&self.checks, &secret.checks);
        let checks = CertificateChecks {
            crl: other.crl.clone().or_else(|| own.crl.clone()),
            crl_of_leaf_only: own.crl_of_leaf_only || other.crl_of_leaf_only,
            max_depth: other.max_depth.or(own.max_depth),
            pins: [&own.pins[..], &other.pins].concat(),
            allow_expired: own.allow_expired,
            accept_untrusted: own.accept_untrusted,
        };
        Self { sans, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CertificatePin, CrlSource, Pattern, SanKind, StringMatch};

    fn san(kind: Option<SanKind>, text: &str) -> SanMatch {
        SanMatch { kind, matcher: StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false } }
    }

    fn demands(sans: &[SanMatch], pin: u8, depth: Option<u32>) -> Demands {
        let pins = vec![CertificatePin::Certificate([pin; 32])];
        Demands { sans: sans.to_vec(), checks: CertificateChecks { pins, max_depth: depth, ..Default::default() } }
    }

    #[test]
    fn lists_are_joined_and_the_secret_has_the_last_word() {
        let (a, b) = (san(Some(SanKind::Dns), "a"), san(Some(SanKind::Uri), "b"));
        let (own, secret) = (demands(std::slice::from_ref(&a), 1, Some(1)), demands(std::slice::from_ref(&b), 2, None));
        let both = own.merged(&secret);
        assert_eq!((both.sans, both.checks.pins.len(), both.checks.max_depth), (vec![a.clone(), b], 2, Some(1)));
        assert_eq!(own.merged(&demands(&[], 2, Some(3))).checks.max_depth, Some(3));
        let older = demands(&[san(None, "c")], 2, None);
        assert_eq!(own.merged(&older).sans, std::slice::from_ref(&a), "typed names have priority");
        assert_eq!(older.merged(&own).sans, [a], "wherever they come from");
        assert_eq!(own.merged(&Demands::default()), own);
    }

    #[test]
    fn a_list_takes_the_others_place_and_what_trusts_more_is_not_taken() {
        let list = |byte| Some(CrlSource::Inline(vec![vec![byte]].into()));
        let of = |crl| Demands { checks: CertificateChecks { crl, ..Default::default() }, ..Default::default() };
        assert_eq!(of(list(1)).merged(&of(list(2))).checks.crl, list(2));
        assert_eq!(of(list(1)).merged(&of(None)).checks.crl, list(1));
        let lax = CertificateChecks {
            allow_expired: true,
            accept_untrusted: true,
            crl_of_leaf_only: true,
            ..Default::default()
        };
        let merged = Demands::default().merged(&Demands { checks: lax, ..Default::default() });
        assert!(!merged.checks.allow_expired && !merged.checks.accept_untrusted && merged.checks.crl_of_leaf_only);
    }
}
