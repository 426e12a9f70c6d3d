//! Tests of the metrics against their text form.

use super::*;
use crate::model::{Generation, RefusalNote};

fn text(registry: &Registry) -> String {
    render(registry).unwrap()
}

#[test]
fn a_failed_and_a_settled_transition_print_as_the_old_scripts_look_for_them() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry);
    metrics.set_release("000000-dev");
    metrics.observe_note(&Note::Pipeline {
        release: "000000-dev".into(),
        state: "Failed".into(),
        declared_failed: true,
    });
    let pid = std::process::id();
    let failed = text(&registry);
    for line in [
        "# HELP switchover_transition Multiprocess metric".to_owned(),
        "# TYPE switchover_transition gauge".to_owned(),
        "switchover_transition_failed_total{release=\"000000-dev\"} 1.0".to_owned(),
        format!("switchover_transition{{pid=\"{pid}\",release=\"000000-dev\"}} 3.0"),
        "switchover_pipeline_total{release=\"000000-dev\",state=\"Failed\"} 1.0".to_owned(),
        format!("switchover_logic_gauge{{pid=\"{pid}\",resource=\"transition\"}} 3.0"),
    ] {
        assert!(failed.lines().any(|found| found == line), "{line}\n{failed}");
    }
    metrics.observe_note(&Note::Settled { transition: "golddr-primary".into(), generation: Generation(4) });
    let settled = text(&registry);
    assert!(settled.contains(&format!("switchover_transition{{pid=\"{pid}\",release=\"000000-dev\"}} 0.0")));
    assert!(settled.contains("switchover_generation 4.0\n"));
}

#[test]
fn every_predecessor_metric_is_there_after_one_round_of_events() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry);
    metrics.set_release("ns");
    metrics.observe_event(&Event::PeerLink { up: true, reason: String::new() });
    metrics.observe_event(&Event::Patroni(PatroniSample::Unknown("no answer".into())));
    let answers = [("r1".to_owned(), crate::model::ResolverAnswer::NoAddress)].into();
    metrics.observe_event(&Event::Dns(crate::model::DnsSample { answers, self_test: None }));
    metrics.observe_note(&Note::Pipeline {
        release: "ns".into(),
        state: "Retry".into(),
        declared_failed: false,
    });
    metrics.observe_note(&Note::DnsChanged { result: "10.0.0.2".into(), kind: "passive".into() });
    let text = text(&registry);
    for name in [
        "switchover_logic_total{resource=\"logic\",state=\"info\"} 3.0",
        "switchover_logic_total{resource=\"peer\",state=\"ok\"} 1.0",
        "switchover_logic_total{resource=\"dns\",state=\"passive/10.0.0.2\"} 1.0",
        "switchover_transition_failed_total{release=\"ns\"} 0.0",
        "switchover_request_processing_seconds_count 0.0",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    for name in ["switchover_maintenance{pid=", "switchover_patroni{pid=", "switchover_peer{pid="] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    assert!(text.contains("resource=\"dns\"} 2.0"));
}

#[test]
fn a_refusal_is_counted_by_its_name() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry);
    metrics.observe_note(&Note::Refused(RefusalNote {
        asked: "gold-standby".into(),
        origin: "record".into(),
        refusal: "peer-lost".into(),
        why: "the peer does not answer".into(),
    }));
    assert!(text(&registry).contains("switchover_refusals_total{refusal=\"peer-lost\"} 1.0"));
}

#[test]
fn registering_twice_keeps_one_working_set() {
    let registry = Registry::new();
    Metrics::new(&registry);
    let second = Metrics::new(&registry);
    second.set_bus_depth(7);
    assert!(text(&registry).contains("switchover_bus_depth 7.0"));
}
