//! Nothing is told twice or too early, nothing spent is forgotten, and no sum wraps.

use outpost_core::{
    Budget, BudgetEffect, DayBudget, EndedCall, Nanodollars, Price, Spend, THRESHOLD_PERCENT,
    Tokens, UNPRICED_MODEL_BYTES_MAX, UNPRICED_MODELS_MAX, USD_MAX,
};
use proptest::prelude::*;

fn amount() -> impl Strategy<Value = Nanodollars> {
    prop_oneof![8 => 0..1_000_u64, 1 => any::<u64>()].prop_map(Nanodollars)
}

fn call() -> impl Strategy<Value = EndedCall> {
    let price = prop_oneof![
        amount().prop_map(Price::Known),
        amount().prop_map(|assumed| Price::Unknown { assumed })
    ];
    (any::<[u64; 6]>(), price, proptest::option::of("[a-zé]{0,140}"), any::<bool>()).prop_map(
        |([input, cached, cache_write, output, thinking, searches], price, model, estimated)| {
            EndedCall {
                tokens: Tokens { input, cached, cache_write, output, thinking },
                searches,
                price,
                model,
                estimated,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_budget_tells_each_thing_once_and_at_the_right_call(
        limit in proptest::option::of(amount()),
        calls in proptest::collection::vec(call(), 0..40),
    ) {
        let (mut budget, mut told) = Budget::new(limit, Spend::default());
        let mut charged = 0_u128;
        for call in &calls {
            let (next, effects) = budget.step(call);
            charged += u128::from(call.price.charged().0);
            told.extend(effects);
            budget = next;
            let spent = budget.spend().charged();
            prop_assert!(u128::from(spent.0) == charged.min(u128::from(u64::MAX)));
            let Some(limit) = limit else {
                prop_assert!(told.is_empty() && budget.left().is_none());
                continue;
            };
            prop_assert_eq!(budget.left(), Some(limit.minus(spent)));
            let percent = u128::from(spent.0) * 100 >= u128::from(limit.0) * u128::from(THRESHOLD_PERCENT);
            let thresholds = told.iter().filter(|told| matches!(told, BudgetEffect::Threshold { .. }));
            prop_assert_eq!(thresholds.count(), usize::from(percent && limit.0 > 0));
            let ends = told.iter().filter(|told| matches!(told, BudgetEffect::Exhausted { .. }));
            prop_assert_eq!(ends.count(), usize::from(spent >= limit));
        }
        let spend = budget.spend();
        prop_assert_eq!(spend.calls, calls.len() as u64);
        prop_assert_eq!(spend.known_cost().is_none(), spend.calls_unpriced > 0);
        prop_assert!(spend.models_unpriced.len() <= UNPRICED_MODELS_MAX);
        prop_assert!(spend.models_unpriced.iter().all(|name| name.len() <= UNPRICED_MODEL_BYTES_MAX));
        let text = serde_json::to_string(spend).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Spend>(&text).unwrap(), spend);
    }

    #[test]
    fn a_budget_that_is_taken_up_again_is_as_far_as_it_was(
        limit in amount(),
        before in proptest::collection::vec(call(), 0..10),
        after in proptest::collection::vec(call(), 0..10),
    ) {
        let run = |budget: Budget, calls: &[EndedCall]| calls.iter().fold(budget, |budget, call| budget.step(call).0);
        let whole = run(run(Budget::new(Some(limit), Spend::default()).0, &before), &after);
        let first = run(Budget::new(Some(limit), Spend::default()).0, &before);
        let (again, told) = Budget::new(Some(limit), first.spend().clone());
        let exhausted = matches!(told.as_slice(), [BudgetEffect::Exhausted { .. }]);
        prop_assert_eq!(exhausted, first.left() == Some(Nanodollars::ZERO));
        let again = run(again, &after);
        prop_assert_eq!(again.spend(), whole.spend());
    }

    #[test]
    fn a_day_never_forgets_and_never_begins_twice(
        cap in amount(),
        charges in proptest::collection::vec((0..4_u64, 0..1_000_u64), 0..40),
    ) {
        let mut budget = DayBudget::new(Some(cap), 0, Nanodollars::ZERO);
        let (mut day, mut spent) = (0, 0);
        for (today, cost) in charges {
            budget = budget.charge(today, Nanodollars(cost));
            spent = if today > day { cost } else { spent + cost };
            day = day.max(today);
            prop_assert_eq!(budget.spent(day), Nanodollars(spent));
            prop_assert_eq!(budget.left(day), Some(cap.minus(Nanodollars(spent))));
            prop_assert_eq!(budget.left(day + 1), Some(cap));
        }
    }

    #[test]
    fn dollars_round_trip_to_the_billionth(nanodollars in 0..1_000_000_000_000_u64) {
        let usd = Nanodollars(nanodollars).to_usd();
        prop_assert_eq!(Nanodollars::from_usd(usd).unwrap(), Nanodollars(nanodollars));
    }
}

#[test]
fn what_is_no_amount_is_refused() {
    for bad in [f64::NAN, f64::INFINITY, -0.01, USD_MAX * 1.01, f64::NEG_INFINITY] {
        assert!(Nanodollars::from_usd(bad).is_err(), "{bad}");
    }
    assert_eq!(Nanodollars::from_usd(0.25).unwrap(), Nanodollars(250_000_000));
    assert_eq!(serde_json::to_string(&Nanodollars(7)).unwrap(), "7");
}

fn unpriced(model: Option<&str>) -> EndedCall {
    EndedCall {
        tokens: Tokens::default(),
        searches: 2,
        price: Price::Unknown { assumed: Nanodollars(1) },
        model: model.map(str::to_owned),
        estimated: false,
    }
}

fn spend_of(calls: &[EndedCall]) -> Spend {
    let (budget, _) = Budget::new(None, Spend::default());
    calls.iter().fold(budget, |budget, call| budget.step(call).0).spend().clone()
}

#[test]
fn models_without_a_price_are_named_once_and_within_a_bound() {
    let spend = spend_of(&[unpriced(Some("a")), unpriced(Some("b")), unpriced(Some("a"))]);
    assert_eq!((spend.models_unpriced, spend.calls_unpriced), (vec!["a".into(), "b".into()], 3));
    assert_eq!(spend_of(&[unpriced(None)]).models_unpriced, ["unnamed"]);
    let many: Vec<_> = (0..=UNPRICED_MODELS_MAX).map(|n| unpriced(Some(&n.to_string()))).collect();
    let named = spend_of(&many).models_unpriced;
    assert_eq!((named.len(), named[0].as_str()), (UNPRICED_MODELS_MAX, "0"));
    let long = "x".repeat(UNPRICED_MODEL_BYTES_MAX + 1);
    assert_eq!(spend_of(&[unpriced(Some(&long))]).models_unpriced, [&long[1..]]);
}

#[test]
fn limits_caps_and_prices_can_be_read() {
    let cap = Some(Nanodollars(7));
    assert_eq!(Budget::new(cap, Spend::default()).0.limit(), cap);
    assert_eq!(Price::Known(Nanodollars(7)).known(), cap);
    assert_eq!(Price::Unknown { assumed: Nanodollars(7) }.known(), None);
    let day = DayBudget::new(None, 5, Nanodollars(2)).with_cap(cap);
    assert_eq!((day.cap(), day.day(), day.left(5)), (cap, 5, Some(Nanodollars(5))));
}
