//! Days, as journals name them.

/// A day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Day(i64);

impl Day {
    /// The day of an instant.
    #[must_use]
    pub fn of_unix_seconds(seconds: u64) -> Self {
        Self(i64::try_from(seconds / 86_400).unwrap_or(i64::MAX))
    }

    /// Days from `earlier` to this one; negative when it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The last day that is named as `YYYY-MM-DD` in a text.
    #[must_use]
    pub fn in_text(text: &str) -> Option<Self> {
        Self::all_in(text).max()
    }

    /// The last such day that is not after `today`.
    pub(super) fn newest_in(text: &str, today: Self) -> Option<Self> {
        Self::all_in(text).filter(|day| *day <= today).max()
    }

    fn all_in(text: &str) -> impl Iterator<Item = Self> {
        text.as_bytes().windows(10).filter_map(Self::read)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let digits = |text: &[u8]| {
            let number = |sum: i64, byte: &u8| {
                byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
            };
            text.iter().try_fold(0, number)
        };
        let [.., b'-', _, _, b'-', _, _] = text else { return None };
        let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..])?);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
        {
            return None;
        }
        // Years from March to February, so that the odd day comes last.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Some(Self(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_counted() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2024-12-31", 20_088),
            ("2100-03-01", 47_541),
        ] {
            assert_eq!(Day::in_text(text), Some(Day(days)), "{text}");
            assert_eq!(Day::of_unix_seconds(days as u64 * 86_400 + 5), Day(days));
        }
        assert_eq!(Day::in_text("from 2024-01-01 to 2024-02-01."), Day::in_text("2024-02-01"));
        for none in
            ["2024-13-01", "2024-00-10", "24-01-01", "1234567890", "1969-12-31", "é2024-1-1é"]
        {
            assert_eq!(Day::in_text(none), None, "{none}");
        }
        let today = Day(20_000);
        assert_eq!(Day::newest_in("2024-10-01 2099-01-01", today), Day::in_text("2024-10-01"));
    }
}
