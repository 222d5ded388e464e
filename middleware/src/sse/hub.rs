//! One who publishes and many who listen: a ring of encoded events, and for each listener its place in it. Nobody waits
//! for anybody.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::{Event, Sse, last_event_id};

/// What becomes of a client that reads so slowly that the ring no longer holds what comes next for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// It goes on with the oldest that is there, and is told how many it has missed: an event named `missed` whose data
    /// is the number.
    #[default]
    DropOldest,
    /// Each event takes the place of those before it, as it is with a state: whoever is behind gets the newest, and who
    /// comes gets the newest there is.
    Coalesce,
    /// Its response ends. When it comes back it is told what it has missed.
    Close,
}

/// The settings of a [`Hub`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    events: usize,
    bytes: usize,
    lag: Lag,
    heartbeat: Option<Duration>,
    retry: Option<Duration>,
}

impl Builder {
    /// How many events the ring holds: for clients that come back, and for those that are slow. Default 256, at least
    /// one.
    pub fn events(mut self, events: usize) -> Self {
        self.events = events.max(1);
        self
    }

    /// How many bytes of events it holds at most; the newest is kept whatever its size. Default 1 MiB.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// What becomes of a client that is too slow. Default [`Lag::DropOldest`].
    pub fn lag(mut self, lag: Lag) -> Self {
        self.lag = lag;
        self
    }

    /// A comment to each client for which there was nothing for so long. Default 15 s.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    /// No heartbeat: whether a client is still there shows only when there is something to send.
    pub fn without_heartbeat(mut self) -> Self {
        self.heartbeat = None;
        self
    }

    /// How long clients are told to wait before they come back. Default: their own time, three seconds or so.
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(time);
        self
    }

    /// The hub.
    pub fn build(self) -> Hub {
        let shared = Arc::new(Shared {
            // Ids of a process that ran before mean nothing in this one.
            run: RandomState::new().hash_one(0) as u32,
            settings: self,
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                first: 1,
                bytes: 0,
                closed: false,
            }),
            news: Arc::default(),
            subscribers: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
        });
        Hub(Arc::new(Publisher { shared }))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            events: 256,
            bytes: 1 << 20,
            lag: Lag::default(),
            heartbeat: Some(Duration::from_secs(15)),
            retry: None,
        }
    }
}

/// Publishes events to whoever listens; a clone is another handle of the same hub. See [the module](super).
///
/// All calls return at once. When the last handle is dropped, or by [`close`](Self::close), the responses end.
///
/// On wharf they end by themselves in a shutdown; elsewhere, or to end them as soon as it begins:
///
/// ```no_run
/// # async fn run(app: impl tower::Service<
/// #     wharf::Conn<wharf::Stream>, Response = wharf::ConnReport, Error = wharf::BoxError, Future: Send + 'static>) -> Result<(), wharf::Error> {
/// use wharf::{Server, Shutdown};
/// use wharf_middleware::sse::Hub;
///
/// let hub = Hub::new();
/// let publisher = hub.clone();
/// let stop = async move {
///     let _ = tokio::signal::ctrl_c().await;
///     publisher.close();
/// };
/// Server::new().bind("0.0.0.0:8080")?.shutdown(Shutdown::when(stop)).serve(app).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Hub(Arc<Publisher>);

impl Hub {
    /// One with the default settings.
    pub fn new() -> Self {
        Builder::default().build()
    }

    /// One with settings of one's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Sends an event to all who listen, and keeps it for those who come back. Its id is the hub's.
    ///
    /// Encodes once, and wakes who waits; never waits itself. Without effect once the hub is closed.
    pub fn publish(&self, event: Event) {
        let shared = &self.0.shared;
        let mut ring = shared.lock();
        if ring.closed {
            return;
        }
        let number = ring.end();
        let run = shared.run;
        let event = event.into_bytes_with_id(format_args!("{run:08x}-{number}"));
        ring.push(event, &shared.settings);
        drop(ring);
        shared.news.notify_waiters();
    }

    /// The response to a request for the events: what has happened since its `Last-Event-ID`, and whatever comes.
    pub fn answer<B: 'static>(&self, request: &Request<B>) -> Response<Sse<Subscription>> {
        let settings = &self.0.shared.settings;
        let events = self.subscribe(last_event_id(request.headers()));
        let mut sse = Sse::new(events).until_closing(request);
        if let Some(every) = settings.heartbeat {
            sse = sse.heartbeat(every);
        }
        if let Some(time) = settings.retry {
            sse = sse.retry(time);
        }
        sse.into_response()
    }

    /// What comes after the event with the id `since`, or after now; encoded, for a body of one's own.
    ///
    /// An id of which this hub knows nothing counts as one from before it began.
    pub fn subscribe(&self, since: Option<&str>) -> Subscription {
        let shared = self.0.shared.clone();
        shared.subscribers.fetch_add(1, Relaxed);
        let ring = shared.lock();
        let oldest = ring.oldest(shared.settings.lag);
        let is_state = shared.settings.lag == Lag::Coalesce;
        // The first one that it hasn't seen.
        let unseen = since.map(|id| shared.number(id).map(|seen| seen.saturating_add(1)));
        let (next, gap) = match unseen {
            None if is_state => (oldest, None),
            None => (ring.end(), None),
            Some(Some(unseen)) if (oldest..=ring.end()).contains(&unseen) => (unseen, None),
            _ if is_state => (oldest, None),
            Some(Some(unseen)) if unseen < oldest => (oldest, Some(Missed::Some(oldest - unseen))),
            Some(_) => (oldest, Some(Missed::Unknown)),
        };
        drop(ring);
        Subscription {
            place: Place { shared, next, gap },
            waiting: None,
        }
    }

    /// Ends all responses, behind what was published before; those that come later end at once.
    pub fn close(&self) {
        self.0.shared.close();
    }

    /// How many listen.
    pub fn subscribers(&self) -> usize {
        self.0.shared.subscribers.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.0.shared.lock().events.len()
    }

    /// How many events clients didn't get because they were too slow, added up over the clients.
    pub fn missed(&self) -> u64 {
        self.0.shared.missed.load(Relaxed)
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

/// When nobody can publish any more, nobody need listen.
#[derive(Debug)]
struct Publisher {
    shared: Arc<Shared>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.close();
    }
}

