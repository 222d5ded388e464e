//! What the machine does: T38 the process is stopped and goes on, T39 the clock jumps, T40 memory under all attacks at once,
//! T43 and T44 what bytes cost that were chosen to cost much.

use std::collections::HashMap;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use http::HeaderName;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use wharf::Limits;

use super::Found;
use crate::Failure;
use crate::child::{Child, Kind, SOON, Start, in_turn, side_by_side};
use crate::client::{Client, crowd, each, get, post};
use crate::figures::median;
use crate::run::Plan;
use crate::verdict::Verdict;

/// T38: stopped for longer than its deadlines, while what its clients had to send arrives.
pub(super) async fn stopped(plan: Plan) -> Found {
    const CLIENTS: usize = 50;
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).with("hurry", plan.hurry()).start()?;
        let mut heads = crowd(CLIENTS, async |_| {
            let mut client = Client::connect(child.address).await?;
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n").await?;
            io::Result::Ok(client)
        })
        .await?;
        let mut bodies = crowd(CLIENTS, async |_| {
            let mut client = Client::connect(child.address).await?;
            client.send(&post("/swallow", 100_000)).await?;
            client.send(&[b'x'; 50_000]).await?;
            io::Result::Ok(client)
        })
        .await?;
        sleep(Duration::from_millis(100)).await;
        child.signal(Signal::STOP)?;
        for client in &mut heads {
            client.send(b"\r\n").await?;
        }
        for client in &mut bodies {
            client.send(&[b'x'; 50_000]).await?;
        }
        sleep(plan.patience(32.0)).await;
        child.signal(Signal::CONT)?;
        let answered = async |mut client: Client| {
            let answer = timeout(SOON, client.answer()).await;
            matches!(answer, Ok(Ok(answer)) if answer.status == 200)
        };
        let answered = each(heads.into_iter().chain(bodies), answered).await;
        Ok(answered.into_iter().filter(|answered| !answered).count())
    })
    .await?;
    Ok(vec![
        plan.hurried(
            Verdict::new(
                "T38",
                "of 100 requests that arrived while it was stopped, lost",
                "",
                wharf,
            )
            .axum(axum)
            .at_most(0.0),
        ),
    ])
}

/// T39: the wall clock jumps by an hour, there and back.
pub(super) async fn clock(_: Plan) -> Found {
    const HOUR: i64 = 3600;
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|place| format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .ok_or("libfaketime isn't installed (Debian's package faketime)")?;
    let (wharf, axum) = side_by_side(async |kind| {
        let file = std::env::temp_dir().join(format!(
            "wharf-attack-{}-{}.clock",
            std::process::id(),
            kind.name()
        ));
        fs::write(&file, "+0s")?;
        let (preload, clock) = (
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        );
        let environment = [
            "env",
            &preload,
            &clock,
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ];
        let child = Start::of(kind).under(&environment).start()?;
        let mut idle = Client::connect(child.address).await?;
        let mut half = Client::connect(child.address).await?;
        half.send(b"GET / HTTP/1.1\r\nhost: a\r\n").await?;
        let (mut lost, mut error) = (0, 0.0_f64);
        for jump in [0, HOUR, -HOUR, 0] {
            fs::write(&file, format!("{jump:+}s"))?;
            // A server may write the same Date for a second.
            sleep(Duration::from_millis(1200)).await;
            match idle.ask(&get("/")).await {
                Ok(answer) => error = error.max(date_error(answer.date.as_deref(), jump)?),
                Err(_) => lost += 1,
            }
        }
        lost += usize::from(half.ask(b"\r\n").await.is_err());
        fs::remove_file(&file)?;
        Ok((lost, error))
    })
    .await?;
    Ok(vec![
        Verdict::new(
            "T39",
            "the clock jumps by an hour: connections lost",
            "",
            wharf.0,
        )
        .axum(axum.0)
        .at_most(0.0),
        Verdict::new(
            "T39",
            "the clock jumps by an hour: Date is wrong by",
            "s",
            wharf.1,
        )
        .axum(axum.1)
        .at_most(2.0),
    ])
}

