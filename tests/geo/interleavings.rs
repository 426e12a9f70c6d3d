//! Every order of reads and writes of two and three instances, against the simulated account.
//!
//! The instances run the shipped [`Pass`]; a state is the account and all passes under way. States that are equal are
//! visited once, and the orders that lead through them are counted.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};
use switchover_agent::adapters::cloudflare::judge;
use switchover_agent::adapters::cloudflare::load_balancing::{Place, answer_of, request_of};
use switchover_agent::lab::cloudflare::{ACCOUNT, Account, ZONE};
use switchover_agent::rules::geo::pass::{Input, MAX_ROUNDS, Pass, Step, wanted};
use switchover_agent::rules::geo::{Answer, Call, CallFailure, GeoPolicy};

use crate::bench::{HOST, settings};

/// What an instance wants: addresses of its cluster, or none and the grace period is over.
#[derive(Clone)]
struct Wish {
    policy: Arc<GeoPolicy>,
    input: Arc<Input>,
}

const SITES: [(&str, &str); 3] = [("eu", "a"), ("us_east", "b"), ("asia", "c")];

fn pool(site: usize) -> String {
    format!("k8s-pool-c{site}-{}", SITES[site].0)
}

fn wish(site: usize, address: Option<&str>, on_empty: &str) -> Wish {
    let (location, owner) = SITES[site];
    let policy = settings("http://h", location, owner, &[("ON_EMPTY", on_empty)]).unwrap().policy;
    let clusters: BTreeMap<String, BTreeSet<String>> = address
        .map(|address| (format!("c{site}"), BTreeSet::from([address.to_owned()])))
        .into_iter()
        .collect();
    let due = if address.is_none() { BTreeSet::from([pool(site)]) } else { BTreeSet::new() };
    let input = Input { wanted: wanted(&policy, &clusters), due, dry_run: false };
    Wish { policy: Arc::new(policy), input: Arc::new(input) }
}

fn perform(account: &mut Account, call: &Call) -> Result<Answer, CallFailure> {
    let place = Place { account: ACCOUNT.into(), zone: ZONE.into() };
    let request = request_of(&place, call);
    let (status, reply) = account.handle(request.method.as_str(), &request.path, request.body.as_ref());
    judge("call", status, Some(reply))
        .and_then(|mut envelope| answer_of(call, &envelope["result"].take()))
        .map_err(CallFailure::from)
}

#[derive(Clone)]
struct State {
    account: Account,
    /// The account's part of the key; made again after writes only.
    print: u64,
    passes: Vec<Pass>,
}

impl State {
    fn new(account: Account, passes: Vec<Pass>) -> Self {
        let print = digest(&account.fingerprint());
        Self { account, print, passes }
    }

    fn key(&self) -> u128 {
        let half = |salt: u8| u128::from(digest(&(salt, self.print, &self.passes)));
        half(0) << 64 | half(1)
    }

