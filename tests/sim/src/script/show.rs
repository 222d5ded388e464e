//! Scripts in words.

use std::fmt;

use super::{Answer, Asked, End, Happening, House, Plan, Ready, Script};

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a {} script; {}",
            format!("{:?}", self.kind).to_lowercase(),
            self.house
        )?;
        for (at, asked) in self.asked.iter().enumerate() {
            writeln!(f, "  request {at}: {asked}\n     handler: {}", asked.plan)?;
        }
        write!(f, "  client:")?;
        for step in &self.steps {
            write!(f, " {step:?}")?;
        }
        for Happening { what, at } in &self.happenings {
            write!(f, "\n  happens: {what:?} at {at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            write_buffer,
            drain,
            head,
            deadline,
            at_once,
            timeout,
        } = self;
        write!(
            f,
            "write buffer {write_buffer}, drain {drain}, {at_once} requests at once"
        )?;
        for (name, value) in [
            ("head", head.map(|head| head as u64)),
            ("deadlines", *deadline),
            ("timeout", *timeout),
        ] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.is_http10 { "1.0" } else { "1.1" };
        write!(f, "{} HTTP/{version}, {:?}", self.method, self.content)?;
        if let Some(value) = self.connection {
            write!(f, ", connection: {value}")?;
        }
        if self.expects {
            write!(f, ", expects 100")?;
        }
        if self.offers_upgrade {
            write!(f, ", offers upgrade")?;
        }
        match &self.flaw {
            Some(flaw) => write!(f, ", flawed: {flaw:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reads {:?}", self.read)?;
        if self.passes_errors {
            write!(f, " and passes its errors on")?;
        }
        if self.ready != Ready::Now {
            write!(f, ", ready {:?}", self.ready)?;
        }
        if let Some(site) = self.panics {
            write!(f, ", panics at {site:?}")?;
        }
        if self.hints > 0 {
            write!(f, ", {} hints", self.hints)?;
        }
        if self.wait + self.then > 0 {
            write!(f, ", waits {} and {} ms", self.wait, self.then)?;
        }
        let Answer::Response(response) = &self.answer else {
            return write!(f, ", answers {:?}", self.answer);
        };
        write!(
            f,
            ", answers {} in frames {:?}",
            response.status, response.frames
        )?;
        for (name, length) in [
            ("hint", response.hint),
            ("content-length", response.declared),
        ] {
            if let Some(length) = length {
                write!(f, ", {name} {length}")?;
            }
        }
        if response.wait > 0 {
            write!(f, ", each after {} ms", response.wait)?;
        }
        if response.trailer {
            write!(f, ", with a trailer")?;
        }
        if response.closes {
            write!(f, ", closes")?;
        }
        if response.end != End::Clean {
            write!(f, ", ends with {:?}", response.end)?;
        }
        Ok(())
    }
}
