//! Engine and graph against servers that do all that servers do, by seed and on virtual time.
//!
//! A [`World`] has client targets that come and go, one or two control planes, in two authorities of names, that change, spoil,
//! empty, delete and bring back resources, die, stall, tear streams, send garbage and push in the wrong order, and between them the
//! real engine, the real graph and the real answering side, in either protocol. After each step it is checked that nothing is
//! torn, lost or leaked, and in the end that what is in force is what the control plane has. The seed is in the failure's text.
//!
//! `MESH_SIMULATION_SEEDS` says how many seeds are tried (1,000), `MESH_SIMULATION_SEED` tries that one alone, and
//! writes down what happened.

mod contents;
mod link;
mod world;

use std::fmt::Display;
use std::io::Write as _;
use std::str::FromStr;

use crate::planted::{Mistake, plant};
use world::World;

/// What was found not to hold.
type Checked<T = ()> = Result<T, String>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name} is `{text}`: {error}")))
}

/// How many seeds are tried.
fn seeds() -> u64 {
    variable("MESH_SIMULATION_SEEDS").unwrap_or(1000)
}

/// Names the seed of what panics below the checks.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "seed {}: run it alone with MESH_SIMULATION_SEED={}", self.0, self.0);
        }
    }
}

fn live(seed: u64) -> Checked {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
    world.is_traced = std::env::var_os("MESH_SIMULATION_SEED").is_some();
    for _ in 0..2 {
        for _ in 0..60 {
            world.step()?;
        }
        world.calm()?;
    }
    world.end()
}

#[test]
fn whatever_servers_do_nothing_is_torn_lost_or_leaked() {
    let seeds = match variable("MESH_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds(),
    };
    let failures = seeds.filter_map(|seed| live(seed).err().map(|what| format!("seed {seed}: {what}")));
    let failures: Vec<String> = failures.take(10).collect();
    assert!(failures.is_empty(), "{}\n(one alone: MESH_SIMULATION_SEED=...)", failures.join("\n"));
}

/// The first seed that finds the mistake, and how.
fn find(mistake: Mistake) -> Option<(u64, String)> {
    plant(Some(mistake));
    let found = (0..seeds()).find_map(|seed| live(seed).err().map(|what| (seed, what)));
    plant(None);
    found
}

/// That it passes without mistakes says something only if it does not with them.
macro_rules! finds {
    ($($test:ident: $mistake:ident says $says:literal;)+) => {$(
        #[test]
        fn $test() {
            let (seed, what) = find(Mistake::$mistake).expect("no seed finds it");
            assert!(what.contains($says), "found by seed {seed}, but as: {what}");
        }
    )+};
}

finds! {
    finds_a_lost_resubscription: LostResubscription says "but";
    finds_a_nonce_of_another_stream: OldNonce says "nonce";
    finds_a_timer_that_runs_without_a_stream: TimerWithoutStream says "timer";
    finds_a_timer_of_a_server_that_is_not_asked: TimerOfAnother says "timer";
    finds_silence_that_is_not_heard: SilenceUnheard says "but";
    finds_a_name_that_is_never_asked_for_anew: NeverAskedAnew says "but";
    finds_a_version_kept_after_a_nack: VersionAfterNack says "version";
    finds_good_resources_refused_with_bad_ones: WholeNack says "but";
    finds_waits_that_do_not_start_over: BackoffNotReset says "waited";
    finds_a_deletion_for_absent_endpoints: AbsentEndpointsDeleted says "was there";
    finds_an_ignored_removal: RemovalIgnored says "there is none";
    finds_a_version_claimed_in_trouble: ClaimedInTrouble says "but";
    finds_an_unsubscription_that_is_not_said: UnsubscribeUnsaid says "subscribed";
    finds_what_is_forgotten_at_once: ForgottenAtOnce says "DoesNotExist";
    finds_an_entry_that_is_kept: EntryKept says "wanted";
    finds_a_fallback_that_is_kept: FallbackKept says "stays";
    finds_a_grace_that_starts_over: GraceRenewed says "longer than its grace";
    finds_a_grace_that_never_ends: GraceWithoutEnd says "longer than its grace";
    finds_a_torn_configuration: Torn says "torn";
    finds_an_outage_taken_for_an_answer: OutageIsAnswer says "gets worse by an outage";
}