fn date_error(date: Option<&str>, jump: i64) -> Result<f64, Failure> {
    let said = httpdate::parse_http_date(date.ok_or("no Date")?)?;
    let since = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map(|time| time.as_secs_f64())
    };
    Ok((since(said)? - since(SystemTime::now())? - jump as f64).abs())
}

/// What connections may hold on average in the protocol layer, whatever their peers do; one alone may hold what
/// [`Limits::connection_bytes`] says.
const KIB_PER_CONNECTION: f64 = 96.0;

/// What a peer sends, reading nothing, to make its connection hold much.
fn hungry() -> [(&'static str, Vec<u8>); 9] {
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(30_000));
    let upload = [&post("/swallow", 1 << 30)[..], &[b'x'; 60_000]].concat();
    let echo = [&post("/echo", 1 << 30)[..], &vec![b'x'; 8 << 20]].concat();
    let trailers = format!(
        "POST /swallow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: {}",
        "y".repeat(4_000)
    );
    [
        ("silence", Vec::new()),
        ("a head that doesn't end", head.into_bytes()),
        ("an upload that stalls", upload),
        ("an upload that is echoed", echo),
        ("trailers that don't end", trailers.into_bytes()),
        ("a large answer that isn't read", get("/big/1073741824")),
        ("pipelining, small", get("/").repeat(30_000)),
        ("pipelining, large", get("/big/65536").repeat(20_000)),
        (
            "a handler that takes its time, and more behind it",
            get("/sleep/60000").repeat(2_000),
        ),
    ]
}

/// T40: all attacks at once, and each alone, against the published bounds.
pub(super) async fn memory(plan: Plan) -> Found {
    let each_kind = plan.of(100, 30);
    let attacks = hungry();
    let connections = each_kind * attacks.len();
    let attacks: Vec<_> = attacks
        .iter()
        .map(|(what, bytes)| (*what, &bytes[..]))
        .collect();
    let (wharf, axum) = in_turn(async |kind| most_held(kind, connections, &attacks).await).await?;
    let mut verdicts = vec![
        Verdict::new(
            "T40",
            format!(
                "{connections} connections with {} attacks at once: most memory for each",
                attacks.len()
            ),
            "KiB",
            wharf,
        )
        .axum(axum)
        .at_most(1.2 * KIB_PER_CONNECTION),
    ];
    let formula = Limits::default().connection_bytes() as f64 / 1024.0;
    for attack in attacks.iter().filter(|_| !plan.quick) {
        let (wharf, axum) =
            in_turn(async |kind| most_held(kind, each_kind, &[*attack]).await).await?;
        let what = format!(
            "{each_kind} connections with {}: most memory for each",
            attack.0
        );
        verdicts.push(
            Verdict::new("T40", what, "KiB", wharf)
                .axum(axum)
                .at_most(1.2 * formula),
        );
    }
    Ok(verdicts)
}

