//! Sockets that a supervisor has bound and passes on, as `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` say
//! (sd_listen_fds(3)). They are taken once, all or none, and never a descriptor that this process has opened itself.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;

use super::Listener;
use crate::error::Error;
use crate::server::Server;

/// Only a mistake passes more.
const SOCKETS_AT_MOST: i32 = 1024;

impl Listener {
    /// Takes over the listening sockets that a supervisor passes: systemd's socket activation, or anything that sets
    /// `LISTEN_FDS` and `LISTEN_PID` (with the feature `inherited`).
    ///
    /// Since the supervisor keeps the sockets too, connections wait in their queues while the server is restarted, and
    /// none is lost. A name in `LISTEN_FDNAMES` becomes the listener's; systemd puts `FileDescriptorName=` of the
    /// socket unit there. The file of a Unix socket is the supervisor's and stays.
    ///
    /// Nothing was passed: the answer is empty, and so it is the second time. Without `LISTEN_PID` the sockets count
    /// as this process's, since some supervisors can't know it. What was taken is removed from the environment, for the
    /// sake of child processes; so call this early, before code in C that reads the environment runs on other threads.
    ///
    /// ```
    /// # fn main() -> Result<(), wharf::Error> {
    /// use wharf::Listener;
    ///
    /// let mut listeners = Listener::inherited()?;
    /// if listeners.is_empty() {
    ///     listeners.push(Listener::tcp("127.0.0.1:0")?); // started by hand
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong: the sockets were passed to another process, there are more or fewer names
    /// than sockets, a descriptor is no listening TCP or Unix socket or isn't open.
    pub fn inherited() -> Result<Vec<Self>, Error> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let variable = |name| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
        let passed = Passed::read(variable, std::process::id())?;
        for descriptor in passed.descriptors() {
            check_origin(descriptor)?;
        }
        if passed.names.is_empty() {
            return Ok(Vec::new());
        }
        // This removes LISTEN_FDS: who asks again, a child process say, is told of nothing.
        let mut sockets = ListenFd::from_env();
        let all = passed.names.iter().zip(passed.descriptors()).enumerate();
        all.map(|(at, (name, descriptor))| Ok(take(&mut sockets, at, descriptor)?.named(&**name)))
            .collect()
    }
}

