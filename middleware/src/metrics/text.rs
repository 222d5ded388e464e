//! Prometheus' text format 0.0.4: families of samples, each with its `HELP` and `TYPE`. Nothing here knows what is counted.

use std::fmt::{Display, Write};

use super::histogram::Distribution;

/// A page as it is written.
#[derive(Default)]
pub(super) struct Text {
    out: String,
}

/// A family whose head is written.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl Text {
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Whether there is a family of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.out.contains(&format!("# TYPE {name} "))
    }

    pub(super) fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "counter", help)
    }

    pub(super) fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, "gauge", help)
    }

    fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        let out = &mut self.out;
        let _ = write!(out, "# HELP {name} ");
        escape(out, help, false);
        let _ = writeln!(out, "\n# TYPE {name} {kind}");
        Family { out, name }
    }

    /// Values of `all`, each so many to the unit; with a bucket up to each of these powers of two.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        all: &Distribution,
        per_unit: f64,
        powers: impl Iterator<Item = u32>,
    ) {
        let family = self.family(name, "histogram", help);
        let (out, count) = (family.out, all.count());
        for bound in powers.map(|power| 1_u64 << power) {
            let le = bound as f64 / per_unit;
            let _ = writeln!(out, "{name}_bucket{{le=\"{le}\"}} {}", all.at_most(bound));
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}", all.sum() as f64 / per_unit);
        let _ = writeln!(out, "{name}_count {count}");
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.out.push_str(self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            escape(self.out, text, true);
            self.out.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
        self
    }

    /// A number that may be none; infinities have names of their own here.
    pub(super) fn number(&mut self, value: f64) {
        match value {
            f64::INFINITY => self.sample(&[], "+Inf"),
            f64::NEG_INFINITY => self.sample(&[], "-Inf"),
            _ => self.sample(&[], value),
        };
    }
}

/// A line stays one; quotes end a label's value and mean nothing in a help text.
fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
}

/// As a metric's name may be: letters, digits, `_` and `:`, and no digit first.
pub(super) fn name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let plain: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    match plain.as_bytes().first() {
        Some(first) if !first.is_ascii_digit() => plain,
        _ => format!("_{plain}"),
    }
}
