//! Weights from the endpoints' own load reports (gRFC A58).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::endpoint_weight::{EndpointWeight, Weigher};
use super::ready::ReadySet;
use super::stride::StaticStride;
use super::{Candidate, CandidateState, Observer, Pick, PickInput, Picker, PolicyConfig};

/// `load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin`.
///
/// An endpoint's weight is how many requests it answers for what they use of it:
/// `rps / (utilization + eps / rps * penalty)`, from its own load reports (ORCA, gRFC A51). Until two endpoints have a weight
/// that may be used, and for as long, it is a plain round robin; an endpoint without one among others that have counts as their
/// mean. What the control plane says an endpoint weighs (`load_balancing_weight`) does not count, as in gRPC; the weights of
/// localities do, in `WrrLocality` above it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSideWrrConfig {
    /// `enable_oob_load_report`: reports come on a stream of their own, and those of requests do not count; false by default.
    pub out_of_band: bool,
    /// `oob_reporting_period`: how often that stream is to say something; 10 s by default. The server may have a longer one.
    pub reporting_period: Duration,
    /// `blackout_period`: for how long an endpoint must have reported before its weight is used, after each connection and each
    /// expiration; 10 s by default, 0: at once.
    pub blackout_period: Duration,
    /// `weight_expiration_period`: how long a report counts; 180 s by default.
    pub weight_expiration_period: Duration,
    /// `weight_update_period`: how often weights are computed; 1 s by default, 100 ms at least.
    pub weight_update_period: Duration,
    /// `error_utilization_penalty`: how much errors weigh against an endpoint; 1.0 by default.
    pub error_utilization_penalty: f64,
    /// `metric_names_for_computing_utilization`: the largest of these is the utilization, where a report has any (gRFC A114);
    /// by default it is `application_utilization`, and without that `cpu_utilization`. Names are spelled as
    /// [`LoadReport::metric`](crate::load::LoadReport::metric) has them.
    pub utilization_metrics: Arc<[String]>,
}

impl Default for ClientSideWrrConfig {
    fn default() -> Self {
        Self {
            out_of_band: false,
            reporting_period: Duration::from_secs(10),
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
            utilization_metrics: Arc::default(),
        }
    }
}

impl PolicyConfig for ClientSideWrrConfig {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        let ready = ReadySet::new(candidates);
        let weights = ready.members().iter().map(|member| candidates[member.index].state.weight().clone()).collect();
        let previous = previous.map(|picker| &**picker as &dyn Any).and_then(|any| any.downcast_ref::<WrrPicker>());
        // Where the last picker stopped, or anywhere, so that many clients do not start on one endpoint.
        let turns = previous.map_or_else(|| Arc::new(AtomicU64::new(seed >> 32)), |picker| picker.turns.clone());
        Arc::new(WrrPicker { ready, weights, config: self.clone(), schedule: ArcSwapOption::empty(), turns })
    }

    fn observer(&self, state: &CandidateState) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(Weigher::new(state.weight().clone(), self)))
    }

    fn out_of_band(&self) -> Option<Duration> {
        self.out_of_band.then_some(self.reporting_period)
    }
}

#[derive(Debug)]
struct WrrPicker {
    ready: ReadySet,
    /// Of each ready one.
    weights: Vec<Arc<EndpointWeight>>,
    config: ClientSideWrrConfig,
    /// None: a round robin.
    schedule: ArcSwapOption<StaticStride>,
    /// Counts on from picker to picker.
    turns: Arc<AtomicU64>,
}

