//! The site's control: `PUT /phase/...`, `PUT /initiate/...`, `PUT /lift/...`, `PUT /tekton/mode/...`.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::faults::Fault;
use super::http::{Answer, Request, json_answer};
use super::pipelines::Mode;
use super::seed;
use super::settings::WorldSettings;
use super::site::Site;
use super::store::text;
use super::world::World;
use crate::model::{Phase, Side, Wall};

/// The names of `PUT /phase/<name>`.
pub const PHASES: [&str; 4] = [
    "active-passive",
    "transition-to-golddr-primary",
    "transition-to-gold-standby",
    "transition-to-active-passive",
];

/// Most bites that a counted fault can have.
const COUNT_LIMIT: u64 = 1_000_000;

/// `PUT /phase/<name>`.
pub fn phase(world: &World, side: Side, request: &Request) -> Answer {
    let name = request.rest("/phase/");
    if request.method != Method::PUT {
        return method_refused("PUT");
    }
    let settings = world.settings();
    let set_up = |site: &mut Site, now: Wall, phase: Phase| {
        seed::settle(site, phase, now, settings);
    };
    if name == "active-passive" {
        world.each(|site, now| set_up(site, now, Phase::ActivePassive));
        world.forget_rows();
    } else {
        let Some(transition) = PHASES.contains(&name).then(|| name.strip_prefix("transition-to-")).flatten()
        else {
            return unknown("phase", name, &PHASES);
        };
        let before = world.with(side, |site, _| situation_before(site, transition, settings)).flatten();
        if let Some(phase) = before {
            world.each(|site, now| set_up(site, now, phase));
            world.forget_rows();
        }
        world.with(side, |site, _| seed::ask(site, transition, settings));
    }
    world.with(side, |site, _| site.activity.noted(format!("PHASE_CHANGE/{name}")));
    no_content()
}

/// The situation that a site must be put into before a transition makes sense there; `None` = as it is.
fn situation_before(site: &Site, transition: &str, settings: &WorldSettings) -> Option<Phase> {
    let record = site.store.get("configmaps", &settings.health_namespace, &settings.record_name());
    let phase = record.and_then(|record| text(record, "/data/last_stable_state").parse::<Phase>().ok());
    let (possible, before) = match transition {
        "golddr-primary" => (phase.is_some_and(|phase| phase != Phase::GolddrPrimary), Phase::ActivePassive),
        "gold-standby" => (phase == Some(Phase::GolddrPrimary), Phase::GolddrPrimary),
        _ => (
            matches!(phase, Some(Phase::GoldStandby | Phase::Independent | Phase::GolddrMaintenance)),
            Phase::GoldStandby,
        ),
    };
    (!possible).then_some(before)
}

/// `PUT /initiate/<fault>`, with `?count=N` for faults that bite a number of times.
pub fn initiate_request(world: &World, side: Side, request: &Request) -> Answer {
    let name = request.rest("/initiate/");
    if request.method != Method::PUT {
        return method_refused("PUT");
    }
    let Some(fault) = Fault::from_name(name) else { return unknown("fault", name, &Fault::names()) };
    let count = match request.parameter("count").map(|text| text.parse::<u64>()) {
        None => None,
        Some(Ok(count)) if (1..=COUNT_LIMIT).contains(&count) => Some(count),
        Some(_) => {
            let problem = json!({"error": format!("count must be a number from 1 to {COUNT_LIMIT}")});
            return json_answer(StatusCode::BAD_REQUEST, &problem);
        }
    };
    world.initiate(side, fault, count);
    no_content()
}

/// `PUT /lift/<fault>` and `PUT /lift/all`.
pub fn lift_request(world: &World, side: Side, request: &Request) -> Answer {
    let name = request.rest("/lift/");
    if request.method != Method::PUT {
        return method_refused("PUT");
    }
    if name == "all" {
        for (fault, _) in Fault::ALL {
            world.lift(side, fault);
        }
        return no_content();
    }
    let Some(fault) = Fault::from_name(name) else { return unknown("fault", name, &Fault::names()) };
    world.lift(side, fault);
    no_content()
}