    /// Lets one instance make its next call. Waits are nothing: any other may come in between anyway.
    fn advance(&mut self, index: usize) -> bool {
        let pass = &mut self.passes[index];
        if pass.step() == Step::Pause {
            pass.resume();
        }
        let Step::Call(call) = pass.step() else { return false };
        pass.answer(perform(&mut self.account, &call));
        if call.writes() {
            self.print = digest(&self.account.fingerprint());
        }
        true
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn run_alone(account: &mut Account, wish: &Wish) -> Pass {
    let pass = Pass::new(wish.policy.clone(), wish.input.clone());
    let mut state = State::new(account.clone(), vec![pass]);
    while state.advance(0) {}
    *account = state.account;
    state.passes.remove(0)
}

#[derive(Default)]
struct Walk {
    orders: HashMap<u128, u128>,
    ends: usize,
    unsettled: usize,
    deepest_round: u8,
}

/// Walks all orders from a state; `check` judges every end. Gives the number of orders.
fn walk(walk_so_far: &mut Walk, state: &State, check: &dyn Fn(&State)) -> u128 {
    let key = state.key();
    if let Some(known) = walk_so_far.orders.get(&key) {
        return *known;
    }
    let mut orders: u128 = 0;
    for index in 0..state.passes.len() {
        if state.passes[index].step() == Step::Done {
            continue;
        }
        let mut next = state.clone();
        assert!(next.advance(index));
        orders = orders.saturating_add(walk(walk_so_far, &next, check));
    }
    if orders == 0 {
        check(state);
        walk_so_far.ends += 1;
        walk_so_far.unsettled += usize::from(state.passes.iter().any(|pass| pass.report().unsettled));
        let rounds = state.passes.iter().map(Pass::round).max().unwrap_or(0);
        walk_so_far.deepest_round = walk_so_far.deepest_round.max(rounds);
        orders = 1;
    }
    walk_so_far.orders.insert(key, orders);
    orders
}

/// Every end: all passes good, every wanted and enabled pool listed, something enabled; then the instances look again
/// (at most twice) and nobody has anything to write.
fn check_end(state: &State, wishes: &[Wish], idle: &[usize]) {
    // An adversary that lets every write be stale can use up the rounds of a pass, which then comes again. That counts
    // as one of the two looks below; nothing may have failed, though.
    let unsettled = state.passes.iter().any(|pass| pass.report().unsettled);
    for (pass, wish) in state.passes.iter().zip(wishes) {
        let report = pass.report();
        assert!(report.unsettled || report.is_good(), "{report:?}");
        if unsettled {
            continue;
        }
        for name in wish.input.wanted.keys() {
            let listed = state.account.default_pools(HOST).contains(name);
            assert!(listed, "{name} is lost: {}", state.account.fingerprint());
        }
    }
    for index in idle {
        assert_eq!(state.passes[*index].report().writes, Vec::<&str>::new(), "it had nothing to say");
    }
    let mut account = state.account.clone();
    let listed = account.default_pools(HOST);
    let enabled = |pool: &Value| pool["enabled"] == json!(true);
    let served = listed.iter().any(|name| account.pool(name).is_some_and(enabled));
    assert!(served, "nothing is left to answer: {}", account.fingerprint());
    let mut writes = 0;
    for _ in 0..=2 {
        writes = 0;
        for wish in wishes {
            let pass = run_alone(&mut account, wish);
            assert!(pass.report().is_good(), "{:?}", pass.report());
            writes += pass.report().writes.len();
        }
        if writes == 0 {
            break;
        }
    }
    assert_eq!(writes, 0, "it does not come to rest: {}", account.fingerprint());
    for name in wishes.iter().flat_map(|wish| wish.input.wanted.keys()) {
        assert!(account.default_pools(HOST).contains(name), "{name} is lost: {}", account.fingerprint());
    }
}

fn explore(title: &str, before: &[Wish], wishes: &[Wish], idle: &[usize]) -> Walk {
    let mut account = Account::new("x.test");
    for wish in before {
        run_alone(&mut account, wish);
    }
    // Three instances: the writing round and a verifying one, the rest being the looks at the end; two: all rounds.
    let rounds = if wishes.len() > 2 { 2 } else { MAX_ROUNDS };
    let pass = |wish: &Wish| Pass::with_rounds(wish.policy.clone(), wish.input.clone(), rounds);
    let passes = wishes.iter().map(pass).collect();
    let mut result = Walk::default();
    let orders = walk(&mut result, &State::new(account, passes), &|state| check_end(state, wishes, idle));
    println!(
        "{title}: {} states, {orders} orders, {} ends ({} to be continued), at most {} rounds",
        result.orders.len(),
        result.ends,
        result.unsettled,
        result.deepest_round
    );
    result
}

fn has(site: usize) -> Wish {
    wish(site, Some(&format!("203.0.113.{}", site + 1)), "disable")
}

fn moves(site: usize) -> Wish {
    wish(site, Some(&format!("203.0.113.{}", site + 101)), "disable")
}

#[test]
fn two_instances_creating() {
    let walk = explore("2 create", &[], &[has(0), has(1)], &[]);
    assert!(walk.orders.len() > 50 && walk.deepest_round <= 4);
}

#[test]
fn two_instances_updating_creating_idling() {
    explore("2 update", &[has(0), has(1)], &[moves(0), moves(1)], &[]);
    explore("update beside idle", &[has(0), has(1)], &[moves(0), has(1)], &[1]);
    explore("update beside create", &[has(0)], &[moves(0), has(1)], &[]);
    explore("idle twice", &[has(0), has(1)], &[has(0), has(1)], &[0, 1]);
}

#[test]
fn two_instances_removing() {
    for mode in ["disable", "delete"] {
        let all = [has(0), has(1), has(2)];
        let gone = |site| wish(site, None, mode);
        explore(&format!("{mode} beside create"), &[has(0), has(2)], &[gone(0), has(1)], &[]);
        explore(&format!("{mode} beside update"), &all, &[gone(0), moves(1)], &[]);
        explore(&format!("{mode} twice, one stays"), &all, &[gone(0), gone(1)], &[]);
        explore(&format!("{mode} the last two"), &[has(0), has(1)], &[gone(0), gone(1)], &[]);
    }
}

#[test]
fn three_instances_creating() {
    explore("3 create", &[has(0)], &[moves(0), has(1), has(2)], &[]);
}

#[test]
fn three_instances_creating_from_nothing() {
    explore("3 create from nothing", &[], &[has(0), has(1), has(2)], &[]);
}

#[test]
fn three_instances_updating() {
    let all = [has(0), has(1), has(2)];
    explore("3 update", &all, &[moves(0), moves(1), moves(2)], &[]);
}

#[test]
fn three_instances_removing() {
    let all = [has(0), has(1), has(2)];
    explore("disable, create, update", &[has(0), has(2)], &[wish(0, None, "disable"), has(1), moves(2)], &[]);
    explore("delete, idle, update", &all, &[wish(0, None, "delete"), has(1), moves(2)], &[]);
}
