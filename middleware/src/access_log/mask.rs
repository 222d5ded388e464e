//! What is nobody's business in a URL: the user information of an authority, and parameters with names such as `token`.
//! Bytes in, pieces out, each byte looked at a fixed number of times.

/// What stands for something that isn't shown.
const MASK: &[u8] = b"***";

/// The parameters that are masked by default.
pub(super) const PARAMETERS: [&str; 25] = [
    "access_token",
    "api_key",
    "api-key",
    "apikey",
    "auth",
    "authorization",
    "client_secret",
    "code",
    "credential",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "sid",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
];

/// Passes on an absolute or relative URL.
pub(super) fn url(text: &[u8], masked: &[String], mut push: impl FnMut(&[u8])) {
    let scheme = text.iter().position(|byte| b":/?#".contains(byte));
    let begins = match scheme {
        Some(colon) if text[colon..].starts_with(b"://") => colon + 3,
        Some(0) if text.starts_with(b"//") => 2,
        _ => 0,
    };
    let (before, rest) = text.split_at(begins);
    let ends = rest.iter().position(|byte| b"/?#".contains(byte));
    let (authority, rest) = rest.split_at(ends.unwrap_or(rest.len()));
    push(before);
    self::authority(authority, &mut push);
    path_and_query(rest, masked, push);
}

/// Passes on `userinfo@host:port` without the first part.
pub(super) fn authority(text: &[u8], mut push: impl FnMut(&[u8])) {
    match text.iter().rposition(|byte| *byte == b'@') {
        Some(at) => {
            push(MASK);
            push(&text[at..]);
        }
        None => push(text),
    }
}

/// Passes on what follows the authority. Parameters are looked for in a fragment too: some are sent there.
pub(super) fn path_and_query(text: &[u8], masked: &[String], mut push: impl FnMut(&[u8])) {
    let is_mark = |byte: &u8| matches!(byte, b'?' | b'#');
    let path = text.iter().position(is_mark).unwrap_or(text.len());
    let (path, query) = text.split_at(path);
    push(path);
    for parameter in query.split_inclusive(|byte| matches!(byte, b'?' | b'#' | b'&' | b';')) {
        let equals = parameter.iter().position(|byte| *byte == b'=');
        match equals {
            Some(equals) if is_masked(&parameter[..equals], masked) => {
                push(&parameter[..=equals]);
                push(MASK);
                let end = parameter.len() - 1;
                if matches!(parameter[end], b'?' | b'#' | b'&' | b';') {
                    push(&parameter[end..]);
                }
            }
            _ => push(parameter),
        }
    }
}

fn is_masked(name: &[u8], masked: &[String]) -> bool {
    masked.iter().any(|one| decoded(name).eq(one.bytes()))
}

/// The bytes of a name without percent-encoding, in lower case.
fn decoded(mut name: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    std::iter::from_fn(move || {
        if let [b'%', high, low, rest @ ..] = name
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            name = rest;
            return Some((high << 4 | low).to_ascii_lowercase());
        }
        let (byte, rest) = name.split_first()?;
        name = rest;
        Some(byte.to_ascii_lowercase())
    })
}

/// Whether a line that isn't a request line has a field in it that must not be shown.
pub(super) fn holds_a_secret_field(line: &[u8]) -> bool {
    let names: [&[u8]; 2] = [b"authorization", b"cookie"];
    names.iter().any(|name| {
        line.windows(name.len())
            .any(|window| window.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let names = PARAMETERS.map(str::to_owned);
        let mut out = Vec::new();
        url(text.as_bytes(), &names, |piece| {
            out.extend_from_slice(piece)
        });
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn credentials_are_not_shown() {
        for (text, shown) in [
            ("http://user:pass@a.example/x", "http://***@a.example/x"),
            ("http://u@v@a.example:80?x", "http://***@a.example:80?x"),
            ("//user:pass@a.example/", "//***@a.example/"),
            ("user:pass@a.example:443", "***@a.example:443"),
            ("/?token=abc", "/?token=***"),
            ("/?a=1&Token=abc&b=2", "/?a=1&Token=***&b=2"),
            ("/?a=1;password=abc;b=2#x", "/?a=1;password=***;b=2#x"),
            ("/?token=a=b&token=", "/?token=***&token=***"),
            (
                "/?%74oken=abc&access%5ftoken=def",
                "/?%74oken=***&access%5ftoken=***",
            ),
            ("https://a/cb#id_token=abc", "https://a/cb#id_token=***"),
            ("/?next=?token=abc", "/?next=?token=***"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    #[test]
    fn all_else_is() {
        for text in [
            "",
            "/",
            "*",
            "/a@b/token=abc",
            "http://a.example:80/x@y",
            "/?tokens=1&mytoken=2&token",
            "/a//b@c/d",
            "/?u=http://a@b/",
            "/?%=1&%zz=2&%4=3",
            "a.example:443",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
