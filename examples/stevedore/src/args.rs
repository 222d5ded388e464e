//! Arguments in, a plan out; whatever can't work gets a sentence here, before anything is sent.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use http::{HeaderName, HeaderValue, Method, Uri, header};

use crate::amount::parse_duration;
use crate::condition::Condition;
use crate::misbehave::Misbehavior;
use crate::plan::{Bad, End, Load, Plan};
use crate::random::Random;
use crate::schedule::Arrivals;
use crate::target::{self, Address, Form};

/// Says how an HTTP server really behaves under load, and when it is itself the bottleneck.
///
/// Without -n, -z or --requests it sends 200 requests on 50 connections to http://127.0.0.1:8888/.
#[derive(Debug, Parser)]
#[command(name = "stevedore", version, after_help = AFTER)]
pub(crate) struct Args {
    /// Where requests go, in turn
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8888/")]
    urls: Vec<String>,
    /// The same URLs at each of these ports, in turn
    #[arg(long, value_name = "PORT,…", value_delimiter = ',')]
    ports: Vec<u16>,
    /// A Unix socket instead of the URL's address
    #[arg(
        long,
        visible_alias = "unix-socket",
        value_name = "PATH",
        conflicts_with = "ports"
    )]
    unix: Option<PathBuf>,

    /// Requests in all [default: 200]
    #[arg(short = 'n', value_name = "N", help_heading = "Load")]
    total: Option<u64>,
    /// Requests for each thread
    #[arg(long, value_name = "N", conflicts_with_all = ["total", "duration"], help_heading = "Load")]
    requests: Option<u64>,
    /// For how long instead of how many: 10s, 1.5m, 250ms; -n is ignored then
    #[arg(short = 'z', long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    duration: Option<Duration>,
    /// Requests under way at a time, each with its connections [default: 50, or one a thread if those are more]
    #[arg(short = 'c', long, value_name = "N", help_heading = "Load")]
    connections: Option<usize>,
    /// Threads that send [default: half of the cores]
    #[arg(long, value_name = "N", help_heading = "Load")]
    threads: Option<usize>,
    /// Requests a second in all, whatever the server does (an open loop)
    #[arg(short = 'q', long, value_name = "N", help_heading = "Load")]
    rate: Option<f64>,
    /// How the requests of --rate are spread
    #[arg(
        long,
        value_enum,
        default_value = "poisson",
        requires = "rate",
        help_heading = "Load"
    )]
    arrivals: Arrivals,
    /// Wait for requests under way when the time of -z is over
    #[arg(short = 'w', long, help_heading = "Load")]
    wait: bool,
    /// Requests that go out in one piece before their answers are awaited
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pipeline: usize,
    /// A new connection for each request
    #[arg(long, visible_alias = "disable-keepalive", help_heading = "Load")]
    no_keepalive: bool,
    /// Highest rate at which this holds: 'p99<20ms'. Each try takes -z, 3s unless told
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["rate", "misbehave", "total", "requests"], help_heading = "Load")]
    find_knee: Option<Condition>,

    /// Method [default: GET, or POST with --verify]
    #[arg(short = 'm', long, value_name = "METHOD", help_heading = "Request")]
    method: Option<String>,
    /// Content
    #[arg(short = 'd', long, value_name = "TEXT", help_heading = "Request")]
    data: Option<String>,
    /// Content from a file
    #[arg(
        short = 'D',
        long,
        value_name = "PATH",
        conflicts_with = "data",
        help_heading = "Request"
    )]
    data_file: Option<PathBuf>,
    /// A header field, 'name: value'; may be given again
    #[arg(
        short = 'H',
        long = "header",
        value_name = "FIELD",
        help_heading = "Request"
    )]
    headers: Vec<String>,
    /// Accept
    #[arg(short = 'A', long, value_name = "TYPES", help_heading = "Request")]
    accept: Option<String>,
    /// Content-Type
    #[arg(short = 'T', long, value_name = "TYPE", help_heading = "Request")]
    content_type: Option<String>,
    /// How long a request may take
    #[arg(short = 't', long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Request")]
    timeout: Duration,
    /// HTTP/1.0 instead of HTTP/1.1
    #[arg(long = "http1.0", help_heading = "Request")]
    http_1_0: bool,
    /// Unique contents, which the server must echo: finds answers that were given to the wrong request
    #[arg(long, help_heading = "Request")]
    verify: bool,

    /// Bad clients beside the good ones, on a thread of their own
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Bad clients")]
    misbehave: Option<Misbehavior>,
    /// How many of them
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        requires = "misbehave",
        help_heading = "Bad clients"
    )]
    bad: usize,

    /// Exit with 1 if this came true: 'p99>20ms', 'errors>0'; may be given again
    #[arg(long, value_name = "CONDITION", help_heading = "Results")]
    fail_if: Vec<Condition>,
    /// What changed since the run that wrote this file with --json, with 95 % intervals
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "find_knee",
        help_heading = "Results"
    )]
    compare: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
    /// No live view, and of the report the last line alone
    #[arg(long, help_heading = "Results")]
    quiet: bool,
    /// A line now and then instead of the live view, as when the output is no terminal
    #[arg(long, help_heading = "Results")]
    no_tui: bool,
    /// Load something that isn't this machine: you are allowed to, and know what it does
    #[arg(long)]
    yes_i_may: bool,
}

