//! Tests of the supervisor on virtual time.

use std::sync::atomic::AtomicUsize;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

fn supervisor() -> (Supervisor, CancellationToken, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let cancel = CancellationToken::new();
    (Supervisor::new(cancel.clone(), Metrics::new(&registry)), cancel, registry)
}

fn policy() -> Policy {
    Policy::new(CancellationToken::new())
}

/// A task that runs until its token is cancelled.
fn good(cancel: &CancellationToken) -> impl Fn() -> TaskFuture + Send + 'static {
    let cancel = cancel.clone();
    move || {
        let cancel = cancel.clone();
        Box::pin(async move {
            cancel.cancelled().await;
            Exit::Cancelled
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_again_with_growing_pauses() {
    let (mut supervisor, cancel, registry) = supervisor();
    let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&starts);
    let begun = Instant::now();
    supervisor.add(
        TaskName::DnsWatch,
        move || {
            seen.lock().unwrap().push(begun.elapsed().as_millis());
            Box::pin(async { panic!("boom") })
        },
        policy(),
    );
    let table = supervisor.statuses();
    let run = tokio::spawn(supervisor.run());
    tokio::time::sleep(Duration::from_secs(22)).await;
    let status = table.borrow()[&TaskName::DnsWatch].clone();
    assert_eq!(status.state, TaskState::BackingOff);
    assert_eq!(status.last_error.as_deref(), Some("panicked: boom"));
    assert!(!status.works());
    let times = starts.lock().unwrap().clone();
    // 0.2, 0.4, 0.8, 1.6, 3.2, then 5 s each
    for (found, want) in times.iter().zip([0, 200, 600, 1400, 3000, 6200, 11_200, 16_200, 21_200]) {
        assert!(found.abs_diff(want) <= 20, "{times:?}");
    }
    assert_eq!(status.restarts, times.len() as u64 - 1);
    let text = crate::telemetry::metrics::render(&registry).unwrap();
    assert!(text.contains("switchover_task_restarts_total{task=\"dns_watch\"} 8.0"), "{text}");
    assert!(text.contains("switchover_task_up{task=\"dns_watch\"} 0.0"));
    cancel.cancel();
    assert_eq!(run.await.unwrap(), SupervisorEnd::Stopped { aborted: vec![], failed: vec![] });
}

#[tokio::test(start_paused = true)]
async fn a_vital_task_that_fails_three_times_ends_the_agent_after_a_clean_stop() {
    let (mut supervisor, _cancel, _registry) = supervisor();
    let vital = Policy { vital: true, ..policy() };
    supervisor.add(TaskName::LogicHandler, || Box::pin(async { Exit::Failed("no state".into()) }), vital);
    let other = policy();
    supervisor.add(TaskName::KubeWatch, good(&other.cancel), other);
    let table = supervisor.statuses();
    let end = supervisor.run().await;
    assert_eq!(end, SupervisorEnd::VitalTaskLost { task: TaskName::LogicHandler, reason: "no state".into() });
    assert_eq!(table.borrow()[&TaskName::LogicHandler].restarts, 2);
    assert_eq!(table.borrow()[&TaskName::KubeWatch].state, TaskState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_vital_task_that_fails_rarely_goes_on() {
    let (mut supervisor, cancel, _registry) = supervisor();
    let vital = Policy { vital: true, ..policy() };
    let slow = || -> TaskFuture {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(31)).await;
            Exit::Finished
        })
    };
    supervisor.add(TaskName::LogicHandler, slow, vital);
    let table = supervisor.statuses();
    let run = tokio::spawn(supervisor.run());
    tokio::time::sleep(Duration::from_secs(320)).await;
    let status = table.borrow()[&TaskName::LogicHandler].clone();
    assert_eq!(status.state, TaskState::Running);
    assert_eq!(status.restarts, 10, "31 s of work and the first pause each time");
    cancel.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tasks_stop_in_the_order_given_and_a_deaf_one_is_aborted() {
    let (mut supervisor, cancel, _registry) = supervisor();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for name in [TaskName::KubeWatch, TaskName::DnsWatch, TaskName::LogicHandler] {
        let policy = policy();
        let (token, order) = (policy.cancel.clone(), Arc::clone(&order));
        let factory = move || -> TaskFuture {
            let (token, order) = (token.clone(), Arc::clone(&order));
            Box::pin(async move {
                token.cancelled().await;
                if name == TaskName::DnsWatch {
                    std::future::pending::<()>().await;
                }
                order.lock().unwrap().push(name);
                Exit::Cancelled
            })
        };
        supervisor.add(name, factory, policy);
    }
    let run = tokio::spawn(supervisor.run());
    tokio::task::yield_now().await;
    cancel.cancel();
    assert_eq!(
        run.await.unwrap(),
        SupervisorEnd::Stopped { aborted: vec![TaskName::DnsWatch], failed: vec![] }
    );
    assert_eq!(*order.lock().unwrap(), [TaskName::KubeWatch, TaskName::LogicHandler]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_pulse_shows_as_stalled() {
    let (mut supervisor, cancel, _registry) = supervisor();
    let pulse = Heartbeat::new(Duration::from_secs(10));
    let policy = Policy { heartbeat: Some(pulse.clone()), ..policy() };
    supervisor.add(TaskName::LogicHandler, good(&policy.cancel), policy);
    let table = supervisor.statuses();
    let run = tokio::spawn(supervisor.run());
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(table.borrow()[&TaskName::LogicHandler].works());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(table.borrow()[&TaskName::LogicHandler].stalled());
    pulse.touch();
    assert!(table.borrow()[&TaskName::LogicHandler].works());
    cancel.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_restart_does_not_delay_the_stop() {
    let (mut supervisor, cancel, _registry) = supervisor();
    let starts = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&starts);
    supervisor.add(
        TaskName::TektonWatch,
        move || {
            seen.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Exit::Failed("refused".into()) })
        },
        policy(),
    );
    let run = tokio::spawn(supervisor.run());
    tokio::time::sleep(Duration::from_secs(7)).await;
    let before = starts.load(Ordering::Relaxed);
    cancel.cancel();
    assert!(matches!(run.await.unwrap(), SupervisorEnd::Stopped { .. }));
    assert_eq!(starts.load(Ordering::Relaxed), before);
}
