//! A small client against the server itself, so that the page has something to show: eight connections at most, a few
//! hundred requests a second, a hundred blobs. Some of what it does is wrong, as in life.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wharf::BoxError;

use crate::settings::Settings;
use crate::tls::Secure;
use client::{Client, Door};

mod client;

/// Blobs that it stores and asks for.
const BLOBS: u64 = 100;
/// The largest of them.
const LARGEST: u64 = 192 * 1024;
/// Of which type they are.
const TYPE: &str = "content-type: application/x-object\r\n";
/// Before it tries again to connect.
const AGAIN: Duration = Duration::from_millis(500);

/// Starts it, in tasks of the runtime that this is called in.
///
/// # Errors
///
/// A sentence that says why there is nothing to connect to.
pub fn start(
    settings: &Settings,
    listening: &[String],
    secure: Option<&Secure>,
) -> Result<(), BoxError> {
    let address = listening
        .iter()
        .find_map(|one| one.parse::<SocketAddr>().ok());
    let Some(mut address) = address.filter(|_| settings.proxy_protocol.is_empty()) else {
        return Err(
            "--demo needs an address to connect to, and no --proxy-protocol before it".into(),
        );
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let tls = secure.map(|secure| {
        secure
            .connector
            .clone()
            .ok_or("--demo knows the certificate of --tls, but not whom to trust with --tls-cert")
    });
    let to = &Door {
        address,
        tls: tls.transpose()?,
    };
    start_one(to, write);
    (0..4).for_each(|_| start_one(to, read));
    start_one(to, pipeline);
    start_one(to, visit);
    start_one(to, blunder);
    Ok(())
}

/// One who does the same again and again, whatever becomes of it.
fn start_one<F>(to: &Door, act: impl Fn(Client, Dice) -> F + Send + 'static)
where
    F: Future<Output = io::Result<()>> + Send,
{
    let to = to.clone();
    tokio::spawn(async move {
        loop {
            let done = match Client::connect(&to).await {
                Ok(client) => act(client, Dice::new()).await,
                Err(error) => Err(error),
            };
            if done.is_err() {
                sleep(AGAIN).await;
            }
        }
    });
}

/// Stores blobs, and now and then removes one.
async fn write(mut client: Client, mut dice: Dice) -> io::Result<()> {
    for number in 0..BLOBS {
        let path = format!("/b/demo/object-{number:02}");
        client.ask("PUT", &path, TYPE, &dice.content()).await?;
    }
    loop {
        let path = dice.blob();
        if dice.chance(5) {
            client.ask("DELETE", &path, "", &[]).await?;
        } else {
            client.ask("PUT", &path, TYPE, &dice.content()).await?;
        }
        sleep(Duration::from_millis(50 + dice.below(150))).await;
    }
}

/// Asks for blobs: whole, in part, only if they are new; and for some that never were.
async fn read(mut client: Client, mut dice: Dice) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let path = dice.blob();
        match dice.below(20) {
            0 => client.ask("HEAD", &path, "", &[]).await?,
            1 => {
                client
                    .ask("GET", &path, "range: bytes=0-4095\r\n", &[])
                    .await?
            }
            2 => client.ask("GET", "/b/demo/no-such-object", "", &[]).await?,
            3 => client.ask("GET", "/b/demo?limit=20", "", &[]).await?,
            _ => client.ask("GET", &path, "", &[]).await?,
        };
        // It comes and goes like the tide, within a minute.
        let tide = (began.elapsed().as_secs_f64() / 60.0 * std::f64::consts::TAU).sin();
        let pause = 14.0 - 8.0 * tide;
        sleep(Duration::from_secs_f64(pause / 1000.0 * dice.exponential())).await;
    }
}

/// Sends several requests at once.
async fn pipeline(mut client: Client, mut dice: Dice) -> io::Result<()> {
    loop {
        let paths: Vec<_> = (0..2 + dice.below(7)).map(|_| dice.blob()).collect();
        client.ask_all(&paths).await?;
        sleep(Duration::from_millis(200 + dice.below(400))).await;
    }
}

/// Comes for a few requests and leaves.
async fn visit(mut client: Client, mut dice: Dice) -> io::Result<()> {
    for _ in 0..1 + dice.below(6) {
        client.ask("GET", &dice.blob(), "", &[]).await?;
        sleep(Duration::from_millis(dice.below(120))).await;
    }
    Ok(())
}

/// Sends what no server should take.
async fn blunder(mut client: Client, mut dice: Dice) -> io::Result<()> {
    const BLUNDERS: [&str; 5] = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/3.0\r\nhost: a\r\n\r\n",
    ];
    sleep(Duration::from_millis(500 + dice.below(3000))).await;
    let blunder = BLUNDERS[dice.below(BLUNDERS.len() as u64) as usize];
    client.send(blunder.as_bytes()).await?;
    client.answer("GET").await
}

/// Chance, good enough for this.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// The content of a blob: many are small, few are large.
    fn content(&mut self) -> Vec<u8> {
        let bound = LARGEST >> self.below(8);
        (0..=self.below(bound)).map(|_| self.next() as u8).collect()
    }

    /// One on average, as gaps between independent events are.
    fn exponential(&mut self) -> f64 {
        let even = (self.below(1 << 20) + 1) as f64 / (1 << 20) as f64;
        -even.ln()
    }

    /// The path of one of the blobs; some are asked for far more often than others.
    fn blob(&mut self) -> String {
        let bound = self.below(BLOBS) + 1;
        format!("/b/demo/object-{:02}", self.below(bound))
    }
}