struct Shared {
    /// Part of each id.
    run: u32,
    settings: Builder,
    ring: Mutex<Ring>,
    news: Arc<Notify>,
    subscribers: AtomicUsize,
    missed: AtomicU64,
}

impl Shared {
    /// Held for as long as it takes to look at one event.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_waiters();
    }

    /// The number of the event with this id, if it is one of this hub's.
    fn number(&self, id: &str) -> Option<u64> {
        let (run, number) = id.split_once('-')?;
        let same = run.len() == 8 && u32::from_str_radix(run, 16) == Ok(self.run);
        number.parse().ok().filter(|_| same)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("subscribers", &self.subscribers)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

/// The newest events. They are numbered from 1.
struct Ring {
    events: VecDeque<Bytes>,
    /// The number of the oldest that is there.
    first: u64,
    bytes: usize,
    closed: bool,
}

impl Ring {
    /// The number of the next one.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The number of the oldest that somebody who goes on may get.
    fn oldest(&self, lag: Lag) -> u64 {
        match lag {
            Lag::Coalesce => self.end().max(self.first + 1) - 1,
            Lag::DropOldest | Lag::Close => self.first,
        }
    }

    fn get(&self, number: u64) -> Option<Bytes> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(place).cloned()
    }

    /// Takes one in, and lets the oldest go for which there is no room.
    fn push(&mut self, event: Bytes, settings: &Builder) {
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > settings.events || self.bytes > settings.bytes)
        {
            self.bytes -= self.events.pop_front().map_or(0, |event| event.len());
            self.first += 1;
        }
    }
}

pin_project! {
    /// One listener: a stream of encoded events, shared with all the others.
    #[must_use = "streams do nothing unless they are polled"]
    pub struct Subscription {
        place: Place,
        #[pin]
        waiting: Option<OwnedNotified>,
    }
}

impl Stream for Subscription {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(event) = this.place.take() {
                return Poll::Ready(event.map(Ok));
            }
            let Some(waiting) = this.waiting.as_mut().as_pin_mut() else {
                // Looked at once more: what was published before this counts as seen.
                let news = this.place.shared.news.clone();
                this.waiting.set(Some(news.notified_owned()));
                continue;
            };
            ready!(waiting.poll(cx));
            this.waiting.set(None);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("next", &self.place.next)
            .finish_non_exhaustive()
    }
}

/// How far a listener has come.
struct Place {
    shared: Arc<Shared>,
    next: u64,
    /// What it is told first.
    gap: Option<Missed>,
}

/// How much a listener didn't get.
enum Missed {
    Some(u64),
    /// Its id is from another run.
    Unknown,
}

impl Place {
    /// The next event or the end; pending if there is neither.
    fn take(&mut self) -> Poll<Option<Bytes>> {
        let shared = &self.shared;
        let ring = shared.lock();
        let oldest = ring.oldest(shared.settings.lag);
        if self.next < oldest {
            let missed = oldest - self.next;
            self.next = oldest;
            shared.missed.fetch_add(missed, Relaxed);
            match shared.settings.lag {
                Lag::DropOldest => self.gap = Some(Missed::Some(missed)),
                Lag::Coalesce => {}
                Lag::Close => return Poll::Ready(None),
            }
        }
        if let Some(gap) = self.gap.take() {
            drop(ring);
            return Poll::Ready(Some(self.tell(&gap)));
        }
        match ring.get(self.next) {
            Some(event) => {
                self.next += 1;
                Poll::Ready(Some(event))
            }
            None if ring.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// An event with the id of the last one that is missing, so that it is told only once.
    fn tell(&self, missed: &Missed) -> Bytes {
        let event = match missed {
            Missed::Some(count) => Event::new(count.to_string()),
            Missed::Unknown => Event::new("unknown"),
        };
        let event = event.name("missed").expect("one line");
        let (run, last) = (self.shared.run, self.next - 1);
        event.into_bytes_with_id(format_args!("{run:08x}-{last}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.subscribers.fetch_sub(1, Relaxed);
    }
}