/// The most memory for each of so many connections, each with one of the attacks, in KiB.
async fn most_held(
    kind: Kind,
    connections: usize,
    attacks: &[(&str, &[u8])],
) -> Result<f64, Failure> {
    let child = Start::of(kind).start()?;
    crowd(50, async |_| {
        crate::client::ask_once(child.address, &get("/")).await
    })
    .await?;
    let memory = child.memory_kib()?;
    let mut most = 0.0_f64;
    let watch = async {
        loop {
            most = most.max(child.memory_kib()? - memory);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let attack = async {
        let all = crowd(connections, async |number| {
            Client::connect_from(number, child.address).await
        })
        .await?;
        let all = all.into_iter().enumerate();
        let held = each(all, async |(number, mut client)| {
            let (_, bytes) = attacks[number % attacks.len()];
            // Whoever isn't read any more holds what it has sent.
            let _ = timeout(Duration::from_secs(3), client.send(bytes)).await;
            client
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        drop(held);
        Ok::<_, Failure>(())
    };
    tokio::select! {
        end = watch => { let end: Result<(), Failure> = end; end? }
        end = attack => end?,
    }
    Ok(most / connections as f64)
}

/// T43: a head that comes in single bytes: four times as long, it may cost four times as much, not sixteen times.
pub(super) async fn single_bytes(plan: Plan) -> Found {
    let rounds = plan.of(12, 6);
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            short.push(byte_by_byte(&child, 7_500).await?);
            long.push(byte_by_byte(&child, 30_000).await?);
        }
        Ok((median(&mut long), median(&mut long) / median(&mut short)))
    })
    .await?;
    Ok(vec![
        plan.timed(
            Verdict::new(
                "T43",
                "a head of 30 kB in single bytes: processor time for a byte",
                "ns",
                wharf.0,
            )
            .axum(axum.0)
            .at_most_or_as_axum(2_000.0),
        ),
        Verdict::new(
            "T43",
            "a head in single bytes: the same, times that of one of 7.5 kB",
            "",
            wharf.1,
        )
        .axum(axum.1)
        .at_most_or_as_axum(2.0),
    ])
}

/// What the server's processor spends on each byte, in ns.
async fn byte_by_byte(child: &Child, bytes: usize) -> Result<f64, Failure> {
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(bytes)
    );
    let (address, cpu) = (child.address, child.cpu()?);
    let mut answer = [0; 15];
    let sent = move || -> io::Result<[u8; 15]> {
        let mut client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(SOON))?;
        for byte in head.as_bytes() {
            client.write_all(&[*byte])?;
        }
        io::Read::read_exact(&mut client, &mut answer)?;
        Ok(answer)
    };
    let answer = tokio::task::spawn_blocking(sent).await??;
    if &answer != b"HTTP/1.1 200 OK" {
        return Err(format!("answered {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok((child.cpu()? - cpu).as_nanos() as f64 / bytes as f64)
}

/// T44: 90 field names chosen to fall into one place of the map of fields.
pub(super) async fn colliding_names(plan: Plan) -> Found {
    let (requests, rounds) = (plan.of(4_000, 500), plan.of(5, 3));
    let mut names = colliding();
    let head = |names: &[String]| {
        let fields: String = names.iter().map(|name| format!("{name}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n").into_bytes()
    };
    let chosen = head(&names);
    names
        .iter_mut()
        .enumerate()
        .for_each(|(number, name)| *name = format!("x{number:06}"));
    let usual = head(&names);
    let (mut wharf, mut axum) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one, other) = in_turn(async |kind| {
            let chosen = cost(kind, &chosen, requests).await?;
            Ok(chosen / cost(kind, &usual, requests).await?)
        })
        .await?;
        wharf.push(one);
        axum.push(other);
    }
    Ok(vec![
        Verdict::new(
            "T44",
            "90 field names that collide: a request costs, times one of others",
            "",
            median(&mut wharf),
        )
        .axum(median(&mut axum))
        .at_most(2.0),
    ])
}

async fn cost(kind: Kind, request: &[u8], count: usize) -> Result<f64, Failure> {
    let child = Start::of(kind).start()?;
    let mut client = Client::connect(child.address).await?;
    client.ask(request).await?;
    let cpu = child.cpu()?;
    for _ in 0..count {
        if client.ask(request).await?.status != 200 {
            return Err("it was refused".into());
        }
    }
    Ok((child.cpu()? - cpu).as_secs_f64())
}

/// Names whose hash, as `http::HeaderMap` computes it, is the same in the bits that it uses.
fn colliding() -> Vec<String> {
    const BITS: u64 = (1 << 15) - 1;
    let mut places: HashMap<u64, Vec<String>> = HashMap::new();
    for number in 0..0x00ff_ffff_u32 {
        let text = format!("x{number:06x}");
        let Ok(name) = HeaderName::try_from(text.as_str()) else {
            continue;
        };
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        name.hash(&mut hash);
        // One place in a hundred keeps the memory small, and is enough.
        let place = hash.finish() & BITS;
        if place < 300 {
            let names = places.entry(place).or_default();
            names.push(text);
            if names.len() == 90 {
                return names.clone();
            }
        }
    }
    Vec::new()
}

/// FNV-1a.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
