//! An open-loop sender: requests are due at random moments, whatever became of those before, and their latency counts
//! from when they were due. A closed loop, or one that sends in step, would go easy on a server that falls behind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Client, get};
use crate::figures::{millis, quantile, seconds};

/// Later than that nobody waits for an answer any more.
const GOOD: Duration = Duration::from_millis(200);
/// And this is when the sender itself gives up on it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What became of one request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Since the load began.
    due: Duration,
    latency: Duration,
    /// Zero: none.
    status: u16,
}

/// What became of all.
#[derive(Debug, Default)]
pub(crate) struct Load {
    fates: Vec<Fate>,
    time: Duration,
}

/// Sends so many requests a second, on average, for that long, and then goes on at the next rate.
///
/// Connections are kept and used again; a request that finds none free gets a new one.
pub(crate) async fn offer(
    address: SocketAddr,
    path: &'static str,
    rates: &[(f64, Duration)],
) -> Load {
    let free: Arc<Mutex<Vec<Client>>> = Arc::default();
    let request: Arc<[u8]> = get(path).into();
    let (begun, mut due) = (Instant::now(), Duration::ZERO);
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut sent = JoinSet::new();
    let mut fates = Vec::new();
    let mut rates = rates.iter();
    let mut time = Duration::ZERO;
    let mut rate = 0.0;
    loop {
        while due >= time {
            let Some((next, lasts)) = rates.next() else {
                fates.extend(sent.join_all().await);
                return Load { fates, time };
            };
            (rate, time) = (*next, time + *lasts);
        }
        sleep_until(begun + due).await;
        let (free, request) = (free.clone(), request.clone());
        sent.spawn(async move {
            let scheduled = begun + due;
            let answer = timeout_at(scheduled + PATIENCE, ask(address, &free, &request)).await;
            Fate {
                due,
                latency: scheduled.elapsed(),
                status: answer.ok().flatten().unwrap_or(0),
            }
        });
        while let Some(fate) = sent.try_join_next() {
            fates.extend(fate);
        }
        due += Duration::from_secs_f64(-random.unit().ln() / rate);
    }
}

async fn ask(address: SocketAddr, free: &Mutex<Vec<Client>>, request: &[u8]) -> Option<u16> {
    let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut client = match kept {
        Some(client) => client,
        None => Client::connect(address).await.ok()?,
    };
    let answer = client.ask(request).await.ok()?;
    if !answer.closes {
        free.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(client);
    }
    Some(answer.status)
}

impl Load {
    /// Requests a second that were answered well and in time.
    pub(crate) fn goodput(&self) -> f64 {
        let good = |fate: &&Fate| fate.status == 200 && fate.latency <= GOOD;
        self.fates.iter().filter(good).count() as f64 / seconds(self.time)
    }

    /// How long the `share` of answers with that status took at most, in ms.
    pub(crate) fn latency(&self, status: u16, share: f64) -> f64 {
        let with_status = self.fates.iter().filter(|fate| fate.status == status);
        let mut times: Vec<_> = with_status.map(|fate| fate.latency).collect();
        millis(quantile(&mut times, share))
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.fates.iter().filter(|fate| fate.status == 0).count()
    }

    /// From when on it went as `usual`: the end of the last quarter of a second in which one in twenty was refused, not
    /// answered, or took longer.
    pub(crate) fn settled(&self, usual: Duration) -> Duration {
        const WINDOW: Duration = Duration::from_millis(250);
        let windows = self.time.div_duration_f64(WINDOW).ceil() as usize;
        let mut asked = vec![(0, 0); windows];
        for fate in &self.fates {
            let window = fate.due.div_duration_f64(WINDOW) as usize;
            let (all, trouble) = &mut asked[window.min(windows - 1)];
            *all += 1;
            *trouble += usize::from(fate.status != 200 || fate.latency > usual);
        }
        let last = asked
            .iter()
            .rposition(|(all, trouble)| trouble * 20 >= (*all).max(1));
        WINDOW * last.map_or(0, |last| last as u32 + 1)
    }
}

/// xorshift64*: the same load each time.
struct Random(u64);

impl Random {
    /// Above zero, up to one.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        (bits + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaps_between_requests_are_exponential() {
        let mut random = Random(1);
        let gaps: Vec<f64> = (0..100_000).map(|_| -random.unit().ln()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let longer = gaps.iter().filter(|gap| **gap > 1.0).count() as f64 / gaps.len() as f64;
        assert!(
            (mean - 1.0).abs() < 0.02 && (longer - (-1f64).exp()).abs() < 0.01,
            "{mean} {longer}"
        );
    }
}
