//! A WebSocket on the same port as the page that opens it: whatever one says, all hear, and a shutdown says goodbye to each.
//!
//! ```text
//! cargo run --release --features websocket --example chat     # then open http://127.0.0.1:8888 in two windows
//! ```

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, header};
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tower::service_fn;
use wharf::upgrade::{Stop, Upgraded};
use wharf::{Body, BoxError};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>wharf: chat</title>
<style>:root { color-scheme: light dark; font: 1rem/1.5 system-ui } body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
input { width: 100%; font: inherit; padding: .5rem; box-sizing: border-box }</style>
<h1>Chat</h1><ol id="said"></ol><form><input id="say" placeholder="Say something" autofocus maxlength="1000"></form>
<script>
const show = text => said.appendChild(document.createElement('li')).textContent = text;
const socket = new WebSocket(`ws://${location.host}/chat`);
socket.onmessage = event => show(event.data);
socket.onclose = event => show(`(closed: ${event.code} ${event.reason})`);
document.forms[0].onsubmit = event => { event.preventDefault(); socket.send(say.value); say.value = ''; };
</script>"#;

/// A message may be so long; what is longer ends its connection.
const MESSAGE_BYTES: usize = 16 << 10;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Whoever falls 256 messages behind misses some.
    let (room, _) = broadcast::channel(256);
    let app = service_fn(move |request| answer(request, room.clone()));
    println!("listening on http://127.0.0.1:8888");
    let report = wharf::serve("127.0.0.1:8888", app).await?;
    println!("{report}");
    Ok(())
}

async fn answer(
    mut request: Request<Body>,
    room: broadcast::Sender<String>,
) -> Result<Response<Body>, BoxError> {
    if request.uri().path() != "/chat" {
        let page = Response::builder().header(header::CONTENT_TYPE, "text/html; charset=utf-8");
        return Ok(page.body(PAGE.into())?);
    }
    let (response, upgrade) = wharf::upgrade::websocket(&mut request)?;
    upgrade.spawn(|socket, stop| chat(socket, stop, room));
    Ok(response)
}

async fn chat(socket: Upgraded, stop: Stop, room: broadcast::Sender<String>) {
    let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(limits)).await;
    let mut heard = room.subscribe();
    loop {
        let sent = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => { let _ = room.send(text.to_string()); Ok(()) }
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) | None => return,
            },
            said = heard.recv() => match said {
                Ok(text) => socket.send(Message::text(text)).await,
                Err(missed) => socket.send(Message::text(format!("({missed})"))).await,
            },
            () = stop.draining() => {
                let away = CloseFrame { code: CloseCode::Away, reason: "the server stops".into() };
                socket.close(Some(away)).await
            }
        };
        if sent.is_err() {
            return; // It is closed.
        }
    }
}
