use super::*;

fn form(method: &str, target: &str) -> Option<Form> {
    let form = check(method.as_bytes(), target.as_bytes()).ok()?;
    uri(form, Bytes::copy_from_slice(target.as_bytes())).expect("what is checked can be held");
    Some(form)
}

#[test]
fn each_form_has_its_methods() {
    for method in ["GET", "OPTIONS", "CONNECT", "connect", "options"] {
        let connects = method == "CONNECT";
        let table = [
            ("/", (!connects).then_some(Form::Origin)),
            ("http://a/", (!connects).then_some(Form::Absolute)),
            ("*", (method == "OPTIONS").then_some(Form::Asterisk)),
            ("a:80", connects.then_some(Form::Authority)),
        ];
        for (target, expected) in table {
            assert_eq!(form(method, target), expected, "{method} {target}");
        }
    }
}

#[test]
fn a_path_and_query_holds_what_rfc_3986_allows_and_no_other_byte() {
    let allowed =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/?";
    for byte in 0..=u8::MAX {
        for target in [[b'/', byte], [b'?', byte]] {
            let target = [b"/a".as_slice(), &target].concat();
            let expected = allowed.contains(&byte);
            assert_eq!(
                check(b"GET", &target).is_ok(),
                expected,
                "{}",
                target.escape_ascii()
            );
            let absolute = [b"http://a".as_slice(), &target].concat();
            assert_eq!(
                check(b"GET", &absolute).is_ok(),
                expected,
                "{}",
                absolute.escape_ascii()
            );
        }
    }
}

#[test]
fn a_percent_is_followed_by_two_hexadecimal_digits() {
    for good in ["/%00", "/%aF?%Ff", "/a%20", "/%25%25"] {
        assert!(form("GET", good).is_some(), "{good}");
    }
    for bad in [
        "/%", "/%2", "/%2g", "/%g2", "/%%20", "/%20%", "/?%", "/%2?0",
    ] {
        assert_eq!(form("GET", bad), None, "{bad}");
    }
}

#[test]
fn an_absolute_target_is_http_with_a_host() {
    for good in [
        "http://a",
        "HTTP://a",
        "https://a/",
        "http://a:",
        "http://a:80",
        "http://a?q",
        "http://[::1]",
        "http://[::1]:80/a",
        "http://1.2.3.4/",
        "http://a_b/",
        "http://a//b",
    ] {
        assert_eq!(form("GET", good), Some(Form::Absolute), "{good}");
    }
    for bad in [
        "",
        "a",
        "http",
        "http:",
        "http:/",
        "http://",
        "http:///",
        "http://?",
        "http://:80",
        "http:a",
        "ftp://a/",
        "http://u@a/",
        "http://u:p@a/",
        "http://@a/",
        "http://a@/",
        "http://a:b/",
        "http://a:65536/",
        "http://[::1/",
        "http://[]/",
        "http://[1]/",
        "http://[::1]a/",
        "http://[fe80::1%25en0]/",
        "http://a#f",
        "http://a b/",
        "http://a%zz/",
        "http://a\\b/",
        "//a/",
        "?q",
        "httpss://a/",
        "http://[v1.a]/",
    ] {
        assert!(bad.starts_with("//") || form("GET", bad).is_none(), "{bad}");
    }
}

#[test]
fn connect_names_host_and_port() {
    for good in ["a:1", "a:65535", "[::1]:443", "1.2.3.4:80", "a.b:0443"] {
        assert_eq!(form("CONNECT", good), Some(Form::Authority), "{good}");
    }
    for bad in [
        "", "a", "a:", ":80", "a:0", "a:65536", "a:b", "a:80/", "u@a:80", "::1:80", "[::1]",
        "a:80:80", "*",
    ] {
        assert_eq!(form("CONNECT", bad), None, "{bad}");
    }
}

#[test]
fn a_host_value_is_a_host_and_perhaps_a_port() {
    for good in [
        "a",
        "a.example",
        "A.",
        "a-b_c~",
        "a!$&'()*+,;=b",
        "%41",
        "a:",
        "a:0",
        "a:80",
        "a:65535",
        "1.2.3.4:80",
        "999.1",
        "[::]",
        "[::1]:80",
        "[1:2:3:4:5:6:7:8]",
        "[::ffff:1.2.3.4]:",
        "xn--a",
    ] {
        assert_eq!(host(good.as_bytes()), Some(Host::Named), "{good}");
    }
    for empty in ["", ":", ":80"] {
        assert_eq!(host(empty.as_bytes()), Some(Host::Empty), "{empty}");
    }
    for bad in [
        "a b",
        "a/",
        "/",
        "a?",
        "a#",
        "u@a",
        "a:b",
        "a:+1",
        "a:65536",
        "a:99999999999",
        "a:80:80",
        "a\\",
        "[",
        "]",
        "[]",
        "[::1",
        "::1",
        "[::1]a",
        "[::1]]",
        "[1::2::3]",
        "[1:2:3:4:5:6:7:8:9]",
        "[::g]",
        "[::1%1]",
        "[::1%251]",
        "[v1.a]",
        "a[::1]",
        "%",
        "%4",
        "%zz",
        "a%",
        "\u{e9}",
        "a\t",
        "a,b c",
        "http://a",
        "<a>",
        "a|b",
        "\"a\"",
    ] {
        assert_eq!(host(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_port_is_what_sixteen_bits_hold() {
    for number in 0..=u32::from(u16::MAX) + 1 {
        let expected = u16::try_from(number).ok();
        assert_eq!(port(number.to_string().as_bytes()), expected, "{number}");
    }
    for other in ["/", ":", "1/", "1:", "-1", "+1", " 1"] {
        assert_eq!(port(other.as_bytes()), None, "{other:?}");
    }
}

#[test]
fn no_bytes_are_copied_out_of_an_origin_target() {
    let target = Bytes::from_static(b"/a?b");
    let uri = uri(Form::Origin, target.clone()).unwrap();
    assert_eq!(uri.path().as_ptr(), target.as_ptr());
    assert_eq!((uri.path(), uri.query()), ("/a", Some("b")));
}

#[test]
fn an_empty_path_is_a_slash() {
    for (target, path_and_query) in [
        ("http://a", "/"),
        ("http://a?q", "/?q"),
        ("http://a/b?q", "/b?q"),
    ] {
        let uri = uri(Form::Absolute, Bytes::from_static(target.as_bytes())).unwrap();
        assert_eq!(uri.path_and_query().unwrap(), path_and_query);
        assert_eq!(uri.authority().unwrap(), "a");
    }
}
