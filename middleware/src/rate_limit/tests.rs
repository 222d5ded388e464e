use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::rc::Rc;

use tower::ServiceExt;
use wharf::ConnInfo;

use super::*;

/// Ready at the second poll; fails the test if called before. Counts reservations that are held.
struct Picky {
    polled: u32,
    reserved: Rc<Cell<i32>>,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self {
            polled: 0,
            reserved: self.reserved.clone(),
        }
    }
}

impl Drop for Picky {
    fn drop(&mut self) {
        if self.polled >= 2 {
            self.reserved.set(self.reserved.get() - 1);
        }
    }
}

impl Service<Request<()>> for Picky {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polled += 1;
        match self.polled {
            1 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            2 => {
                self.reserved.set(self.reserved.get() + 1);
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.polled >= 2, "called without being ready");
        self.polled = 0;
        self.reserved.set(self.reserved.get() - 1);
        ready(Ok(Response::new("served".to_owned())))
    }
}

fn picky() -> (Picky, Rc<Cell<i32>>) {
    let reserved = Rc::<Cell<i32>>::default();
    let picky = Picky {
        polled: 0,
        reserved: reserved.clone(),
    };
    (picky, reserved)
}

fn from(peer: &str) -> Request<()> {
    let mut request = Request::new(());
    let mut info = ConnInfo::default();
    info.peer = SocketAddr::new(peer.parse().unwrap(), 40_000).into();
    request.extensions_mut().insert(info);
    request
}

async fn ask(service: &mut RateLimit<Picky>, request: Request<()>) -> Response<String> {
    service.ready().await.unwrap().call(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_address_has_its_own_budget_and_it_fills_up_evenly() {
    let mut service = RateLimitLayer::new(2, Duration::from_secs(10)).layer(picky().0);
    for (peer, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        assert_eq!(
            ask(&mut service, from(peer)).await.status(),
            status,
            "{peer}"
        );
    }
    tokio::time::advance(Duration::from_millis(5_001)).await;
    assert_eq!(ask(&mut service, from("192.0.2.1")).await.status(), 200);
    assert_eq!(ask(&mut service, from("192.0.2.1")).await.status(), 429);
}

#[tokio::test]
async fn behind_trusted_proxies_each_client_has_its_own_budget_and_nobody_invents_one() {
    let limit = RateLimitLayer::new(1, Duration::from_secs(10));
    let proxies = crate::TrustedProxies::x_forwarded_for();
    let mut service = proxies
        .trust(["10.0.0.0/8"])
        .unwrap()
        .layer(limit.layer(picky().0));
    for (peer, said, status) in [
        ("10.0.0.1", "192.0.2.1", 200),
        ("10.0.0.1", "192.0.2.2", 200),
        ("10.0.0.2", "192.0.2.1", 429),
        // What the client itself has put in front changes nothing, nor does a client without a proxy.
        ("10.0.0.1", "203.0.113.9, 192.0.2.1", 429),
        ("192.0.2.1", "203.0.113.10", 429),
    ] {
        let mut request = from(peer);
        let fields = request.headers_mut();
        fields.insert("x-forwarded-for", said.parse().unwrap());
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), status, "{said} by way of {peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_tell_what_is_left() {
    let layer = RateLimitLayer::new(60, Duration::from_secs(60))
        .burst(3)
        .name("per \"ip\"");
    let mut service = layer.layer(picky().0);
    let expected = [
        (200, "\"perip\";r=2;t=1", None),
        (200, "\"perip\";r=1;t=2", None),
        (200, "\"perip\";r=0;t=3", None),
        (429, "\"perip\";r=0;t=3", Some("1")),
    ];
    for (status, limit, retry_after) in expected {
        let response = ask(&mut service, from("192.0.2.1")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["ratelimit-policy"], "\"perip\";q=3;w=3");
        assert_eq!(response.headers()["ratelimit"], limit);
        let retry = response
            .headers()
            .get("retry-after")
            .map(|v| v.to_str().unwrap());
        assert_eq!(retry, retry_after);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_limit_adds_to_the_fields_of_the_first() {
    let outer = RateLimitLayer::new(10, Duration::from_secs(1)).name("outer");
    let inner = RateLimitLayer::new(5, Duration::from_secs(1)).name("inner");
    let response = outer
        .layer(inner.layer(picky().0))
        .oneshot(from("192.0.2.1"))
        .await;
    let response = response.unwrap();
    let limits: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
    assert_eq!(limits, ["\"inner\";r=4;t=1", "\"outer\";r=9;t=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_no_reservation_of_the_inner_service() {
    let (picky, reserved) = picky();
    let layer = RateLimitLayer::new(1, Duration::from_secs(10)).without_fields();
    let mut service = layer.layer(picky);
    let served = ask(&mut service, from("192.0.2.1")).await;
    assert!(served.headers().is_empty());
    assert_eq!(ask(&mut service, from("192.0.2.1")).await.status(), 429);
    assert_eq!(reserved.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_address_shares_and_who_has_no_key_is_free() {
    let layer = RateLimitLayer::new(1, Duration::from_secs(10));
    let mut service = layer.clone().layer(picky().0);
    assert_eq!(ask(&mut service, Request::new(())).await.status(), 200);
    assert_eq!(ask(&mut service, Request::new(())).await.status(), 429);

    let layer = layer.by_key(|request: &Request<()>| request.headers().get("x-key").cloned());
    let mut service = layer.layer(picky().0);
    for _ in 0..3 {
        let response = service.ready().await.unwrap().call(Request::new(())).await;
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn many_more_than_the_rate_get_the_rate() {
    let mut service = RateLimitLayer::new(100, Duration::from_secs(1)).layer(picky().0);
    let mut served = 0;
    for _ in 0..10_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        let response = ask(&mut service, from("192.0.2.1")).await;
        served += u32::from(response.status() == 200);
    }
    assert!(
        (1_099..=1_101).contains(&served),
        "100 at once, 100 a second: {served}"
    );
}

#[tokio::test]
async fn on_wharf_the_address_comes_with_the_body() {
    let mut info = ConnInfo::default();
    info.peer = SocketAddr::from(([192, 0, 2, 7], 40_000)).into();
    let (client, server) = tokio::io::duplex(4_096);
    let limit = RateLimitLayer::new(1, Duration::from_secs(10));
    let by_unknown = limit.limiter.hasher.hash_one(None::<std::net::IpAddr>);
    let layer = limit.clone();
    let service = layer.layer(tower::service_fn(async |_: Request<wharf::Body>| {
        Ok::<_, Infallible>(Response::new(wharf::Body::empty()))
    }));
    let connection = wharf::Http::new().layer(service);
    let serve = connection.oneshot(wharf::Conn::new(server, info));
    let talk = async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut client = client;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (_, answer) = tokio::join!(serve, talk);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let known: std::net::IpAddr = [192, 0, 2, 7].into();
    let by_address = limit.limiter.hasher.hash_one(Some(known));
    assert!(matches!(
        limit.limiter.count(by_address),
        Verdict::Beyond { .. }
    ));
    assert!(matches!(
        limit.limiter.count(by_unknown),
        Verdict::Within { .. }
    ));
}
