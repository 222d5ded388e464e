//! What the answers must be: of each request what the RFCs and the container's promises say about it, worked out from
//! the script alone. A steady script has exactly one outcome; of any other only what must never happen is known.

use crate::answers::Final;
use crate::script::{
    Answer, Asked, Content, End, House, Read, Ready, Response, Script, Site, Step,
};

/// What must come for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The status.
    pub status: u16,
    /// Made by the handler.
    pub is_own: bool,
    /// Says that the connection ends.
    pub says_close: bool,
    /// Bytes of content; the container's own texts aren't counted.
    pub bytes: usize,
    /// Its end is seen.
    pub is_complete: bool,
    /// Comes with the trailer.
    pub trailer: bool,
}

/// The outcome of a steady script.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The final responses.
    pub finals: Vec<Expected>,
    /// Everything behind this request belongs to another protocol.
    pub tunnel_behind: Option<usize>,
}

/// What the answers of a steady script must be.
pub fn outcome(script: &Script) -> Outcome {
    let mut outcome = Outcome::default();
    let cut = script.steps.iter().find_map(|step| match step {
        Step::Part(request, bytes) => Some((*request, *bytes)),
        _ => None,
    });
    let mut bytes = Vec::new();
    for (at, asked) in script.asked.iter().enumerate() {
        bytes.clear();
        let head = asked.write(at, &mut bytes);
        let came = match cut {
            Some((request, bytes)) if request == at => bytes,
            _ => bytes.len(),
        };
        if came < head {
            break;
        }
        let (expected, goes_on) = answer(asked, &script.house, came < bytes.len());
        let switches =
            expected.status == 101 || asked.method == "CONNECT" && expected.status == 200;
        outcome.finals.push(expected);
        if switches {
            outcome.tunnel_behind = Some(at);
            break;
        }
        if !goes_on {
            break;
        }
    }
    outcome
}

/// The container's own answer.
fn own(status: u16, says_close: bool) -> Expected {
    Expected {
        status,
        is_own: true,
        says_close,
        bytes: 0,
        is_complete: true,
        trailer: false,
    }
}

/// The answer to one request, and whether the connection goes on behind it.
fn answer(asked: &Asked, house: &House, is_cut: bool) -> (Expected, bool) {
    let plan = &asked.plan;
    if let Some(flaw) = asked.head_flaw() {
        return (own(flaw.status(), true), false);
    }
    let panics = plan.panics.is_some_and(|site| site != Site::Drop);
    if plan.ready == Ready::Fails || panics && plan.panics != Some(Site::Late) {
        return (own(500, true), false);
    }
    let body = after_body(asked, house, is_cut);
    let says_close = asked.asks_for_close() || body == Rest::SaysClose || body == Rest::Failed;
    let goes_on = !says_close && body == Rest::GoesOn && plan.panics.is_none();
    let reads = matches!(plan.read, Read::All | Read::Some(_));
    if reads && body == Rest::Failed && plan.passes_errors {
        return (own(400, true), false);
    }
    if panics {
        return (own(500, true), false);
    }
    match &plan.answer {
        Answer::Response(response) => {
            let (expected, ends) = reply(asked, response, says_close);
            let goes_on = goes_on && !ends && !expected.says_close;
            (expected, goes_on)
        }
        Answer::Error | Answer::Never => (own(500, says_close), goes_on),
        Answer::Upgrade => {
            let is_connect = asked.method == "CONNECT";
            let switches = asked.offers_upgrade && !asked.is_http10 || is_connect;
            let status = match (switches, is_connect) {
                (true, false) => 101,
                _ => 200,
            };
            let expected = Expected {
                status,
                says_close: says_close && !switches,
                is_own: false,
                ..own(200, false)
            };
            (expected, goes_on)
        }
    }
}

/// What a request's body means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    GoesOn,
    /// The response can still say it.
    SaysClose,
    /// Known only behind the head of the response.
    Ends,
    /// The handler saw an error.
    Failed,
}

fn after_body(asked: &Asked, house: &House, is_cut: bool) -> Rest {
    let plan = &asked.plan;
    let is_broken = is_cut || asked.body_flaw().is_some();
    let answers = matches!(&plan.answer, Answer::Response(_));
    let is_silent = match &plan.answer {
        Answer::Response(response) => is_silent(asked, response),
        _ => true,
    };
    let read = match plan.read {
        Read::Hold | Read::Echo if !answers => Read::Drop,
        Read::Echo if is_silent => Read::Hold,
        Read::Some(0) => Read::Drop,
        read => read,
    };
    let is_drainable = match &asked.content {
        Content::None | Content::Length(0) => return Rest::GoesOn,
        Content::Length(bytes) => *bytes <= house.drain,
        Content::Chunked { .. } => false,
    };
    match read {
        Read::All | Read::Task(_) | Read::Echo if is_broken => Rest::Failed,
        Read::All | Read::Task(_) | Read::Echo => Rest::GoesOn,
        // Who waits for 100 may or may not send the body now.
        Read::Drop if !is_drainable || asked.expects => Rest::SaysClose,
        Read::Some(_) if !is_drainable => Rest::SaysClose,
        Read::Drop | Read::Some(_) | Read::Hold if is_cut => Rest::Ends,
        Read::Drop | Read::Some(_) => Rest::GoesOn,
        Read::Hold if is_drainable => Rest::GoesOn,
        Read::Hold => Rest::Ends,
    }
}

