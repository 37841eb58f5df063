//! How large RE2's program of an expression is.

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, ClassSet, ClassSetItem, Flag, FlagsItemKind, RepetitionKind, RepetitionRange};

/// What every program has: a failure, a match, and the loop that looks for a beginning.
const BASE: u64 = 4;
/// Where ways part and meet, jumps are put in: three for a part that may be left out or comes again, for it is entered, left
/// and gone through again by more than one way; twice as many if such a part may itself be nothing.
const JUMPS: u64 = 3;
const JUMPS_AROUND_NOTHING: u64 = 6;

/// At least as many instructions as RE2's program of `pattern` has (`RE2::ProgramSize`), for an expression that
/// [`translate`](super::translate) wrote. It is more where RE2 shares what this does not see: of
/// 12,000 random expressions of groups in groups half as much again in the middle, and never less.
///
/// Counted is what RE2 makes of each part before it looks for what is alike: an instruction for each byte, range of bytes and
/// assertion, two for each group, and jumps. Alternatives share what they begin with.
pub(in crate::model) fn program_size(pattern: &str) -> u64 {
    let Ok(ast) = Parser::new().parse(pattern) else { return u64::MAX };
    let ranges = if folds(&ast) { 2 } else { 1 };
    Counter { ranges }.cost(&ast).instructions.saturating_add(BASE)
}

/// What a part costs.
#[derive(Clone, Copy)]
struct Cost {
    instructions: u64,
    /// Whether it may match nothing at all.
    is_nothing: bool,
}

impl Cost {
    const fn of(instructions: u64) -> Self {
        Self { instructions, is_nothing: false }
    }

    const fn empty(instructions: u64) -> Self {
        Self { instructions, is_nothing: true }
    }

    fn and(self, next: Self) -> Self {
        let instructions = self.instructions.saturating_add(next.instructions);
        Self { instructions, is_nothing: self.is_nothing && next.is_nothing }
    }
}

/// Whether case is without meaning anywhere in it.
fn folds(ast: &Ast) -> bool {
    let is_fold = |flags: &regex_syntax::ast::Flags| {
        flags.items.iter().any(|item| item.kind == FlagsItemKind::Flag(Flag::CaseInsensitive))
    };
    match ast {
        Ast::Flags(set) => is_fold(&set.flags),
        Ast::Group(group) => group.flags().is_some_and(is_fold) || folds(&group.ast),
        Ast::Repetition(repeated) => folds(&repeated.ast),
        Ast::Concat(parts) => parts.asts.iter().any(folds),
        Ast::Alternation(ways) => ways.asts.iter().any(folds),
        _ => false,
    }
}

struct Counter {
    /// How many ranges one range may become: two where case has no meaning.
    ranges: u64,
}

impl Counter {
    fn cost(&self, ast: &Ast) -> Cost {
        match ast {
            Ast::Empty(_) | Ast::Assertion(_) => Cost::empty(1),
            Ast::Flags(_) => Cost::empty(0),
            Ast::Literal(_) => Cost::of(1),
            // All but the end of a line.
            Ast::Dot(_) => Cost::of(2),
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) => Cost::of(256),
            Ast::ClassBracketed(class) => {
                let items = match &class.kind {
                    ClassSet::Item(ClassSetItem::Union(union)) => union.items.len() as u64,
                    ClassSet::Item(ClassSetItem::Empty(_)) => 0,
                    ClassSet::Item(_) | ClassSet::BinaryOp(_) => 1,
                };
                // There is one gap more than there are ranges.
                Cost::of(items * self.ranges + u64::from(class.negated))
            }
            Ast::Group(group) => {
                let inner = self.cost(&group.ast);
                inner.and(Cost::empty(if group.capture_index().is_some() { 2 } else { 0 }))
            }
            Ast::Concat(parts) => parts.asts.iter().map(|part| self.cost(part)).fold(Cost::empty(0), Cost::and),
            Ast::Repetition(repeated) => self.repetition(&repeated.op.kind, self.cost(&repeated.ast)),
            Ast::Alternation(ways) => {
                let ways: Vec<Way> = ways.asts.iter().map(|way| self.way(way)).collect();
                let is_nothing = ways.iter().any(|way| way.literal.is_empty() && way.rest.is_nothing);
                Cost { instructions: alternatives(&ways, 0), is_nothing }
            }
        }
    }

    fn repetition(&self, kind: &RepetitionKind, once: Cost) -> Cost {
        let jumps = if once.is_nothing { JUMPS_AROUND_NOTHING } else { JUMPS };
        let (least, most) = match kind {
            RepetitionKind::ZeroOrOne => (0, Some(1)),
            RepetitionKind::ZeroOrMore => (0, None),
            RepetitionKind::OneOrMore => (1, None),
            RepetitionKind::Range(RepetitionRange::Exactly(times)) => (*times, Some(*times)),
            RepetitionKind::Range(RepetitionRange::AtLeast(times)) => (*times, None),
            RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (*least, Some(*most)),
        };
        let optional = once.instructions.saturating_add(jumps);
        let always = once.instructions.saturating_mul(u64::from(least));
        let more = match most {
            None if least == 0 => optional,
            None => jumps,
            Some(most) => optional.saturating_mul(u64::from(most.saturating_sub(least))),
        };
        // No repetition at all is still an instruction.
        let instructions = always.saturating_add(more).max(1);
        Cost { instructions, is_nothing: least == 0 || once.is_nothing }
    }

    fn way(&self, ast: &Ast) -> Way {
        let parts = match ast {
            Ast::Concat(parts) => &parts.asts[..],
            one => std::slice::from_ref(one),
        };
        let literal: Vec<char> = parts
            .iter()
            .map_while(|part| match part {
                Ast::Literal(literal) => Some(literal.c),
                _ => None,
            })
            .collect();
        let rest = parts[literal.len()..].iter().map(|part| self.cost(part)).fold(Cost::empty(0), Cost::and);
        Way { literal, rest }
    }
}

/// An alternative: the literal that it begins with, and what the rest costs.
struct Way {
    literal: Vec<char>,
    rest: Cost,
}

/// What alternatives cost of which the first `known` characters are counted: neighbours share what they begin with.
fn alternatives(ways: &[Way], known: usize) -> u64 {
    let mut total: u64 = 0;
    let mut ways = ways;
    while let Some(first) = ways.first() {
        let next = first.literal.get(known);
        let alike = ways.iter().take_while(|way| next.is_some() && way.literal.get(known) == next).count();
        let (group, rest) = ways.split_at(alike.max(1));
        let cost = if alike > 1 {
            let shared = group.iter().map(|way| shared(&first.literal, &way.literal)).min().unwrap_or(known);
            ((shared - known) as u64).saturating_add(alternatives(group, shared))
        } else {
            let literal = (first.literal.len() - known) as u64;
            // A way that is left without having read anything is left by a jump.
            let jump = u64::from(literal == 0 && first.rest.is_nothing);
            literal.saturating_add(first.rest.instructions).saturating_add(jump).max(1)
        };
        total = total.saturating_add(cost);
        ways = rest;
    }
    total
}

fn shared(one: &[char], other: &[char]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
