//! What a run does, as plain data: made once from the arguments, read by every part, changed by none.

use std::time::Duration;

use crate::misbehave::Misbehavior;
use crate::schedule::Arrivals;
use crate::target::{Address, Target};

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) load: Load,
    pub(crate) end: End,
    /// Requests that go out in one piece at most.
    pub(crate) pipeline: usize,
    pub(crate) keep_alive: bool,
    pub(crate) verify: bool,
    pub(crate) timeout: Duration,
    /// Requests under way when the time is over are waited for.
    pub(crate) wait: bool,
    pub(crate) bad: Option<Bad>,
    pub(crate) seed: u64,
}

/// When a request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// As soon as the one before it on the connection is answered.
    Closed,
    /// When it is due, whatever the others do. Requests a second.
    Open { rate: f64, arrivals: Arrivals },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Requests(u64),
    After(Duration),
}

/// Clients that misbehave beside the good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) how: Misbehavior,
    pub(crate) clients: usize,
}

/// One thread's part of a plan.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) thread: usize,
    /// Its connections, as numbers among all.
    pub(crate) workers: std::ops::Range<usize>,
    pub(crate) requests: Option<u64>,
}

impl Plan {
    /// Requests and connections as evenly as can be.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let part = |all: u64, thread: usize| {
            let (all, threads, thread) = (u128::from(all), self.threads as u128, thread as u128);
            (all * thread / threads) as u64
        };
        let connections = self.connections as u64;
        (0..self.threads)
            .map(|thread| Share {
                thread,
                workers: part(connections, thread) as usize..part(connections, thread + 1) as usize,
                requests: match self.end {
                    End::Requests(all) => Some(part(all, thread + 1) - part(all, thread)),
                    End::After(_) => None,
                },
            })
            .collect()
    }

    /// What the run is about, in a line.
    pub(crate) fn describe(&self) -> String {
        let plural = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        let urls: Vec<String> = self
            .targets
            .iter()
            .map(|target| target.url.to_string())
            .collect();
        let to = match urls.as_slice() {
            [first, .., last] if urls.len() > 3 => {
                format!("{first} … {last} ({} URLs)", urls.len())
            }
            _ => urls.join(", "),
        };
        let load = match self.load {
            Load::Closed => "closed loop".to_owned(),
            Load::Open {
                rate,
                arrivals: Arrivals::Poisson,
            } => format!("{rate}/s at random times"),
            Load::Open {
                rate,
                arrivals: Arrivals::Even,
            } => format!("{rate}/s at even distances"),
        };
        let mut line = format!(
            "{to} · {} on {} · {load}",
            plural(self.connections, "connection"),
            plural(self.threads, "thread")
        );
        if self.pipeline > 1 {
            line += &format!(" · {} pipelined", self.pipeline);
        }
        if !self.keep_alive {
            line += " · a connection a request";
        }
        if self.verify {
            line += " · echoes compared";
        }
        if let Some(Bad { how, clients }) = self.bad {
            line += &format!(" · beside {} ({how})", plural(clients, "bad client"));
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{End, Load, Plan};
    use crate::target::{Address, Form, parse_url};
    use std::time::Duration;

    /// A plan of one thread for `GET /` at one address.
    pub(crate) fn plan() -> Plan {
        let form = Form {
            method: http::Method::GET,
            fields: Vec::new(),
            content: Vec::new(),
            http_1_0: false,
            keep_alive: true,
            verify: false,
        };
        Plan {
            targets: vec![form.target(parse_url("http://127.0.0.1:1/").unwrap(), 0)],
            addresses: vec![Address::Tcp(([127, 0, 0, 1], 1).into())],
            connections: 1,
            threads: 1,
            load: Load::Closed,
            end: End::Requests(1),
            pipeline: 1,
            keep_alive: true,
            verify: false,
            timeout: Duration::from_secs(30),
            wait: false,
            bad: None,
            seed: 1,
        }
    }

    #[test]
    fn shares_are_even_and_lose_nothing() {
        for (threads, connections, requests) in
            [(1, 1, 1), (3, 10, 100), (10, 50, 100_000), (7, 7, 3)]
        {
            let plan = Plan {
                threads,
                connections,
                end: End::Requests(requests),
                ..plan()
            };
            let shares = plan.shares();
            assert_eq!(
                shares
                    .iter()
                    .map(|share| share.requests.unwrap())
                    .sum::<u64>(),
                requests
            );
            assert_eq!(
                shares
                    .iter()
                    .map(|share| share.workers.len())
                    .sum::<usize>(),
                connections
            );
            let workers = shares.iter().map(|share| share.workers.len());
            assert!(workers.clone().max().unwrap() - workers.min().unwrap() <= 1);
        }
    }
}
