//! What others put into a server's mouth: T22 field values with line ends, T24 upgrades out of turn, T31 addresses that a
//! client claims to have.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::Found;
use crate::Failure;
use crate::child::{Kind, SOON, Start, in_turn};
use crate::client::{Client, crowd};
use crate::run::Plan;
use crate::verdict::Verdict;

/// T22: a handler passes on what the client gave it, as the value of a field, as its name and as where to go next.
pub(super) async fn splitting(_: Plan) -> Found {
    // Line ends, what an incomplete conversion to bytes makes line ends of (U+010D, U+560D), and NUL.
    const ENDS: [&str; 9] = [
        "%0d%0a",
        "%0a",
        "%0d",
        "%00",
        "%0d%0a%20",
        "%c4%8d%c4%8a",
        "%e5%98%8d%e5%98%8a",
        "%e2%80%a8",
        "%0b",
    ];
    const PLACES: [&str; 3] = ["value", "name", "location"];
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let (mut injected, mut unanswered) = (0, 0);
        for (place, end) in PLACES.iter().flat_map(|place| ENDS.map(|end| (place, end))) {
            let request = format!(
                "GET /say/{place}/a{end}x-injected:1{end}{end}HTTP/1.1%20200%20OK HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            );
            let mut client = Client::connect(child.address).await?;
            client.send(request.as_bytes()).await?;
            let said = timeout(SOON, client.closed()).await?;
            let said = String::from_utf8_lossy(&said);
            let mut lines = said.split(['\r', '\n', '\0', '\u{b}']);
            unanswered += usize::from(!lines.next().unwrap_or_default().starts_with("HTTP/1.1 "));
            injected += lines
                .filter(|line| line.starts_with("x-injected") || line.starts_with("HTTP/"))
                .count();
        }
        Ok((injected, unanswered))
    })
    .await?;
    let what = |text: &str| format!("27 answers that repeat line ends of the client: {text}");
    Ok(vec![
        Verdict::new("T22", what("lines injected"), "", wharf.0)
            .axum(axum.0)
            .at_most(0.0),
        Verdict::new("T22", what("not answered"), "", wharf.1)
            .axum(axum.1)
            .at_most(0.0),
    ])
}

/// What the client says, in pieces of so many bytes, and all that has to come back.
struct Upgrade {
    says: &'static str,
    piece: usize,
    statuses: &'static [&'static str],
    /// Behind the last head.
    echo: &'static str,
}

const UPGRADES: [Upgrade; 6] = [
    // What comes behind the offer belongs to the other protocol, not a byte lost, doubled or out of its turn.
    Upgrade {
        says: "GET /switch-to-echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nGET / HTTP/1.1\r\nearly",
        piece: usize::MAX,
        statuses: &["101"],
        echo: "GET / HTTP/1.1\r\nearly",
    },
    Upgrade {
        says: "GET /switch-to-echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nGET / HTTP/1.1\r\nearly",
        piece: 1,
        statuses: &["101"],
        echo: "GET / HTTP/1.1\r\nearly",
    },
    // With content in between nobody could say where the other protocol begins: the offer is passed over.
    Upgrade {
        says: "POST /switch-to-echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\ncontent-length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        piece: usize::MAX,
        statuses: &["200", "200"],
        echo: "hello",
    },
    Upgrade {
        says: "POST /switch-to-echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        piece: usize::MAX,
        statuses: &["200", "200"],
        echo: "hello",
    },
    // Nobody took the offer: what follows is the next request.
    Upgrade {
        says: "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        piece: usize::MAX,
        statuses: &["200", "200"],
        echo: "hello",
    },
    // RFC 9110 section 7.8: an offer in HTTP/1.0 is ignored.
    Upgrade {
        says: "GET /switch-to-echo HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        piece: usize::MAX,
        statuses: &["200"],
        echo: "hello",
    },
];

/// T24.
pub(super) async fn upgrades(_: Plan) -> Found {
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let mut wrong = 0;
        for (at, upgrade) in UPGRADES.iter().enumerate() {
            let mut client = Client::connect(child.address).await?;
            for piece in upgrade.says.as_bytes().chunks(upgrade.piece) {
                client.send(piece).await?;
                tokio::task::yield_now().await;
            }
            let mut said = Vec::new();
            let whole = async {
                while !is_whole(&said, upgrade) {
                    if client.stream.read_buf(&mut said).await? == 0 {
                        break;
                    }
                }
                io::Result::Ok(())
            };
            // Who has nothing more to say is wrong, and so is who still waits.
            let _ = timeout(SOON / 20, whole).await;
            if !is_whole(&said, upgrade) {
                eprintln!("upgrade: {} is wrong in case {at}", kind.name());
                wrong += 1;
            }
        }
        Ok(wrong)
    })
    .await?;
    let what = "6 offers to upgrade, with early bytes, content, refused or old: answered wrong";
    Ok(vec![
        Verdict::new("T24", what, "", wharf).axum(axum).at_most(0.0),
    ])
}

