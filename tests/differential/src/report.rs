//! What a run found, in words: failures for whoever has to mend them, the table for whoever wants to know.

use std::fmt::Write;
use std::process::Command;

use crate::direct::Outcome;
use crate::payloads::Payload;
use crate::request::Request;
use crate::verdict::{self, Beside, Through};
use crate::{Failure, Run};

const BESIDE: [(Beside, &str); 4] = [
    (Beside::Same, "same"),
    (Beside::Stricter, "wharf stricter"),
    (Beside::OtherDiffers, "valid, but the other differs"),
    (Beside::Laxer, "wharf laxer"),
];

const THROUGH: [(Through, &str); 4] = [
    (Through::AsMeant, "as meant"),
    (Through::Lenient, "as a lenient proxy may read it"),
    (Through::ProxyDiffers, "valid, but the proxy differs"),
    (Through::Disagreement, "disagreement"),
];

impl Run {
    /// What failed, one text each: wharf isn't as meant, is laxer, or disagrees with a proxy; or what is listed didn't happen.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = vec![];
        for (at, payload) in self.documents.payloads.iter().enumerate() {
            let mut tell = |what: String| failures.push(self.account(at, &what));
            if !verdict::as_meant(payload, &self.wharf[at]) {
                tell("wharf doesn't do what is meant".to_owned());
            }
            for (server, outcomes) in &self.others {
                if self.beside(server, at) == Beside::Laxer {
                    tell(format!(
                        "wharf is laxer than {server}, or reads it otherwise"
                    ));
                } else if *server == "wharf/httparse" && outcomes[at].taken != self.wharf[at].taken
                {
                    tell("the codecs differ".to_owned());
                }
            }
            for (proxy, passages) in &self.proxies {
                if self.through(proxy, at) == Through::Disagreement {
                    let faults = passages[at].faults.join("; ");
                    tell(format!(
                        "through {proxy} wharf saw something else. {faults}"
                    ));
                }
            }
        }
        failures.extend(self.stale());
        failures
    }

    /// The exceptions that nothing needs: a server does better than it is said to.
    fn stale(&self) -> impl Iterator<Item = String> {
        let exceptions = self.documents.exceptions.iter();
        let stale = exceptions.filter(|exception| {
            let mut payloads = self.documents.payloads.iter();
            let at = payloads.position(|payload| payload.name == exception.payload);
            let at = at.expect("checked when read");
            let server = &exception.server;
            let others = self.others.iter().filter(|(name, _)| name == server);
            let proxies = self.proxies.iter().filter(|(name, _)| name == server);
            let differs = others.map(|(name, _)| self.beside(name, at) != Beside::Same);
            let refuses = proxies.map(|(name, _)| self.through(name, at) != Through::AsMeant);
            !differs.chain(refuses).any(|needed| needed)
        });
        stale.map(|exception| {
            format!(
                "others.md: {} takes {}",
                exception.server, exception.payload
            )
        })
    }

    fn beside(&self, server: &str, at: usize) -> Beside {
        let payload = &self.documents.payloads[at];
        let other = self.others.iter().find(|(name, _)| *name == server);
        let (_, outcomes) = other.expect("a server of this run");
        verdict::beside(
            &self.documents,
            server,
            payload,
            &self.wharf[at],
            &outcomes[at],
        )
    }

    fn through(&self, proxy: &str, at: usize) -> Through {
        let payload = &self.documents.payloads[at];
        let other = self.proxies.iter().find(|(name, _)| *name == proxy);
        let (_, passages) = other.expect("a proxy of this run");
        verdict::through(&self.documents, proxy, payload, &passages[at])
    }

    /// A payload and what everybody made of it.
    fn account(&self, at: usize, what: &str) -> String {
        let payload = &self.documents.payloads[at];
        let mut text = format!("{}: {what}\n  meant: {}", payload.name, meant(payload));
        let mut line = |name: &str, outcome: &Outcome| {
            let _ = write!(text, "\n  {name}: {}", told(outcome));
        };
        line("wharf", &self.wharf[at]);
        self.others
            .iter()
            .for_each(|(name, outcomes)| line(name, &outcomes[at]));
        for (name, passages) in &self.proxies {
            line(&format!("wharf behind {name}"), &passages[at].outcome);
        }
        text
    }

    /// The counts.
    pub fn summary(&self) -> String {
        let all = || 0..self.documents.payloads.len();
        let mut text = format!(
            "| {} payloads: wharf beside |",
            self.documents.payloads.len()
        );
        header(&mut text, self.others.iter().map(|(name, _)| *name));
        for (class, name) in &BESIDE {
            let count = |server| {
                all()
                    .filter(|at| self.beside(server, *at) == *class)
                    .count()
            };
            row(
                &mut text,
                name,
                self.others.iter().map(|(server, _)| count(server)),
            );
        }
        text.push_str("\n| wharf behind |");
        header(&mut text, self.proxies.iter().map(|(name, _)| *name));
        for (class, name) in &THROUGH {
            let count = |proxy| {
                all()
                    .filter(|at| self.through(proxy, *at) == *class)
                    .count()
            };
            row(
                &mut text,
                name,
                self.proxies.iter().map(|(proxy, _)| count(proxy)),
            );
        }
        text
    }

    /// The whole table, as Markdown.
    ///
    /// # Errors
    ///
    /// When `date` or `git` can't be asked.
    pub fn results(&self) -> Result<String, Failure> {
        let said = |command: &str, words: &[&str]| -> Result<String, Failure> {
            let output = Command::new(command).args(words).output()?;
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let date = said("date", &["--utc", "+%Y-%m-%d"])?;
        let commit = said("git", &["describe", "--always", "--dirty"])?;
        Ok(format!(
            "# What wharf-differential found\n\n\
             Written by `wharf-differential` on {date}, commit {commit}: hyper {}, {}, in their ordinary settings but for what \
             `src/nginx.conf`, `src/haproxy.cfg` and `src/client.rs` say. What the classes mean stands in \
             [payloads/README.md](payloads/README.md). Content is shown as its length and the start of its SHA-256, `✗ 400` is a \
             refusal, `✗` an end without one.\n\n\
             {}\n{}\n{}\n{}\n{}",
            hyper_version(),
            self.versions.join(", "),
            self.summary(),
            self.rules(),
            self.stricter(),
            self.exceptions(),
            self.lenient(),
        ))
    }

    fn rules(&self) -> String {
        let mut text = "## Why wharf is stricter\n\n| rule | source | what it says | payloads |\n|---|---|---|---|\n".to_owned();
        for (name, rule) in &self.documents.rules {
            let count = self
                .stricter_places()
                .filter(|at| self.documents.payloads[*at].rule.as_ref() == Some(name));
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} |",
                rule.source,
                rule.text,
                count.count()
            );
        }
        text
    }

    /// The payloads that another server took more of.
    fn stricter_places(&self) -> impl Iterator<Item = usize> {
        (0..self.documents.payloads.len()).filter(|at| {
            let mut others = self.others.iter();
            others.any(|(server, _)| self.beside(server, *at) == Beside::Stricter)
        })
    }

    fn stricter(&self) -> String {
        let mut text = "## Where wharf is stricter\n\nOf the others those are shown that took more.\n\n| payload | rule | wharf |".to_owned();
        let others = &self.others[1..];
        others
            .iter()
            .for_each(|(name, _)| text.push_str(&format!(" {name} |")));
        text.push_str("\n|---|---|---|---|---|---|\n");
        for at in self.stricter_places() {
            let payload = &self.documents.payloads[at];
            let rule = payload.rule.as_deref().unwrap_or_default();
            let _ = write!(
                text,
                "| {} | {rule} | {} |",
                code(&payload.name),
                in_cell(&self.wharf[at])
            );
            for (server, outcomes) in others {
                let cell = match self.beside(server, at) {
                    Beside::Same => String::new(),
                    _ => in_cell(&outcomes[at]),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    fn exceptions(&self) -> String {
        let mut text = "## What is valid and others refuse or read otherwise\n\n\
             | server | payload | valid by | what it does | wharf took | the other took |\n|---|---|---|---|---|---|\n"
            .to_owned();
        for exception in &self.documents.exceptions {
            let mut payloads = self.documents.payloads.iter();
            let at = payloads.position(|payload| payload.name == exception.payload);
            let at = at.expect("checked when read");
            let other = self
                .others
                .iter()
                .find(|(name, _)| *name == exception.server);
            let other = other.map(|(_, outcomes)| &outcomes[at]);
            let proxy = self
                .proxies
                .iter()
                .find(|(name, _)| *name == exception.server);
            let other = other.or(proxy.map(|(_, passages)| &passages[at].outcome));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                exception.server,
                code(&exception.payload),
                exception.source,
                exception.text,
                in_cell(&self.wharf[at]),
                other.map(in_cell).unwrap_or_default(),
            );
        }
        text
    }

    fn lenient(&self) -> String {
        let mut text = "## What proxies take leniently\n\n\
             What isn't valid as it was sent, the proxy writes anew in a valid form; wharf saw what the proxy sent.\n\n\
             | payload | rule | proxy | wharf saw |\n|---|---|---|---|\n"
            .to_owned();
        for (at, payload) in self.documents.payloads.iter().enumerate() {
            for (proxy, passages) in &self.proxies {
                if self.through(proxy, at) == Through::Lenient {
                    let rule = payload.rule.as_deref().unwrap_or_default();
                    let _ = writeln!(
                        text,
                        "| {} | {rule} | {proxy} | {} |",
                        code(&payload.name),
                        in_cell(&passages[at].outcome)
                    );
                }
            }
        }
        text
    }
}

/// As this package was built.
fn hyper_version() -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let (_, rest) = lock
        .split_once("name = \"hyper\"\nversion = \"")
        .expect("hyper is locked");
    rest.split('"').next().unwrap_or_default()
}

fn header<'a>(text: &mut String, names: impl Iterator<Item = &'a str>) {
    let names: Vec<_> = names.collect();
    let _ = writeln!(
        text,
        " {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
}

fn row(text: &mut String, name: &str, counts: impl Iterator<Item = usize>) {
    let counts: Vec<_> = counts.map(|count| count.to_string()).collect();
    let _ = writeln!(text, "| {name} | {} |", counts.join(" | "));
}

fn meant(payload: &Payload) -> String {
    let refusal = payload.rule.as_ref().map(|rule| format!("✗ {rule}"));
    listed(&payload.meant, refusal)
}

fn told(outcome: &Outcome) -> String {
    let is_over = outcome.statuses.len() > outcome.taken.len() || outcome.taken.is_empty();
    let refusal = match outcome.refusal() {
        Some(status) => Some(format!("✗ {status}")),
        None => is_over.then(|| "✗".to_owned()),
    };
    listed(&outcome.taken, refusal)
}

fn listed(requests: &[Request], refusal: Option<String>) -> String {
    let requests = requests.iter().map(Request::to_string);
    let all: Vec<_> = requests.chain(refusal).collect();
    all.join(", ")
}

/// Code in a cell of a table.
fn code(text: &str) -> String {
    let text = text.replace('|', "\\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

fn in_cell(outcome: &Outcome) -> String {
    code(&told(outcome))
}
