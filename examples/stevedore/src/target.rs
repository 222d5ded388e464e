//! Where requests go and the bytes they are: URLs in, addresses and finished requests out. Nothing is sent that nobody
//! asked for; `Host` and the framing are all that is added.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method, Uri, header};

/// Bytes at the front of a request's content by which `--verify` knows it again.
pub(crate) const TOKEN: usize = 2 + 8 + 8 + 16;

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Uri,
    /// Which of the plan's addresses.
    pub(crate) address: usize,
    pub(crate) to_head: bool,
    /// Up to and including the empty line.
    pub(crate) head: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// What requests have in common.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) method: Method,
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content: Vec<u8>,
    pub(crate) http_1_0: bool,
    pub(crate) keep_alive: bool,
    pub(crate) verify: bool,
}

/// A URL that this client can speak to.
pub(crate) fn parse_url(text: &str) -> Result<Uri, String> {
    let wanted = format!("`{text}` is not a URL like http://127.0.0.1:8888/path");
    let url: Uri = text.parse().map_err(|error| format!("{wanted}: {error}"))?;
    match url.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(format!(
                "`{text}`: https is not spoken here; load the plain port behind what ends TLS"
            ));
        }
        _ => return Err(wanted),
    }
    let authority = url.authority().ok_or(wanted)?;
    if authority.as_str().contains('@') {
        return Err(format!(
            "`{text}`: a name and password belong into -H 'authorization: …'"
        ));
    }
    let behind_host = &authority.as_str()[authority.host().len()..];
    if !behind_host.is_empty() && authority.port_u16().is_none() {
        return Err(format!(
            "`{text}`: its port is not a number from 0 to 65535"
        ));
    }
    Ok(url)
}

/// The same URL with another port.
pub(crate) fn with_port(url: &Uri, port: u16) -> Result<Uri, String> {
    let mut parts = url.clone().into_parts();
    let authority = format!("{}:{port}", url.host().unwrap_or_default());
    parts.authority = Some(
        authority
            .parse()
            .map_err(|error| format!("port {port}: {error}"))?,
    );
    Uri::from_parts(parts).map_err(|error| format!("port {port}: {error}"))
}

/// The first address that a URL's host has.
pub(crate) fn resolve(url: &Uri) -> Result<Address, String> {
    let host = url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(80);
    let mut addresses = (bare, port)
        .to_socket_addrs()
        .map_err(|error| format!("`{host}` has no address: {error}"))?;
    addresses
        .next()
        .map(Address::Tcp)
        .ok_or_else(|| format!("`{host}` has no address"))
}

/// One `-H`.
pub(crate) fn parse_field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wanted = || format!("-H wants `name: value`, not `{text}`");
    let (name, value) = text.split_once(':').ok_or_else(wanted)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wanted())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wanted())?;
    if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
        return Err(format!(
            "-H: {name} is computed from the content and can't be given"
        ));
    }
    if name == header::CONNECTION {
        return Err("-H: connection is what --no-keepalive is for".to_owned());
    }
    Ok((name, value))
}

impl Form {
    pub(crate) fn target(&self, url: Uri, address: usize) -> Target {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let version = if self.http_1_0 {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        let mut head = format!("{} {path} {version}\r\n", self.method).into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        if !self.fields.iter().any(|(name, _)| name == header::HOST) {
            field(
                "Host",
                url.authority()
                    .map_or("", |authority| authority.as_str())
                    .as_bytes(),
            );
        }
        for (name, value) in &self.fields {
            field(name.as_str(), value.as_bytes());
        }
        let length = self.content.len() + if self.verify { TOKEN } else { 0 };
        // RFC 9110 section 8.6: where content is usual, its absence is said too.
        let usual = matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        if length > 0 || usual {
            field("Content-Length", length.to_string().as_bytes());
        }
        match (self.keep_alive, self.http_1_0) {
            (true, true) => field("Connection", b"keep-alive"),
            (false, false) => field("Connection", b"close"),
            (true, false) | (false, true) => {}
        }
        head.extend_from_slice(b"\r\n");
        Target {
            url,
            address,
            to_head: self.method == Method::HEAD,
            head,
            content: self.content.clone(),
        }
    }
}

impl Target {
    /// The same request, so many times in a row.
    pub(crate) fn repeated(&self, times: usize) -> Vec<u8> {
        [self.head.as_slice(), &self.content].concat().repeat(times)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Address, Form, parse_field, parse_url, resolve, with_port};

