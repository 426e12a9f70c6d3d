//! Every combination of sensor values at both sites, in a table that a person can review.
//!
//! Eight sensors (two resolvers, peer, the peer's view, witness, application, Patroni, cloud) with four values each
//! make 65,536 rows; times two sites, two modes, with and without a witness and a lapsed lease. Rows that differ in
//! nothing that matters are one line. `BLESS=1 cargo test --test safety` writes the table anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use switchover_agent::model::{DnsSample, Mono, ResolverAnswer, Side};
use switchover_agent::rules::dns::{Answer, Damping, agreeing, kind, quorum};
use switchover_agent::rules::policy::Automation;
use switchover_agent::rules::sensors::{Ground, Judgement, Sense, Senses, judge, sense_of_kind};

const GOLDEN: &str = "tests/golden/sensors.txt";
const VALUES: [Sense; 4] = [Sense::Good, Sense::Bad, Sense::Unknown, Sense::Stale];
const SENSORS: [&str; 8] =
    ["resolver 1", "resolver 2", "peer", "peer's view", "cloud", "witness", "application", "patroni"];

/// A row: the value of each sensor, in the order of [`SENSORS`].
type Row = [Sense; 8];

fn rows() -> impl Iterator<Item = Row> {
    (0..4_usize.pow(8))
        .map(|number| std::array::from_fn(|place| VALUES[number / 4_usize.pow(place as u32) % 4]))
}

/// Two resolvers, a quorum of two, one agreeing round: through the shipped functions.
fn load_balancer(resolvers: [Sense; 2]) -> (Sense, bool) {
    let address = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    let named = resolvers.iter().enumerate().map(|(index, value)| {
        let answer = match value {
            Sense::Good => ResolverAnswer::Addresses([address(1)].into()),
            Sense::Bad => ResolverAnswer::Addresses([address(2)].into()),
            Sense::Unknown | Sense::Stale => ResolverAnswer::Unknown("time-out".to_owned()),
        };
        (format!("r{index}"), answer)
    });
    let sample = DnsSample { answers: named.collect(), self_test: None };
    let answer = quorum(&sample, 2);
    let seen = kind(&answer, &[address(1)].into(), &[address(2)].into());
    let mut damping = Damping::new(1, 0);
    damping.feed(seen, Mono(0));
    let agree = !matches!(answer, Answer::Unknown(_)) && agreeing(&sample, &answer) >= 2;
    match damping.holds() {
        Some(held) => (sense_of_kind(held), agree),
        None if resolvers.contains(&Sense::Stale) => (Sense::Stale, false),
        None => (Sense::Unknown, false),
    }
}

fn senses(row: &Row, lapsed: bool) -> Senses {
    let (gslb, resolvers_agree) = load_balancer([row[0], row[1]]);
    Senses {
        gslb,
        resolvers_agree,
        peer: row[2],
        peer_view: row[3],
        cloud: row[4],
        witness: row[5],
        application: row[6],
        patroni: row[7],
        lapsed,
    }
}

/// One table: how the agent is set up.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    mode: Automation,
    side: Side,
    witness: bool,
    lapsed: bool,
}

fn settings() -> Vec<Setting> {
    use Automation::{SelfFencing, Witnessed};
    use Side::{Active, Passive};
    let setting = |name, mode, side, witness, lapsed| Setting { name, mode, side, witness, lapsed };
    vec![
        setting("witnessed, active site", Witnessed, Active, true, false),
        setting("witnessed, passive site", Witnessed, Passive, true, false),
        setting("self-fencing, active site", SelfFencing, Active, true, false),
        setting("self-fencing, passive site, the other's lease runs", SelfFencing, Passive, true, false),
        setting("self-fencing, passive site, lease lapsed, no witness", SelfFencing, Passive, false, true),
        setting("self-fencing, passive site, lease lapsed, witness", SelfFencing, Passive, true, true),
    ]
}

fn judged(setting: &Setting, row: &Row) -> Judgement {
    judge(setting.mode, setting.side, setting.witness, &senses(row, setting.lapsed))
}

fn words(judgement: Judgement) -> String {
    match judgement {
        Judgement::Rest => "rest".to_owned(),
        Judgement::Hold(doubt) => format!("hold: {}", doubt.name()),
        Judgement::Move(ground) => format!("MOVE: {}", ground.words()),
    }
}

/// Judgements below a fixed beginning of a row, as one value that can be compared.
fn subtree(setting: &Setting, fixed: &[Sense]) -> Vec<Judgement> {
    let free = 8 - fixed.len();
    (0..4_usize.pow(free as u32))
        .map(|number| {
            let row: Row = std::array::from_fn(|place| match fixed.get(place) {
                Some(value) => *value,
                None => VALUES[number / 4_usize.pow((place - fixed.len()) as u32) % 4],
            });
            judged(setting, &row)
        })
        .collect()
}

