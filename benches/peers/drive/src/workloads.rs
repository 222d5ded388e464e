//! What is asked of each server, byte by byte.

/// One kind of request, and how many of it are made at a time.
pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    /// What is written at once.
    pub bytes: Vec<u8>,
    /// How many answers that brings.
    pub answers: u64,
    pub connections: usize,
    /// Each request has a connection of its own.
    pub closes: bool,
    /// Requests after which a burst ends even if there is time left; connections leave a port behind for a while.
    pub most: u64,
}

pub const NAMES: [&str; 9] = [
    "plain",
    "browser",
    "pipelined",
    "json",
    "post",
    "echo",
    "upload",
    "connection",
    "down",
];

const PLAIN: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const BROWSER: &str = "GET /?from=browser HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/a/page/with/a/path\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.2.1234567890.1234567890\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Cache-Control: max-age=0\r\n\r\n";

/// The workload of that name, if there is one.
pub fn find(name: &str) -> Option<Workload> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes();
    let (title, bytes) = match name {
        "plain" => ("plain GET", PLAIN.into()),
        "browser" => ("browser GET, 13 fields", BROWSER.into()),
        "pipelined" => ("16 pipelined", PLAIN.repeat(16).into_bytes()),
        "json" => ("JSON", get("/json")),
        "post" => ("POST 1 KiB, echoed", post(1 << 10)),
        "echo" => ("POST 1 MiB, echoed", post(1 << 20)),
        "upload" => ("1 MiB chunked upload", upload()),
        "connection" => (
            "a connection a request",
            PLAIN
                .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
                .into(),
        ),
        "down" => ("10 MiB streamed down", get("/down")),
        _ => return None,
    };
    let name = *NAMES.iter().find(|known| **known == name)?;
    let large = matches!(name, "echo" | "upload" | "down");
    Some(Workload {
        name,
        title,
        bytes,
        answers: if name == "pipelined" { 16 } else { 1 },
        connections: if large { 8 } else { 64 },
        closes: name == "connection",
        most: if name == "connection" {
            6_000
        } else {
            u64::MAX
        },
    })
}

fn post(length: usize) -> Vec<u8> {
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &vec![b'x'; length]].concat()
}

fn upload() -> Vec<u8> {
    const CHUNK: usize = 16 * 1024;
    let mut bytes =
        b"POST /upload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..(1 << 20) / CHUNK {
        bytes.extend_from_slice(format!("{CHUNK:x}\r\n").as_bytes());
        bytes.extend_from_slice(&[b'x'; CHUNK]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
