//! Readiness and liveness: two questions an orchestrator asks a server, answered from the life of the server and from checks of
//! one's own.
//!
//! *Ready* (`/readyz`) says: send me requests. It is 503 before the server serves, from the lame duck on, and while a check
//! fails. *Live* (`/livez`) says: don't restart me. It stays 200 while the server drains, because a server that finishes its
//! work must not be killed for it, and asks only those checks that a restart would mend.
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use tower::ServiceBuilder;
//! use wharf::{Body, BoxError, Http, Server};
//! use wharf_middleware::{Health, OverloadLayer};
//!
//! async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
//!     Ok(Response::new(Body::from("hello")))
//! }
//!
//! async fn database_answers() -> Result<(), std::io::Error> {
//!     Ok(())
//! }
//!
//! let server = Server::new();
//! let health = Health::new()
//!     .follow(server.handle())
//!     .check("database", Duration::from_millis(300), database_answers);
//! let stack = ServiceBuilder::new()
//!     .layer(Http::new())
//!     .layer(health.clone()) // answers /readyz and /livez before what is inside
//!     .layer(OverloadLayer::adaptive())
//!     .service_fn(hello);
//! # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
//! ```
//!
//! Or as services of their own, where a router gives them a path. What limits the load must let them through then, or a
//! server that is merely busy is taken for a dead one:
//!
//! ```
//! use axum::{Router, routing::get};
//! use wharf_middleware::{Health, OverloadLayer};
//!
//! let health = Health::new();
//! let app: Router = Router::new()
//!     .route("/", get(async || "hello"))
//!     .route_service("/readyz", health.readiness())
//!     .route_service("/livez", health.liveness())
//!     .layer(OverloadLayer::adaptive().exempt(|_, uri| matches!(uri.path(), "/readyz" | "/livez")));
//! ```
//!
//! **The answer** is a line of text, or JSON for whoever accepts `application/json`, and names the check that failed. Why it
//! failed is not for everybody who can reach the port: [`on_failure`](Health::on_failure) is told.
//!
//! ```text
//! HTTP/1.1 503 Service Unavailable
//!
//! not ready: database timed out
//! {"ready":false,"phase":"serving","checks":{"database":"timed out","store":"ok"}}
//! ```
//!
//! **Checks** run side by side, each with a time-out, as tasks of their own, so that one that panics has failed and nothing
//! else has. What they said is kept for a second ([`keep`](Health::keep)), and whoever asks meanwhile gets it; those that ask
//! while checks run wait for the same run. So ten thousand probes cost the database one query. The phase of the server is looked
//! at each time: the first probe after the signal hears 503.
//!
//! **As a layer** it is always ready and has the others wait for the inner service in their call, so that a probe is answered
//! while a full service isn't ready. Put it inside of the access log if probes are to be logged, else outside.
//!
//! Cost: a comparison of the path a request; no allocation, except for answers to probes.

mod body;
mod checks;
mod probe;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use wharf::{BoxError, Handle, Phase};

use checks::{Check, Checks};

pub use body::HealthBody;
pub use checks::Failure;
pub use probe::{Probe, Probing};

/// What is asked of the server's life.
type AskPhase = Arc<dyn Fn() -> Phase + Send + Sync>;
/// Who is told of a check that failed.
type OnFailure = Arc<dyn Fn(&str, &Failure) + Send + Sync>;

/// For how long the checks' answers are kept by default.
const KEEP: Duration = Duration::from_secs(1);

/// Answers whether a server is ready and whether it is alive: a layer, and the two services. See [the module](self).
///
/// Clones share what the checks said, as long as no setting of theirs is changed.
#[derive(Clone)]
#[must_use]
pub struct Health {
    phase: Option<AskPhase>,
    on_failure: Option<OnFailure>,
    keep: Duration,
    ready: Checks,
    live: Checks,
    paths: [Cow<'static, str>; 2],
}

impl Health {
    /// Ready and alive, for as long as nothing else is said.
    pub fn new() -> Self {
        Self {
            phase: None,
            on_failure: None,
            keep: KEEP,
            ready: Checks::default(),
            live: Checks::default(),
            paths: ["/readyz".into(), "/livez".into()],
        }
    }

    /// Ready while this server serves: neither before nor from the lame duck on.
    pub fn follow(self, server: Handle) -> Self {
        self.phase(move || server.phase())
    }

    /// The same for a server of another kind: ready while `phase` is [`Phase::Serving`].
    pub fn phase(mut self, phase: impl Fn() -> Phase + Send + Sync + 'static) -> Self {
        self.phase = Some(Arc::new(phase));
        self
    }

