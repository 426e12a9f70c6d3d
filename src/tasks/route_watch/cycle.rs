//! One cycle: observe, decide, act, tell.

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::Level;

use super::act::Acted;
use super::events::{Ended, Fact};
use super::observe::observe;
use super::{CycleReport, Watch};
use crate::model::{FailureKind, RoutePin};
use crate::rules::route_health::{Decision, Health, Hold, Skip, Verdict};

impl Watch {
    /// One whole cycle. Never fails: what went wrong is in the report.
    pub(super) async fn cycle(&mut self) -> CycleReport {
        let began = Instant::now();
        self.events.begin_cycle();
        self.refresh_pin();
        if self.unchecked {
            self.check_again().await;
        }
        let seen = observe(&self.settings, &self.clouds, &self.events, &self.metrics).await;
        let now = self.clock.now().mono;
        let decision = self.core.step(&self.settings.policy, seen.inputs, now);
        let in_state = decision.active.map_or(0, |active| now.since(active.since));
        self.metrics.decision(&decision, in_state);
        self.tell_transition(&decision);
        self.last = Some((decision.clone(), now));
        let wanted = self.settings.policy.desired(self.pin, &decision);
        let wanted = wanted.filter(|_| !self.settings.policy.passive);
        let acted = match (wanted, self.pin) {
            (Some(wanted), Some(pin)) => {
                Some(self.actuate(wanted, pin, seen.peer.as_ref(), seen.own.as_ref()).await)
            }
            _ => None,
        };
        let report = self.judge(&decision, acted.as_ref());
        let waits = acted.as_ref().is_some_and(|acted| !acted.refused.is_empty());
        self.last_failed = waits || report.ended == Ended::Failure;
        self.tell_cycle(&decision, acted.as_ref(), &report, began, in_state);
        self.keep();
        report
    }

    fn judge(&mut self, decision: &Decision, acted: Option<&Acted>) -> CycleReport {
        let (ended, notes) = match acted {
            Some(acted) if !acted.failures.is_empty() => {
                (Ended::Failure, acted.failures.iter().map(|(_, reason)| reason.clone()).collect())
            }
            Some(acted) => {
                let notes = acted.refused.iter().map(|refused| format!("{refused:?}")).collect();
                let idle = acted.changes == 0;
                (if idle { Ended::NoChange } else { Ended::Success }, notes)
            }
            None => (Ended::Skipped, vec![self.skip_reason(decision).to_owned()]),
        };
        self.failures = if ended == Ended::Failure { self.failures.saturating_add(1) } else { 0 };
        CycleReport { ended, notes }
    }

