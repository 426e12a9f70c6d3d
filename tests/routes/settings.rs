//! A7, A35, A37 and the rules beside them: every problem at once, and what is only worth a warning.

use std::collections::BTreeMap;

use switchover_agent::config::routes::{RouteSettings, read};
use switchover_agent::config::{Config, Reader};
use switchover_agent::lab::route_clouds::{direct_bases, environment, write_key};
use switchover_agent::model::Side;
use switchover_agent::tasks::TaskName;
use switchover_agent::tasks::clock::wall_now;

fn env(more: &[(&str, &str)]) -> (tempfile::TempDir, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), &direct_bases()[0]).unwrap();
    let mut env = environment(Side::Active, &direct_bases(), &key, folder.path());
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    (folder, env)
}

fn settings(more: &[(&str, &str)]) -> (RouteSettings, Vec<String>) {
    let (_folder, env) = env(more);
    let mut reader = Reader::new(&env);
    let settings = read(&mut reader, Side::Active);
    (settings, reader.into_problems().iter().map(ToString::to_string).collect())
}

fn problem(more: &[(&str, &str)], about: &str) {
    let (_, problems) = settings(more);
    assert!(problems.iter().any(|it| it.contains(about)), "{about} not in {problems:?}");
}

#[test]
fn a07_an_asymmetric_window_of_three_could_never_recover() {
    problem(
        &[("HEALTH_CHECK_WINDOW", "3"), ("HEALTH_CHECK_THRESHOLD", "2"), ("ASYMMETRIC_HYSTERESIS", "true")],
        "HEALTH_CHECK_WINDOW=\"3\"",
    );
}

#[test]
fn a35_passive_mode_understands_every_spelling_and_a_wrong_one_never_makes_it_active() {
    for (text, passive) in [
        ("TRUE", true),
        ("true", true),
        ("1", true),
        (" yes ", true),
        ("on", true),
        ("FALSE", false),
        ("0", false),
    ] {
        let (settings, problems) = settings(&[("RUN_PASSIVE", text)]);
        assert_eq!((settings.policy.passive, problems.len()), (passive, 0), "{text:?}: {problems:?}");
    }
    let (settings, problems) = settings(&[("RUN_PASSIVE", "maybe")]);
    assert!(settings.policy.passive && problems[0].contains("RUN_PASSIVE=\"maybe\""), "{problems:?}");
}

#[test]
fn a37_every_problem_is_in_one_report() {
    for (more, about) in [
        (vec![("STATE_2_VERIFICATION_THRESHOLD", "0")], "STATE_2_VERIFICATION_THRESHOLD=\"0\""),
        (vec![("STATE_3_VERIFICATION_THRESHOLD", "11")], "STATE_3_VERIFICATION_THRESHOLD=\"11\""),
        (vec![("HEALTH_CHECK_WINDOW", "11")], "HEALTH_CHECK_WINDOW=\"11\""),
        (vec![("MIN_STATE_DWELL_TIME", "700")], "MIN_STATE_DWELL_TIME=\"700\""),
    ] {
        problem(&more, about);
    }
    let all = [
        ("STATE_2_VERIFICATION_THRESHOLD", "0"),
        ("STATE_3_VERIFICATION_THRESHOLD", "11"),
        ("HEALTH_CHECK_WINDOW", "2"),
        ("MIN_STATE_DWELL_TIME", "20"),
        ("HEALTH_CHECK_THRESHOLD", "5"),
        ("MAX_RETRIES_BGP_CHECK", "15"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json"),
        ("CHECK_INTERVAL_SECONDS", "5.5"),
        ("INITIAL_BACKOFF_SECONDS", "NaN"),
        ("DWELL_TIME_EXCEPTION_STATES", "1,9"),
        ("LOG_BACKUP_COUNT", "many"),
        ("CLOUDFLARE_SECONDARY_PRIORITY", "100"),
        ("SECONDARY_PREFIX", "192.0.2.0/24"),
        ("REMOTE_BGP_REGION", "us-east1"),
        ("REMOTE_BGP_ROUTER", "router-active"),
        ("PRIMARY_INTERNAL_IP", "ten"),
        ("GCP_API_TIMEOUT", "4"),
    ];
    let (_, problems) = settings(&all);
    for (name, _) in all.iter().filter(|(name, _)| *name != "REMOTE_BGP_REGION") {
        assert!(problems.iter().any(|it| it.starts_with(name)), "{name} not in {problems:#?}");
    }
}

#[test]
fn a37_what_is_missing_is_named() {
    let empty = BTreeMap::new();
    let mut reader = Reader::new(&empty);
    read(&mut reader, Side::Active);
    let problems: Vec<String> = reader.into_problems().iter().map(|it| it.setting.clone()).collect();
    for name in [
        "GCP_PROJECT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "LOCAL_GCP_REGION",
        "REMOTE_GCP_REGION",
        "BGP_PEER_PROJECT",
        "LOCAL_BGP_REGION",
        "LOCAL_BGP_ROUTER",
        "REMOTE_BGP_REGION",
        "REMOTE_BGP_ROUTER",
        "PRIMARY_PREFIX",
        "SECONDARY_PREFIX",
        "CLOUDFLARE_ACCOUNT_ID",
        "CLOUDFLARE_API_TOKEN",
        "DESCRIPTION_SUBSTRING",
    ] {
        assert!(problems.iter().any(|it| it == name), "{name} not in {problems:?}");
    }
}

#[test]
fn a_backoff_that_is_turned_round_is_refused() {
    problem(&[("INITIAL_BACKOFF_SECONDS", "20"), ("MAX_BACKOFF_SECONDS", "10")], "MAX_BACKOFF_SECONDS");
}

#[test]
fn what_works_and_is_odd_is_a_warning() {
    for (more, about) in [
        (vec![("PRIMARY_PREFIX", "192.0.2.7/24")], "192.0.2.0/24"),
        (vec![("SECONDARY_PREFIX", "192.0.2.128/25")], "overlap"),
        (vec![("CLOUDFLARE_PRIMARY_PRIORITY", "300")], "lower wins"),
        (vec![("RUN_PASSIVE", "true")], "never changed"),
        (vec![("DESCRIPTION_SUBSTRING", "EDGE   # the edge")], "inline comments"),
    ] {
        let (settings, problems) = settings(&more);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(settings.warnings.iter().any(|it| it.contains(about)), "{about}: {:?}", settings.warnings);
    }
}

#[test]
fn the_predecessor_s_environment_alone_runs_route_watch_and_nothing_else() {
    let (_folder, env) = env(&[]);
    let config = Config::read(&env, wall_now()).unwrap();
    assert_eq!(config.site.tasks.iter().copied().collect::<Vec<_>>(), [TaskName::RouteWatch]);
    assert!(config.routes.is_some());
}