/// Where results are written; `-` is the standard output, which then holds nothing else.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Files {
    /// Everything, for machines and for --compare (schema: stevedore's README)
    #[arg(short = 'j', long, value_name = "PATH", num_args = 0..=1, default_missing_value = "-", help_heading = "Results")]
    pub(crate) json: Option<PathBuf>,
    /// How it went over time, a line a slice
    #[arg(long, value_name = "PATH", help_heading = "Results")]
    pub(crate) csv: Option<PathBuf>,
    /// The latencies' percentiles, as HdrHistogram's plotters read them
    #[arg(long, value_name = "PATH", help_heading = "Results")]
    pub(crate) hgrm: Option<PathBuf>,
    /// A picture: latency over time and its distribution
    #[arg(long, value_name = "PATH", help_heading = "Results")]
    pub(crate) svg: Option<PathBuf>,
    /// A page: picture, tables, errors; one file, nothing else to load
    #[arg(long, value_name = "PATH", help_heading = "Results")]
    pub(crate) html: Option<PathBuf>,
}

const AFTER: &str = "\
Latency counts from when a request was due: with --rate that is its place in the schedule, otherwise the end of the
answer before it. The time to open a connection is part of it, except for those opened before the start.

Exit status: 0 measured · 1 a --fail-if came true, or --verify found a wrong answer · 2 bad input, or nobody answers
· 3 the server went away midway · 130 interrupted. Whatever was measured until then is printed.

  stevedore --threads 10 --requests 10000
  stevedore -z 30s -c 100 --rate 5000 --html report.html http://127.0.0.1:8888/
  stevedore --find-knee 'p99<20ms' http://127.0.0.1:8888/
  stevedore -z 20s --misbehave slowloris --bad 200 http://127.0.0.1:8888/";

/// What to do and what to do with it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    pub(crate) knee: Option<Condition>,
    pub(crate) fail_if: Vec<Condition>,
    pub(crate) compare: Option<PathBuf>,
    pub(crate) files: Files,
    pub(crate) quiet: bool,
    pub(crate) no_tui: bool,
}

