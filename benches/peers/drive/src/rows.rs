//! What was measured, one value a row: `part`, `server`, `round`, `figure`, value. A file a part, written when it is whole.

use std::fs;
use std::path::Path;

use crate::BoxError;

pub struct Row {
    pub part: String,
    pub server: String,
    pub round: usize,
    pub figure: String,
    pub value: f64,
}

pub struct Rows(pub Vec<Row>);

impl Rows {
    pub fn add(&mut self, part: &str, server: &str, round: usize, figure: &str, value: f64) {
        let (part, server, figure) = (part.into(), server.into(), figure.into());
        self.0.push(Row {
            part,
            server,
            round,
            figure,
            value,
        });
    }

    /// First under another name, so that a part is there as a whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), BoxError> {
        let lines = self.0.iter().map(|row| {
            format!(
                "{}\t{}\t{}\t{}\t{}\n",
                row.part, row.server, row.round, row.figure, row.value
            )
        });
        let partial = path.with_extension("partial");
        fs::write(&partial, lines.collect::<String>())?;
        Ok(fs::rename(partial, path)?)
    }

    pub fn read_all(directory: &Path) -> Result<Self, BoxError> {
        let mut rows = Self(Vec::new());
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|kind| kind != "tsv") {
                continue;
            }
            for line in fs::read_to_string(&path)?.lines() {
                let cells: Vec<&str> = line.split('\t').collect();
                let [part, server, round, figure, value] = cells.as_slice() else {
                    return Err(format!("{}: not a row: {line}", path.display()).into());
                };
                rows.add(part, server, round.parse()?, figure, value.parse()?);
            }
        }
        Ok(rows)
    }

    /// The figure of each round.
    pub fn of(&self, part: &str, server: &str, figure: &str) -> Vec<(usize, f64)> {
        let wanted = self
            .0
            .iter()
            .filter(|row| row.part == part && row.server == server && row.figure == figure);
        wanted.map(|row| (row.round, row.value)).collect()
    }

    pub fn median(&self, part: &str, server: &str, figure: &str) -> Option<f64> {
        median(
            self.of(part, server, figure)
                .into_iter()
                .map(|(_, value)| value),
        )
    }

    /// The median of the ratios within each round, since a noisy machine changes from round to round.
    pub fn ratio(&self, part: &str, server: &str, to: &str, figure: &str) -> Option<f64> {
        let others = self.of(part, to, figure);
        let ratios = self
            .of(part, server, figure)
            .into_iter()
            .filter_map(|(round, value)| {
                let (_, other) = others.iter().find(|(other, _)| *other == round)?;
                Some(value / other)
            });
        median(ratios)
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        (upper + values[middle - 1]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let mut rows = Rows(Vec::new());
        for (round, a, b) in [(0, 1.0, 2.0), (1, 10.0, 20.0), (2, 9.0, 3.0)] {
            rows.add("plain", "a", round, "cpu", a);
            rows.add("plain", "b", round, "cpu", b);
        }
        rows.add("plain", "a", 3, "cpu", 7.0); // whose other failed
        assert_eq!(rows.ratio("plain", "a", "b", "cpu"), Some(0.5));
    }
}