fn is_whole(said: &[u8], upgrade: &Upgrade) -> bool {
    let said = String::from_utf8_lossy(said);
    let heads: Vec<_> = said.matches("HTTP/1.1 ").collect();
    // The echo may look like a request, and has no status line of its own.
    let statuses = said
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3));
    let last = said
        .rsplit_once(&"\r\n\r\n")
        .map_or("", |(_, behind)| behind);
    heads.len() == upgrade.statuses.len()
        && statuses.eq(upgrade.statuses.iter().copied())
        && last == upgrade.echo
}

/// Behind a proxy at 127.0.0.1, and nowhere else.
const TRUSTED: [&str; 2] = ["127.0.0.1", "10.1.2.3"];

/// T31: whom a server takes for the client, for all lists of these elements.
pub(super) async fn spoofing(plan: Plan) -> Found {
    const ELEMENTS: [&str; 6] = [
        "203.0.113.7",
        "10.1.2.3",
        "127.0.0.1",
        "unknown",
        "198.51.100.9:4711",
        "",
    ];
    let longest = plan.of(4, 3);
    let mut lists: Vec<Vec<&str>> = vec![vec![]];
    let mut all = 0;
    while lists[all].len() < longest {
        let list = lists[all].clone();
        lists.extend(ELEMENTS.map(|element| [&list[..], &[element]].concat()));
        all += 1;
    }
    let child = Start::of(Kind::Wharf).with("proxied", true).start()?;
    let mut believed = 0;
    let mut by_proxy = Client::connect(child.address).await?;
    let mut direct = Client::connect_from(0, child.address).await?;
    let itself = direct.stream.local_addr()?.ip().to_string();
    for list in &lists {
        let fields = format!("x-forwarded-for: {}\r\n", list.join(", "));
        let told = whoami(&mut direct, &fields).await?;
        believed += usize::from(told != itself);
        let told = whoami(&mut by_proxy, &fields).await?;
        believed += usize::from(told != client_of(list));
    }
    let (keys, grown) = limiter(plan, child.address, || child.memory_kib()).await?;
    Ok(vec![
        Verdict::new(
            "T31",
            format!("{} claims of an address: wrongly believed", 2 * lists.len()),
            "",
            believed,
        )
        .at_most(0.0),
        plan.scaled(
            Verdict::new(
                "T31",
                format!("a rate limiter that has seen {keys} clients: memory"),
                "MiB",
                grown / 1024.0,
            )
            .at_most(16.0),
            MANY,
            FEWER,
        ),
    ])
}

/// By the rule, read from the end: who isn't trusted is the client; what is no address leaves the proxy that wrote it.
fn client_of(list: &[&str]) -> String {
    let mut client = TRUSTED[0];
    for element in list.iter().rev().filter(|element| !element.is_empty()) {
        let ip = element.split(':').next().unwrap_or_default();
        if ip.parse::<std::net::IpAddr>().is_err() {
            break;
        }
        client = ip;
        if !TRUSTED.contains(&ip) {
            break;
        }
    }
    client.to_owned()
}

async fn whoami(client: &mut Client, fields: &str) -> io::Result<String> {
    let request = format!("GET /client HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let answer = client.ask(request.as_bytes()).await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

const MANY: usize = 1_000_000;
const FEWER: usize = 50_000;

/// By how much a server grows, in KiB, that is asked by so many clients.
async fn limiter(
    plan: Plan,
    address: SocketAddr,
    memory: impl Fn() -> Result<f64, Failure>,
) -> Result<(usize, f64), Failure> {
    const AT_ONCE: usize = 50;
    let keys = plan.of(MANY, FEWER);
    let before = memory()?;
    let each = keys / 4;
    crowd(4, async |number| {
        let mut client = Client::connect(address).await?;
        for first in (0..each).step_by(AT_ONCE) {
            let requests: String = (first..first + AT_ONCE)
                .map(|key| {
                    let [_, a, b, c] = ((number * each + key) as u32).to_be_bytes();
                    format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 11.{a}.{b}.{c}\r\n\r\n")
                })
                .collect();
            client.send(requests.as_bytes()).await?;
            for _ in 0..AT_ONCE {
                timeout(SOON, client.answer()).await??;
            }
        }
        io::Result::Ok(())
    })
    .await?;
    Ok((keys, memory()? - before))
}