/// `PUT /tekton/mode/<name>`.
pub fn tekton_mode(world: &World, side: Side, request: &Request) -> Answer {
    let name = request.rest("/tekton/mode/");
    if request.method != Method::PUT {
        return method_refused("PUT");
    }
    let count = request.parameter("fail_count").map_or(Some(1), |text| text.parse().ok());
    let Some(count) = count else {
        return json_answer(StatusCode::BAD_REQUEST, &json!({"error": "fail_count must be a number"}));
    };
    let Some(mode) = Mode::from_name(name, count) else { return unknown("mode", name, &Mode::NAMES) };
    world.with(side, |site, _| site.pipelines.mode = mode);
    no_content()
}

/// `GET` and `DELETE /activity`.
pub fn activity(world: &World, side: Side, request: &Request) -> Answer {
    match request.method {
        Method::GET => json_answer(StatusCode::OK, &world.activity(side)),
        Method::DELETE => {
            world.with(side, |site, _| site.activity.clear());
            no_content()
        }
        _ => method_refused("GET, DELETE"),
    }
}

/// The maintenance portal: `PUT /maintenance/maintenance/{true|false}` and `GET /maintenance/maintenance`.
pub fn maintenance(world: &World, side: Side, request: &Request) -> Answer {
    if world.with(side, |site, _| site.faults.bites(Fault::PortalDown)) == Some(true) {
        return json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "the portal is broken"}));
    }
    let wanted = match (&request.method, request.rest("/maintenance")) {
        (&Method::GET, "" | "/" | "/maintenance") => None,
        (&Method::PUT, "/maintenance/true") => Some(true),
        (&Method::PUT, "/maintenance/false") => Some(false),
        (_, "" | "/" | "/maintenance" | "/maintenance/true" | "/maintenance/false") => {
            return method_refused("GET, PUT");
        }
        _ => return not_found(),
    };
    let state = world.with(side, |site, _| {
        site.maintenance = wanted.unwrap_or(site.maintenance);
        site.maintenance
    });
    json_answer(StatusCode::OK, &json!({"maintenance": state}))
}

/// Breaks something at a site, with what must happen at that moment.
pub fn initiate(site: &mut Site, fault: Fault, count: Option<u64>) {
    site.faults.initiate(fault, count);
    site.activity.noted(format!("INITIATE/{}", fault.name()));
    if matches!(fault, Fault::Watch410 | Fault::WatchClose | Fault::ApiDown | Fault::ApiRefused) {
        site.watch_epoch += 1;
        site.watch_gone = fault == Fault::Watch410;
    }
    if fault == Fault::Watch410 {
        site.store.compact();
    }
    site.store.poke();
}

/// Mends something at a site.
pub fn lift(site: &mut Site, fault: Fault) {
    if site.faults.on(fault) {
        site.faults.lift(fault);
        site.activity.noted(format!("LIFT/{}", fault.name()));
        site.store.poke();
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Answer {
    let problem = json!({"error": format!("unknown {what} {name:?}"), "known": known});
    json_answer(StatusCode::NOT_FOUND, &problem)
}

/// 204.
pub fn no_content() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// 404 for a path that nobody serves.
pub fn not_found() -> Answer {
    let body: Value = json!({
        "error": "no such path",
        "known": ["/k8s/", "/patroni/", "/tekton/", "/maintenance/", "/dns", "/phase/NAME", "/initiate/FAULT",
                  "/lift/FAULT", "/tekton/mode/MODE", "/activity", "/lab/state", "/health"],
    });
    json_answer(StatusCode::NOT_FOUND, &body)
}

/// 405 with what would be right.
pub fn method_refused(allowed: &str) -> Answer {
    json_answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": format!("use {allowed}")}))
}
