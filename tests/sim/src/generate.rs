//! Makes the script of a seed. What a script may hold is decided here, and which scripts are steady.

use std::io::ErrorKind;

use crate::random::Random;
use crate::script::{
    Answer, Asked, BodyFlaw, Content, End, Flaw, Happening, HeadFlaw, House, Kind, MOST, Plan,
    Read, Ready, Response, Script, Site, Step, What,
};

/// The script of this seed.
pub fn script(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let random = &mut random;
    let kind = match random.below(100) {
        0..60 => Kind::Steady,
        60..72 => Kind::Gentle,
        _ => Kind::Rough,
    };
    let is_steady = kind != Kind::Rough;
    let house = house(random, is_steady);
    let count = match random.below(100) {
        0..35 => 1,
        35..65 => 2,
        65..82 => 3,
        82..98 => random.between(4, 6),
        _ => random.between(7, 64),
    };
    let mut asked: Vec<_> = (0..count)
        .map(|_| one(random, is_steady, &house, count > 6))
        .collect();
    let mut tunnel = 0;
    if let Some(last) = asked.last_mut()
        && random.percent(6)
        && last.content == Content::None
        && last.flaw.is_none()
    {
        tunnel = random.between(0, 40);
        last.plan.answer = Answer::Upgrade;
        last.is_http10 = false;
        last.plan.panics = last.plan.panics.filter(|site| *site != Site::Drop);
        if random.percent(50) {
            last.method = "CONNECT";
            (last.connection, last.offers_upgrade) = (None, false);
        } else {
            last.offers_upgrade = true;
        }
    }
    let mut script = Script {
        kind,
        asked,
        steps: Vec::new(),
        house,
        happenings: Vec::new(),
    };
    steps(&mut script, random, tunnel);
    match kind {
        Kind::Steady => {}
        Kind::Gentle => {
            let what = random.pick(&[What::LameDuck, What::Drain, What::Drain]);
            let at = random.between(1, 30);
            script.happenings.push(Happening { what, at });
        }
        Kind::Rough => trouble(&mut script, random),
    }
    script
}

fn house(random: &mut Random, is_steady: bool) -> House {
    House {
        write_buffer: random.pick(&[64 * 1024, 512 * 1024, 1024, 2048]),
        drain: random.pick(&[256 * 1024, 256 * 1024, 0, 10, 100]),
        head: (!is_steady && random.percent(20)).then(|| random.between(64, 400)),
        deadline: (!is_steady && random.percent(30)).then(|| random.between(1, 200) as u64),
        at_once: random.pick(&[64, 64, 1, 2]),
        timeout: (!is_steady && random.percent(10)).then(|| random.between(1, 30) as u64),
    }
}

fn size(random: &mut Random) -> usize {
    match random.below(100) {
        0..8 => 0,
        8..75 => random.between(1, 40),
        75..97 => random.between(41, 400),
        _ if random.percent(80) => random.between(401, 9_000),
        _ => random.between(9_001, 80_000),
    }
}

fn one(random: &mut Random, is_steady: bool, house: &House, is_small: bool) -> Asked {
    let content = match random.below(100) {
        _ if is_small => Content::None,
        0..50 => Content::None,
        50..78 => Content::Length(size(random)),
        78 if random.percent(20) => Content::Length(random.between(100_000, MOST)),
        _ => Content::Chunked {
            sizes: (0..random.between(0, 4))
                .map(|_| size(random).max(1))
                .collect(),
            extended: random.percent(20),
            trailer: random.percent(20),
        },
    };
    let has_body = content != Content::None;
    let is_chunked = matches!(content, Content::Chunked { .. });
    let is_http10 = !is_chunked && random.percent(12);
    let flaw = match random.below(100) {
        0..4 if !has_body => Some(Flaw::Head(random.pick(&HeadFlaw::ALL))),
        0..25 if is_chunked => Some(Flaw::Body(random.pick(&BodyFlaw::ALL))),
        _ => None,
    };
    let plan = plan(random, is_steady, house, &content, flaw.is_some());
    Asked {
        empty_lines: if random.percent(3) {
            random.between(1, 3)
        } else {
            0
        },
        method: if has_body {
            random.pick(&["POST", "PUT", "GET", "HEAD"])
        } else if flaw.is_some() {
            "GET"
        } else {
            random.pick(&["GET", "GET", "GET", "HEAD", "DELETE"])
        },
        is_http10: is_http10 && flaw.is_none(),
        connection: match random.below(100) {
            0..6 => Some("close"),
            6..40 if is_http10 => Some("keep-alive"),
            _ => None,
        },
        expects: has_body && !is_http10 && random.percent(20),
        offers_upgrade: !has_body && random.percent(4),
        content,
        flaw,
        plan,
    }
}