/// A second is as good as never, and an `Instant` has an end.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Args {
    /// # Errors
    ///
    /// A sentence about what can't work.
    pub(crate) fn job(self) -> Result<Job, String> {
        let threads = match (self.threads, self.connections) {
            (Some(threads), _) => threads,
            (None, connections) => default_threads()
                .min(connections.unwrap_or(usize::MAX))
                .max(1),
        };
        let connections = self.connections.unwrap_or(threads.max(50));
        in_range("--threads", threads, 1, 1024)?;
        in_range("-c", connections, 1, 1_000_000)?;
        in_range("--pipeline", self.pipeline, 1, 10_000)?;
        in_range("--bad", self.bad, 1, 100_000)?;
        if connections < threads {
            return Err(format!(
                "each thread needs a connection: -c {connections} is below --threads {threads}"
            ));
        }
        if self.pipeline > 1 && self.no_keepalive {
            return Err("--pipeline needs the connection that --no-keepalive gives up".to_owned());
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            return Err("-t wants a time above zero and below a month".to_owned());
        }
        let load = match self.rate {
            None => Load::Closed,
            Some(rate) if (0.001..=1e7).contains(&rate) => Load::Open {
                rate,
                arrivals: self.arrivals,
            },
            Some(rate) => {
                return Err(format!(
                    "--rate wants 0.001 to 10,000,000 requests a second, not {rate}"
                ));
            }
        };
        let end = self.end(threads)?;
        let form = self.form()?;
        let (addresses, targets) = self.targets(&form)?;
        let plan = Plan {
            targets,
            addresses,
            connections,
            threads,
            load,
            end,
            pipeline: self.pipeline,
            keep_alive: form.keep_alive,
            verify: self.verify,
            timeout: self.timeout,
            wait: self.wait,
            bad: self.misbehave.map(|how| Bad {
                how,
                clients: self.bad,
            }),
            seed: Random::seed(),
        };
        Ok(Job {
            plan: Arc::new(plan),
            knee: self.find_knee,
            fail_if: self.fail_if,
            compare: self.compare,
            files: self.files,
            quiet: self.quiet,
            no_tui: self.no_tui,
        })
    }

    fn end(&self, threads: usize) -> Result<End, String> {
        let requests = match (self.total, self.requests, self.duration) {
            (_, _, Some(time)) if time.is_zero() || time > LONGEST => {
                return Err("-z wants a time above zero and below a month".to_owned());
            }
            (_, _, Some(time)) => return Ok(End::After(time)),
            (Some(total), ..) => total,
            (_, Some(each), _) => each
                .checked_mul(threads as u64)
                .ok_or("--requests: that many can't be counted")?,
            _ if self.find_knee.is_some() => return Ok(End::After(Duration::from_secs(3))),
            // A server needs time to notice a bad client.
            _ if self.misbehave.is_some() => return Ok(End::After(Duration::from_secs(15))),
            _ => 200,
        };
        match requests {
            0 => Err("no requests: -n and --requests want at least one".to_owned()),
            requests => Ok(End::Requests(requests)),
        }
    }

    fn form(&self) -> Result<Form, String> {
        let content = match (&self.data, &self.data_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (_, Some(path)) => {
                std::fs::read(path).map_err(|error| format!("-D {}: {error}", path.display()))?
            }
            _ => Vec::new(),
        };
        let method = match &self.method {
            Some(method) => Method::from_bytes(method.as_bytes())
                .map_err(|_| format!("-m wants a method like GET, not `{method}`"))?,
            None if self.verify => Method::POST,
            None => Method::GET,
        };
        if method == Method::CONNECT {
            return Err("-m CONNECT asks for a tunnel, which is no load".to_owned());
        }
        if self.verify && matches!(method, Method::HEAD | Method::GET) {
            return Err(format!(
                "--verify needs a method whose content is echoed, not {method}"
            ));
        }
        let mut fields = Vec::new();
        for field in &self.headers {
            fields.push(target::parse_field(field)?);
        }
        fields.extend(self.short_field("-A", header::ACCEPT, self.accept.as_deref())?);
        fields.extend(self.short_field(
            "-T",
            header::CONTENT_TYPE,
            self.content_type.as_deref(),
        )?);
        Ok(Form {
            method,
            fields,
            content,
            http_1_0: self.http_1_0,
            keep_alive: !self.no_keepalive,
            verify: self.verify,
        })
    }

    fn short_field(
        &self,
        flag: &str,
        name: HeaderName,
        value: Option<&str>,
    ) -> Result<Option<(HeaderName, HeaderValue)>, String> {
        let parsed = value.map(HeaderValue::from_str).transpose();
        let value = parsed.map_err(|_| format!("{flag} wants the value of a header field"))?;
        Ok(value.map(|value| (name, value)))
    }

    /// Every URL at every port, and the addresses behind them, each once.
    fn targets(&self, form: &Form) -> Result<(Vec<Address>, Vec<target::Target>), String> {
        let urls = self
            .urls
            .iter()
            .map(|url| target::parse_url(url))
            .collect::<Result<Vec<Uri>, _>>()?;
        let mut all = Vec::new();
        for url in urls {
            if self.ports.is_empty() {
                all.push(url);
            } else {
                for port in &self.ports {
                    all.push(target::with_port(&url, *port)?);
                }
            }
        }
        let (mut addresses, mut targets) = (Vec::new(), Vec::new());
        for url in all {
            let address = match &self.unix {
                Some(path) => Address::Unix(path.clone()),
                None => target::resolve(&url)?,
            };
            if !address.is_local() && !self.yes_i_may {
                return Err(format!(
                    "{url} is not this machine. Load is an attack unless its owner agreed; if so, say --yes-i-may"
                ));
            }
            let place = addresses
                .iter()
                .position(|known| *known == address)
                .unwrap_or_else(|| {
                    addresses.push(address);
                    addresses.len() - 1
                });
            targets.push(form.target(url, place));
        }
        Ok((addresses, targets))
    }
}

/// The other half is the server's, when it runs on this machine.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

fn in_range(flag: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("{flag} wants {least} to {most}, not {value}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Args;
    use crate::plan::{End, Load};

    #[test]
    fn threads_times_requests_go_to_port_8888_of_this_machine_unless_told() {
        let args = ["stevedore", "--threads", "10", "--requests", "10000"];
        let plan = Args::parse_from(args).job().unwrap().plan;
        let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:8888"]);
        assert_eq!(plan.targets[0].url.path(), "/");
        assert!(matches!(plan.end, End::Requests(100_000)));
        assert!(matches!(plan.load, Load::Closed));
        assert_eq!(plan.threads, 10);
    }

    #[test]
    fn ports_take_turns_and_other_machines_need_a_word() {
        let job = |args: &[&str]| Args::parse_from([&["stevedore"], args].concat()).job();
        let plan = job(&["--ports", "8888,8889"]).unwrap().plan;
        let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:8888", "127.0.0.1:8889"]);
        // An address for documentation (RFC 5737): nothing is sent there.
        assert!(
            job(&["http://192.0.2.1/"])
                .unwrap_err()
                .contains("--yes-i-may")
        );
        assert!(job(&["--yes-i-may", "http://192.0.2.1/"]).is_ok());
    }
}
