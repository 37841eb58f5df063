//! The fuzz targets, with a fixed number of seeded cases each. What a fuzzer would run is in `targets`: plain functions from
//! bytes; `docs/fuzzing.md` says how to hand them to one.
//!
//! A case that panics, that takes too long or too much memory fails its target's test with the case's seed in the text.
//! `FUZZ_SEED=<seed>` runs that case alone, `FUZZ_CASES=<number>` runs more.

mod generate;
mod input;
mod targets;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use targets::Target;

/// The longest input: larger ones only repeat what smaller ones show.
const LONGEST: usize = 4096;
/// More memory at one time is more than any input of that length can be worth.
const MOST_MEMORY: u64 = 96 << 20;
/// A case that takes so long will not end. Nothing shorter is judged: machines are slow.
const TOO_LONG: Duration = Duration::from_secs(120);

/// What a fuzzer would hand over: random bytes of some length, most of them few.
fn bytes(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let most = [16, 128, 1024, LONGEST][random.usize(..4)];
    let length = random.usize(..=most);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

fn seeds(target: &Target) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("FUZZ_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("FUZZ_CASES").unwrap_or(target.cases)).collect(),
    }
}

/// Runs one case; the error is what is wrong with it.
fn case(target: &Target, seed: u64) -> Result<(), String> {
    let data = bytes(seed);
    let mut panicked = false;
    let used = allocation_counter::measure(|| {
        panicked = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&data))).is_err();
    });
    match (panicked, used.bytes_max) {
        (true, _) => Err("panicked; the reason is above".to_owned()),
        (false, most) if most > MOST_MEMORY => Err(format!("took {most} bytes at one time")),
        (false, _) => Ok(()),
    }
}

fn fuzz(name: &str) {
    let target = targets::ALL.iter().find(|target| target.name == name).expect("the target is listed");
    let at = Arc::new(AtomicU64::new(0));
    let (done, ended) = mpsc::channel();
    let running = at.clone();
    // On a thread of its own, so that one that never ends is found, and with a stack as small as a worker's.
    let worker = std::thread::Builder::new().name(format!("fuzz-{name}")).stack_size(2 << 20).spawn(move || {
        for seed in seeds(target) {
            running.store(seed, Ordering::Relaxed);
            let result = case(target, seed);
            let is_bad = result.is_err();
            if done.send((seed, result)).is_err() || is_bad {
                return;
            }
        }
    });
    let worker = worker.expect("a thread can be had");
    loop {
        match ended.recv_timeout(TOO_LONG) {
            Ok((_, Ok(()))) => {}
            Ok((seed, Err(what))) => {
                panic!("{name}: {what}. Run it alone: FUZZ_SEED={seed} cargo test -p mesh-core --test fuzz {name}")
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("{name}: the case does not end: FUZZ_SEED={}", at.load(Ordering::Relaxed))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.join().expect("it sends what it finds");
}

/// One test for each target, so that they run side by side and a failing one is named.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })+

        #[test]
        fn every_target_has_a_test() {
            let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

tests!(
    bootstrap,
    bootstrap_text,
    listener,
    routes,
    cluster,
    endpoints,
    any_resource,
    stream_sotw,
    stream_delta,
    file,
    file_text,
    names,
    timeouts,
    certificate,
    jwt,
    rbac,
    secrets,
    workload_api,
    istio_ca,
);

/// The samples are good, or spoiling them would show nothing; and cases reach what lies behind the first check.
#[test]
fn samples_are_good_and_many_spoiled_ones_still_are() {
    for type_url in targets::resource::TYPES {
        let taken = (0..200).filter(|seed| targets::resource::is_taken(type_url, &bytes(*seed))).count();
        assert!((20..200).contains(&taken), "{type_url}: {taken} of 200 are taken");
    }
    let taken = (0..200).filter(|seed| targets::secret::is_taken(&bytes(*seed))).count();
    assert!((20..200).contains(&taken), "secrets: {taken} of 200 are taken");
    let taken = (0..200).filter(|seed| targets::rbac::is_taken(&bytes(*seed))).count();
    assert!((20..200).contains(&taken), "policies: {taken} of 200 are taken");
    let taken: Vec<_> = (0..200).map(|seed| targets::authority::are_taken(&bytes(seed))).collect();
    for (index, of) in ["the Workload API", "Istio's CA"].iter().enumerate() {
        let taken = taken.iter().filter(|one| one[index]).count();
        assert!((20..200).contains(&taken), "answers of {of}: {taken} of 200 are taken");
    }
    for delta in [false, true] {
        let told: usize = (0..200).map(|seed| targets::stream::run(delta, &bytes(seed))).sum();
        assert!(told >= 50, "readers were given {told} values in 200 stories");
    }
}

/// What fails is found: a target that panics for some inputs, and one that takes what nobody has.
#[test]
fn a_bad_case_is_told() {
    fn panics(data: &[u8]) {
        assert!(data.len() < 10, "on purpose");
    }
    fn grows(data: &[u8]) {
        drop(vec![0u8; usize::try_from(MOST_MEMORY).expect("it fits") + data.len() + 1]);
    }
    let target = |run| Target { name: "x", cases: 10, run };
    assert!((0..20).any(|seed| case(&target(panics), seed).is_err()));
    assert!(case(&target(grows), 0).is_err_and(|what| what.contains("bytes at one time")));
    assert!(case(&target(|_| {}), 0).is_ok());
}