fn plan(
    random: &mut Random,
    is_steady: bool,
    house: &House,
    content: &Content,
    is_broken: bool,
) -> Plan {
    let few = |random: &mut Random| {
        if random.percent(25) {
            random.between(1, 20) as u64
        } else {
            0
        }
    };
    let is_drainable = matches!(content, Content::Length(bytes) if *bytes <= house.drain);
    let bytes = content.bytes();
    let read = match random.below(100) {
        0..45 => Read::All,
        45..65 => Read::Drop,
        // How much a frame holds depends on the cuts, so of a body that isn't drained either way some isn't steady.
        65..72
            if bytes > 0
                && (is_drainable || !is_steady || matches!(content, Content::Chunked { .. })) =>
        {
            Read::Some(random.between(1, bytes))
        }
        72..80 => Read::Hold,
        80..90 if !is_broken || !is_steady => Read::Task(few(random)),
        90..100 if !is_broken || !is_steady => Read::Echo,
        _ => Read::All,
    };
    let mut response = response(random, is_steady);
    if read == Read::Echo {
        response = Response {
            frames: Vec::new(),
            hint: None,
            declared: None,
            end: End::Clean,
            trailer: false,
            ..response
        };
    }
    let answer = match random.below(100) {
        0..4 => Answer::Error,
        4..6 if !is_steady => Answer::Never,
        6..8 => Answer::Upgrade,
        _ => Answer::Response(response),
    };
    let panics = match random.below(100) {
        0 => Some(Site::Call),
        1 => Some(Site::Future),
        2 => Some(Site::Late),
        3 => Some(Site::Ready),
        4 if !is_steady && matches!(answer, Answer::Response(_)) => Some(Site::Drop),
        _ => None,
    };
    Plan {
        ready: match random.below(100) {
            0..10 => Ready::Later(random.between(1, 20) as u64),
            10 => Ready::Fails,
            _ => Ready::Now,
        },
        panics,
        hints: if random.percent(5) {
            random.between(1, 3)
        } else {
            0
        },
        wait: few(random),
        read,
        passes_errors: random.percent(50),
        then: few(random),
        answer,
    }
}

fn response(random: &mut Random, is_steady: bool) -> Response {
    let frames: Vec<_> = match random.below(100) {
        0..10 => Vec::new(),
        10..60 => vec![size(random)],
        _ => (0..random.between(1, 4)).map(|_| size(random)).collect(),
    };
    let given: usize = frames.iter().sum();
    let other = |random: &mut Random| {
        if random.percent(50) {
            given + random.between(1, 9)
        } else {
            given / 2
        }
    };
    let lies = random.percent(8);
    let (hint, declared) = match random.below(4) {
        0 if lies => (Some(other(random)), None),
        1 if lies => (Some(given), Some(other(random))),
        _ if lies => (None, Some(other(random))),
        0 => (Some(given), None),
        1 => (None, Some(given)),
        2 => (Some(given), Some(given)),
        _ => (None, None),
    };
    let end = match random.below(100) {
        0..4 => End::Error,
        4..6 => End::Panic,
        6..8 if !is_steady => End::Never,
        _ => End::Clean,
    };
    let goes_beyond = hint.or(declared).is_some_and(|length| given > length);
    Response {
        status: random.pick(&[200, 200, 200, 200, 404, 204, 304, 205, 500]),
        wait: if !goes_beyond && random.percent(20) {
            random.between(1, 10) as u64
        } else {
            0
        },
        frames,
        hint,
        declared,
        end,
        closes: random.percent(6),
        trailer: random.percent(8),
    }
}