impl Picker for WrrPicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        if self.ready.is_empty() {
            return self.ready.otherwise();
        }
        let start = match &*self.schedule.load() {
            Some(schedule) => schedule.next(&self.turns),
            None => (self.turns.fetch_add(1, Ordering::Relaxed) % self.ready.len() as u64) as usize,
        };
        self.ready.pick_from(start, input.tried)
    }

    fn refresh(&self, now: Instant) -> Option<Instant> {
        let weights: Vec<Option<f64>> = self.weights.iter().map(|weight| weight.get(now, &self.config)).collect();
        self.schedule.store(StaticStride::new(&weights).map(Arc::new));
        // A picker without members is replaced when it has some.
        (!self.ready.is_empty()).then(|| now + self.config.weight_update_period)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::balance::WrrLocality;
    use crate::load::{Load, LoadReport};
    use crate::model::{Endpoint, Health, Locality};

    const SECOND: Duration = Duration::from_secs(1);

    /// Ready endpoints of a cluster under this policy.
    struct World {
        config: ClientSideWrrConfig,
        policy: Arc<dyn PolicyConfig>,
        candidates: Vec<Arc<Candidate>>,
        picker: Arc<dyn Picker>,
        now: Instant,
    }

    fn candidate(number: u8, zone: &str) -> Arc<Candidate> {
        let state = Arc::new(CandidateState::default());
        state.set_ready();
        let endpoint = Endpoint {
            address: SocketAddr::from(([10, 0, 0, number], 80)),
            additional: Vec::new(),
            // What the control plane says does not count.
            weight: u32::from(number) * 100 + 1,
            health: Health::Unknown,
            hostname: "".into(),
            metadata: BTreeMap::new(),
        };
        Arc::new(Candidate {
            endpoint: Arc::new(endpoint),
            locality: Arc::new(Locality { zone: zone.into(), ..Locality::default() }),
            priority: 0,
            locality_weight: 1,
            state,
            observer: None,
        })
    }

    impl World {
        fn new(count: u8, config: ClientSideWrrConfig) -> Self {
            let candidates: Vec<_> = (0..count).map(|number| candidate(number, "a")).collect();
            let policy: Arc<dyn PolicyConfig> = Arc::new(config.clone());
            let picker = policy.build(&candidates, None, 0);
            let mut world = Self { config, policy, candidates, picker, now: Instant::now() };
            world.pass(Duration::ZERO);
            world
        }

        /// This much later, the weights are computed again.
        fn pass(&mut self, time: Duration) {
            self.now += time;
            let next = self.picker.refresh(self.now);
            assert_eq!(next, Some(self.now + self.config.weight_update_period));
        }

        fn rebuild(&mut self) {
            self.picker = self.policy.build(&self.candidates, Some(&self.picker), 9);
            self.pass(Duration::ZERO);
        }

        fn report(&self, index: usize, load: &Load) {
            let observer = self.policy.observer(&self.candidates[index].state).unwrap();
            assert!(observer.wants_reports());
            observer.on_report(&LoadReport::read(&load.encode()).unwrap(), self.now);
        }

        /// Each endpoint reports 100 requests per second at this utilization of its CPU.
        fn report_all(&self, utilization: &[f64]) {
            for (index, utilization) in utilization.iter().enumerate() {
                self.report(index, &busy(*utilization));
            }
        }

        /// The shares of so many requests.
        fn shares(&self, requests: usize) -> Vec<usize> {
            let mut shares = vec![0; self.candidates.len()];
            for random in 0..requests as u64 {
                let input = PickInput { hash: None, tried: &[], override_host: None, metadata: None, random };
                let Pick::Candidate(index) = self.picker.pick(&input) else { panic!("nobody") };
                shares[index] += 1;
            }
            shares
        }
    }

    fn busy(cpu_utilization: f64) -> Load {
        Load { cpu_utilization, requests_per_second: 100.0, ..Load::default() }
    }

    fn at_once() -> ClientSideWrrConfig {
        ClientSideWrrConfig { blackout_period: Duration::ZERO, ..ClientSideWrrConfig::default() }
    }

    #[test]
    fn a58_requests_follow_what_endpoints_say_of_their_load() {
        let mut world = World::new(3, at_once());
        assert_eq!(world.shares(300), [100, 100, 100], "a round robin, whatever the control plane says they weigh");
        world.report_all(&[0.9, 0.3, 0.9]);
        assert_eq!(world.shares(300), [100, 100, 100], "until weights are computed");
        world.pass(SECOND);
        assert_eq!(world.shares(500), [100, 300, 100]);
        world.report_all(&[0.2, 0.2, 0.2]);
        world.pass(SECOND);
        assert_eq!(world.shares(300), [100, 100, 100]);
    }

    #[test]
    fn a58_with_fewer_than_two_weights_it_is_a_round_robin_and_whoever_has_none_gets_the_mean() {
        let mut world = World::new(3, at_once());
        world.report(0, &busy(0.1));
        world.pass(SECOND);
        assert_eq!(world.shares(300), [100, 100, 100]);
        world.report(1, &busy(0.3));
        world.pass(SECOND);
        let shares = world.shares(600);
        assert!(shares.iter().zip([300, 100, 200]).all(|(found, share)| found.abs_diff(share) <= 2), "{shares:?}");
    }

    #[test]
    fn a58_weights_wait_for_the_blackout_expire_and_wait_again() {
        let config = ClientSideWrrConfig {
            blackout_period: 10 * SECOND,
            weight_expiration_period: 30 * SECOND,
            ..ClientSideWrrConfig::default()
        };
        let mut world = World::new(2, config);
        world.report_all(&[0.1, 0.3]);
        world.pass(10 * SECOND - Duration::from_nanos(1));
        assert_eq!(world.shares(400), [200, 200], "reports have not come for 10 s");
        world.pass(Duration::from_nanos(1));
        assert_eq!(world.shares(400), [300, 100]);
        world.pass(20 * SECOND - Duration::from_nanos(1));
        assert_eq!(world.shares(400), [300, 100]);
        world.pass(Duration::from_nanos(1));
        assert_eq!(world.shares(400), [200, 200], "30 s without a report");
        world.report_all(&[0.1, 0.3]);
        world.pass(9 * SECOND);
        assert_eq!(world.shares(400), [200, 200], "the blackout applies to what comes back");
        world.pass(SECOND);
        assert_eq!(world.shares(400), [300, 100]);
    }

    #[test]
    fn a58_another_connection_is_another_server_until_it_has_reported_for_long_enough() {
        let config = ClientSideWrrConfig { blackout_period: 10 * SECOND, ..ClientSideWrrConfig::default() };
        let mut world = World::new(2, config);
        world.report_all(&[0.1, 0.3]);
        world.pass(10 * SECOND);
        assert_eq!(world.shares(400), [300, 100]);
        world.candidates[0].state.set_not_ready();
        world.candidates[0].state.set_ready();
        world.rebuild();
        assert_eq!(world.shares(400), [200, 200]);
        world.report_all(&[0.1, 0.3]);
        world.pass(10 * SECOND);
        assert_eq!(world.shares(400), [300, 100]);
    }

    #[test]
    fn a58_errors_weigh_against_an_endpoint_as_much_as_is_configured() {
        for (penalty, shares) in [(0.0, [200, 200]), (1.0, [250, 150]), (2.0, [280, 120])] {
            let mut world = World::new(2, ClientSideWrrConfig { error_utilization_penalty: penalty, ..at_once() });
            // 100 / 0.3 against 100 / (0.3 + 20 / 100 * penalty).
            world.report(0, &busy(0.3));
            world.report(1, &Load { errors_per_second: 20.0, ..busy(0.3) });
            world.pass(SECOND);
            assert_eq!(world.shares(400), shares, "{penalty}");
        }
    }

    /// gRFCs A58 and A114.
    #[test]
    fn utilization_is_the_largest_named_metric_or_the_applications_or_the_cpus() {
        let named = |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let all = Load {
            cpu_utilization: 0.1,
            mem_utilization: 0.2,
            application_utilization: 0.4,
            named_metrics: named(&[("queue", 0.8), ("zero", 0.0), ("negative", -9.0)]),
            ..busy(0.1)
        };
        let cpu_only = busy(0.1);
        let cases: [(&[&str], &Load, f64); 7] = [
            (&[], &cpu_only, 0.1),
            (&[], &all, 0.4),
            (&["named_metrics.queue", "mem_utilization"], &all, 0.8),
            (&["mem_utilization"], &all, 0.2),
            (&["named_metrics.zero", "named_metrics.negative", "named_metrics.none", "nonsense"], &all, 0.4),
            (&["named_metrics.queue"], &cpu_only, 0.1),
            (&["cpu_utilization"], &all, 0.1),
        ];
        for (names, load, expected) in cases {
            let utilization_metrics = names.iter().map(|name| (*name).to_owned()).collect();
            let mut world = World::new(2, ClientSideWrrConfig { utilization_metrics, ..at_once() });
            world.report(0, load);
            // One that says of itself what is expected of the other, and answers a third of the requests.
            let third = 100.0 / 3.0;
            let same = Load { application_utilization: expected, requests_per_second: third, ..Load::default() };
            world.report(1, &same);
            world.pass(SECOND);
            assert_eq!(world.shares(400), [300, 100], "{names:?}");
        }
    }

    #[test]
    fn a58_a_report_without_requests_or_utilization_changes_nothing() {
        let mut world = World::new(2, at_once());
        world.report_all(&[0.1, 0.3]);
        world.report(0, &Load { cpu_utilization: 0.9, ..Load::default() });
        world.report(0, &Load { requests_per_second: 1.0, ..Load::default() });
        world.report(0, &Load { cpu_utilization: 1e-300, requests_per_second: 1e300, ..Load::default() });
        world.pass(SECOND);
        assert_eq!(world.shares(400), [300, 100]);
        world.pass(179 * SECOND - Duration::from_nanos(1));
        assert_eq!(world.shares(400), [300, 100]);
        world.report(1, &busy(0.3));
        world.report(0, &Load { cpu_utilization: 0.9, ..Load::default() });
        world.pass(Duration::from_nanos(1));
        assert_eq!(world.shares(400), [200, 200], "it kept nothing from expiring either");
    }

    #[test]
    fn a58_turns_go_on_where_the_picker_before_stopped() {
        let mut world = World::new(3, at_once());
        assert_eq!(world.shares(1), [1, 0, 0]);
        world.rebuild();
        assert_eq!(world.shares(1), [0, 1, 0]);
    }

    /// gRFCs A52 and A58.
    #[test]
    fn localities_weigh_their_own_endpoints() {
        let policy = WrrLocality { child: Arc::new(at_once()) };
        let candidates = [candidate(0, "a"), candidate(1, "a"), candidate(2, "b")];
        let now = Instant::now();
        for (candidate, utilization) in candidates.iter().zip([0.1, 0.3, 0.9]) {
            let observer = policy.observer(&candidate.state).unwrap();
            observer.on_report(&LoadReport::read(&busy(utilization).encode()).unwrap(), now);
        }
        let picker = crate::balance::build(&policy, &candidates, None, 0);
        assert_eq!(picker.refresh(now), Some(now + SECOND), "through priorities and localities");
        let mut shares = [0; 3];
        for turn in 0..800_u64 {
            // Every other one to either locality.
            let random = (turn % 2) << 63;
            let input = PickInput { hash: None, tried: &[], override_host: None, metadata: None, random };
            let Pick::Candidate(index) = picker.pick(&input) else { panic!("nobody") };
            shares[index] += 1;
        }
        assert_eq!(shares, [300, 100, 400]);
        assert_eq!(policy.out_of_band(), None);
        let out_of_band = ClientSideWrrConfig { out_of_band: true, ..at_once() };
        assert_eq!(WrrLocality { child: Arc::new(out_of_band) }.out_of_band(), Some(10 * SECOND));
    }
}
