//! One event, encoded as it is built. The only place that knows the syntax of an event stream.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// An event, or something else that a stream of events may hold.
///
/// ```
/// use wharf_middleware::sse::Event;
///
/// # fn main() -> Result<(), wharf_middleware::sse::InvalidEvent> {
/// let event = Event::new("two\nlines").name("note")?.id("7")?;
/// assert_eq!(event.into_bytes(), "data: two\ndata: lines\nevent: note\nid: 7\n\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Event {
    text: Vec<u8>,
}

impl Event {
    /// An event with this text. A CR, LF or CR LF in it reaches the client as LF.
    pub fn new(data: impl AsRef<str>) -> Self {
        Self::lines("data: ", data.as_ref())
    }

    /// A comment, which clients ignore.
    pub fn comment(text: impl AsRef<str>) -> Self {
        Self::lines(": ", text.as_ref())
    }

    /// Not an event: how long the client is to wait before it comes back, when the stream has ended or broken.
    pub fn retry(time: Duration) -> Self {
        Self::lines("retry: ", &time.as_millis().to_string())
    }

    /// The event's type; `message` without.
    ///
    /// # Errors
    ///
    /// A line break can't be in it.
    pub fn name(self, name: impl AsRef<str>) -> Result<Self, InvalidEvent> {
        self.field("event", name.as_ref(), &['\r', '\n'])
    }

    /// What the client says as its `Last-Event-ID` when it comes back. An empty one: nothing.
    ///
    /// # Errors
    ///
    /// Neither a line break nor a NUL can be in it.
    pub fn id(self, id: impl AsRef<str>) -> Result<Self, InvalidEvent> {
        self.field("id", id.as_ref(), &['\r', '\n', '\0'])
    }

    /// As it is sent.
    pub fn into_bytes(self) -> Bytes {
        let mut text = self.text;
        text.push(b'\n');
        text.into()
    }

    fn field(
        mut self,
        name: &'static str,
        value: &str,
        forbidden: &[char],
    ) -> Result<Self, InvalidEvent> {
        if value.contains(forbidden) {
            return Err(InvalidEvent { field: name });
        }
        self.line(name, ": ", value);
        Ok(self)
    }

    /// Ends it with an id that is known to be one, in place of any that it has: the last one counts.
    pub(super) fn into_bytes_with_id(mut self, id: fmt::Arguments<'_>) -> Bytes {
        use std::io::Write;
        write!(self.text, "id: {id}\n\n").expect("memory is written to");
        self.text.into()
    }

    fn lines(prefix: &str, text: &str) -> Self {
        // Room for a name and an id.
        let mut event = Self {
            text: Vec::with_capacity(text.len() + 64),
        };
        let mut rest = text;
        while let Some(end) = rest.find(['\r', '\n']) {
            event.line(prefix, "", &rest[..end]);
            let ending = if rest[end..].starts_with("\r\n") {
                2
            } else {
                1
            };
            rest = &rest[end + ending..];
        }
        event.line(prefix, "", rest);
        event
    }

    fn line(&mut self, name: &str, colon: &str, value: &str) {
        for part in [name, colon, value, "\n"] {
            self.text.extend_from_slice(part.as_bytes());
        }
    }
}

impl From<Event> for Bytes {
    fn from(event: Event) -> Self {
        event.into_bytes()
    }
}

/// A name or id can't be written with these characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidEvent {
    field: &'static str,
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        write!(
            f,
            "an event's `{field}` must be one line, an id without NUL"
        )
    }
}

impl std::error::Error for InvalidEvent {}
