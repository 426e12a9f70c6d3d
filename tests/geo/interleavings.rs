//! Every order of reads and writes of two and three instances, against the simulated account.
//!
//! The instances run the shipped [`Pass`]; a state is the account and all passes under way. States that are equal (by
//! digests of 128 bits) are visited once, and the orders that lead through them are counted. That loses nothing: what can
//! follow depends on the state alone. Two instances have all their rounds, three the writing round and two that verify.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

/// The account and all passes. What did not change since the state before is shared with it, and so is its digest.
#[derive(Clone)]
struct State {
    account: Arc<Account>,
    passes: Vec<Arc<Pass>>,
    /// Digests of what each pass was made from, which its own digest leaves out.
    origins: Arc<Vec<u64>>,
    /// Digests of the account and of each pass, 128 bits apiece.
    key: Vec<u128>,
}

/// What a call makes of a pass and the account.
#[derive(Clone)]
struct Moved {
    pass: Arc<Pass>,
    pass_key: u128,
    account: Arc<Account>,
    account_key: u128,
    wrote: bool,
}

thread_local! {
    /// A move depends on the pass and the account alone, so it is computed once for all states that have both.
    static MOVES: RefCell<HashMap<(u64, u128, u128), Option<Moved>>> = RefCell::default();
}

impl State {
    fn new(account: Account, wishes: &[Wish], rounds: u8) -> Self {
        let pass = |wish: &Wish| Pass::with_rounds(wish.policy.clone(), wish.input.clone(), rounds);
        let passes: Vec<Arc<Pass>> = wishes.iter().map(pass).map(Arc::new).collect();
        let origins = wishes.iter().map(|wish| digest(&(&wish.policy, &wish.input, rounds))).collect();
        let (account, print) = in_order(account);
        let key = std::iter::once(print).chain(passes.iter().map(|pass| digest128(&**pass))).collect();
        Self { account, passes, origins: Arc::new(origins), key }
    }

    /// Lets one instance make its next call; `None` = it is done, else whether that was a write. Waits are nothing:
    /// any other may come in between anyway.
    fn advance(&mut self, index: usize) -> Option<bool> {
        let key = (self.origins[index], self.key[index + 1], self.key[0]);
        let known = MOVES.with_borrow(|moves| moves.get(&key).cloned());
        let moved = known.unwrap_or_else(|| {
            let moved = self.moved(index);
            MOVES.with_borrow_mut(|moves| moves.insert(key, moved.clone()));
            moved
        })?;
        (self.passes[index], self.key[index + 1]) = (moved.pass, moved.pass_key);
        (self.account, self.key[0]) = (moved.account, moved.account_key);
        Some(moved.wrote)
    }

    fn moved(&self, index: usize) -> Option<Moved> {
        let mut pass = Pass::clone(&self.passes[index]);
        if pass.step() == Step::Pause {
            pass.resume();
        }
        let Step::Call(call) = pass.step() else { return None };
        let mut account = Account::clone(&self.account);
        pass.answer(perform(&mut account, &call));
        let pass_key = digest128(&pass);
        let (account, account_key) =
            if call.writes() { in_order(account) } else { (self.account.clone(), self.key[0]) };
        Some(Moved { pass: Arc::new(pass), pass_key, account, account_key, wrote: call.writes() })
    }
}

/// Pools are kept in the order of their names, so that accounts which differ in nothing but the order of creation are
/// one state. No pass depends on that order: `the_order_of_a_list_changes_nothing` shows it. Gives the digest as well.
fn in_order(mut account: Account) -> (Arc<Account>, u128) {
    account.pools.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let print = digest128(&account.fingerprint());
    (Arc::new(account), print)
}

