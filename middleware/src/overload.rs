//! Overload: as many requests at a time as the service can work on, a short queue, and a quick 503 for the rest.
//!
//! A service that is offered three times what it can do, and queues what it can't, soon answers every request too late:
//! it works as hard as ever, for clients that have given up. So somebody must say no, early and cheaply. This layer
//! lets a number of requests in, keeps at most twice as many waiting, none for more than 100 ms, and answers the others
//! with 503 and `Retry-After` without touching the service.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::OverloadLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let overload = OverloadLayer::adaptive().exempt(|_, uri| uri.path() == "/healthz");
//! let app = ServiceBuilder::new().layer(overload.clone()).service(service_fn(
//!     async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))),
//! ));
//!
//! let response = app.oneshot(Request::new(())).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(overload.load().refused, 0);
//! # Ok(())
//! # }
//! ```
//!
//! **The limit** is a number ([`OverloadLayer::limit`]) or found by watching how latency changes with the number in
//! flight ([`OverloadLayer::adaptive`]). It belongs to the layer: every service made by it or by its clones shares it,
//! so that a router which applies a layer to each of its routes still has one limit.
//!
//! **The queue** is served from its front. Under overload the newest has the best prospects, and there are systems that
//! serve it first; theirs are queues of seconds. Here the queue is so short that its last has to wait for two service
//! times, the front is never stale, and who finds it full learns so at once. Served from its other end, the same queue
//! would have the old ones wait for their whole age to hear no.
//!
//! **Readiness.** The layer is always ready, for it can always answer. The inner service is called only when the same
//! instance of it said that it is ready, and the time that takes counts as waiting. While a request queues, no
//! reservation that the inner service made in `poll_ready` is held.
//!
//! **A place is held** until the response's head, not until the end of its body: how fast a body goes is the client's
//! choice, and some slow readers must not be able to take the whole service. Where the work is done while the body is
//! written, choose [`until_body_end`](OverloadLayer::until_body_end), below a deadline on writing. What drives the
//! adaptive limit is the time until the head, in both cases.

mod gate;
mod gradient;
mod held;

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use gate::{Entry, Gate};
use gradient::Gradient;

pub use held::Held;

/// Limits how many requests are in flight, and refuses with 503 what can't be let in soon.
#[derive(Clone)]
#[must_use]
pub struct OverloadLayer {
    settings: Settings,
    door: Arc<Door>,
    exempt: Option<Exempt>,
}

type Exempt = Arc<dyn Fn(&Method, &Uri) -> bool + Send + Sync>;

#[derive(Debug, Clone, Copy)]
struct Settings {
    limit: Limit,
    queue: Option<usize>,
    longest_wait: Duration,
    retry_after: u32,
    until_body_end: bool,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    Fixed(usize),
    Between(usize, usize),
}

/// Where an adaptive limit begins.
const START: usize = 10;

/// More in flight than this can't be counted.
const MOST: usize = u32::MAX as usize / 4;

impl OverloadLayer {
    /// At most `requests` at a time. Zero is taken as one.
    pub fn limit(requests: usize) -> Self {
        Self::with(Limit::Fixed(requests.clamp(1, MOST)))
    }

    /// As many at a time as the service turns out to work on without making each other wait: between 4 and 1,000.
    pub fn adaptive() -> Self {
        Self::adaptive_between(4, 1_000)
    }

    /// As [`adaptive`](Self::adaptive), between these bounds.
    pub fn adaptive_between(least: usize, most: usize) -> Self {
        let least = least.clamp(1, MOST);
        Self::with(Limit::Between(least, most.clamp(least, MOST)))
    }

    fn with(limit: Limit) -> Self {
        Self {
            settings: Settings {
                limit,
                queue: None,
                longest_wait: Duration::from_millis(100),
                retry_after: 1,
                until_body_end: false,
            },
            door: Arc::default(),
            exempt: None,
        }
        .renewed()
    }

    /// How many may wait. Default: twice the limit, as it is at the time.
    pub fn queue(mut self, places: usize) -> Self {
        self.settings.queue = Some(places.min(MOST));
        self.renewed()
    }

    /// For how long one may wait until the service is called. Default 100 ms.
    pub fn longest_wait(mut self, time: Duration) -> Self {
        self.settings.longest_wait = time;
        self.renewed()
    }

    /// What `Retry-After` says, in whole seconds, rounded up. Default 1 s.
    pub fn retry_after(mut self, time: Duration) -> Self {
        let up = u64::from(time.subsec_nanos() > 0);
        self.settings.retry_after =
            u32::try_from(time.as_secs().saturating_add(up)).unwrap_or(u32::MAX);
        self.renewed()
    }

    /// Holds a request's place until its response's body has ended or was dropped.
    pub fn until_body_end(mut self) -> Self {
        self.settings.until_body_end = true;
        self.renewed()
    }

