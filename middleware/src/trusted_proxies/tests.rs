use std::convert::Infallible;
use std::future::ready;

use http::header::FORWARDED;
use http::{HeaderValue, Response};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::mock::{Picky, honours_readiness};

const PROXY: &str = "10.0.0.1";

/// What is believed when `peer` sends these fields; 10.0.0.0/8 and fd00::/8 are trusted.
fn seen(header: Header, peer: &str, fields: &[(&'static str, &[u8])]) -> Option<ClientAddress> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            *name,
            HeaderValue::from_bytes(value).expect("a field value"),
        );
    }
    let proxies = TrustedProxies::of(header)
        .x_forwarded_proto()
        .x_forwarded_host()
        .trust(["10.0.0.0/8", "fd00::/8"]);
    let peer = Peer::Ip(canonical(peer.parse().expect("an address")));
    proxies.unwrap().client(peer, &map)
}

fn x_forwarded_for(peer: &str, value: &str) -> String {
    let fields = [("x-forwarded-for", value.as_bytes())];
    seen(Header::XForwardedFor, peer, &fields)
        .unwrap()
        .ip
        .to_string()
}

fn forwarded(peer: &str, value: &[u8]) -> ClientAddress {
    seen(Header::Forwarded, peer, &[("forwarded", value)]).unwrap()
}

