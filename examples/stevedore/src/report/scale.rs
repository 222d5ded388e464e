//! Values to places in a picture, and the values that are worth a label.

/// From a range of values to a range of pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
    is_logarithmic: bool,
}

impl Axis {
    pub(crate) fn linear(least: f64, most: f64, from: f64, to: f64) -> Self {
        let most = most.max(least + f64::EPSILON);
        Self {
            least,
            most,
            from,
            to,
            is_logarithmic: false,
        }
    }

    /// For values above zero, with a little room at both ends.
    pub(crate) fn logarithmic(least: f64, most: f64, from: f64, to: f64) -> Self {
        Self {
            least: least * 0.9,
            most: (most * 1.1).max(least * 1.5),
            from,
            to,
            is_logarithmic: true,
        }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// Round values within the range: some five of them.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            self.decades()
        } else {
            self.steps()
        }
    }

    fn steps(&self) -> Vec<f64> {
        let step = nice((self.most - self.least) / 6.0);
        let first = (self.least / step).ceil() as i64;
        let last = (self.most / step).floor() as i64;
        (first..=last).map(|count| count as f64 * step).collect()
    }

    fn decades(&self) -> Vec<f64> {
        let within = |value: &f64| (self.least..=self.most).contains(value);
        let each = |factors: &[f64]| -> Vec<f64> {
            let powers = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
            let values = powers
                .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
            values.filter(within).collect()
        };
        let [whole, fifths, finest] = [
            &[1.0][..],
            &[1.0, 2.0, 5.0],
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        ]
        .map(each);
        match (whole.len(), fifths.len()) {
            (3.., _) => whole,
            (_, 3..) => fifths,
            _ => finest,
        }
    }
}

/// The next 1, 2 or 5 with zeros.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

/// A time as an axis shows it: `0.2 s`, `15 s`, `1:30`.
pub(crate) fn seconds_label(seconds: f64) -> String {
    if seconds >= 60.0 {
        return format!("{}:{:02}", seconds as u64 / 60, seconds as u64 % 60);
    }
    format!("{} s", (seconds * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::{Axis, seconds_label};

    #[test]
    fn an_axis_meets_its_ends_and_keeps_within() {
        for axis in [
            Axis::linear(0.0, 8.0, 10.0, 90.0),
            Axis::logarithmic(1e3, 1e9, 90.0, 10.0),
        ] {
            assert!((10.0..=90.0).contains(&axis.at(1e-9)));
            assert!((10.0..=90.0).contains(&axis.at(1e12)));
        }
        assert_eq!(Axis::linear(0.0, 8.0, 10.0, 90.0).at(4.0), 50.0);
    }

    #[test]
    fn ticks_are_few_and_round() {
        for (least, most) in [(0.0, 1.0), (0.0, 7.3), (0.0, 71_969.0), (0.0, 0.004)] {
            let ticks = Axis::linear(least, most, 0.0, 1.0).ticks();
            assert!((3..=8).contains(&ticks.len()), "{most}: {ticks:?}");
        }
        for (least, most) in [(26e3, 10e6), (1e3, 1e10), (90e3, 130e3), (500.0, 500.0)] {
            let ticks = Axis::logarithmic(least, most, 0.0, 1.0).ticks();
            assert!(
                (1..=9).contains(&ticks.len()),
                "{least} to {most}: {ticks:?}"
            );
        }
        assert_eq!(
            Axis::logarithmic(1e3, 9e5, 0.0, 1.0).ticks(),
            [1e3, 1e4, 1e5]
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!(
            [0.0, 0.2, 15.0, 90.0].map(seconds_label),
            ["0 s", "0.2 s", "15 s", "1:30"]
        );
    }
}
