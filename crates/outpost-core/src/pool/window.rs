//! Claims of the last hour, by minute.

use outpost_types::Timestamp;

/// Minutes that are kept.
pub(super) const MINUTES_KEPT: u64 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Claims {
    /// All.
    pub(super) all: u64,
    /// Those that got no worker.
    pub(super) missed: u64,
    /// Those that more workers would have served.
    pub(super) short: u64,
}

/// One count for each minute; the place of a minute is taken by the one an hour later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    minutes: [(u64, Claims); MINUTES_KEPT as usize],
}

impl Default for Window {
    fn default() -> Self {
        Self { minutes: [(0, Claims::default()); MINUTES_KEPT as usize] }
    }
}

impl Window {
    /// The count of this minute.
    pub(super) fn now(&mut self, now: Timestamp) -> &mut Claims {
        let minute = now.as_millis() / 60_000;
        let place = (minute % MINUTES_KEPT) as usize;
        let (of, claims) = &mut self.minutes[place];
        if *of != minute {
            (*of, *claims) = (minute, Claims::default());
        }
        claims
    }

    /// The sum of the last `minutes` minutes, the current one included; at most [`MINUTES_KEPT`].
    pub(super) fn recent(&self, now: Timestamp, minutes: u64) -> Claims {
        let minute = now.as_millis() / 60_000;
        let mut sum = Claims::default();
        for (of, claims) in &self.minutes {
            if *of <= minute && minute - *of < minutes {
                sum.all += claims.all;
                sum.missed += claims.missed;
                sum.short += claims.short;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::{Claims, MINUTES_KEPT, Window};
    use outpost_types::Timestamp;

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(minute * 60_000 + 59_999)
    }

    #[test]
    fn minutes_add_up_and_fall_out() {
        let mut window = Window::default();
        *window.now(at(100)) = Claims { all: 5, missed: 3, short: 1 };
        *window.now(at(101)) = Claims { all: 2, missed: 1, short: 1 };
        window.now(at(101)).all += 1;
        let all = |now, minutes| window.recent(at(now), minutes).all;
        assert_eq!(window.recent(at(101), 2), Claims { all: 8, missed: 4, short: 2 });
        assert_eq!(
            [all(101, 1), all(102, 1), all(102, 2), all(159, 60), all(160, 60)],
            [3, 0, 3, 8, 3]
        );
        // What is told of a later time is not of the past.
        assert_eq!(all(100, 60), 5);
    }

    #[test]
    fn a_place_is_taken_an_hour_later() {
        let mut window = Window::default();
        window.now(at(7)).all = 9;
        window.now(at(7 + MINUTES_KEPT)).all += 1;
        assert_eq!(window.recent(at(7 + MINUTES_KEPT), MINUTES_KEPT).all, 1);
    }
}