#[test]
fn the_rightmost_untrusted_address_is_the_client() {
    for (peer, value, client) in [
        // A peer that isn't listed is the client, whatever it says.
        ("203.0.113.7", "1.1.1.1", "203.0.113.7"),
        ("203.0.113.7", "10.0.0.1", "203.0.113.7"),
        ("11.0.0.0", "1.1.1.1", "11.0.0.0"),
        // A listed one is believed, for its own entry alone.
        (PROXY, "203.0.113.7", "203.0.113.7"),
        (PROXY, "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (PROXY, "10.9.9.9, 203.0.113.7", "203.0.113.7"),
        (
            PROXY,
            "1.1.1.1,203.0.113.7 , 10.0.0.2\t,10.0.0.3",
            "203.0.113.7",
        ),
        // All of them trusted: the farthest.
        (PROXY, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (PROXY, "", PROXY),
        (PROXY, " , ,", PROXY),
        (PROXY, "203.0.113.7, ,", "203.0.113.7"),
        // What is no address ends the reading at who wrote it.
        (PROXY, "203.0.113.7, unknown", PROXY),
        (PROXY, "203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
        (PROXY, "203.0.113.7, 1.2.3", PROXY),
        (PROXY, "203.0.113.7, 010.0.0.2", PROXY),
        (PROXY, "203.0.113.7 10.0.0.2", PROXY),
        // Ports and brackets.
        (PROXY, "203.0.113.7:80", "203.0.113.7"),
        (PROXY, "203.0.113.7:", PROXY),
        (PROXY, "203.0.113.7:65536", PROXY),
        (PROXY, "203.0.113.7:000080", PROXY),
        (PROXY, "203.0.113.7:+80", PROXY),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        (PROXY, "[2001:db8::1]", "2001:db8::1"),
        (PROXY, "[2001:db8::1]:443", "2001:db8::1"),
        (PROXY, "[2001:db8::1", PROXY),
        (PROXY, "[203.0.113.7]", PROXY),
        (PROXY, "fe80::1%eth0", PROXY),
        (PROXY, "203.0.113.7, fd00::5", "203.0.113.7"),
        // An address in the disguise of another family is still that address.
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        (PROXY, "203.0.113.7, ::ffff:10.0.0.2", "203.0.113.7"),
        (PROXY, "::ffff:203.0.113.7", "203.0.113.7"),
    ] {
        assert_eq!(
            x_forwarded_for(peer, value),
            client,
            "{peer} says {value:?}"
        );
    }
}

#[test]
fn several_lines_are_one_list_in_their_order() {
    let lines: [(_, &[u8]); 3] = [
        ("x-forwarded-for", b"1.1.1.1"),
        ("x-forwarded-for", b"203.0.113.7, 10.0.0.3"),
        ("x-forwarded-for", b"10.0.0.2"),
    ];
    let client = seen(Header::XForwardedFor, PROXY, &lines).unwrap();
    assert_eq!(client.ip.to_string(), "203.0.113.7");
}

#[test]
fn forwarded_says_address_scheme_and_host_of_the_clients_hop() {
    for (value, ip, scheme, host) in [
        ("for=203.0.113.7", "203.0.113.7", None, None),
        (
            "For=\"203.0.113.7\";Proto=HTTPS",
            "203.0.113.7",
            Some("https"),
            None,
        ),
        ("for=\"[2001:db8::1]\"", "2001:db8::1", None, None),
        ("for=\"[2001:db8::1]:4711\"", "2001:db8::1", None, None),
        ("for=\"203.0.113.7:_port\"", "203.0.113.7", None, None),
        ("for=\"203\\.0.113\\.7\"", "203.0.113.7", None, None),
        (
            "proto=http;for=1.1.1.1;host=evil, for=203.0.113.7;proto=https;host=\"a.example:443\" , for=10.0.0.2;proto=http;by=_x",
            "203.0.113.7",
            Some("https"),
            Some("a.example:443"),
        ),
        // Spaces around a semicolon are not in the grammar, and harmless.
        (
            "for=203.0.113.7 ; proto=https;",
            "203.0.113.7",
            Some("https"),
            None,
        ),
        (
            "for=203.0.113.7;ext=\"a, for=1.1.1.1\"",
            "203.0.113.7",
            None,
            None,
        ),
        (
            "for=203.0.113.7;ext=\"\\\", for=1.1.1.1, \\\\\"",
            "203.0.113.7",
            None,
            None,
        ),
        // Hidden: the proxy stands for the client, but says how it was called.
        (
            "for=1.1.1.1, for=unknown;proto=https",
            PROXY,
            Some("https"),
            None,
        ),
        ("for=1.1.1.1, for=_hidden", PROXY, None, None),
        ("for=1.1.1.1, proto=https", PROXY, Some("https"), None),
        (
            "for=1.1.1.1, for=_hidden, for=10.0.0.2",
            "10.0.0.2",
            None,
            None,
        ),
        // Neither scheme nor host that a server could go by.
        (
            "for=203.0.113.7;proto=gopher;host=\"u:p@h\"",
            "203.0.113.7",
            None,
            None,
        ),
        ("for=203.0.113.7;host=\"a b\"", "203.0.113.7", None, None),
        // Not well-formed: nothing is believed, and nothing in front of it.
        (
            "for=1.1.1.1, for=203.0.113.7;for=203.0.113.7",
            PROXY,
            None,
            None,
        ),
        ("for=1.1.1.1, for=2001:db8::1", PROXY, None, None),
        ("for=1.1.1.1, for=[2001:db8::1]", PROXY, None, None),
        ("for=1.1.1.1, for=\"2001:db8::1\"", PROXY, None, None),
        ("for=1.1.1.1, for =203.0.113.7", PROXY, None, None),
        ("for=1.1.1.1, for= 203.0.113.7", PROXY, None, None),
        ("for=1.1.1.1, for", PROXY, None, None),
        ("for=1.1.1.1, for=", PROXY, None, None),
        ("for=1.1.1.1, =203.0.113.7", PROXY, None, None),
        ("for=1.1.1.1, for=203.0.113.7\"", PROXY, None, None),
        ("for=1.1.1.1, for=\"203.0.113.7\\\"", PROXY, None, None),
    ] {
        let client = forwarded(PROXY, value.as_bytes());
        assert_eq!(client.ip.to_string(), ip, "{value}");
        assert_eq!(
            client.scheme.as_ref().map(Scheme::as_str),
            scheme,
            "{value}"
        );
        assert_eq!(client.host.as_ref().map(Authority::as_str), host, "{value}");
    }
}

#[test]
fn only_the_chosen_header_is_read() {
    let both: [(_, &[u8]); 4] = [
        ("forwarded", b"for=1.1.1.1;proto=https"),
        ("x-forwarded-for", b"2.2.2.2"),
        ("x-forwarded-proto", b"evil, http"),
        ("x-forwarded-host", b"b.example"),
    ];
    let one = seen(Header::Forwarded, PROXY, &both).unwrap();
    assert_eq!(
        (one.ip.to_string(), one.scheme),
        ("1.1.1.1".into(), Some(Scheme::HTTPS))
    );
    assert_eq!(one.host, None);
    let other = seen(Header::XForwardedFor, PROXY, &both).unwrap();
    assert_eq!(
        (other.ip.to_string(), other.scheme),
        ("2.2.2.2".into(), Some(Scheme::HTTP))
    );
    assert_eq!(other.host.unwrap(), "b.example");
    let none = seen(Header::XForwardedFor, "9.9.9.9", &both).unwrap();
    assert_eq!(none, ClientAddress::direct("9.9.9.9".parse().unwrap()));
}

#[test]
fn x_forwarded_proto_and_host_are_not_believed_unless_asked_for() {
    let mut fields = HeaderMap::new();
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    fields.insert(X_FORWARDED_HOST, HeaderValue::from_static("a.example"));
    let proxies = TrustedProxies::x_forwarded_for().trust([PROXY]).unwrap();
    let ip = PROXY.parse().unwrap();
    let client = proxies.client(Peer::Ip(ip), &fields);
    assert_eq!(client, Some(ClientAddress::direct(ip)));
}

#[test]
fn as_many_elements_are_read_as_the_bound_says() {
    for (trusted, client) in [
        (MAX_ELEMENTS - 2, "203.0.113.7"),
        (MAX_ELEMENTS - 1, "203.0.113.7"),
        (MAX_ELEMENTS, "10.0.0.2"),
    ] {
        let list = format!("203.0.113.7{}", ", 10.0.0.2".repeat(trusted));
        assert_eq!(x_forwarded_for(PROXY, &list), client, "{trusted}");
        let list = format!("for=203.0.113.7{}", ",for=10.0.0.2".repeat(trusted));
        assert_eq!(
            forwarded(PROXY, list.as_bytes()).ip.to_string(),
            client,
            "{trusted}"
        );
    }
}

#[test]
fn as_many_bytes_are_read_as_the_bound_says() {
    const LIST: &str = ",203.0.113.7,10.0.0.2";
    for (length, client) in [
        (MAX_BYTES - 1, "203.0.113.7"),
        (MAX_BYTES, "203.0.113.7"),
        (MAX_BYTES + 1, "10.0.0.2"),
    ] {
        // Spaces push the comma in front of the client's address over the bound; in part it is not read.
        let list = LIST.replace("7,", &format!("7{},", " ".repeat(length - LIST.len())));
        assert_eq!(list.len(), length);
        assert_eq!(x_forwarded_for(PROXY, &list), client, "{length}");
        // The same bytes over two lines.
        let (first, rest) = list.split_at(",203.0.113.7".len());
        let (first, second) = (first.as_bytes(), format!("{:>1$}", "10.0.0.2", rest.len()));
        let lines = [
            ("x-forwarded-for", first),
            ("x-forwarded-for", second.as_bytes()),
        ];
        let over_two = seen(Header::XForwardedFor, PROXY, &lines).unwrap().ip;
        assert_eq!(over_two.to_string(), client, "{length}");
    }
    let far = format!(
        "for=1.1.1.1;ext=\"{}\", for=203.0.113.7",
        "x,".repeat(10_000)
    );
    assert_eq!(
        forwarded(PROXY, far.as_bytes()).ip.to_string(),
        "203.0.113.7"
    );
}

#[test]
fn networks_are_checked_when_they_are_named() {
    let proxies = TrustedProxies::forwarded();
    for bad in ["", "10.0.0.0/33", "10.0.0", "localhost", "::/129"] {
        let error = proxies.clone().trust([bad]).unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
    let mapped = proxies
        .trust(["::ffff:192.168.0.0/112", "::ffff:10.0.0.1", "::1"])
        .unwrap();
    for (ip, trusted) in [
        ("192.168.7.7", true),
        ("192.169.0.0", false),
        ("10.0.0.1", true),
        ("::1", true),
    ] {
        assert_eq!(
            mapped.believes(Peer::Ip(ip.parse().unwrap())),
            trusted,
            "{ip}"
        );
    }
}

#[test]
fn a_unix_socket_is_trusted_only_if_that_is_said() {
    let mut fields = HeaderMap::new();
    fields.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
    let proxies = TrustedProxies::x_forwarded_for()
        .trust(["0.0.0.0/0"])
        .unwrap();
    assert_eq!(proxies.client(Peer::Unix, &fields), None);
    assert_eq!(proxies.client(Peer::Unknown, &fields), None);
    let proxies = proxies.trust_unix_sockets();
    assert_eq!(
        proxies.client(Peer::Unix, &fields).unwrap().ip.to_string(),
        "1.1.1.1"
    );
    assert_eq!(proxies.client(Peer::Unknown, &fields), None);
    assert_eq!(proxies.client(Peer::Unix, &HeaderMap::new()), None);
}

/// `*(pieces)` of up to `most` of them, each exactly once.
fn every_string(pieces: &[&str], most: u32, mut check: impl FnMut(&str)) -> usize {
    let (mut text, mut count) = (String::new(), 0);
    for length in 0..=most {
        for number in 0..pieces.len().pow(length) {
            text.clear();
            let mut rest = number;
            for _ in 0..length {
                text.push_str(pieces[rest % pieces.len()]);
                rest /= pieces.len();
            }
            check(&text);
            count += 1;
        }
    }
    count
}

const PIECES: [&str; 11] = [
    "for=",
    "10.0.0.9",
    "1.1.1.1",
    "\"",
    "\\",
    ",",
    ";",
    " ",
    "proto=http",
    "[",
    "\u{e9}",
];

#[test]
fn nothing_that_a_client_sends_first_changes_what_a_proxy_appends() {
    let proxy_appends = |sent: &str, appended: &str| {
        let client = forwarded(PROXY, format!("{sent}{appended}").as_bytes());
        assert_eq!(client.ip.to_string(), "203.0.113.7", "{sent}{appended}");
        assert_eq!(client.scheme, Some(Scheme::HTTPS), "{sent}{appended}");
    };
    let cases = every_string(&PIECES, 5, |sent| {
        proxy_appends(sent, ", for=203.0.113.7;proto=https");
        proxy_appends(sent, ",for=\"203.0.113.7:1\";proto=\"https\", for=10.0.0.2");
        let list = format!("{sent}, 203.0.113.7, 10.0.0.2");
        assert_eq!(x_forwarded_for(PROXY, &list), "203.0.113.7", "{list}");
    });
    assert_eq!(cases, 177_156);
}

#[test]
fn a_peer_that_is_not_listed_is_the_client_whatever_it_sends() {
    every_string(&PIECES, 4, |sent| {
        let client = forwarded("203.0.113.7", sent.as_bytes());
        assert_eq!(
            client,
            ClientAddress::direct("203.0.113.7".parse().unwrap()),
            "{sent}"
        );
        assert_eq!(
            x_forwarded_for("203.0.113.7", sent),
            "203.0.113.7",
            "{sent}"
        );
    });
}

#[test]
fn read_from_either_end_a_well_formed_list_is_the_same() {
    let pieces = [
        "for=", "a", "\"", "\\", ",", ";", " ", "by=1", "=", "10.0.0.9",
    ];
    let mut well_formed = 0;
    every_string(&pieces, 6, |text| {
        let Some(mut expected) = from_the_front(text.as_bytes()) else {
            return;
        };
        well_formed += 1;
        expected.reverse();
        let mut fields = HeaderMap::new();
        fields.insert(FORWARDED, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        let found: Vec<Hop> = super::forwarded::from_the_end(&fields).collect();
        let expected = expected.iter().map(|node| Hop {
            ip: node.as_deref().and_then(super::node::address),
            ..Hop::default()
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{text}");
    });
    assert!(well_formed > 5_000, "only {well_formed} were well-formed");
}

/// RFC 7239 section 4 read the other way round, as a grammar is: each element's `for`, or `None` if it isn't that.
fn from_the_front(mut text: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    fn token<'a>(text: &mut &'a [u8]) -> &'a [u8] {
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let end = text
            .iter()
            .position(|byte| !is_token(byte))
            .unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        *text = rest;
        token
    }
    fn spaces(text: &mut &[u8]) {
        while let Some(rest) = text.strip_prefix(b" ") {
            *text = rest;
        }
    }
    let mut elements = Vec::new();
    loop {
        let (mut node, mut by, mut any) = (None, false, false);
        loop {
            spaces(&mut text);
            let name = token(&mut text);
            if !name.is_empty() {
                any = true;
                text = text.strip_prefix(b"=")?;
                let value = if let Some(mut rest) = text.strip_prefix(b"\"") {
                    let mut value = Vec::new();
                    loop {
                        let (byte, after) = rest.split_first()?;
                        rest = after;
                        match byte {
                            b'"' => break,
                            b'\\' => {
                                let (byte, after) = rest.split_first()?;
                                rest = after;
                                value.push(*byte);
                            }
                            byte => value.push(*byte),
                        }
                    }
                    text = rest;
                    value
                } else {
                    let value = token(&mut text);
                    (!value.is_empty()).then(|| value.to_vec())?
                };
                if name == b"for" && node.replace(value).is_some() {
                    return None;
                }
                if name == b"by" && std::mem::replace(&mut by, true) {
                    return None;
                }
            }
            spaces(&mut text);
            match text.strip_prefix(b";") {
                Some(rest) => text = rest,
                None => break,
            }
        }
        if any {
            elements.push(node);
        }
        match text.split_first() {
            None => return Some(elements),
            Some((b',', rest)) => text = rest,
            Some(_) => return None,
        }
    }
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    let service = TrustedProxies::forwarded().layer(inner);
    honours_readiness(service, || Request::new(())).await;
}

#[tokio::test]
async fn the_address_reaches_inner_code_and_one_that_was_there_does_not() {
    let service = TrustedProxies::x_forwarded_for()
        .trust([PROXY])
        .unwrap()
        .peer_from(|extensions| extensions.get().copied())
        .layer(service_fn(|request: Request<()>| {
            ready(Ok::<_, Infallible>(Response::new(ClientAddress::of(
                &request,
            ))))
        }));
    let peer: SocketAddr = "10.0.0.1:1".parse().unwrap();
    let outer = ClientAddress::direct(PROXY.parse().unwrap());
    let request = Request::get("/").header("x-forwarded-for", "203.0.113.7");
    let request = request.extension(outer.clone());

    let with_peer = request.extension(peer).body(()).unwrap();
    let found = service
        .clone()
        .oneshot(with_peer)
        .await
        .unwrap()
        .into_body()
        .unwrap();
    assert_eq!(found.ip().to_string(), "203.0.113.7");
    assert!(found.is_forwarded());

    let without = Request::get("/").extension(outer).body(()).unwrap();
    assert_eq!(service.oneshot(without).await.unwrap().into_body(), None);
}

#[test]
fn without_the_layer_the_peer_of_the_connection_is_the_client() {
    let mut info = wharf::ConnInfo::default();
    info.peer = Address::Socket("[::ffff:203.0.113.7]:80".parse().unwrap());
    let request = Request::get("/").extension(info).body(()).unwrap();
    let client = ClientAddress::of(&request).unwrap();
    assert_eq!(
        (client.ip().to_string(), client.is_forwarded()),
        ("203.0.113.7".into(), false)
    );
    assert_eq!(ClientAddress::of(&Request::new(())), None);
}
