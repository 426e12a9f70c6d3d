//! Settings of the engines in the virtual pair: the predecessor's constants, with short waits.

use crate::model::Side;
use crate::rules::policy::{Automation, DestructionGate, DnsPolicy, PipelinePolicy, Policy, SafetyPolicy};

/// Settings of an engine in the pair, for changing before the start.
pub fn policy(side: Side) -> Policy {
    let name = |side: Side| if side == Side::Active { "gold" } else { "golddr" };
    Policy {
        site: crate::model::SiteName(name(side).to_owned()),
        side,
        instance: format!("{side}-1"),
        automation: Automation::Witnessed,
        dns: DnsPolicy {
            active: [std::net::IpAddr::from([10, 0, 0, 1])].into(),
            passive: [std::net::IpAddr::from([10, 0, 0, 2])].into(),
            quorum: 2,
            agree_samples: 3,
            agree_ms: 0,
        },
        gate: DestructionGate::Strict,
        database_peer: Some("peer".to_owned()),
        pipeline: Some(PipelinePolicy {
            retry_interval_ms: 30_000,
            attempt_timeout_ms: 360_000,
            max_retries: 2,
            total_cap_ms: 900_000,
        }),
        release: "sso".to_owned(),
        portal: true,
        routes: false,
        promote_first: false,
        fence_old_primary: false,
        health_replicas: 2,
        database_replicas: 3,
        application_replicas: 1,
        consent_ms: 30_000,
        fresh_ms: 10_000,
        automation_pause_ms: 60_000,
        safety: SafetyPolicy::default(),
    }
}