    /// Requests for which `exempt` is true are neither counted nor refused: health checks, say.
    pub fn exempt(
        mut self,
        exempt: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.exempt = Some(Arc::new(exempt));
        self
    }

    /// How it is going now.
    pub fn load(&self) -> Load {
        Load {
            limit: self.door.gate.limit(),
            in_flight: self.door.gate.inside(),
            waiting: self.door.gate.waiting(),
            refused: self.door.refused.load(Relaxed),
        }
    }

    /// With a door that follows the settings: nobody has come through it yet.
    fn renewed(mut self) -> Self {
        self.door = Arc::new(Door::new(self.settings));
        self
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;

    fn layer(&self, inner: S) -> Overload<S> {
        Overload {
            inner,
            inner_ready: false,
            door: self.door.clone(),
            exempt: self.exempt.clone(),
        }
    }
}

impl fmt::Debug for OverloadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverloadLayer")
            .field("settings", &self.settings)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

/// How an [`OverloadLayer`] is doing at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// How many may be in flight now.
    pub limit: usize,
    /// How many are.
    pub in_flight: usize,
    /// How many wait to be let in.
    pub waiting: usize,
    /// How many were answered with 503 so far.
    pub refused: u64,
}

/// What all services of one layer share.
#[derive(Debug)]
struct Door {
    gate: Gate,
    gradient: Option<Gradient>,
    longest_wait: Duration,
    until_body_end: bool,
    retry_after: HeaderValue,
    refused: AtomicU64,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            gate: Gate::new(1, None),
            gradient: None,
            longest_wait: Duration::ZERO,
            until_body_end: false,
            retry_after: HeaderValue::from_static("1"),
            refused: AtomicU64::new(0),
        }
    }
}

impl Door {
    fn new(settings: Settings) -> Self {
        let (limit, gradient) = match settings.limit {
            Limit::Fixed(limit) => (limit, None),
            Limit::Between(least, most) => {
                let start = START.clamp(least, most);
                (start, Some(Gradient::new(start, least, most)))
            }
        };
        Self {
            gate: Gate::new(limit, settings.queue),
            gradient,
            longest_wait: settings.longest_wait,
            until_body_end: settings.until_body_end,
            retry_after: HeaderValue::from(settings.retry_after),
            refused: AtomicU64::new(0),
        }
    }

    /// The place of somebody who has been counted in.
    fn place(self: Arc<Self>) -> Place {
        let entered = self.gradient.as_ref().map(|gradient| {
            gradient.entered(self.gate.inside());
            Instant::now()
        });
        Place {
            door: self,
            entered,
        }
    }

    fn refusal<B>(&self) -> Response<Held<B>> {
        self.refused.fetch_add(1, Relaxed);
        let mut response = Response::new(Held::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, self.retry_after.clone());
        response
    }
}

/// A place inside, given back when dropped.
#[derive(Debug)]
struct Place {
    door: Arc<Door>,
    /// With an adaptive limit, until the response's head.
    entered: Option<Instant>,
}

impl Place {
    fn answered(&mut self, success: bool) {
        let (Some(gradient), Some(entered)) = (&self.door.gradient, self.entered.take()) else {
            return;
        };
        let now = Instant::now();
        let took = now.saturating_duration_since(entered);
        let limit = if success {
            gradient.answered(took, now)
        } else {
            gradient.failed(took, now)
        };
        if let Some(limit) = limit {
            self.door.gate.set_limit(limit);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.answered(false);
        self.door.gate.leave();
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
struct Ticket {
    door: Arc<Door>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.door.gate.give_up(self.number);
    }
}

/// The service that [`OverloadLayer`] makes.
#[derive(Clone)]
pub struct Overload<S> {
    inner: S,
    inner_ready: bool,
    door: Arc<Door>,
    exempt: Option<Exempt>,
}

impl<S, B, R> Service<Request<B>> for Overload<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<Held<R>>;
    type Error = S::Error;
    type Future = Admission<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Ready in any case: somebody who would have to wait for the inner service may have to hear no instead.
        self.inner_ready = match self.inner.poll_ready(cx) {
            Poll::Ready(result) => result.map(|()| true)?,
            Poll::Pending => false,
        };
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Admission<S, B> {
        let is_ready = mem::take(&mut self.inner_ready);
        let exempt = self
            .exempt
            .as_ref()
            .is_some_and(|exempt| exempt(request.method(), request.uri()));
        let turn = if exempt {
            Turn::Exempt
        } else {
            match self.door.gate.enter() {
                Entry::Inside => Turn::Inside(self.door.clone().place()),
                Entry::Ticket(number) => Turn::Queued(Ticket {
                    door: self.door.clone(),
                    number,
                }),
                Entry::Full => return self.refuse(),
            }
        };
        match turn {
            Turn::Exempt if is_ready => Admission::called(self.inner.call(request), None),
            Turn::Inside(place) if is_ready => {
                Admission::called(self.inner.call(request), Some(place))
            }
            turn => self.wait(turn, is_ready, request),
        }
    }
}

impl<S: Clone> Overload<S> {
    /// What the inner service reserved is given back: who is refused has no use for it.
    fn refuse<B>(&mut self) -> Admission<S, B>
    where
        S: Service<Request<B>>,
    {
        let clone = self.inner.clone();
        drop(mem::replace(&mut self.inner, clone));
        Admission {
            stage: Stage::Refused {
                door: self.door.clone(),
            },
        }
    }

