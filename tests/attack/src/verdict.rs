//! What a row found: one figure for wharf, the same for axum where it was driven too, and the bound that wharf's is
//! held against. Printed as a line of JSON for machines, and as a table at the end for people.

use std::fmt;

use serde_json::{Value, json};

/// A figure, or how far it was looked for in vain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Seen {
    Figure(f64),
    /// It hadn't happened by then.
    Beyond(f64),
}

impl From<f64> for Seen {
    fn from(figure: f64) -> Self {
        Self::Figure(figure)
    }
}

impl From<usize> for Seen {
    fn from(count: usize) -> Self {
        Self::Figure(count as f64)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lead, figure) = match self {
            Self::Figure(figure) => ("", *figure),
            Self::Beyond(figure) => (">", *figure),
        };
        write!(f, "{lead}{}", Short(figure))
    }
}

/// Three digits behind the point where they say something.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0.abs() {
            whole if whole.fract() == 0.0 => 0,
            large if large >= 100.0 => 0,
            middle if middle >= 10.0 => 1,
            middle if middle >= 1.0 => 2,
            _ => 3,
        };
        write!(f, "{:.digits$}", self.0)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    Between(f64, f64),
    /// Only to be seen beside the other.
    None,
}

impl Limit {
    fn holds(self, seen: Seen) -> bool {
        match (self, seen) {
            (Self::None, _) => true,
            (_, Seen::Beyond(_)) => false,
            (Self::AtMost(most), Seen::Figure(figure)) => figure <= most,
            (Self::AtLeast(least), Seen::Figure(figure)) => figure >= least,
            (Self::Between(least, most), Seen::Figure(figure)) => (least..=most).contains(&figure),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            // A count that is below nothing can't be.
            Self::AtMost(0.0) => f.write_str("0"),
            Self::Between(least, most) if least == most => write!(f, "{}", Short(least)),
            Self::AtMost(most) => write!(f, "≤ {}", Short(most)),
            Self::AtLeast(least) => write!(f, "≥ {}", Short(least)),
            Self::Between(least, most) => write!(f, "{} to {}", Short(least), Short(most)),
            Self::None => f.write_str("–"),
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) wharf: Seen,
    pub(crate) limit: Limit,
    pub(crate) axum: Option<Seen>,
    /// What was smaller or faster than in the full form.
    pub(crate) scale: Option<String>,
}

impl Verdict {
    pub(crate) fn new(
        id: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        wharf: impl Into<Seen>,
    ) -> Self {
        Self {
            id,
            what: what.into(),
            unit,
            wharf: wharf.into(),
            limit: Limit::None,
            axum: None,
            scale: None,
        }
    }

    pub(crate) fn axum(mut self, axum: impl Into<Seen>) -> Self {
        self.axum = Some(axum.into());
        self
    }

    pub(crate) fn at_most(mut self, most: f64) -> Self {
        self.limit = Limit::AtMost(most);
        self
    }

    pub(crate) fn at_least(mut self, least: f64) -> Self {
        self.limit = Limit::AtLeast(least);
        self
    }

    pub(crate) fn between(mut self, least: f64, most: f64) -> Self {
        self.limit = Limit::Between(least, most);
        self
    }

    /// A figure that depends on the machine: within `most`, or no worse than axum's of the same run.
    pub(crate) fn at_most_or_as_axum(self, most: f64) -> Self {
        let beside = match self.axum {
            Some(Seen::Figure(axum)) => axum,
            _ => most,
        };
        self.at_most(most.max(beside))
    }

    pub(crate) fn passes(&self) -> bool {
        self.limit.holds(self.wharf)
    }

    pub(crate) fn json(&self) -> Value {
        let seen = |seen: Seen| match seen {
            Seen::Figure(figure) => json!(figure),
            beyond @ Seen::Beyond(_) => json!(beyond.to_string()),
        };
        json!({
            "id": self.id,
            "what": self.what,
            "value": seen(self.wharf),
            "unit": self.unit,
            "limit": self.limit.to_string(),
            "pass": self.passes(),
            "axum": self.axum.map(seen),
            "scale": self.scale,
        })
    }

    /// The columns of the table: id, what, wharf, axum, target, verdict.
    pub(crate) fn cells(&self) -> [String; 6] {
        let what = match &self.scale {
            Some(scale) => format!("{} ({scale})", self.what),
            None => self.what.clone(),
        };
        let with_unit = |seen: Seen| format!("{seen} {}", self.unit).trim_end().to_owned();
        let verdict = match (self.limit, self.passes()) {
            (Limit::None, _) => "",
            (_, true) => "pass",
            (_, false) => "MISSED",
        };
        [
            self.id.to_owned(),
            what,
            with_unit(self.wharf),
            self.axum.map_or("–".to_owned(), with_unit),
            self.limit.to_string(),
            verdict.to_owned(),
        ]
    }
}

pub(crate) const HEADINGS: [&str; 6] = ["id", "what", "wharf", "axum 0.8", "target", ""];

/// The lines as a table of Markdown, which is a table on a terminal too.
pub(crate) fn table(verdicts: &[Verdict]) -> String {
    let rows: Vec<_> = verdicts.iter().map(Verdict::cells).collect();
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: &[String; 6]| {
        let mut line = String::from("|");
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!(" {cell:<width$} |"));
        }
        line.push('\n');
        line
    };
    let mut table = line(&HEADINGS.map(str::to_owned));
    let rule: String = widths
        .iter()
        .map(|width| "-".repeat(width + 2) + "|")
        .collect();
    table.push_str(&format!("|{rule}\n"));
    rows.iter().for_each(|row| table.push_str(&line(row)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_bound() {
        let lost = |count: usize| Verdict::new("M13", "requests lost", "", count).at_most(0.0);
        assert!(lost(0).passes() && !lost(1).passes());
        let closed = Verdict::new("T1", "closed after", "s", Seen::Beyond(15.0)).between(9.5, 10.5);
        assert!(!closed.passes());
        assert_eq!(closed.json()["value"], ">15");
        assert_eq!(closed.json()["limit"], "9.50 to 10.5");
    }

    #[test]
    fn a_figure_of_the_machine_may_be_as_bad_as_axums() {
        let p99 = |wharf: f64, axum: f64| {
            Verdict::new("M12", "p99", "ms", wharf)
                .axum(axum)
                .at_most_or_as_axum(3.5)
        };
        assert!(p99(3.5, 1.0).passes() && p99(7.0, 8.0).passes() && !p99(7.0, 6.0).passes());
    }

    #[test]
    fn the_table_is_aligned() {
        let text = table(&[Verdict::new("M13", "requests lost", "", 0)
            .axum(31)
            .at_most(0.0)]);
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [widths[0]; 3]);
        assert!(text.ends_with("| pass |\n"), "{text}");
    }
}
