//! One question as a service: from the phase and the checks to an answer.

use std::convert::Infallible;
use std::fmt::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use tower_service::Service;
use wharf::Phase;

use super::checks::{Checks, Outcome};
use super::{AskPhase, Health, OnFailure};
use crate::get::only_get;

/// Answers whether a server is ready, or alive; made by [`Health::readiness`] and [`Health::liveness`].
///
/// 200 or 503 to `GET` and `HEAD`, with a line of text, or JSON if `Accept` names that. Never an error, always ready.
#[derive(Clone)]
pub struct Probe {
    question: Question,
    phase: Option<AskPhase>,
    checks: Checks,
    keep: Duration,
    on_failure: Option<OnFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Ready,
    Alive,
}

impl Probe {
    pub(super) fn readiness(health: &Health) -> Self {
        Self::new(Question::Ready, health, &health.ready)
    }

    pub(super) fn liveness(health: &Health) -> Self {
        Self::new(Question::Alive, health, &health.live)
    }

    fn new(question: Question, health: &Health, checks: &Checks) -> Self {
        Self {
            question,
            phase: health.phase.clone(),
            checks: checks.clone(),
            keep: health.keep,
            on_failure: health.on_failure.clone(),
        }
    }

    pub(super) fn answer<B>(&self, request: &Request<B>) -> Probing {
        if let Some(refusal) = only_get(request) {
            return Probing::now(refusal);
        }
        let style = Style::of(request);
        let phase = self.phase.as_ref().map(|phase| phase());
        let stopping = phase.filter(|phase| *phase != Phase::Serving);
        if self.question == Question::Ready && stopping.is_some() {
            return Probing::now(self.question.verdict(style, phase, None));
        }
        if let Some(outcome) = self.checks.known(self.keep) {
            return Probing::now(self.question.verdict(style, phase, Some(&outcome)));
        }
        let Self {
            question,
            checks,
            keep,
            on_failure,
            ..
        } = self.clone();
        Probing(Stage::Asking(Box::pin(async move {
            let outcome = checks.ask(keep, on_failure.as_ref()).await;
            question.verdict(style, phase, Some(&outcome))
        })))
    }
}

impl<B> Service<Request<B>> for Probe {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Probing;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Probing {
        self.answer(&request)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("question", &self.question)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy)]
enum Style {
    Text,
    Json,
}

impl Style {
    fn of<B>(request: &Request<B>) -> Self {
        let accepted = request.headers().get_all(header::ACCEPT).iter();
        let mut accepted = accepted.filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains("application/json")) {
            Self::Json
        } else {
            Self::Text
        }
    }
}

impl Question {
    /// The answer; without an outcome it is no, because of the phase.
    fn verdict(
        self,
        style: Style,
        phase: Option<Phase>,
        outcome: Option<&Outcome>,
    ) -> Response<String> {
        let said = outcome.map_or(&[][..], |outcome| &outcome.said);
        let yes = outcome.is_some() && said.iter().all(|(_, result)| result.is_ok());
        let word = match self {
            Self::Ready => "ready",
            Self::Alive => "alive",
        };
        let mut text = String::new();
        let kind = match style {
            Style::Text => {
                let failed = said
                    .iter()
                    .filter_map(|(name, result)| Some((name, result.as_ref().err()?)));
                text.push_str(if yes { "" } else { "not " });
                text.push_str(word);
                if let (None, Some(phase)) = (outcome, phase) {
                    let _ = write!(text, ": {phase}");
                }
                for (at, (name, failure)) in failed.enumerate() {
                    let lead = if at == 0 { ": " } else { ", " };
                    let _ = write!(text, "{lead}{name} {}", failure.word());
                }
                text.push('\n');
                "text/plain; charset=utf-8"
            }
            Style::Json => {
                let _ = write!(text, "{{\"{word}\":{yes}");
                if let Some(phase) = phase {
                    let _ = write!(text, ",\"phase\":\"{phase}\"");
                }
                text.push_str(",\"checks\":{");
                for (at, (name, result)) in said.iter().enumerate() {
                    let lead = if at == 0 { "" } else { "," };
                    let word = result.as_ref().err().map_or("ok", |failure| failure.word());
                    let _ = write!(text, "{lead}\"{name}\":\"{word}\"");
                }
                text.push_str("}}\n");
                "application/json"
            }
        };
        let mut response = Response::new(text);
        if !yes {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The future of [`Probe`]. It allocates if the checks have to be asked.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Probing(Stage);

enum Stage {
    Now(Option<Response<String>>),
    Asking(Pin<Box<dyn Future<Output = Response<String>> + Send>>),
}

impl Probing {
    fn now(response: Response<String>) -> Self {
        Self(Stage::Now(Some(response)))
    }
}

impl Future for Probing {
    type Output = Result<Response<String>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Stage::Now(response) => {
                Poll::Ready(Ok(response.take().expect("polled after it was over")))
            }
            Stage::Asking(asking) => asking.as_mut().poll(cx).map(Ok),
        }
    }
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing").finish_non_exhaustive()
    }
}