fn is_silent(asked: &Asked, response: &Response) -> bool {
    asked.method == "HEAD" || matches!(response.status, 204 | 205 | 304)
}

/// The handler's response, and whether it ends the connection by what its body does.
fn reply(asked: &Asked, response: &Response, says_close: bool) -> (Expected, bool) {
    let mut expected = Expected {
        status: response.status,
        is_own: false,
        says_close: says_close || response.closes,
        ..own(200, false)
    };
    if is_silent(asked, response) {
        return (expected, false);
    }
    if asked.plan.read == Read::Echo {
        expected.bytes = asked.content.bytes();
        let is_chunked = matches!(asked.content, Content::Chunked { .. });
        expected.trailer = matches!(asked.content, Content::Chunked { trailer: true, .. });
        debug_assert!(!(is_chunked && asked.is_http10));
        return (expected, false);
    }
    let given: usize = response.frames.iter().sum();
    if let (Some(hint), Some(declared)) = (response.hint, response.declared)
        && hint != declared
    {
        return (own(500, says_close), false);
    }
    let is_clean = response.end == End::Clean;
    match response.hint.or(response.declared) {
        Some(length) => {
            expected.bytes = given.min(length);
            expected.is_complete = given >= length;
            (
                expected,
                given < length || goes_beyond(&response.frames, length),
            )
        }
        None if asked.is_http10 => {
            expected.bytes = given;
            expected.says_close = true;
            expected.is_complete = is_clean;
            (expected, true)
        }
        None => {
            expected.bytes = given;
            expected.is_complete = is_clean;
            expected.trailer = response.trailer && is_clean;
            (expected, !is_clean)
        }
    }
}

/// A body is asked once more behind its declared length, where an empty frame is no more.
fn goes_beyond(frames: &[usize], length: usize) -> bool {
    let mut given = 0;
    for (at, frame) in frames.iter().enumerate() {
        given += frame;
        if given == length {
            return length > 0 && frames.get(at + 1).is_some_and(|next| *next > 0);
        }
    }
    given > length && length > 0
}

/// The first difference between what came and what must come.
pub fn difference(expected: &Outcome, finals: &[Final]) -> Option<String> {
    let other =
        expected
            .finals
            .iter()
            .zip(finals)
            .enumerate()
            .find_map(|(at, (expected, came))| {
                let came = understood(came);
                (came != *expected).then(|| other(at, &came, expected))
            });
    let at = finals.len();
    other
        .or_else(|| {
            let lost = expected.finals.get(at)?;
            Some(format!(
                "lost: no answer to request {at}, which must be {lost:?}"
            ))
        })
        .or_else(|| {
            let more = at > expected.finals.len();
            more.then(|| {
                format!(
                    "more: an answer too many, behind request {}",
                    expected.finals.len()
                )
            })
        })
}

/// The same where the server was told to stop politely: answers may say so and be the last, but none that was begun is
/// lost. `accepted` is how many must have one.
pub fn lost(expected: &Outcome, finals: &[Final], accepted: usize) -> Option<String> {
    let other =
        expected
            .finals
            .iter()
            .zip(finals)
            .enumerate()
            .find_map(|(at, (expected, came))| {
                let mut came = understood(came);
                came.says_close &= expected.says_close;
                (came != *expected).then(|| other(at, &came, expected))
            });
    other.or_else(|| {
        let is_short = finals.len() < accepted.min(expected.finals.len());
        is_short.then(|| {
            format!(
                "lost: {accepted} requests were accepted, {} answered",
                finals.len()
            )
        })
    })
}

fn other(at: usize, came: &Expected, expected: &Expected) -> String {
    format!("other: the answer to request {at} is {came:?} and must be {expected:?}")
}

fn understood(came: &Final) -> Expected {
    Expected {
        status: came.status,
        is_own: came.id.is_none(),
        says_close: came.says_close,
        bytes: if came.id.is_none() { 0 } else { came.bytes },
        is_complete: came.is_complete,
        trailer: came.trailer,
    }
}

/// What must hold of any answer that looks complete, however its connection fared.
pub fn lie(script: &Script, at: usize, came: &Final) -> Option<String> {
    let asked = script.asked.get(at)?;
    if !came.is_complete || came.id.is_none() {
        return None;
    }
    let Answer::Response(response) = &asked.plan.answer else {
        return None;
    };
    let (expected, _) = reply(asked, response, false);
    let is_whole =
        expected.is_complete && came.bytes == expected.bytes && came.trailer == expected.trailer;
    (!is_whole).then(|| {
        format!(
            "a cut answer looks complete: {} bytes of answer {at}, whole: {expected:?}",
            came.bytes
        )
    })
}
