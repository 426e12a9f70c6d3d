//! Tests of the DNS rules.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(list: &[&str]) -> ResolverAnswer {
    ResolverAnswer::Addresses(list.iter().map(|text| ip(text)).collect())
}

fn unknown() -> ResolverAnswer {
    ResolverAnswer::Unknown("timed out".to_owned())
}

fn sample(answers: &[ResolverAnswer], self_test: Option<bool>) -> DnsSample {
    let named = answers.iter().enumerate().map(|(n, answer)| (format!("r{n}"), answer.clone()));
    DnsSample { answers: named.collect(), self_test }
}

const A: &str = "192.0.2.1";
const P: &str = "198.51.100.1";

#[test]
fn a_quorum_of_equal_sets_decides_and_nothing_else_does() {
    let (a, p, none) = (addresses(&[A]), addresses(&[P]), ResolverAnswer::NoAddress);
    let yes = Answer::Addresses(BTreeSet::from([ip(A)]));
    let round = |answers: &[ResolverAnswer], need| quorum(&sample(answers, None), need);
    assert_eq!(round(&[a.clone(), a.clone(), p.clone()], 0), yes);
    assert_eq!(round(&[a.clone(), unknown(), a.clone()], 0), yes);
    assert_eq!(round(&[addresses(&[A, P]), addresses(&[P, A])], 0), round(&[addresses(&[P, A])], 1));
    assert_eq!(round(&[none.clone(), none.clone(), a.clone()], 0), Answer::None);
    for (answers, need) in [
        (vec![], 0),
        (vec![unknown()], 0),
        (vec![a.clone(), p.clone()], 0),
        (vec![a.clone(), p.clone()], 1), // both reach it: a split
        (vec![a.clone(), addresses(&[A, P])], 0),
        (vec![a.clone(), unknown(), unknown()], 0),
        (vec![a.clone(), a.clone(), none.clone()], 3),
        (vec![a.clone()], 2),
    ] {
        assert!(matches!(round(&answers, need), Answer::Unknown(_)), "{answers:?} {need}");
    }
}

#[test]
fn a_split_names_who_says_what() {
    let Answer::Unknown(why) = quorum(&sample(&[addresses(&[A]), addresses(&[P])], None), 0) else {
        panic!()
    };
    assert_eq!(why, "resolvers disagree: 192.0.2.1 by r0; 198.51.100.1 by r1");
}

#[test]
fn no_address_counts_only_where_our_own_network_works() {
    let none = [ResolverAnswer::NoAddress];
    assert_eq!(quorum(&sample(&none, Some(true)), 0), Answer::None);
    assert_eq!(quorum(&sample(&none, None), 0), Answer::None);
    assert_eq!(quorum(&sample(&none, Some(false)), 0), Answer::Unknown("own network".to_owned()));
    let found = sample(&[addresses(&[A])], Some(false));
    assert!(matches!(quorum(&found, 0), Answer::Addresses(_)));
}

#[test]
fn the_words_of_the_metric_are_address_none_and_error() {
    let found = Answer::Addresses(BTreeSet::from([ip(P), ip(A)]));
    assert_eq!(found.to_string(), A);
    assert_eq!(Answer::None.to_string(), "none");
    assert_eq!(Answer::Unknown("x".to_owned()).to_string(), "error");
}

#[test]
fn a_kind_is_named_by_the_known_addresses() {
    let (active, passive) = (BTreeSet::from([ip(A), ip("192.0.2.2")]), BTreeSet::from([ip(P)]));
    let of = |list: &[&str]| {
        kind(&Answer::Addresses(list.iter().map(|text| ip(text)).collect()), &active, &passive)
    };
    assert_eq!(of(&[A]), DnsKind::Active);
    assert_eq!(of(&["192.0.2.2", A]), DnsKind::Active);
    assert_eq!(of(&[P]), DnsKind::Passive);
    assert_eq!(of(&[A, P]), DnsKind::Both);
    assert_eq!(of(&["203.0.113.9"]), DnsKind::Other);
    assert_eq!(of(&["203.0.113.9", A]), DnsKind::Active);
    assert_eq!(of(&["203.0.113.9", P]), DnsKind::Passive);
    assert_eq!(of(&[]), DnsKind::None);
    assert_eq!(kind(&Answer::None, &active, &passive), DnsKind::None);
    assert_eq!(kind(&Answer::Unknown(String::new()), &active, &passive), DnsKind::Unknown);
}

