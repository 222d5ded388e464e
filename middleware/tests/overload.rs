//! Overload, simulated on a paused clock: requests come as a Poisson process whether or not earlier ones were answered,
//! to a service that works on eight at a time for 10 ms each. The same seed gives the same run.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, Service, ServiceExt, service_fn};
use wharf_middleware::OverloadLayer;

const SERVERS: usize = 8;
const WORK: Duration = Duration::from_millis(10);
const CAPACITY: f64 = 800.0;

#[tokio::test(start_paused = true)]
async fn goodput_stays_at_capacity_whatever_is_offered() {
    for layer in [OverloadLayer::limit(SERVERS), OverloadLayer::adaptive()] {
        for load in [0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0] {
            let layer = renewed(&layer);
            // The adaptive limit may look for its value first.
            let (warm_up, time) = (secs(5.0), secs(5.0));
            let outcome = offer(&layer, &[(load, warm_up + time)]).await;
            let measured = outcome.between(warm_up, warm_up + time);

            let possible = measured.offered().min(CAPACITY * time.as_secs_f64());
            let goodput = measured.good() / possible;
            let refused = measured.refusal_quantile(0.99);
            println!(
                "{load:.1} x capacity: goodput {goodput:.3}, refusals' p99 {refused:?}, {:?}",
                layer.load()
            );
            assert!(goodput >= 0.95, "{load} x capacity: {goodput}");
            assert!(
                refused <= Duration::from_millis(10),
                "{load} x: {refused:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_layer_the_same_overload_leaves_nothing() {
    let outcome = offer(&OverloadLayer::limit(1_000_000), &[(3.0, secs(10.0))]).await;
    let late = outcome.between(secs(5.0), secs(10.0));
    assert_eq!(late.good(), 0.0, "or the simulation shows nothing");
}

#[tokio::test(start_paused = true)]
async fn two_seconds_after_a_burst_all_is_as_before() {
    for layer in [OverloadLayer::limit(SERVERS), OverloadLayer::adaptive()] {
        let phases = [(0.5, secs(5.0)), (4.0, secs(5.0)), (0.5, secs(7.0))];
        let outcome = offer(&renewed(&layer), &phases).await;
        let after = outcome.between(secs(12.0), secs(17.0));
        let served = after.good() / after.offered();
        let slowest = after.slowest();
        println!("after the burst: {served:.4} served, slowest {slowest:?}");
        assert!(served >= 0.999, "{served}");
        assert!(slowest <= WORK * 4, "{slowest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_adaptive_limit_finds_the_eight_servers() {
    let layer = OverloadLayer::adaptive();
    offer(&layer, &[(3.0, secs(20.0))]).await;
    let limit = layer.load().limit;
    assert!((SERVERS / 2..=SERVERS * 3).contains(&limit), "{limit}");
}

/// The same settings, nobody inside.
fn renewed(layer: &OverloadLayer) -> OverloadLayer {
    layer.clone().longest_wait(Duration::from_millis(100))
}

struct Outcome {
    requests: Vec<Asked>,
}

/// Status 0: not answered within a second after the end.
#[derive(Clone, Copy)]
struct Asked {
    at: Duration,
    status: u16,
    took: Duration,
}

impl Outcome {
    fn between(&self, from: Duration, to: Duration) -> Self {
        let asked = self
            .requests
            .iter()
            .filter(|asked| asked.at >= from && asked.at < to);
        Self {
            requests: asked.copied().collect(),
        }
    }

    fn offered(&self) -> f64 {
        self.requests.len() as f64
    }

    /// Answered well within 200 ms.
    fn good(&self) -> f64 {
        let good = |asked: &&Asked| asked.status == 200 && asked.took <= Duration::from_millis(200);
        self.requests.iter().filter(good).count() as f64
    }

    fn slowest(&self) -> Duration {
        self.requests
            .iter()
            .map(|asked| asked.took)
            .max()
            .unwrap_or_default()
    }

    fn refusal_quantile(&self, quantile: f64) -> Duration {
        let refused = self.requests.iter().filter(|asked| asked.status == 503);
        let mut times: Vec<_> = refused.map(|asked| asked.took).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * quantile) as usize;
        times.get(at).copied().unwrap_or_default()
    }
}

/// Offers load, phase by phase, in multiples of the capacity.
async fn offer(layer: &OverloadLayer, phases: &[(f64, Duration)]) -> Outcome {
    let servers = Arc::new(Semaphore::new(SERVERS));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let servers = servers.clone();
        async move {
            let _server = servers.acquire().await.expect("open");
            sleep(WORK).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    }));

    let requests = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let (mut at, mut phase_ends) = (Duration::ZERO, Duration::ZERO);
    let mut tasks = tokio::task::JoinSet::new();
    for &(load, time) in phases {
        phase_ends += time;
        loop {
            let next = at + random.exponential(CAPACITY * load);
            if next > phase_ends {
                at = phase_ends;
                break;
            }
            at = next;
            sleep_until(start + at).await;
            let (mut service, requests) = (service.clone(), requests.clone());
            let number = {
                let mut requests = requests.lock().unwrap();
                requests.push(Asked {
                    at,
                    status: 0,
                    took: Duration::MAX,
                });
                requests.len() - 1
            };
            tasks.spawn(async move {
                let asked = Instant::now();
                let Ok(response) = service.ready().await.unwrap().call(Request::new(())).await;
                let this = &mut requests.lock().unwrap()[number];
                this.status = response.status().as_u16();
                this.took = asked.elapsed();
            });
        }
    }
    // What is still queued without a limit would go on for long.
    let _ = tokio::time::timeout(secs(1.0), async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    let answered = requests.lock().unwrap().clone();
    Outcome { requests: answered }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The time until the next of a Poisson process of `rate` a second.
    fn exponential(&mut self, rate: f64) -> Duration {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        secs(-uniform.ln() / rate)
    }
}