    fn form(method: Method, content: &str) -> Form {
        Form {
            method,
            fields: Vec::new(),
            content: content.into(),
            http_1_0: false,
            keep_alive: true,
            verify: false,
        }
    }

    fn bytes(form: &Form, url: &str) -> String {
        String::from_utf8(form.target(url.parse().unwrap(), 0).repeated(1)).unwrap()
    }

    #[test]
    fn nothing_is_sent_that_nobody_asked_for() {
        assert_eq!(
            bytes(&form(Method::GET, ""), "http://127.0.0.1:8888"),
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n\r\n"
        );
        assert_eq!(
            bytes(&form(Method::POST, "hi"), "http://a/b?c"),
            "POST /b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        );
    }

    #[test]
    fn a_host_of_ones_own_replaces_the_urls() {
        let mut form = form(Method::GET, "");
        form.fields = vec![parse_field("host: b").unwrap()];
        assert_eq!(
            bytes(&form, "http://a/"),
            "GET / HTTP/1.1\r\nhost: b\r\n\r\n"
        );
    }

    #[test]
    fn each_version_says_what_is_not_its_default() {
        let with = |http_1_0, keep_alive| {
            let form = Form {
                http_1_0,
                keep_alive,
                ..form(Method::GET, "")
            };
            bytes(&form, "http://a/")
        };
        assert!(!with(false, true).contains("Connection"));
        assert!(with(false, false).contains("Connection: close\r\n"));
        assert!(with(true, true).contains("Connection: keep-alive\r\n"));
        assert!(!with(true, false).contains("Connection"));
    }

    #[test]
    fn a_bad_url_gets_a_sentence() {
        for (url, sentence) in [
            ("", "`` is not a URL like http://127.0.0.1:8888/path"),
            ("127.0.0.1:1", "`127.0.0.1:1` is not a URL like"),
            ("ftp://a/", "`ftp://a/` is not a URL like"),
            ("https://a/", "https is not spoken here"),
            ("http://", "`http://` is not a URL like"),
            ("http://a b/", "`http://a b/` is not a URL like"),
            ("http://u:p@a/", "a name and password belong into"),
            (
                "http://a:99999/",
                "its port is not a number from 0 to 65535",
            ),
            ("http://a:/", "its port is not a number from 0 to 65535"),
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(error.contains(sentence), "{url}: {error}");
        }
    }

    #[test]
    fn a_bad_field_gets_a_sentence() {
        for (field, sentence) in [
            ("a", "-H wants `name: value`"),
            ("a b: c", "-H wants `name: value`"),
            ("a: b\nc: d", "-H wants `name: value`"),
            ("content-length: 5", "is computed"),
            ("Transfer-Encoding: chunked", "is computed"),
            ("Connection: close", "--no-keepalive"),
        ] {
            let error = parse_field(field).unwrap_err();
            assert!(error.contains(sentence), "{field}: {error}");
        }
    }

    #[test]
    fn loopback_is_recognized_in_every_spelling() {
        for (url, local) in [
            ("http://127.0.0.1/", true),
            ("http://127.9.9.9:80/", true),
            ("http://[::1]:8888/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://192.0.2.1/", false),
            ("http://[2001:db8::1]/", false),
            ("http://0.0.0.0/", false),
        ] {
            let address = resolve(&parse_url(url).unwrap()).unwrap();
            assert_eq!(address.is_local(), local, "{url}");
        }
        assert!(Address::Unix("/run/a".into()).is_local());
    }

    #[test]
    fn another_port_leaves_the_rest_of_a_url_alone() {
        let url = parse_url("http://[::1]:1/a?b").unwrap();
        assert_eq!(with_port(&url, 8889).unwrap(), "http://[::1]:8889/a?b");
    }
}
