//! Signature Version 4 of AWS: from a request's head and the hash of its body to the field `Authorization`. Nothing is
//! sent here.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of an empty body.
pub(super) const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who asks.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's id.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// Of a session, where it is one.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ***)", self.key)
    }
}

/// Signs a head, whose path and query are encoded as [`encode`] does. All fields that it has are signed, and `Host`.
pub fn sign(
    head: &mut Parts,
    credentials: &Credentials,
    region: &str,
    payload: &str,
    now: SystemTime,
) {
    let stamp = stamp(now);
    let fields = &mut head.headers;
    let mut insert = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::try_from(text) {
            fields.insert(name, value);
        }
    };
    insert(
        "host",
        head.uri.authority().map_or("", |host| host.as_str()),
    );
    insert("x-amz-date", &stamp);
    insert("x-amz-content-sha256", payload);
    if let Some(token) = &credentials.token {
        insert("x-amz-security-token", token);
    }
    let authorization = authorization(head, credentials, region, payload, &stamp);
    if let Ok(mut value) = HeaderValue::try_from(authorization) {
        value.set_sensitive(true);
        head.headers.insert(header::AUTHORIZATION, value);
    }
}

/// The value of `Authorization` for what a head says, as the server computes it.
pub fn authorization(
    head: &Parts,
    credentials: &Credentials,
    region: &str,
    payload: &str,
    stamp: &str,
) -> String {
    let mut fields: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| is_signed(name.as_str()))
        .collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = fields
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}:{}\n",
                String::from_utf8_lossy(value.as_bytes()).trim()
            )
        })
        .collect();
    let mut query: Vec<_> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .collect();
    query.sort_unstable();
    let (path, query) = (head.uri.path(), query.join("&"));
    let canonical = format!(
        "{}\n{path}\n{query}\n{lines}\n{names}\n{payload}",
        head.method
    );
    let day = &stamp[..8.min(stamp.len())];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        hex(&Sha256::digest(canonical))
    );
    let first = format!("AWS4{}", credentials.secret);
    let key = [day, region, "s3", "aws4_request"]
        .iter()
        .fold(first.into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &to_sign));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        credentials.key
    )
}

/// What proxies and clients change on the way is not signed.
fn is_signed(name: &str) -> bool {
    !matches!(
        name,
        "authorization"
            | "user-agent"
            | "connection"
            | "expect"
            | "content-length"
            | "transfer-encoding"
    )
}

/// All but unreserved characters, percent-encoded; slashes stay in a path.
pub fn encode(text: &str, is_path: bool) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            b'/' if is_path => "/".to_owned(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20130524T000000Z`
fn stamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // `Sun, 06 Nov 1994 08:49:37 GMT` has all that is needed, and is right about leap years.
    let date = httpdate::fmt_http_date(now);
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS
        .iter()
        .position(|month| *month == &date[8..11])
        .unwrap_or_default()
        + 1;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{}{month:02}{}T{hour:02}{minute:02}{second:02}Z",
        &date[12..16],
        &date[5..7]
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;

    /// The examples of AWS's own documentation, "Authenticating Requests (AWS Signature Version 4)".
    #[test]
    fn the_examples_of_the_specification_are_signed_as_it_says() {
        let credentials = Credentials {
            key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        };
        let then = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let signature = |request: http::request::Builder, payload: &str| {
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            sign(&mut head, &credentials, "us-east-1", payload, then);
            let authorization = head.headers[header::AUTHORIZATION]
                .to_str()
                .unwrap()
                .to_owned();
            authorization.split_once("Signature=").unwrap().1.to_owned()
        };
        let host = "https://examplebucket.s3.amazonaws.com";
        let get = Request::get(format!("{host}/test.txt")).header("range", "bytes=0-9");
        assert_eq!(
            signature(get, NOTHING),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = Request::put(format!("{host}/{}", encode("test$file.text", true)))
            .header("date", "Fri, 24 May 2013 00:00:00 GMT")
            .header("x-amz-storage-class", "REDUCED_REDUNDANCY");
        let payload = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        assert_eq!(
            signature(put, payload),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        let list = Request::get(format!("{host}/?prefix=J&max-keys=2"));
        assert_eq!(
            signature(list, NOTHING),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            key: "id".into(),
            secret: "hush".into(),
            token: None,
        };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