fn digest128(value: &impl Hash) -> u128 {
    u128::from(digest(&(0_u8, value))) << 64 | u128::from(digest(&(1_u8, value)))
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn run_alone(account: &mut Account, wish: &Wish) -> Arc<Pass> {
    let mut state = State::new(account.clone(), std::slice::from_ref(wish), MAX_ROUNDS);
    while state.advance(0).is_some() {}
    *account = Account::clone(&state.account);
    state.passes.remove(0)
}

/// What is known of a state: the orders that lead from it to an end, and the most writes on any of them.
#[derive(Clone, Copy)]
struct Known {
    orders: u128,
    writes: usize,
}

#[derive(Default)]
struct Walk {
    known: HashMap<Vec<u128>, Known>,
    /// Accounts from which the instances were seen to come to rest.
    rested: HashSet<u128>,
    ends: usize,
    unsettled: usize,
    deepest_round: u8,
}

/// Walks all orders from a state, each state once; `check` judges every end.
fn walk(so_far: &mut Walk, state: &State, check: &dyn Fn(&mut HashSet<u128>, &State)) -> Known {
    if let Some(known) = so_far.known.get(&state.key) {
        return *known;
    }
    let mut known = Known { orders: 0, writes: 0 };
    for index in 0..state.passes.len() {
        let mut next = state.clone();
        let Some(wrote) = next.advance(index) else { continue };
        let beyond = walk(so_far, &next, check);
        known.orders = known.orders.saturating_add(beyond.orders);
        known.writes = known.writes.max(beyond.writes + usize::from(wrote));
    }
    if known.orders == 0 {
        check(&mut so_far.rested, state);
        so_far.ends += 1;
        so_far.unsettled += usize::from(state.passes.iter().any(|pass| pass.report().unsettled));
        let rounds = state.passes.iter().map(|pass| pass.round()).max().unwrap_or(0);
        so_far.deepest_round = so_far.deepest_round.max(rounds);
        known.orders = 1;
    }
    so_far.known.insert(state.key.clone(), known);
    known
}

/// Every end: all passes good, every wanted and enabled pool listed, something enabled; then the instances look again
/// (at most twice) and nobody has anything to write.
fn check_end(rested: &mut HashSet<u128>, state: &State, wishes: &[Wish], idle: &[usize]) {
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
    // Coming to rest depends on the account alone.
    if rested.insert(state.key[0]) {
        comes_to_rest(&state.account, wishes);
    }
}

fn comes_to_rest(account: &Account, wishes: &[Wish]) {
    let mut account = account.clone();
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

fn explore(title: &str, before: &[Wish], wishes: &[Wish], idle: &[usize]) -> (Walk, Known) {
    let mut account = Account::new("x.test");
    for wish in before {
        run_alone(&mut account, wish);
    }
    // Three instances: the writing round and two verifying ones; two: all rounds.
    let rounds = if wishes.len() > 2 { 3 } else { MAX_ROUNDS };
    let mut result = Walk::default();
    let check = |rested: &mut HashSet<u128>, state: &State| check_end(rested, state, wishes, idle);
    let known = walk(&mut result, &State::new(account, wishes, rounds), &check);
    MOVES.with_borrow_mut(HashMap::clear);
    println!(
        "{title}: {} states, {} orders, {} ends ({} to be continued), at most {} rounds and {} writes",
        result.known.len(),
        known.orders,
        result.ends,
        result.unsettled,
        result.deepest_round,
        known.writes
    );
    // Its own pool and one list in each round, and no more: nobody writes again and again.
    let bound = wishes.len() * (1 + usize::from(rounds));
    assert!(known.writes <= bound, "{title}: {} writes, {bound} allowed", known.writes);
    (result, known)
}

fn has(site: usize) -> Wish {
    wish(site, Some(&format!("203.0.113.{}", site + 1)), "disable")
}

fn moves(site: usize) -> Wish {
    wish(site, Some(&format!("203.0.113.{}", site + 101)), "disable")
}

#[test]
fn two_instances_creating() {
    let (walk, _) = explore("2 create", &[], &[has(0), has(1)], &[]);
    assert!(walk.known.len() > 50 && walk.deepest_round <= 4);
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
    explore("2 update beside idle", &all, &[moves(0), moves(1), has(2)], &[2]);
    let (_, known) = explore("3 idle", &all, &all, &[0, 1, 2]);
    assert_eq!(known.writes, 0);
}

/// The walk keeps pools in one order. Each permutation of a list of pools gives the same calls, one after the other.
#[test]
fn the_order_of_a_list_changes_nothing() {
    let mut account = Account::new("x.test");
    for wish in [has(0), has(1), has(2)] {
        run_alone(&mut account, &wish);
    }
    let calls = |mut account: Account, wish: &Wish| {
        let mut pass = Pass::new(wish.policy.clone(), wish.input.clone());
        let mut calls = Vec::new();
        while pass.step() != Step::Done {
            pass.resume();
            let Step::Call(call) = pass.step() else { continue };
            pass.answer(perform(&mut account, &call));
            calls.push(call);
        }
        calls
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for missing in [None, Some(0), Some(1), Some(2)] {
        let mut account = account.clone();
        if let Some(missing) = missing {
            let id = account.pools[missing]["id"].clone();
            account.balancers[0]["default_pools"].as_array_mut().unwrap().retain(|entry| *entry != id);
        }
        for wish in [has(0), moves(0), wish(0, None, "disable"), wish(1, None, "delete"), moves(2)] {
            let permuted = orders.map(|order| {
                let pools = order.map(|index| account.pools[index].clone()).to_vec();
                let mut account = account.clone();
                account.pools = pools;
                calls(account, &wish)
            });
            for other in &permuted {
                assert_eq!(*other, permuted[0]);
            }
        }
    }
}

#[test]
fn three_instances_removing() {
    let all = [has(0), has(1), has(2)];
    explore("disable, create, update", &[has(0), has(2)], &[wish(0, None, "disable"), has(1), moves(2)], &[]);
    explore("delete, idle, update", &all, &[wish(0, None, "delete"), has(1), moves(2)], &[]);
}
