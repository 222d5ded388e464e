//! T27: handshakes that stop midway. Both servers speak HTTP/1 and HTTP/2 over TLS, axum by hyper-util and tokio-rustls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::Found;
use super::slow::{farthest, until_closed};
use crate::Failure;
use crate::child::{SOON, Start, in_turn};
use crate::client::{Client, crowd, each, get};
use crate::figures::seconds;
use crate::identity::Identity;
use crate::run::Plan;
use crate::verdict::{Seen, Verdict};

/// A client's first message.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    ClientConnection::new(config.clone(), Identity::name())?.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// One request over TLS, and nothing more.
async fn ask(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<()> {
    let shaken = TlsConnector::from(config.clone())
        .connect(Identity::name(), stream)
        .await?;
    asked(shaken).await
}

async fn asked(mut io: impl AsyncReadExt + AsyncWriteExt + Unpin) -> io::Result<()> {
    io.write_all(&get("/")).await?;
    io.flush().await?;
    let mut said = [0; 15];
    io.read_exact(&mut said).await?;
    match &said {
        b"HTTP/1.1 200 OK" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A handshake whose first message comes in single bytes, and a request after it.
async fn ask_in_bytes(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(), Failure> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let length = hello(config)?.len();
    let sliced = async {
        let (mut from_server, mut to_server) = stream.into_split();
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let up = async {
            for _ in 0..length {
                to_server.write_all(&[from_client.read_u8().await?]).await?;
                // A segment of its own each.
                tokio::task::yield_now().await;
            }
            tokio::io::copy(&mut from_client, &mut to_server).await
        };
        let down = tokio::io::copy(&mut from_server, &mut to_client);
        tokio::try_join!(up, down).map(|_| ())
    };
    let client = async {
        let shaken = TlsConnector::from(config.clone())
            .connect(Identity::name(), near)
            .await?;
        asked(shaken).await
    };
    tokio::select! {
        end = client => Ok(end?),
        end = sliced => { end?; Err("the connection ended".into()) }
    }
}

struct Stalled {
    end: Seen,
    memory: f64,
    refused: usize,
    bytewise: usize,
}

/// T27: first messages that come half, and whole ones that nothing follows.
pub(super) async fn handshakes(plan: Plan) -> Found {
    let (half, whole) = (plan.of(1_000, 100), plan.of(200, 50));
    const OTHERS: usize = 20;
    let (target, patience) = (plan.deadline(10.0), plan.patience(15.0));
    let identity = Identity::new()?;
    let config = identity.client()?;
    let first = hello(&config)?;
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind)
            .with("hurry", plan.hurry())
            .with("tls", identity.folder.display())
            .start()?;
        let address = child.address;
        // What the first handshakes leave behind is no attacker's.
        for _ in 0..OTHERS {
            ask(TcpStream::connect(address).await?, &config).await?;
        }
        let memory = child.memory_kib()?;
        let clients = crowd(half + whole, async |number| {
            let mut client = Client::connect_from(number, address).await?;
            let bytes = if number < half {
                first.len() / 2
            } else {
                first.len()
            };
            client.send(&first[..bytes]).await?;
            io::Result::Ok(client)
        })
        .await?;
        let honest = async {
            sleep(plan.patience(2.0)).await;
            let held = (child.memory_kib()? - memory) / (half + whole) as f64;
            let mut refused = 0;
            for _ in 0..OTHERS {
                let one = async { ask(TcpStream::connect(address).await?, &config).await };
                refused += usize::from(!matches!(timeout(SOON, one).await, Ok(Ok(()))));
            }
            let bytewise = timeout(SOON, ask_in_bytes(address, &config)).await;
            Ok::<_, Failure>((held, refused, usize::from(matches!(bytewise, Ok(Ok(()))))))
        };
        let ends = each(clients, async |client| {
            until_closed(client, None, plan, patience).await
        });
        let (ends, honest) = tokio::join!(ends, honest);
        let (memory, refused, bytewise) = honest?;
        Ok(Stalled {
            end: farthest(&ends, target, patience),
            memory,
            refused,
            bytewise,
        })
    })
    .await?;
    let what =
        |text: &str| format!("{half} half and {whole} whole first messages, then nothing: {text}");
    let mut verdicts = vec![
        plan.hurried(
            Verdict::new("T27", what("closed after"), "s", wharf.end)
                .axum(axum.end)
                .between(target - 0.5, target + 0.5),
        ),
        Verdict::new("T27", what("memory for each"), "KiB", wharf.memory)
            .axum(axum.memory)
            .at_most(24.0),
        Verdict::new("T27", what("others refused"), "", wharf.refused)
            .axum(axum.refused)
            .at_most(0.0),
        Verdict::new(
            "T27",
            "a first message in single bytes: served",
            "",
            wharf.bytewise,
        )
        .axum(axum.bytewise)
        .at_least(1.0),
    ];
    if !plan.quick {
        verdicts.push(crowded(&identity, &config, &first).await?);
    }
    Ok(verdicts)
}

/// More handshakes that stand still than may be worked on at a time.
async fn crowded(
    identity: &Identity,
    config: &Arc<ClientConfig>,
    first: &[u8],
) -> Result<Verdict, Failure> {
    const STILL: usize = 300;
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind)
            .with("tls", identity.folder.display())
            .start()?;
        let still = crowd(STILL, async |_| {
            let mut client = Client::connect(child.address).await?;
            client.send(first).await?;
            io::Result::Ok(client)
        })
        .await?;
        sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        let one = async { ask(TcpStream::connect(child.address).await?, config).await };
        timeout(SOON, one).await??;
        drop(still);
        Ok(seconds(begun.elapsed()))
    })
    .await?;
    let what = format!("{STILL} handshakes that stand still: a newcomer is served in");
    Ok(Verdict::new("T27", what, "s", wharf)
        .axum(axum)
        .at_most(3.0))
}
