use super::*;

const PLAIN: Request = Request {
    http10: false,
    method: Kind::Other,
    form: Form::Origin,
};

type Told<'a> = &'a [(Field, &'a str)];

/// The decision about a head with a valid `Host` and these fields.
fn decide(request: Request, fields: Told<'_>) -> Result<(Exchange, Length), Reason> {
    let mut framing = Framing::default();
    framing.field(Field::Host, b"a")?;
    for (field, value) in fields {
        framing.field(*field, value.as_bytes())?;
    }
    framing.decide(request, 1000)
}

fn length(fields: Told<'_>) -> Result<Length, Reason> {
    decide(PLAIN, fields).map(|(_, length)| length)
}

fn http10() -> Request {
    Request {
        http10: true,
        ..PLAIN
    }
}

#[test]
fn without_length_and_coding_there_is_no_body() {
    assert_eq!(length(&[]), Ok(Length::Known(0)));
}

#[test]
fn each_pair_of_length_and_coding_has_one_reading() {
    use Length::{Chunked, Known};
    use Reason::{ContentLength, LengthAndCoding, TransferEncoding, UnknownCoding};
    // The values, and what they come to without the other field.
    let lengths = [
        (None, Ok(Known(0))),
        (Some("0"), Ok(Known(0))),
        (Some("7"), Ok(Known(7))),
        (Some("007"), Ok(Known(7))),
        (Some(""), Err(ContentLength)),
        (Some("+7"), Err(ContentLength)),
        (Some("-0"), Err(ContentLength)),
        (Some("7,7"), Err(ContentLength)),
        (Some("7 7"), Err(ContentLength)),
        (Some("0x7"), Err(ContentLength)),
        (Some("7\u{b}"), Err(ContentLength)),
        (Some("\u{663}"), Err(ContentLength)),
        (Some("7.0"), Err(ContentLength)),
        (Some("18446744073709551616"), Err(ContentLength)),
        (Some("99999999999999999999999"), Err(ContentLength)),
    ];
    let codings = [
        (None, Ok(Known(0))),
        (Some("chunked"), Ok(Chunked)),
        (Some("CHUNKED"), Ok(Chunked)),
        (Some(""), Err(TransferEncoding)),
        (Some(","), Err(TransferEncoding)),
        (Some("chunked,"), Err(TransferEncoding)),
        (Some(",chunked"), Err(TransferEncoding)),
        (Some("chunked, chunked"), Err(TransferEncoding)),
        (Some("chunked, gzip"), Err(TransferEncoding)),
        (Some("gzip, chunked, chunked"), Err(TransferEncoding)),
        (Some("gzip, chunked, gzip"), Err(TransferEncoding)),
        (Some("chunked;q=1"), Err(TransferEncoding)),
        (Some("chunked gzip"), Err(TransferEncoding)),
        (Some("\"chunked\""), Err(TransferEncoding)),
        (Some("\u{b}chunked"), Err(TransferEncoding)),
        (Some("chunked\u{c}"), Err(TransferEncoding)),
        (Some("gzip, chunked"), Err(UnknownCoding)),
        (Some("gzip"), Err(UnknownCoding)),
        (Some("gzip;q=1"), Err(UnknownCoding)),
        (Some("identity"), Err(UnknownCoding)),
        (Some("xchunked"), Err(UnknownCoding)),
        (Some("chunke"), Err(UnknownCoding)),
    ];
    for (length_value, by_length) in lengths {
        for (coding_value, by_coding) in codings {
            let expected = match (by_length, by_coding) {
                (Err(reason), _) => Err(reason),
                (by_length, _) if coding_value.is_none() => by_length,
                (_, Err(TransferEncoding)) => Err(TransferEncoding),
                _ if length_value.is_some() => Err(LengthAndCoding),
                (_, by_coding) => by_coding,
            };
            let length_field = length_value.map(|value| (Field::ContentLength, value));
            let coding_field = coding_value.map(|value| (Field::TransferEncoding, value));
            let told: Vec<_> = length_field.into_iter().chain(coding_field).collect();
            let reversed: Vec<_> = told.iter().rev().copied().collect();
            assert_eq!(length(&told), expected, "{told:?}");
            assert_eq!(length(&reversed), expected, "{reversed:?}");
        }
    }
}

#[test]
fn codings_of_all_lines_are_one_list() {
    let lines = |first, second| {
        length(&[
            (Field::TransferEncoding, first),
            (Field::TransferEncoding, second),
        ])
    };
    assert_eq!(lines("chunked", "chunked"), Err(Reason::TransferEncoding));
    assert_eq!(lines("chunked", "identity"), Err(Reason::TransferEncoding));
    assert_eq!(lines("gzip", "chunked"), Err(Reason::UnknownCoding));
    assert_eq!(lines("", "chunked"), Err(Reason::TransferEncoding));
}

#[test]
fn a_second_content_length_is_refused_even_if_equal() {
    let twice = &[(Field::ContentLength, "1"), (Field::ContentLength, "1")];
    assert_eq!(length(twice), Err(Reason::ContentLength));
}

#[test]
fn a_transfer_coding_in_1_0_is_refused() {
    for coding in ["chunked", "gzip", ""] {
        let told = &[(Field::TransferEncoding, coding)];
        assert_eq!(decide(http10(), told), Err(Reason::TransferEncoding));
    }
}

#[test]
fn a_declared_length_may_be_as_large_as_the_limit() {
    for (declared, expected) in [
        ("999", Ok(Length::Known(999))),
        ("1000", Ok(Length::Known(1000))),
        ("1001", Err(Reason::BodyTooLarge)),
    ] {
        assert_eq!(length(&[(Field::ContentLength, declared)]), expected);
    }
}

#[test]
fn a_connection_is_kept_by_version_and_whole_tokens() {
    let kept = |request, values: &[&str]| {
        let told: Vec<_> = values
            .iter()
            .map(|value| (Field::Connection, *value))
            .collect();
        decide(request, &told).unwrap().0.close.is_none()
    };
    assert!(kept(PLAIN, &[]));
    assert!(kept(PLAIN, &["closed, xclose, close;q, clos"]));
    assert!(!kept(PLAIN, &["Close"]));
    assert!(!kept(PLAIN, &["keep-alive,\tCLOSE ,x"]));
    assert!(!kept(PLAIN, &["close", "keep-alive"]));
    assert!(!kept(PLAIN, &["x", "close"]));
    assert!(!kept(http10(), &[]));
    assert!(kept(http10(), &["Keep-Alive"]));
    assert!(kept(http10(), &["x,,keep-alive"]));
    assert!(!kept(http10(), &["keep-alive, close"]));
    assert!(!kept(http10(), &["keep-aliv"]));
}

#[test]
fn a_continue_is_awaited_only_in_1_1_and_with_a_body() {
    let expects = |request, told: Told<'_>| {
        decide(request, told).map(|(exchange, _)| exchange.expects_continue)
    };
    let body = (Field::ContentLength, "1");
    let expect = (Field::Expect, "100-Continue");
    assert_eq!(expects(PLAIN, &[expect, body]), Ok(true));
    assert_eq!(
        expects(PLAIN, &[expect, (Field::TransferEncoding, "chunked")]),
        Ok(true)
    );
    assert_eq!(expects(PLAIN, &[expect]), Ok(false));
    assert_eq!(
        expects(PLAIN, &[expect, (Field::ContentLength, "0")]),
        Ok(false)
    );
    assert_eq!(expects(http10(), &[expect, body]), Ok(false));
    assert_eq!(expects(PLAIN, &[body]), Ok(false));
}

#[test]
fn any_other_expectation_is_refused() {
    for value in ["", "100", "100-continue, x", "x", "100-continue;q=1"] {
        for request in [PLAIN, http10()] {
            let told = &[(Field::Expect, value), (Field::Expect, "100-continue")];
            assert_eq!(decide(request, told), Err(Reason::Expectation), "{value:?}");
        }
    }
}

#[test]
fn an_upgrade_needs_both_fields_1_1_and_no_body() {
    let offered = |request, told: Told<'_>| decide(request, told).unwrap().0.upgrade;
    let named = (Field::Connection, "x, Upgrade");
    let upgrade = (Field::Upgrade, "websocket");
    assert!(offered(PLAIN, &[named, upgrade]));
    assert!(offered(
        PLAIN,
        &[upgrade, named, (Field::ContentLength, "0")]
    ));
    assert!(!offered(PLAIN, &[named]));
    assert!(!offered(PLAIN, &[upgrade]));
    assert!(!offered(
        PLAIN,
        &[named, upgrade, (Field::ContentLength, "1")]
    ));
    assert!(!offered(http10(), &[named, upgrade]));
}

#[test]
fn host_is_there_once() {
    let hosts = |request, values: &[&str]| {
        let mut framing = Framing::default();
        for value in values {
            framing.field(Field::Host, value.as_bytes())?;
        }
        framing.decide(request, 0).map(|_| ())
    };
    let absolute = |http10| Request {
        http10,
        form: Form::Absolute,
        ..PLAIN
    };
    assert_eq!(hosts(PLAIN, &["a"]), Ok(()));
    assert_eq!(hosts(PLAIN, &[]), Err(Reason::Host));
    assert_eq!(hosts(absolute(false), &[]), Err(Reason::Host));
    assert_eq!(hosts(http10(), &[]), Ok(()));
    assert_eq!(hosts(PLAIN, &["a", "a"]), Err(Reason::Host));
    assert_eq!(hosts(http10(), &["a", "a"]), Err(Reason::Host));
    assert_eq!(hosts(PLAIN, &[""]), Err(Reason::Host));
    assert_eq!(hosts(http10(), &[""]), Err(Reason::Host));
    assert_eq!(hosts(absolute(false), &[""]), Ok(()));
    assert_eq!(hosts(absolute(true), &[":80"]), Ok(()));
    assert_eq!(hosts(absolute(false), &["a b"]), Err(Reason::Host));
}