/// How the client goes about it.
fn steps(script: &mut Script, random: &mut Random, tunnel: usize) {
    let count = script.asked.len();
    let waits = random.percent(35);
    let mut is_cut = false;
    let mut steps = Vec::new();
    if random.percent(10) {
        steps.push(Step::TakeOnly(random.pick(&[0, 0, 1, 100, 1000])));
    }
    for at in 0..count {
        let asked = &script.asked[at];
        let is_last = at + 1 == count;
        let can_be_cut = asked.flaw.is_none()
            && !asked.expects
            && !matches!(asked.plan.read, Read::Task(_) | Read::Echo | Read::Some(_));
        if is_last && can_be_cut && random.percent(10) {
            let mut bytes = Vec::new();
            asked.write(at, &mut bytes);
            steps.push(Step::Part(at, random.between(1, bytes.len() - 1)));
            is_cut = true;
        } else if asked.expects && asked.content.bytes() > 0 && random.percent(70) {
            steps.extend([Step::Head(at), Step::Continue(at), Step::Body(at)]);
        } else {
            steps.push(Step::Send(at));
        }
        if waits && !is_cut {
            steps.push(Step::Answers(at + 1));
        }
        if random.percent(10) {
            steps.push(Step::Pause(random.between(1, 60) as u64));
        }
    }
    if tunnel > 0 && !is_cut {
        if random.percent(50) {
            steps.push(Step::Answers(count));
        }
        steps.push(Step::Tunnel(tunnel));
    }
    if steps.iter().any(|step| matches!(step, Step::TakeOnly(_))) {
        // Waiting for answers while taking none would take for ever.
        steps.retain(|step| !matches!(step, Step::Answers(_) | Step::Continue(_)));
        steps.push(Step::Pause(random.between(1, 300) as u64));
        steps.push(Step::TakeAll);
    }
    match random.below(100) {
        // What is cut never gets whole, and another protocol has no deadline.
        _ if is_cut => steps.push(Step::Finish),
        _ if script
            .asked
            .iter()
            .any(|asked| matches!(asked.plan.answer, Answer::Upgrade)) =>
        {
            steps.push(Step::Finish)
        }
        0..35 => steps.push(Step::Finish),
        35..60 => steps.extend([Step::Answers(count), Step::Finish]),
        60..80 => steps.extend([Step::Answers(count), Step::Pause(100), Step::Finish]),
        _ => {}
    }
    script.steps = steps;
}

/// What makes a script unsteady.
fn trouble(script: &mut Script, random: &mut Random) {
    let length: usize = 100 * script.asked.len();
    for _ in 0..random.below(3) {
        let what = match random.below(12) {
            0 => What::LameDuck,
            1..4 => What::Drain,
            4 => What::Cut,
            5 | 6 => What::Drop,
            7 => What::ReadFails(random.pick(&[ErrorKind::ConnectionReset, ErrorKind::TimedOut])),
            8 => {
                What::WriteFails(random.pick(&[ErrorKind::BrokenPipe, ErrorKind::ConnectionReset]))
            }
            9 => What::WriteZero,
            _ => continue,
        };
        let at = match what {
            What::ReadFails(_) | What::WriteFails(_) | What::WriteZero => random.below(length * 3),
            _ => random.between(1, 12),
        };
        script.happenings.push(Happening { what, at });
    }
    if random.percent(15) {
        let at = random.between(0, script.steps.len());
        script.steps.insert(at, Step::Reset);
    }
    if random.percent(10) {
        let at = random.between(0, script.steps.len());
        script.steps.insert(at, Step::Finish);
    }
    // No deadline of the container ends a handler that never answers.
    if script.asked.iter().any(Asked::is_endless) {
        script.steps.retain(|step| {
            // A reset behind FIN can't be seen by who only reads and writes.
            !matches!(step, Step::Answers(_) | Step::Continue(_) | Step::Finish)
        });
        script.steps.extend([Step::Pause(100), Step::Reset]);
    }
}