/// Prints the tree of decisions; values with the same consequences stand together, sensors without any are left out.
fn print_tree(out: &mut String, setting: &Setting, fixed: &mut Vec<Sense>, shown: &mut Vec<String>) {
    let below = subtree(setting, fixed);
    if below.iter().all(|judgement| *judgement == below[0]) {
        let conditions = if shown.is_empty() { "always".to_owned() } else { shown.join(", ") };
        let _ = writeln!(out, "  {conditions} -> {}", words(below[0]));
        return;
    }
    let mut groups: BTreeMap<Vec<Judgement>, Vec<Sense>> = BTreeMap::new();
    for value in VALUES {
        fixed.push(value);
        groups.entry(subtree(setting, fixed)).or_default().push(value);
        fixed.pop();
    }
    let mut groups: Vec<Vec<Sense>> = groups.into_values().collect();
    groups.sort();
    let matters = groups.len() > 1;
    for group in groups {
        if matters {
            let values: Vec<String> = group.iter().map(|value| format!("{value:?}").to_lowercase()).collect();
            shown.push(format!("{} {}", SENSORS[fixed.len()], values.join("|")));
        }
        fixed.push(group[0]);
        print_tree(out, setting, fixed, shown);
        fixed.pop();
        if matters {
            shown.pop();
        }
    }
}

fn table() -> String {
    let mut out = String::from(
        "# What the sensors together ask for. A line is a group of rows; sensors that do not matter in it are left \
         out.\n# good = sees the service at the active site, bad = sees it gone, unknown = never said anything, stale \
         = spoke too long ago.\n",
    );
    for setting in settings() {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for row in rows() {
            *counts.entry(words(judged(&setting, &row))).or_default() += 1;
        }
        let _ = writeln!(out, "\n## {}", setting.name);
        for (judgement, count) in counts {
            let _ = writeln!(out, "# {count:>6} rows: {judgement}");
        }
        print_tree(&mut out, &setting, &mut Vec::new(), &mut Vec::new());
    }
    out
}

#[test]
fn the_table_of_all_sensor_values_is_the_reviewed_one() {
    let table = table();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(GOLDEN, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let differing = table.lines().zip(reviewed.lines()).find(|(now, then)| now != then);
    assert!(
        table == reviewed,
        "{GOLDEN} differs, first at {differing:?}; BLESS=1 writes it, a person reviews it"
    );
}

#[test]
fn no_row_in_which_one_faulty_sensor_moves_a_site() {
    let mut moves = 0;
    for setting in settings().iter().filter(|setting| !setting.lapsed) {
        for row in rows() {
            if let Judgement::Move(ground) = judged(setting, &row) {
                moves += 1;
                let bad = row.iter().filter(|value| **value == Sense::Bad).count();
                assert!(bad >= 2, "{}: {ground:?} on {row:?}", setting.name);
            }
        }
    }
    assert!(moves > 1_000, "the matrix has rows that move: {moves}");
}

#[test]
fn unknown_and_stale_support_nothing() {
    // Whatever a sensor that says nothing is replaced with, a row without a bad sensor never moves; and a row that
    // moves loses its ground when every bad sensor falls silent.
    for setting in settings().iter().filter(|setting| !setting.lapsed) {
        for row in rows() {
            let silent = row.map(|value| if value == Sense::Bad { Sense::Unknown } else { value });
            assert!(!matches!(judged(setting, &silent), Judgement::Move(_)), "{}: {silent:?}", setting.name);
        }
    }
}

#[test]
fn a_lapsed_lease_moves_only_where_nobody_sees_the_active_site_alive() {
    for setting in settings().iter().filter(|setting| setting.lapsed) {
        for row in rows() {
            if judged(setting, &row) == Judgement::Move(Ground::LeaseLapsed) {
                let (gslb, _) = load_balancer([row[0], row[1]]);
                assert!(gslb != Sense::Good && row[4] != Sense::Good, "{}: {row:?}", setting.name);
                assert!(!setting.witness || row[5] == Sense::Bad, "{}: {row:?}", setting.name);
            }
        }
    }
}

#[test]
fn every_ground_has_a_row() {
    let mut seen = BTreeSet::new();
    for setting in settings() {
        seen.extend(rows().filter_map(|row| match judged(&setting, &row) {
            Judgement::Move(ground) => Some(ground),
            Judgement::Hold(_) | Judgement::Rest => None,
        }));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}