    fn wait<B>(&mut self, turn: Turn, is_ready: bool, request: Request<B>) -> Admission<S, B>
    where
        S: Service<Request<B>>,
    {
        let clone = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, clone);
        if is_ready {
            // Queued: what it reserved would lie idle meanwhile. It is asked again when the turn has come.
            service = self.inner.clone();
        }
        Admission {
            stage: Stage::Waiting {
                deadline: sleep_until(Instant::now() + self.door.longest_wait),
                door: self.door.clone(),
                call: Some((turn, service, request)),
            },
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Overload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overload")
            .field("inner", &self.inner)
            .field("door", &self.door)
            .finish_non_exhaustive()
    }
}

/// How far somebody has come.
#[derive(Debug)]
enum Turn {
    Exempt,
    Queued(Ticket),
    Inside(Place),
}

pin_project! {
    /// The future of [`Overload`]: waits for its turn, for the inner service, and for the response.
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Admission<S, B>
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
        Refused {
            door: Arc<Door>,
        },
        Waiting {
            #[pin]
            deadline: Sleep,
            door: Arc<Door>,
            call: Option<(Turn, S, Request<B>)>,
        },
        Called {
            #[pin]
            call: F,
            place: Option<Place>,
        },
    }
}

impl<S, B> Admission<S, B>
where
    S: Service<Request<B>>,
{
    fn called(call: S::Future, place: Option<Place>) -> Self {
        Self {
            stage: Stage::Called { call, place },
        }
    }
}

impl<S, B, R> Future for Admission<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<Held<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            match stage.as_mut().project() {
                Project::Refused { door } => return Poll::Ready(Ok(door.refusal())),
                Project::Waiting {
                    deadline,
                    door,
                    call,
                } => {
                    let called = match poll_turn(call, cx) {
                        Poll::Ready(Some(called)) => called?,
                        Poll::Ready(None) => panic!("polled after it was over"),
                        Poll::Pending => {
                            // Exempt ones may wait for the inner service as long as it takes.
                            if !matches!(call, Some((Turn::Exempt, ..))) {
                                ready!(deadline.poll(cx));
                                *call = None;
                                return Poll::Ready(Ok(door.refusal()));
                            }
                            return Poll::Pending;
                        }
                    };
                    let (call, place) = called;
                    stage.set(Stage::Called { call, place });
                }
                Project::Called { call, place } => {
                    let result = ready!(call.poll(cx));
                    let mut place = place.take();
                    if let Some(place) = &mut place {
                        place.answered(
                            matches!(&result, Ok(response) if !response.status().is_server_error()),
                        );
                    }
                    let place = place.filter(|place| place.door.until_body_end);
                    return Poll::Ready(
                        result.map(|response| response.map(|body| Held::new(body, place))),
                    );
                }
            }
        }
    }
}

/// The inner service's call, and the place it holds; nothing if there is nobody to call it for.
type Called<S, B> = Option<
    Result<(<S as Service<Request<B>>>::Future, Option<Place>), <S as Service<Request<B>>>::Error>,
>;

/// Goes from the queue to inside, and from there to the inner service once that is ready.
fn poll_turn<S, B>(
    waiting: &mut Option<(Turn, S, Request<B>)>,
    cx: &mut Context<'_>,
) -> Poll<Called<S, B>>
where
    S: Service<Request<B>>,
{
    let Some((turn, service, _)) = waiting else {
        return Poll::Ready(None);
    };
    if let Turn::Queued(ticket) = turn {
        ready!(ticket.door.gate.poll_turn(ticket.number, cx.waker()));
        // The ticket has left the queue: giving it up does nothing any more.
        let place = ticket.door.clone().place();
        *turn = Turn::Inside(place);
    }
    if let Err(error) = ready!(service.poll_ready(cx)) {
        return Poll::Ready(Some(Err(error)));
    }
    Poll::Ready(waiting.take().map(|(turn, mut service, request)| {
        let place = match turn {
            Turn::Inside(place) => Some(place),
            Turn::Exempt | Turn::Queued(_) => None,
        };
        Ok((service.call(request), place))
    }))
}

impl<S, B> fmt::Debug for Admission<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
