//! Responses as a strict client reads them, and requests as it writes them (RFC 9112). Bytes in, `http` types out; it
//! shares nothing with the server's codec but the head parser's crate, so that a mistake there can't hide itself here.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::Trailers;
use super::pipe::End;

/// Fields of a response, at most.
const FIELDS: usize = 256;

/// A response's head without its content.
pub(super) struct Head {
    pub(super) response: Response<()>,
    /// Its bytes.
    pub(super) length: usize,
}

impl Head {
    /// The head that `bytes` begin with; `None` if it isn't whole.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("what came is not a response ({error})")),
        };
        let mut response = Response::new(());
        *response.status_mut() = head
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or("what came has no status")?;
        *response.version_mut() = if head.version == Some(0) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        *response.headers_mut() = map(head.headers)?;
        Ok(Some(Self { response, length }))
    }

    /// A response with 1xx, after which the real one follows; 101 is the last of its connection.
    pub(super) fn is_interim(&self) -> bool {
        let status = self.response.status();
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Where the content ends (RFC 9112 section 6.3).
    fn framing(&self, method: &Method) -> Result<Framing, String> {
        let (status, fields) = (self.response.status(), self.response.headers());
        let length = fields.get_all(CONTENT_LENGTH);
        let coding = fields.get_all(TRANSFER_ENCODING);
        let is_both = length.iter().next().is_some() && coding.iter().next().is_some();
        if is_both || length.iter().count() > 1 || coding.iter().count() > 1 {
            return Err("the response's length is declared more than once".to_owned());
        }
        let is_tunnel = method == Method::CONNECT && status.is_success();
        let is_bare = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        if method == Method::HEAD || is_tunnel || is_bare {
            return Ok(Framing::Nothing);
        }
        if let Some(coding) = fields.get(TRANSFER_ENCODING) {
            return if coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                Ok(Framing::Chunked)
            } else {
                Err(format!(
                    "a transfer coding that this client doesn't know: {coding:?}"
                ))
            };
        }
        let Some(length) = fields.get(CONTENT_LENGTH) else {
            return Ok(Framing::UntilClose);
        };
        let number = length.to_str().ok().and_then(|text| text.parse().ok());
        let number =
            number.ok_or_else(|| format!("a content-length that is no number: {length:?}"))?;
        Ok(Framing::Length(number))
    }
}

enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

/// The response that `bytes` begin with, and its length; `None` if it isn't whole.
pub(super) fn read(
    bytes: &[u8],
    method: &Method,
    server: End,
) -> Result<Option<(Response<Bytes>, usize)>, String> {
    let Some(head) = Head::read(bytes)? else {
        return Ok(None);
    };
    let rest = &bytes[head.length..];
    let (content, trailers, length) = match head.framing(method)? {
        Framing::Nothing => (Bytes::new(), HeaderMap::new(), 0),
        Framing::Length(length) => match rest.get(..length) {
            Some(content) => (Bytes::copy_from_slice(content), HeaderMap::new(), length),
            None => return Ok(None),
        },
        Framing::Chunked => match chunks(rest)? {
            Some(whole) => whole,
            None => return Ok(None),
        },
        Framing::UntilClose if server == End::Finished => {
            (Bytes::copy_from_slice(rest), HeaderMap::new(), rest.len())
        }
        Framing::UntilClose => return Ok(None),
    };
    let mut response = head.response.map(|()| content);
    if !trailers.is_empty() {
        response.extensions_mut().insert(Trailers(trailers));
    }
    Ok(Some((response, head.length + length)))
}

/// Content, trailers, and how many bytes they took (RFC 9112 section 7.1).
fn chunks(bytes: &[u8]) -> Result<Option<(Bytes, HeaderMap, usize)>, String> {
    let mut content = BytesMut::new();
    let mut at = 0;
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return Ok(None);
        };
        at += line.len() + 2;
        let size = std::str::from_utf8(line)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or_else(|| format!("not a chunk's size: \"{}\"", line.escape_ascii()))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes
            .get(at..)
            .and_then(|rest| rest.get(..size.checked_add(2)?))
        else {
            return Ok(None);
        };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err(format!("a chunk of {size} bytes doesn't end after them"));
        }
        content.extend_from_slice(data);
        at += size + 2;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(&bytes[at..], &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            Ok(Some((content.freeze(), map(fields)?, at + length)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("the trailers can't be read ({error})")),
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some(&bytes[..end])
}

fn map(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|e| e.to_string())?;
        let value = HeaderValue::from_bytes(field.value).map_err(|e| e.to_string())?;
        map.append(name, value);
    }
    Ok(map)
}

/// The bytes of a request; see [`super::encode`].
pub(super) fn encode(request: Request<Bytes>) -> Bytes {
    let (head, body) = request.into_parts();
    let version = match head.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        other => panic!("this client speaks HTTP/1.1 and HTTP/1.0, not {other:?}"),
    };
    let target = match (
        &head.method,
        head.uri.authority(),
        head.uri.path_and_query(),
    ) {
        (&Method::CONNECT, Some(authority), _) => authority.as_str(),
        (_, _, Some(path)) => path.as_str(),
        _ => "/",
    };
    let is_framed =
        head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING);
    let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);

    let mut bytes = format!("{} {target} {version}\r\n", head.method).into_bytes();
    if !head.headers.contains_key(HOST) {
        let host = head.uri.authority().map_or("localhost", |authority| {
            let text = authority.as_str();
            text.rsplit_once('@').map_or(text, |(_, host)| host)
        });
        bytes.extend_from_slice(format!("host: {host}\r\n").as_bytes());
    }
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !is_framed && !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if is_chunked {
        if !body.is_empty() {
            bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(&body);
    }
    bytes.into()
}
