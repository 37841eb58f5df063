//! Where the decoder is inside a resource, and what it found there: faults and fields that are left out.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use super::{Dialect, Fault};
use crate::model::{Unsupported, UnsupportedEffect};

/// No resource reports more faults than this: a hostile one could have millions, and a NACK is for people.
const MOST_FAULTS: usize = 100;

/// What was found in one resource so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: RefCell<Vec<Fault>>,
    notes: RefCell<Vec<Unsupported>>,
}

impl Findings {
    /// The resource's root.
    pub(super) fn root(&self) -> At<'_> {
        At { parent: None, step: Step::Root, found: self }
    }

    /// Takes the faults out.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

/// A place inside a resource. Made without allocating: the path is written only when there is something to say.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    found: &'a Findings,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(&'a str, usize),
    Key(&'a str, &'a str),
}

impl At<'_> {
    /// The field `name` below here.
    pub(super) fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At { parent: Some(self), step: Step::Field(name), found: self.found }
    }

    /// The entry `index` of the list `name` below here.
    pub(super) fn item<'b>(&'b self, name: &'b str, index: usize) -> At<'b> {
        At { parent: Some(self), step: Step::Item(name, index), found: self.found }
    }

    /// The entry `key` of the map `name` below here.
    pub(super) fn key<'b>(&'b self, name: &'b str, key: &'b str) -> At<'b> {
        At { parent: Some(self), step: Step::Key(name, key), found: self.found }
    }

    /// Says that the field here breaks `rule`.
    pub(super) fn fault(&self, rule: impl Into<String>) {
        self.push(Fault::new(self.to_string(), rule));
    }

    /// Says it where Envoy's rules decide: what Envoy refuses, and gRPC does not look at or can't do.
    pub(super) fn envoy_fault(&self, rule: impl Into<String>) {
        if Dialect::is_envoy() {
            self.fault(rule);
        }
    }

    /// Says it where gRPC's rules decide: what gRPC refuses, and Envoy takes.
    pub(super) fn grpc_fault(&self, rule: impl Into<String>) {
        if !Dialect::is_envoy() {
            self.fault(rule);
        }
    }

    /// A number that must be one of an enumeration's: Envoy refuses others, gRPC does not read fields it can't honour.
    pub(super) fn envoy_known<E: TryFrom<i32>>(&self, value: i32) {
        if E::try_from(value).is_err() {
            self.envoy_fault(format!("is {value}, which is not known"));
        }
    }

    /// Takes over faults of something inside this field, whose paths start there.
    pub(super) fn faults(&self, inner: Vec<Fault>) {
        for fault in inner {
            let path = match (self.to_string(), fault.path) {
                (here, path) if path.is_empty() => here,
                (here, path) if here.is_empty() => path,
                (here, path) => format!("{here}.{path}"),
            };
            self.push(Fault { path, rule: fault.rule });
        }
    }

    fn push(&self, fault: Fault) {
        let mut faults = self.found.faults.borrow_mut();
        if faults.len() < MOST_FAULTS {
            faults.push(fault);
        }
    }

    /// Says that the field here is a side effect that is left out.
    pub(super) fn left_out(&self) {
        self.note(UnsupportedEffect::LeftOut);
    }

    /// Says that the field here would change a response and is not implemented, so that its requests fail.
    pub(super) fn fails_requests(&self) {
        self.note(UnsupportedEffect::FailsRequests);
    }

    /// Says [`left_out`](Self::left_out) of each field that is present.
    pub(super) fn all_left_out(&self, fields: &[(&str, bool)]) {
        for (name, _) in fields.iter().filter(|(_, present)| *present) {
            self.field(name).left_out();
        }
    }

    /// Says [`fails_requests`](Self::fails_requests) of each field that is present.
    pub(super) fn all_fail_requests(&self, fields: &[(&str, bool)]) {
        for (name, _) in fields.iter().filter(|(_, present)| *present) {
            self.field(name).fails_requests();
        }
    }

    fn note(&self, effect: UnsupportedEffect) {
        self.found.notes.borrow_mut().push(Unsupported { field: self.to_string(), effect });
    }

    /// How many notes there are; [`notes_since`](Self::notes_since) takes those that came after.
    pub(super) fn mark(&self) -> usize {
        self.found.notes.borrow().len()
    }

    /// Takes the notes made since `mark`: they belong to what was decoded in between.
    pub(super) fn notes_since(&self, mark: usize) -> Vec<Unsupported> {
        let mut notes = self.found.notes.borrow_mut();
        let mark = mark.min(notes.len());
        notes.split_off(mark)
    }

    /// How many faults there are, to see whether something below had one.
    pub(super) fn fault_count(&self) -> usize {
        self.found.faults.borrow().len()
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
            if !matches!(parent.step, Step::Root) {
                f.write_char('.')?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => f.write_str(name),
            Step::Item(name, index) => write!(f, "{name}[{index}]"),
            Step::Key(name, key) => write!(f, "{name}[\"{}\"]", key.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_fields_items_and_keys() {
        let findings = Findings::default();
        let root = findings.root();
        let hosts = root.item("virtual_hosts", 3);
        hosts.key("typed_per_filter_config", "a\nb").field("config").fault("is wrong");
        hosts.faults(vec![Fault::new("x.y", "is worse"), Fault::new("", "is bad")]);
        let faults = findings.into_faults();
        assert_eq!(faults[0].path, "virtual_hosts[3].typed_per_filter_config[\"a\\nb\"].config");
        assert_eq!(faults[1].path, "virtual_hosts[3].x.y");
        assert_eq!(faults[2].path, "virtual_hosts[3]");
    }

    #[test]
    fn notes_belong_to_the_innermost_thing_that_takes_them() {
        let findings = Findings::default();
        let root = findings.root();
        let outer = root.mark();
        root.field("a").left_out();
        let inner = root.mark();
        root.item("routes", 0).field("b").fails_requests();
        assert_eq!(root.notes_since(inner)[0].field, "routes[0].b");
        assert_eq!(root.notes_since(outer)[0].field, "a");
    }

    #[test]
    fn faults_are_bounded() {
        let findings = Findings::default();
        for index in 0..1000 {
            findings.root().item("x", index).fault("is bad");
        }
        assert_eq!(findings.into_faults().len(), MOST_FAULTS);
    }
}
