//! Journals that a crash, a full disk or a hand has hurt, and the two commands that look back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use switchover_agent::model::Side;

use crate::cases::JournalKind;
use crate::drive::{reference, scenario};
use crate::rig::{Rig, journal_dir};

const SECRET: &str = "correct-horse-battery-staple";

fn agent(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    command.args(arguments).env_clear().envs(env.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn history(dir: &Path) -> Output {
    agent(&["history", "--limit", "10000", "--journal", &dir.display().to_string()], &[])
}

fn newest_file(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).max().unwrap()
}

async fn failed_over(rig: &mut Rig, passive: &[(&str, &str)]) {
    rig.start(Side::Active, &[]);
    rig.start(Side::Passive, passive);
    rig.until_acquainted().await.unwrap();
    rig.order(Side::Active, "golddr-primary").await.unwrap();
    let scenario = scenario("golddr-primary");
    for side in Side::ALL {
        rig.until(side, "the failover", |shown| (scenario.is_over)(side, shown)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_journal_is_a_safe_halt_until_a_person_has_looked() {
    let mut rig = Rig::lay(scenario("golddr-primary"), JournalKind::File).await;
    failed_over(&mut rig, &[]).await;
    rig.kill(Side::Passive).await;
    let dir = journal_dir(&rig.lab.dir, Side::Passive);
    let good = history(&dir);
    assert!(good.status.success(), "{}", text(&good));
    for part in [
        "golddr-primary begins",
        "start-pipeline: start the deployment pipeline",
        "aim",
        "whole: entries 1 to",
    ] {
        assert!(text(&good).contains(part), "{part} in\n{}", text(&good));
    }

    let file = newest_file(&dir);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = history(&dir);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged).contains("DAMAGED: journal "), "{}", text(&damaged));

    rig.start(Side::Passive, &[]);
    rig.until(Side::Passive, "the halt", |shown| {
        shown["safe_halt"].as_str().is_some_and(|why| why.contains("altered at line"))
    })
    .await;
    rig.until_acting(Side::Passive).await.unwrap();
    let (status, body) = rig.ask(Side::Passive, "/phase/transition-to-active-passive-force").await;
    assert!(status == 409, "{status} {body}");
    rig.order(Side::Passive, "active-passive").await.unwrap();
    rig.until(Side::Passive, "the refusal", |shown| {
        shown["refusals"].to_string().contains("journal-damaged")
    })
    .await;
    // A person has compared both sites; the damaged files are put aside, as the runbook says.
    let (status, body) = rig.ask(Side::Passive, "/transition/resume").await;
    assert_eq!(status, 202, "{body}");
    rig.until(Side::Passive, "the end of the halt", |shown| shown["safe_halt"].is_null()).await;
    rig.kill(Side::Passive).await;
    rig.start(Side::Passive, &[("JOURNAL_ON_DAMAGE", "continue")]);
    rig.until_acting(Side::Passive).await.unwrap();
    rig.until(Side::Passive, "a quiet start", |shown| shown["safe_halt"].is_null()).await;
    rig.kill(Side::Passive).await;
    assert!(text(&history(&dir)).contains("a damaged journal was set aside"), "{}", text(&history(&dir)));
    rig.start(Side::Passive, &[]);
    rig.until(Side::Passive, "a start as before", |shown| shown["safe_halt"].is_null()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_no_failover_and_a_restart_ends_where_it_should() {
    let scenario = scenario("golddr-primary");
    let reference = reference(scenario).await.unwrap();
    let mut rig = Rig::lay(scenario, JournalKind::File).await;
    failed_over(&mut rig, &[("FAULT_JOURNAL", "full:8")]).await;
    let log = std::fs::read_to_string(rig.log(Side::Passive)).unwrap();
    assert!(log.contains("the journal could not be written; going on without it"), "{log}");
    rig.kill(Side::Passive).await;
    let dir = journal_dir(&rig.lab.dir, Side::Passive);
    let kept = history(&dir);
    assert!(kept.status.success(), "what was cut off counts for nothing: {}", text(&kept));
    rig.start(Side::Passive, &[]);
    rig.until_acting(Side::Passive).await.unwrap();
    for side in Side::ALL {
        rig.until(side, "the end", |shown| (scenario.is_over)(side, shown)).await;
    }
    assert_eq!(rig.end_state(Side::Passive).await, reference.end[Side::Passive as usize]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_replay_show_what_has_happened_and_that_it_happens_again() {
    let mut rig = Rig::lay(scenario("golddr-primary"), JournalKind::ConfigMap).await;
    let tape = rig.lab.dir.join("events.jsonl").display().to_string();
    rig.token = SECRET;
    failed_over(&mut rig, &[("RECORD_EVENTS", &tape), ("API_TOKEN", SECRET)]).await;
    let (status, body) = rig.ask(Side::Passive, "/restart-kong").await;
    assert_eq!(status, 200, "{body}");

    let url = rig.agent_url(Side::Passive, "");
    let told = agent(&["history", "--agent", &url], &[("API_TOKEN", SECRET)]);
    assert!(told.status.success() && text(&told).contains("golddr-primary has settled"), "{}", text(&told));
    assert!(text(&told).contains("whole: entries 1 to"), "{}", text(&told));
    let refused = agent(&["history", "--agent", &url], &[("API_TOKEN", "wrong")]);
    assert!(!refused.status.success() && text(&refused).contains("401"), "{}", text(&refused));

    rig.kill(Side::Passive).await;
    rig.start(Side::Passive, &[("RECORD_EVENTS", &tape)]);
    rig.until_acting(Side::Passive).await.unwrap();
    rig.stop().await;
    let same = agent(&["replay", &tape], &[]);
    assert!(same.status.success(), "{}", text(&same));
    assert!(text(&same).contains("of 2 start(s) of the engine gave the same"), "{}", text(&same));
    let recorded = std::fs::read_to_string(&tape).unwrap();
    assert!(!recorded.contains(SECRET), "credentials never reach the engine");
    std::fs::write(&tape, recorded.replacen("start-pipeline\"", "stop-pipeline\"", 1)).unwrap();
    let other = agent(&["replay", &tape], &[]);
    assert!(!other.status.success() && text(&other).contains("the engine differs"), "{}", text(&other));
}