    /// Why nothing was done.
    fn skip_reason(&self, decision: &Decision) -> &'static str {
        if self.settings.policy.passive {
            return Skip::Passive.word();
        }
        match (self.pin, decision.verdict) {
            (None, _) => "owner_unknown",
            (Some(RoutePin::Health), Verdict::Skip(skip)) => skip.word(),
            (Some(_), _) => "",
        }
    }

    fn tell_transition(&mut self, decision: &Decision) {
        let code = decision.seen_code();
        let acts = matches!(decision.verdict, Verdict::Act(state) if state.code() == code);
        let planned = decision.seen.ok().map(|state| state.outcome()).filter(|_| acts);
        if self.last_code != Some(code) {
            let details = json!({
                "old_state_code": self.last_code.unwrap_or(0),
                "new_state_code": code,
                "local_healthy": decision.smoothed.local.known(),
                "remote_healthy": decision.smoothed.remote.known(),
                "remote_bgp_up": decision.smoothed.bgp.known(),
                "planned_primary_advertisement": planned.map(|outcome| outcome.primary),
                "planned_secondary_advertisement": planned.map(|outcome| outcome.secondary),
            });
            self.events.emit(&Fact::new(
                "state_transition",
                "state_machine",
                "state_transition",
                Ended::Success,
                details,
            ));
            let inputs = decision.smoothed;
            let text = format!(
                "state {} -> {code}: local {}, remote {}, bgp {}",
                self.last_code.unwrap_or(0),
                inputs.local,
                inputs.remote,
                inputs.bgp
            );
            self.events.say(Level::WARN, &text);
            if decision.seen == Err(Hold::AllLost) {
                self.events
                    .say(Level::ERROR, "both regions and the other router are down: nothing is changed");
            }
        }
        self.last_code = Some(code);
        if let Some(from) = decision.changed_from {
            let details = json!({
                "old_state_code": from.map_or(0, |state| state.code()),
                "new_state_code": decision.active.map_or(0, |active| active.state.code()),
            });
            let fact =
                Fact::new("state_transition", "state_machine", "state_applied", Ended::Success, details);
            self.events.emit(&fact);
        }
        if decision.dwell_left_ms > 0 {
            let details = json!({
                "current_state_code": decision.active.map_or(0, |active| active.state.code()),
                "refused_state_code": code,
                "remaining_seconds": decision.dwell_left_ms as f64 / 1000.0,
            });
            let fact = Fact::new(
                "dwell_time_enforced",
                "state_machine",
                "dwell_time_enforced",
                Ended::Skipped,
                details,
            );
            self.events.emit(&fact);
        }
    }

    fn tell_cycle(
        &mut self,
        decision: &Decision,
        acted: Option<&Acted>,
        report: &CycleReport,
        began: Instant,
        in_state: u64,
    ) {
        let took = began.elapsed();
        self.metrics.cycles.with_label_values(&[report.ended.word()]).inc();
        self.metrics.seconds.observe(took.as_secs_f64());
        self.metrics.failures_in_a_row.set(i64::from(self.failures));
        if report.ended != Ended::Failure {
            self.metrics.last_success.set((super::super::clock::wall_now().0 / 1000) as i64);
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let details = self.cycle_details(decision, acted, report, took_ms, in_state);
        // A cycle without a change is no news to people and still the one event that every cycle has.
        let ended = if report.ended == Ended::NoChange { Ended::Success } else { report.ended };
        let mut fact = Fact::new("health_check_cycle", "daemon", "health_check_cycle", ended, details);
        fact.duration_ms = Some(took_ms);
        let error = (report.ended == Ended::Failure).then(|| report.notes.join("; "));
        self.events.emit(&fact.because(error.clone()));
        if let Some(error) = error {
            let details = json!({
                "consecutive_errors": self.failures,
                "max_consecutive_errors": Value::Null,
                "correlation_id": self.events.correlation(),
            });
            let fact = Fact::new("daemon_error", "daemon", "health_check_cycle", Ended::Failure, details);
            self.events.emit(&fact.because(Some(error)));
        }
    }

    fn cycle_details(
        &self,
        decision: &Decision,
        acted: Option<&Acted>,
        report: &CycleReport,
        took_ms: u64,
        in_state: u64,
    ) -> Value {
        let policy = &self.settings.policy;
        let known = |health: Health| health.known();
        let wanted = self.last_wanted.filter(|_| acted.is_some());
        let planned = |value: Option<bool>| value.map_or(Value::from("no_change"), Value::from);
        let flag = |ok: Option<bool>| ok.unwrap_or(true);
        let skipped = acted.is_none();
        json!({
            "correlation_id": self.events.correlation(),
            "cycle_duration_ms": took_ms,
            "state_code": decision.seen_code(),
            "active_state_code": decision.active.map_or(0, |active| active.state.code()),
            "time_in_state_seconds": in_state as f64 / 1000.0,
            "state_verification": self.verification_details(decision, skipped, report),
            "health_check_hysteresis": {
                "local_history_size": self.core.local.len(),
                "remote_history_size": self.core.remote.len(),
                "bgp_history_size": self.core.bgp.len(),
                "local_healthy_count": self.core.local.healthy_count(),
                "remote_healthy_count": self.core.remote.healthy_count(),
                "bgp_healthy_count": self.core.bgp.healthy_count(),
                "window_size": policy.window,
                "threshold": policy.threshold,
                "asymmetric": policy.asymmetric,
            },
            "health_status": {
                "local_healthy": known(decision.smoothed.local),
                "remote_healthy": known(decision.smoothed.remote),
                "remote_bgp_up": known(decision.smoothed.bgp),
                "raw_local_healthy": known(decision.raw.local),
                "raw_remote_healthy": known(decision.raw.remote),
                "raw_remote_bgp_up": known(decision.raw.bgp),
            },
            "operation_results": {
                "primary_advertisement_success": flag(acted.and_then(|acted| acted.router)),
                "secondary_advertisement_success": flag(acted.and_then(|acted| acted.router)),
                "cloudflare_update_success": flag(acted.and_then(|acted| acted.cloudflare)),
                "bgp_updates_skipped": skipped,
                "cloudflare_updates_skipped": skipped,
                "remote_advertisement_skipped": true,
                "changes": acted.map_or(0, |acted| acted.changes),
                "refused": acted.map_or_else(Vec::new, |it| it.refused.iter().map(|it| it.word()).collect()),
            },
            "error_tracking": {
                "consecutive_errors": self.failures,
                "errors": acted.map_or_else(Vec::new, |acted| acted.failures.iter().map(|(kind, reason)| {
                    json!({"permanent": *kind == FailureKind::Permanent, "error": reason})
                }).collect()),
            },
            "configuration": {
                "passive_mode": policy.passive,
                "routes_owner": self.pin.map_or("unknown", super::pin_word),
                "desired_cloudflare_priority":
                    wanted.map_or(Value::from("no_change"), |it| Value::from(self.priority(it.priority))),
                "planned_primary_advertisement": planned(wanted.map(|wanted| wanted.primary)),
                "planned_secondary_advertisement": planned(wanted.map(|wanted| wanted.secondary)),
            },
        })
    }

    fn verification_details(&self, decision: &Decision, skipped: bool, report: &CycleReport) -> Value {
        let mut details = serde_json::Map::new();
        for state in crate::rules::route_health::RouteState::ALL {
            let pending = decision.candidate.filter(|candidate| candidate.state == state);
            let shown = pending.map_or(Value::Null, |candidate| {
                json!({
                    "pending": true,
                    "consecutive_count": candidate.count,
                    "threshold": self.settings.policy.verification_of(state),
                })
            });
            details.insert(format!("state_{}", state.code()), shown);
        }
        details.insert("updates_skipped".to_owned(), Value::from(skipped));
        let reason = skipped.then(|| report.notes.first().cloned()).flatten();
        details.insert("skip_reason".to_owned(), reason.map_or(Value::Null, Value::from));
        Value::Object(details)
    }
}
