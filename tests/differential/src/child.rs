//! Servers in processes of their own: how they are found, started, waited for and ended.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use crate::Failure;
use crate::client::PATIENCE;

/// A program that the run needs, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

pub(crate) const NODE: Program = Program::new("node", "nodejs", "--version");
pub(crate) const NGINX: Program = Program::new("nginx", "nginx-light", "-v");
pub(crate) const HAPROXY: Program = Program::new("haproxy", "haproxy", "-v");

impl Program {
    const fn new(name: &'static str, package: &'static str, version: &'static str) -> Self {
        Self {
            name,
            package,
            version,
        }
    }

    /// The command. Debian keeps servers where the path of an ordinary user doesn't lead.
    pub(crate) fn command(self) -> Command {
        let sbin = Path::new("/usr/sbin").join(self.name);
        match sbin.exists() {
            true => Command::new(sbin),
            false => Command::new(self.name),
        }
    }

    /// What it calls its version.
    ///
    /// # Errors
    ///
    /// When the program isn't there: which package to install.
    pub(crate) fn version(self) -> Result<String, Failure> {
        let Self { name, package, .. } = self;
        let missing = |error| {
            format!("can't run {name} ({error}): install it, on Debian `apt-get install {package}`")
        };
        let output = self.command().arg(self.version).output().map_err(missing)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or_default();
        let version = line.split(['/', ' ']).find(|word| {
            word.trim_start_matches('v')
                .starts_with(|c: char| c.is_ascii_digit())
        });
        Ok(format!(
            "{name} {}",
            version.unwrap_or(line).trim_start_matches('v')
        ))
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Child(pub(crate) std::process::Child);

impl Child {
    /// Starts a server that says nothing of use on its standard output.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Ok(Self(
            child.map_err(|error| format!("{command:?}: {error}"))?,
        ))
    }

    /// Waits until it accepts connections on that socket.
    pub(crate) async fn listens(&mut self, socket: &Path) -> Result<(), Failure> {
        let begun = Instant::now();
        while UnixStream::connect(socket).await.is_err() {
            if self.0.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                let _ = self.0.kill();
                let said = self.0.stderr.take().map(std::io::read_to_string);
                return Err(format!(
                    "{} isn't listened on: {}",
                    socket.display(),
                    said.transpose()?.unwrap_or_default()
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
