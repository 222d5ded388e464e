//! A request as a server took it: what is compared. Only a request whose body came to its end is one.

use std::fmt;

use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

/// Method, target and content of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// As it was sent.
    pub(crate) method: String,
    /// In origin form where it can be: servers differ in whether they show an absolute target as it was sent, and what is
    /// compared is the resource.
    pub(crate) target: String,
    /// The content's length in bytes.
    pub(crate) length: usize,
    /// The content's SHA-256 in hexadecimal.
    pub(crate) digest: String,
}

impl Request {
    /// A request with that content.
    pub(crate) fn new(method: &str, target: &str, content: &[u8]) -> Self {
        Self {
            method: method.to_owned(),
            target: origin_form(target),
            length: content.len(),
            digest: hex(&Sha256::digest(content)),
        }
    }

    /// Reads a request to its end.
    ///
    /// # Errors
    ///
    /// That of the body, when it is broken or cut.
    pub(crate) async fn read<B>(request: http::Request<B>) -> Result<Self, B::Error>
    where
        B: http_body::Body,
    {
        let (head, body) = request.into_parts();
        let content = body.collect().await?.to_bytes();
        let target = head.uri.to_string();
        Ok(Self::new(head.method.as_str(), &target, &content))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", shortened(&self.method), shortened(&self.target))?;
        match self.length {
            0 => Ok(()),
            length => write!(f, " {length}:{}", &self.digest[..6]),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}… ({})", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

/// Path and query of an absolute target, any other as it is (RFC 9112 section 3.2, RFC 9110 section 4.2.3).
pub(crate) fn origin_form(target: &str) -> String {
    // nginx shows an absolute target with an empty path so.
    if target.starts_with('?') {
        return format!("/{target}");
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return target.to_owned();
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return target.to_owned();
    }
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
        Some(at) => format!("/{}", &rest[at..]),
        None => "/".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::origin_form;

    #[test]
    fn an_absolute_target_is_compared_by_path_and_query() {
        for (target, origin) in [
            ("http://a/x?y", "/x?y"),
            ("HTTP://a", "/"),
            ("https://a?b", "/?b"),
            ("/http://a/", "/http://a/"),
            ("ftp://a/", "ftp://a/"),
            ("*", "*"),
        ] {
            assert_eq!(origin_form(target), origin);
        }
    }
}