    /// Not ready while `check` fails or takes longer than `time_out`.
    ///
    /// Choose a time-out that is shorter than the prober's own (Kubernetes: 1 s), or nobody hears which check it was.
    /// `check` must not block its thread.
    pub fn check<F, Fut, E>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        time_out: Duration,
        check: F,
    ) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.ready = self.ready.and(Check::new(name.into(), time_out, check));
        self
    }

    /// Not alive while `check` fails or takes longer than `time_out`: only for what a restart would mend. Whether another
    /// server answers is no such thing: all instances would be restarted at once.
    pub fn live_check<F, Fut, E>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        time_out: Duration,
        check: F,
    ) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.live = self.live.and(Check::new(name.into(), time_out, check));
        self
    }

    /// For how long what the checks said is told to others who ask. Default 1 s.
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    /// Calls `tell` with each check that failed, by name, and why; once a run, however many probes it answers.
    pub fn on_failure(mut self, tell: impl Fn(&str, &Failure) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(tell));
        self
    }

    /// Where the layer answers. Default `/readyz` and `/livez`.
    pub fn paths(
        mut self,
        ready: impl Into<Cow<'static, str>>,
        live: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.paths = [ready.into(), live.into()];
        self
    }

    /// The service that answers whether the server is ready, on whatever path it is mounted.
    pub fn readiness(&self) -> Probe {
        Probe::readiness(self)
    }

    /// The service that answers whether the server is alive, on whatever path it is mounted.
    pub fn liveness(&self) -> Probe {
        Probe::liveness(self)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("paths", &self.paths)
            .field("ready", &self.ready)
            .field("live", &self.live)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Health {
    type Service = WithHealth<S>;

    fn layer(&self, inner: S) -> WithHealth<S> {
        let [ready, live] = self.paths.clone();
        WithHealth {
            inner,
            inner_ready: false,
            probes: Arc::new([(ready, self.readiness()), (live, self.liveness())]),
        }
    }
}

/// The service that [`Health`] makes as a layer.
#[derive(Debug)]
pub struct WithHealth<S> {
    inner: S,
    inner_ready: bool,
    probes: Arc<[(Cow<'static, str>, Probe); 2]>,
}

impl<S: Clone> Clone for WithHealth<S> {
    /// The clone's inner service is not ready yet.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            inner_ready: false,
            probes: self.probes.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for WithHealth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body,
{
    type Response = Response<HealthBody<R>>;
    type Error = S::Error;
    type Future = Examined<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Ready in any case: a probe is answered without the inner service.
        self.inner_ready = match self.inner.poll_ready(cx) {
            Poll::Ready(result) => result.map(|()| true)?,
            Poll::Pending => false,
        };
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Examined<S, B> {
        let path = request.uri().path();
        let probe = self.probes.iter().find(|(own, _)| own == path);
        let is_ready = mem::take(&mut self.inner_ready);
        let stage = match probe {
            None if is_ready => Stage::Called {
                call: self.inner.call(request),
            },
            _ => {
                // Whatever the inner service has reserved, or begun to, leaves with the instance that did.
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                match probe {
                    Some((_, probe)) => Stage::Probed {
                        probing: probe.answer(&request),
                    },
                    None => Stage::Waiting {
                        call: Some((service, request)),
                    },
                }
            }
        };
        Examined { stage }
    }
}

pin_project! {
    /// The future of [`WithHealth`]: a probe's answer, or that of the inner service once it is ready.
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Examined<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        stage: Stage<S, B, S::Future>,
    }
}

pin_project! {
    #[project = Project]
    enum Stage<S, B, F> {
        Probed {
            #[pin]
            probing: Probing,
        },
        Waiting {
            call: Option<(S, Request<B>)>,
        },
        Called {
            #[pin]
            call: F,
        },
    }
}

impl<S, B, R> Future for Examined<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<HealthBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            match stage.as_mut().project() {
                Project::Probed { probing } => {
                    let response = ready!(probing.poll(cx)).unwrap_or_else(|never| match never {});
                    return Poll::Ready(Ok(response.map(HealthBody::own)));
                }
                Project::Waiting { call } => {
                    if let Some((service, _)) = call {
                        ready!(service.poll_ready(cx))?;
                    }
                    let Some((mut service, request)) = call.take() else {
                        panic!("polled after it was over");
                    };
                    let call = service.call(request);
                    stage.set(Stage::Called { call });
                }
                Project::Called { call } => {
                    let response = ready!(call.poll(cx))?;
                    return Poll::Ready(Ok(response.map(HealthBody::inner)));
                }
            }
        }
    }
}

impl<S, B> fmt::Debug for Examined<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examined").finish_non_exhaustive()
    }
}