impl Server {
    /// Listens on the sockets that a supervisor passes too, possibly none; see [`Listener::inherited`] (with the
    /// feature `inherited`). A server that listens nowhere in the end is refused when it serves.
    ///
    /// With this feature a server also tells the supervisor how it is (sd_notify(3)): `READY=1` when it listens on
    /// all of its sockets and `STOPPING=1` when its shutdown begins, each with a `STATUS=` line. So a unit may say
    /// `Type=notify`, and what is ordered after it starts when it can be asked. Nobody is told without
    /// `NOTIFY_SOCKET`, and what can't be delivered is no error.
    ///
    /// ```no_run
    /// # async fn run(http: impl tower::Service<wharf::Conn<wharf::Stream>,
    /// #     Response = wharf::ConnReport, Error = wharf::BoxError, Future: Send + 'static>) -> Result<(), wharf::Error> {
    /// use wharf::Server;
    ///
    /// Server::new().bind("127.0.0.1:8080")?.inherited()?.serve(http).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The two units of systemd for it:
    ///
    /// ```ini
    /// # app.socket
    /// [Socket]
    /// ListenStream=80
    /// FileDescriptorName=public
    ///
    /// # app.service
    /// [Service]
    /// Type=notify
    /// ExecStart=/usr/bin/app
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Listener::inherited`].
    pub fn inherited(self) -> Result<Self, Error> {
        self.listen(Listener::inherited()?)
    }
}

/// What the environment says.
#[derive(Debug, Default, PartialEq)]
struct Passed {
    first: i32,
    /// One a descriptor, empty for none.
    names: Vec<String>,
}

impl Passed {
    fn read(variable: impl Fn(&'static str) -> Option<String>, own_id: u32) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let Some(count) = variable("LISTEN_FDS") else {
            return Ok(Self::default());
        };
        let sockets = match count.parse() {
            Ok(sockets) if (0..=SOCKETS_AT_MOST).contains(&sockets) => sockets as usize,
            _ => {
                return Err(Error::config(format!(
                    "LISTEN_FDS must be a number from 0 to {SOCKETS_AT_MOST}, not `{count}`"
                )));
            }
        };
        if let Some(id) = variable("LISTEN_PID").filter(|id| id.parse() != Ok(own_id)) {
            return Err(Error::config(format!(
                "the sockets of LISTEN_FDS were passed to process {id}, and this is {own_id}: a script must `exec` the \
                 server, and whoever is not meant must not inherit the variable"
            )));
        }
        let names = match variable("LISTEN_FDNAMES") {
            Some(names) if sockets > 0 => names.split(':').map(str::to_owned).collect(),
            _ => vec![String::new(); sockets],
        };
        if names.len() != sockets {
            return Err(Error::config(format!(
                "LISTEN_FDNAMES has {} names for {sockets} sockets",
                names.len()
            )));
        }
        // As listenfd reads it.
        let first = variable("LISTEN_FDS_FIRST_FD").and_then(|first| first.parse().ok());
        let first = first.unwrap_or(3);
        if !(3..=i32::MAX - SOCKETS_AT_MOST).contains(&first) {
            return Err(Error::config(format!(
                "LISTEN_FDS_FIRST_FD must be 3 or above, not {first}"
            )));
        }
        Ok(Self { first, names })
    }

    fn descriptors(&self) -> impl Iterator<Item = i32> + use<> {
        self.first..self.first + self.names.len() as i32
    }
}

/// An environment that isn't true must not make this the second owner of a descriptor. What came through `exec` can't
/// have close-on-exec set, what the standard library and tokio open always has.
fn check_origin(descriptor: i32) -> Result<(), Error> {
    let folder = Path::new("/proc/self/fdinfo");
    let refuse = |why: &str, error: io::Error| {
        let message = format!("LISTEN_FDS passes descriptor {descriptor}, {why}");
        Err(Error::bind(message, error))
    };
    match std::fs::read_to_string(folder.join(descriptor.to_string())) {
        Ok(facts) if closes_on_exec(&facts) => refuse(
            "which this process has opened itself",
            ErrorKind::InvalidInput.into(),
        ),
        Err(error) if folder.is_dir() => refuse("which isn't open", error),
        // Without /proc what is left is listenfd's look at the socket's kind.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// From a line like `flags: 02000002`, with a tab.
fn closes_on_exec(facts: &str) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & O_CLOEXEC != 0)
}

fn take(sockets: &mut ListenFd, at: usize, descriptor: i32) -> Result<Listener, Error> {
    if let Ok(Some(socket)) = sockets.take_tcp_listener(at) {
        return Listener::over_tcp(socket);
    }
    let error = match sockets.take_unix_listener(at) {
        Ok(Some(socket)) => return Listener::over_unix(socket),
        Ok(None) => ErrorKind::NotFound.into(),
        Err(error) => error,
    };
    let message = format!("descriptor {descriptor} is no listening TCP or Unix socket");
    Err(Error::bind(message, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Passed, String> {
        let variable = |wanted| {
            let found = environment.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_string())
        };
        Passed::read(variable, 34).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_environment_says_is_taken_at_its_word_or_refused() {
        let passed = |first, names: &[&str]| {
            let names = names.iter().map(|name| name.to_string()).collect();
            Ok(Passed { first, names })
        };
        for (environment, wanted) in [
            (&[][..], passed(0, &[])),
            (&[("LISTEN_FDS", "")], passed(0, &[])),
            (&[("LISTEN_PID", "12")], passed(0, &[])),
            (
                &[("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")],
                passed(3, &[]),
            ),
            (&[("LISTEN_FDS", "2")], passed(3, &["", ""])),
            (
                &[("LISTEN_FDS", "1"), ("LISTEN_PID", "34")],
                passed(3, &[""]),
            ),
            (
                &[("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "web::admin")],
                passed(3, &["web", "", "admin"]),
            ),
            (
                &[("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "7")],
                passed(7, &[""]),
            ),
            (&[("LISTEN_FDS", "1024")], passed(3, &[""; 1024])),
        ] {
            assert_eq!(read(environment), wanted, "{environment:?}");
        }
        for (environment, wanted) in [
            (
                &[("LISTEN_FDS", "1025")][..],
                "LISTEN_FDS must be a number from 0 to 1024, not `1025`",
            ),
            (
                &[("LISTEN_FDS", "-1")],
                "LISTEN_FDS must be a number from 0 to 1024, not `-1`",
            ),
            (
                &[("LISTEN_FDS", "1"), ("LISTEN_PID", "12")],
                "the sockets of LISTEN_FDS were passed to process 12, and this is 34: a script must `exec` the server, \
                 and whoever is not meant must not inherit the variable",
            ),
            (
                &[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "web")],
                "LISTEN_FDNAMES has 1 names for 2 sockets",
            ),
            (
                &[("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "1")],
                "LISTEN_FDS_FIRST_FD must be 3 or above, not 1",
            ),
        ] {
            assert_eq!(read(environment), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn what_this_process_has_opened_itself_is_never_taken() {
        use std::os::fd::AsRawFd;

        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check_origin(own.as_raw_fd()).unwrap_err().to_string();
        assert!(
            error.ends_with("which this process has opened itself"),
            "{error}"
        );
        let error = check_origin(1_000_000).unwrap_err().to_string();
        assert_eq!(
            error,
            "LISTEN_FDS passes descriptor 1000000, which isn't open"
        );
        check_origin(0).unwrap();
        own.local_addr().unwrap();
    }
}