#[test]
fn every_pair_of_consecutive_kinds_has_its_standing() {
    for first in DnsKind::ALL {
        for second in DnsKind::ALL {
            let mut damping = Damping::new(2, 0);
            let odd = |kind| !matches!(kind, DnsKind::Active | DnsKind::Unknown);
            let want_first = if odd(first) { Standing::Odd { seen: 1, need: 2 } } else { Standing::Steady };
            assert_eq!(damping.feed(first, Mono(0)), want_first, "{first:?}");
            let want_second = match second {
                DnsKind::Active if odd(first) => Standing::Healed,
                DnsKind::Active => Standing::Steady,
                DnsKind::Unknown => want_first,
                _ if first == second => Standing::Lasting,
                _ => Standing::Odd { seen: 1, need: 2 },
            };
            assert_eq!(damping.feed(second, Mono(1)), want_second, "{first:?} {second:?}");
            let valid = [second, first].into_iter().find(|kind| *kind != DnsKind::Unknown);
            assert_eq!(damping.last(), valid, "{first:?} {second:?}");
        }
    }
}

#[test]
fn an_unknown_answer_neither_counts_nor_resets_nor_begins_anything() {
    let mut damping = Damping::new(2, 1000);
    assert_eq!(damping.feed(DnsKind::None, Mono(0)), Standing::Odd { seen: 1, need: 2 });
    assert_eq!(damping.feed(DnsKind::Unknown, Mono(500)), Standing::Odd { seen: 1, need: 2 });
    assert_eq!(damping.feed(DnsKind::None, Mono(900)), Standing::Odd { seen: 2, need: 2 });
    assert_eq!(damping.feed(DnsKind::Unknown, Mono(5000)), Standing::Odd { seen: 2, need: 2 });
    assert_eq!(damping.feed(DnsKind::None, Mono(5001)), Standing::Lasting);
    assert_eq!(damping.feed(DnsKind::Unknown, Mono(5002)), Standing::Odd { seen: 2, need: 2 });
    assert_eq!(damping.feed(DnsKind::None, Mono(5003)), Standing::Lasting);
    assert_eq!(damping.feed(DnsKind::Active, Mono(5004)), Standing::Healed);
    assert_eq!(damping.feed(DnsKind::Active, Mono(5005)), Standing::Steady);
}

#[test]
fn one_sample_is_enough_only_where_that_is_asked_for() {
    assert_eq!(Damping::new(1, 0).feed(DnsKind::Passive, Mono(0)), Standing::Lasting);
    assert_eq!(Damping::new(0, 0).feed(DnsKind::Passive, Mono(0)), Standing::Lasting);
    assert_ne!(Damping::new(1, 1).feed(DnsKind::Passive, Mono(0)), Standing::Lasting);
}

fn any_answer() -> impl Strategy<Value = ResolverAnswer> {
    prop_oneof![
        Just(addresses(&[A])),
        Just(addresses(&[P])),
        Just(addresses(&[A, P])),
        Just(ResolverAnswer::NoAddress),
        Just(unknown()),
    ]
}

proptest! {
    #[test]
    fn an_answer_other_than_unknown_was_given_by_a_quorum(
        answers in prop::collection::vec(any_answer(), 0..6), need in 0_usize..6, own in any::<Option<bool>>(),
    ) {
        let sample = sample(&answers, own);
        let wanted = if need == 0 { majority(answers.len()) } else { need };
        let given = match quorum(&sample, need) {
            Answer::Addresses(found) => ResolverAnswer::Addresses(found),
            Answer::None => ResolverAnswer::NoAddress,
            Answer::Unknown(_) => return Ok(()),
        };
        prop_assert!(answers.iter().filter(|answer| **answer == given).count() >= wanted);
    }

    #[test]
    fn who_answers_what_does_not_matter(answers in prop::collection::vec(any_answer(), 1..6), turn in 0_usize..6) {
        let mut turned = answers.clone();
        turned.rotate_left(turn % answers.len());
        let (before, after) = (quorum(&sample(&answers, None), 0), quorum(&sample(&turned, None), 0));
        prop_assert_eq!(std::mem::discriminant(&before), std::mem::discriminant(&after));
        if let Answer::Addresses(_) = before {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn lasting_needs_as_many_agreeing_answers_as_configured(
        kinds in prop::collection::vec(0_usize..6, 1..40), need in 1_u32..5, need_ms in 0_u64..30,
    ) {
        let mut damping = Damping::new(need, need_ms);
        let mut same: Option<(DnsKind, u32, u64)> = None; // kind, how often, since when; unknowns left out
        for (step, index) in kinds.into_iter().enumerate() {
            let (kind, now) = (DnsKind::ALL[index], step as u64 * 10);
            if kind != DnsKind::Unknown {
                same = Some(match same {
                    Some((before, count, since)) if before == kind => (kind, count + 1, since),
                    _ => (kind, 1, now),
                });
            }
            let standing = damping.feed(kind, Mono(now));
            let lasting = same.is_some_and(|(last, count, since)| {
                last == kind && kind != DnsKind::Active && count >= need && now - since >= need_ms
            });
            prop_assert_eq!(standing == Standing::Lasting, lasting, "step {} {:?}", step, kind);
        }
    }
}
