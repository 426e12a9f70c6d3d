//! The peer link as a whole: two ends of ours, the predecessor's stand-in on either side, and everybody who has no
//! business there.

#![allow(clippy::unwrap_used, reason = "a test")]

mod peer_link_certs;
mod peer_link_world;
mod predecessor;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use peer_link_world::{Cable, End, Pki, listener, sans, until};
use predecessor::{Answers, ClientSocket, Consent, Predecessor, Timers, connect};
use serde_json::{Value, json};
use switchover_agent::model::{Detail, Event, OutboxId, PeerMessage, PeerStatus};
use switchover_agent::peer::DeliveryError;
use switchover_agent::peer::certs::{DevCa, Leaf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

fn dns(result: &str) -> PeerMessage {
    PeerMessage::Dns { result: result.to_owned() }
}

/// Two ends of ours that dial each other.
async fn pair(pki: &Pki, extra: &[(&str, &str)]) -> (End, End) {
    let (left, right) = (listener().await, listener().await);
    let (to_left, to_right) = (left.local_addr().unwrap(), right.local_addr().unwrap());
    let gold = End::start(pki.dir.path(), "gold", left, Some(to_right), extra);
    let golddr = End::start(pki.dir.path(), "golddr", right, Some(to_left), extra);
    (gold, golddr)
}

/// Our end `gold`, dialling a stand-in of `golddr`.
async fn with_old_peer(pki: &Pki, extra: &[(&str, &str)]) -> (End, Predecessor, std::net::SocketAddr) {
    let (ours, theirs) = (listener().await, listener().await);
    let address = ours.local_addr().unwrap();
    let none = || Box::new(|_: &Value| {});
    let old = Predecessor::start(theirs, &pki.old_credentials("golddr"), none(), none());
    (End::start(pki.dir.path(), "gold", ours, Some(old.address), extra), old, address)
}

/// Our server alone, as gold.
async fn server(pki: &Pki, extra: &[(&str, &str)]) -> (End, std::net::SocketAddr) {
    let ours = listener().await;
    let address = ours.local_addr().unwrap();
    (End::start(pki.dir.path(), "gold", ours, None, extra), address)
}

/// Sends one frame and gives back the answer's JSON or the close code.
async fn ask(socket: &mut ClientSocket, frame: Message) -> Result<Value, Option<u16>> {
    socket.send(frame).await.ok();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| u16::from(frame.code))),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

fn ping() -> Message {
    Message::text(r#"{"event":"ping","name":"Sequence 2"}"#)
}

#[tokio::test]
async fn two_agents_talk_and_each_learns_how_the_other_site_is() {
    let pki = Pki::new();
    let (gold, golddr) = pair(&pki, &[]).await;
    until("both links up", || gold.link() == [true] && golddr.link() == [true]).await;
    golddr.status.send_modify(|status| status.lsn = Some(77));
    let told = |status: &PeerStatus| status.site == "golddr" && status.lsn == Some(77);
    until("gold knows golddr's position", || gold.statuses().iter().any(told)).await;
    until("golddr knows gold", || golddr.statuses().iter().any(|status| status.site == "gold")).await;
}

#[tokio::test]
async fn a_message_is_acknowledged_only_after_it_was_handled() {
    let pki = Pki::new();
    let (gold, golddr) = pair(&pki, &[]).await;
    let order = PeerMessage::TransitionTo {
        state: "gold-standby".to_owned(),
        generation: None,
        accept_data_loss: None,
    };
    let early = gold.courier.deliver(OutboxId(4), &order).await;
    assert!(matches!(early, Err(DeliveryError::NotHandled { id: OutboxId(4), .. })), "{early:?}");
    let stamp = Some((gold.instance.clone(), OutboxId(4)));
    let expected = Event::PeerMessage { id: stamp, message: order.clone(), authenticated: true };
    assert_eq!(golddr.messages(), [expected]);

    golddr.handled.send_replace([(gold.instance.clone(), OutboxId(4))].into());
    let late = gold.courier.deliver(OutboxId(4), &order).await;
    assert_eq!(late, Ok(Detail::PeerAnswered { acknowledged: true }));
    assert_eq!(golddr.messages().len(), 2, "dropping the copy is the engine's business");
}

#[tokio::test]
async fn an_old_server_gets_heartbeats_and_messages_and_acknowledges_nothing() {
    let pki = Pki::new();
    let (gold, old, _) = with_old_peer(&pki, &[]).await;
    until("link up", || gold.link() == [true]).await;
    let answer = gold.courier.deliver(OutboxId(1), &dns("none")).await;
    assert_eq!(answer, Ok(Detail::PeerAnswered { acknowledged: false }));
    assert_eq!(old.messages(), [json!({"event": "dns", "result": "none", "message": "IP CHANGE none"})]);
    let order = PeerMessage::TransitionTo {
        state: "gold-standby".to_owned(),
        generation: None,
        accept_data_loss: None,
    };
    gold.courier.deliver(OutboxId(2), &order).await.unwrap();
    until("the old agent obeys", || old.shared.record.lock().unwrap().transition == "gold-standby").await;
    until("several heartbeats", || old.shared.received.lock().unwrap().len() > 3).await;
    let received = old.shared.received.lock().unwrap().clone();
    let names: Vec<&Value> = received.iter().filter_map(|frame| frame.get("name")).collect();
    assert_eq!(names[..2], [&json!("Sequence 2"), &json!("Sequence 3")]);
}

#[tokio::test]
async fn an_old_client_is_served_and_consents_without_touching_the_item() {
    let pki = Pki::new();
    let (gold, mut old, address) = with_old_peer(&pki, &[("PEER_CLIENT_AUTH", "accept-missing")]).await;
    old.dial(address, "127.0.0.1", &pki.old_credentials("golddr"), Timers::scaled(50));
    until("pongs", || old.shared.pongs.load(Ordering::SeqCst) > 3).await;
    assert_eq!(*old.shared.peer_states.lock().unwrap(), ["ok"]);

    let item = r#"{"event":"switchover_state","data":{"z":"1","a":"2"},"nonce":"n"}"#.to_owned();
    let confirm = PeerMessage::Confirm { required_state: "golddr-primary".to_owned(), item: item.clone() };
    old.set_record("active-passive", "");
    gold.courier.deliver(OutboxId(1), &confirm).await.unwrap();
    old.set_record("golddr-primary", "");
    old.set_consent(Consent::Twice);
    gold.courier.deliver(OutboxId(2), &confirm).await.unwrap();
    until("both copies of the consent", || gold.messages().len() == 2).await;
    let yes = PeerMessage::Yes { item, evidence: None };
    // A serverAuth certificate proves who it is; the old agent numbers nothing.
    let expected = Event::PeerMessage { id: None, message: yes, authenticated: true };
    assert_eq!(gold.messages(), [expected.clone(), expected]);
}

#[tokio::test]
async fn strangers_are_refused_by_name_and_change_nothing() {
    let pki = Pki::new();
    let (gold, address) = server(&pki, &[]).await;
    let good = Leaf::new("golddr", &sans("golddr"), 1);
    let foreign = DevCa::new("foreign CA", 1).unwrap().issue(&good).unwrap();
    for (reason, shown) in [
        ("wrong-ca", Some(foreign)),
        ("wrong-san", Some(pki.issue(&Leaf::new("other", &sans("other"), 1)))),
        ("expired", Some(pki.issue(&good.clone().expired()))),
        ("wrong-purpose", Some(pki.issue(&good.clone().server_only()))),
        ("no-certificate", None),
    ] {
        // TLS 1.3 tells a client of its refusal only when it reads.
        assert!(connect(address, "127.0.0.1", &pki.credentials(shown)).await.is_err(), "{reason} got in");
        until(reason, || gold.refused(reason) == 1).await;
    }
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.ok();
    until("not-tls", || gold.refused("not-tls") == 1).await;

    let mut peer = connect(address, "127.0.0.1", &pki.credentials(Some(pki.issue(&good)))).await.unwrap();
    assert_eq!(ask(&mut peer, ping()).await.unwrap()["event"], "pong");
    assert_eq!(gold.events(), []);
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_was_asked_for() {
    let pki = Pki::new();
    let mut old = pki.credentials(Some(pki.issue(&Leaf::new("golddr", &sans("golddr"), 1))));
    old.only_tls12 = true;
    let (strict, address) = server(&pki, &[]).await;
    assert!(connect(address, "127.0.0.1", &old).await.is_err());
    until("refused", || strict.refused("tls-version") == 1).await;
    let (_lenient, address) = server(&pki, &[("PEER_TLS_MIN", "1.2")]).await;
    let mut peer = connect(address, "127.0.0.1", &old).await.unwrap();
    assert_eq!(ask(&mut peer, ping()).await.unwrap()["event"], "pong");
}

#[tokio::test]
async fn a_connection_without_a_frame_is_closed_after_the_idle_time() {
    let pki = Pki::new();
    let (_gold, address) = server(&pki, &[("PEER_IDLE_SECONDS", "1")]).await;
    let credentials = pki.credentials(Some(pki.issue(&Leaf::new("golddr", &sans("golddr"), 1))));
    let mut silent = connect(address, "127.0.0.1", &credentials).await.unwrap();
    let mut lively = connect(address, "127.0.0.1", &credentials).await.unwrap();
    // A control ping counts as a sign of life and is answered, as the old agent's library expects within 20 s.
    while !matches!(tokio::time::timeout(Duration::from_millis(200), silent.next()).await, Ok(Some(_))) {
        lively.send(Message::Ping("x".into())).await.unwrap();
        assert_eq!(lively.next().await.unwrap().unwrap(), Message::Pong("x".into()));
    }
    assert_eq!(ask(&mut lively, ping()).await.unwrap()["event"], "pong");
}

#[tokio::test]
async fn a_server_that_is_not_the_peer_is_never_talked_to() {
    let pki = Pki::new();
    let good = Leaf::new("golddr", &sans("golddr"), 1);
    let foreign = DevCa::new("foreign CA", 1).unwrap().issue(&good).unwrap();
    let wrong = pki.issue(&Leaf::new("other", &sans("other"), 1));
    for (what, pair) in [("CA", foreign), ("SAN", wrong), ("age", pki.issue(&good.expired()))] {
        let (ours, theirs) = (listener().await, listener().await);
        let none = || Box::new(|_: &Value| {});
        let old = Predecessor::start(theirs, &pki.credentials(Some(pair)), none(), none());
        let extra = [("PEER_LOSS_SECONDS", "0.5")];
        let gold = End::start(pki.dir.path(), "gold", ours, Some(old.address), &extra);
        until("link down", || gold.link() == [false]).await;
        let error = gold.courier.deliver(OutboxId(1), &dns("none")).await.unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "{what}: {error}");
        assert!(old.shared.received.lock().unwrap().is_empty(), "{what} got frames");
    }
}

#[tokio::test]
async fn an_anonymous_client_of_a_migration_is_served_and_believed_in_nothing() {
    let pki = Pki::new();
    let (gold, address) = server(&pki, &[("PEER_CLIENT_AUTH", "accept-missing")]).await;
    let mut nobody = connect(address, "127.0.0.1", &pki.credentials(None)).await.unwrap();
    let forged = PeerStatus { writable: Some(true), ..PeerStatus::default() };
    let frame = json!({"event": "ping", "name": "Sequence 2", "instance": "p", "status": forged});
    assert_eq!(ask(&mut nobody, Message::text(frame.to_string())).await.unwrap()["event"], "pong");
    let frame = json!({"event": "from_peer", "instance": "p", "id": 9,
        "message": {"event": "yes_happy_to_proceed", "item": {}}});
    let answer = ask(&mut nobody, Message::text(frame.to_string())).await.unwrap();
    assert_eq!(answer.get("ack"), None);
    let message = PeerMessage::Yes { item: "{}".to_owned(), evidence: None };
    assert_eq!(gold.events(), [Event::PeerMessage { id: None, message, authenticated: false }]);
    let wrong = pki.issue(&Leaf::new("other", &sans("other"), 1));
    assert!(connect(address, "127.0.0.1", &pki.credentials(Some(wrong))).await.is_err());
}

#[tokio::test]
async fn bad_frames_end_their_own_connection_and_no_other() {
    let pki = Pki::new();
    let (gold, address) = server(&pki, &[]).await;
    let credentials = pki.credentials(Some(pki.issue(&Leaf::new("golddr", &sans("golddr"), 1))));
    let open = || async { connect(address, "127.0.0.1", &credentials).await.unwrap() };
    let mut bystander = open().await;
    for (frame, code) in [
        (Message::text("{"), 1011),
        (Message::text(""), 1011),
        (Message::text("\u{feff}{\"event\":\"ping\"}"), 1011),
        (Message::text("[1]"), 1011),
        (Message::text(r#"{"name":"x"}"#), 1011),
        (Message::binary(vec![0xff, 0xfe]), 1011),
        (Message::text(format!(r#"{{"event":"{}"}}"#, "x".repeat(1 << 20))), 1009),
    ] {
        let shown: String = frame.to_string().chars().take(30).collect();
        assert_eq!(ask(&mut open().await, frame).await, Err(Some(code)), "{shown}");
        assert_eq!(ask(&mut bystander, ping()).await.unwrap()["event"], "pong");
    }
    for (frame, label) in [
        (Message::text(r#"{"event":"hello"}"#), "unknown"),
        (Message::text(r#"{"event":null}"#), "unknown"),
        (Message::text(r#"{"event":"from_peer"}"#), "from_peer_empty"),
        (Message::binary(br#"{"event":"ping"}"#.to_vec()), "ping"),
    ] {
        let before = gold.count("switchover_peer_frames_total", &[label]);
        assert_eq!(ask(&mut bystander, frame).await.unwrap()["event"], "pong");
        assert_eq!(gold.count("switchover_peer_frames_total", &[label]), before + 1);
    }
    assert_eq!(gold.count("switchover_peer_frames_total", &["malformed"]), 6);
    assert_eq!(gold.events(), []);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_and_the_others_live_on() {
    let pki = Pki::new();
    let (gold, address) = server(&pki, &[("PEER_MAX_CONNECTIONS", "4")]).await;
    let credentials = pki.credentials(Some(pki.issue(&Leaf::new("golddr", &sans("golddr"), 1))));
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(connect(address, "127.0.0.1", &credentials).await.unwrap());
    }
    assert!(connect(address, "127.0.0.1", &credentials).await.is_err());
    until("counted", || gold.refused("too-many") == 1).await;
    for socket in &mut open {
        assert_eq!(ask(socket, ping()).await.unwrap()["event"], "pong");
    }
}

#[tokio::test]
async fn a_peer_that_closes_with_1000_is_lost_and_not_hammered() {
    let pki = Pki::new();
    let (gold, old, _) = with_old_peer(&pki, &[("PEER_LOSS_SECONDS", "1")]).await;
    old.set_answers(Answers::Close1000);
    let start = Instant::now();
    until("link down", || gold.link().last() == Some(&false)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connects = old.shared.accepted.load(Ordering::SeqCst);
    // 0.2 s doubling to 2 s with a quarter off at most: 0.15, 0.3, 0.6, 1.2, then 1.5 s and more.
    let most = 5 + (start.elapsed().as_secs_f64() / 1.5) as u64;
    assert!((2..=most).contains(&connects), "{connects} connections in {:?}", start.elapsed());
    let error = gold.courier.deliver(OutboxId(1), &dns("none")).await.unwrap_err();
    assert!(error.to_string().contains("closed the connection with 1000"), "{error}");
    assert_eq!(old.messages().len(), 1, "no copies");
}

#[tokio::test]
async fn a_peer_that_takes_frames_and_never_answers_is_lost_and_blocks_no_later_message() {
    let pki = Pki::new();
    let extra = [("PEER_LOSS_SECONDS", "1"), ("PEER_FORWARD_TIMEOUT_SECONDS", "1")];
    let (gold, old, _) = with_old_peer(&pki, &extra).await;
    until("link up", || gold.link() == [true]).await;
    old.set_answers(Answers::Never);
    let silent = Instant::now();
    until("link down", || gold.link() == [true, false]).await;
    assert!(silent.elapsed() < Duration::from_secs(10), "noticed after {:?}", silent.elapsed());
    let hung = gold.courier.deliver(OutboxId(1), &dns("none")).await;
    assert!(matches!(hung, Err(DeliveryError::NoAnswer { id: OutboxId(1), .. })), "{hung:?}");
    old.set_answers(Answers::AtOnce);
    assert!(gold.courier.deliver(OutboxId(2), &dns("none")).await.is_ok());
    until("link up again", || gold.link() == [true, false, true]).await;
}

#[tokio::test]
async fn a_busy_old_server_with_late_control_pongs_is_not_taken_for_lost() {
    let pki = Pki::new();
    let (gold, old, _) = with_old_peer(&pki, &[("PEER_LOSS_SECONDS", "8")]).await;
    old.set_answers(Answers::ThenBusy(Duration::from_secs(1)));
    until("heartbeats", || old.shared.received.lock().unwrap().len() >= 4).await;
    assert_eq!(gold.link(), [true]);
    assert_eq!(old.shared.accepted.load(Ordering::SeqCst), 1, "one connection");
}

#[tokio::test]
async fn a_cut_line_without_a_reset_is_noticed_and_its_healing_too() {
    let pki = Pki::new();
    let (ours, theirs) = (listener().await, listener().await);
    let cable = Cable::to(theirs.local_addr().unwrap()).await;
    let extra = [("PEER_LOSS_SECONDS", "1")];
    let _golddr = End::start(pki.dir.path(), "golddr", theirs, None, &extra);
    let gold = End::start(pki.dir.path(), "gold", ours, Some(cable.address), &extra);
    until("link up", || gold.link() == [true]).await;
    cable.freeze(true);
    let cut = Instant::now();
    until("link down", || gold.link() == [true, false]).await;
    assert!(cut.elapsed() > Duration::from_millis(700), "too early: {:?}", cut.elapsed());
    assert!(cut.elapsed() < Duration::from_secs(10), "too late: {:?}", cut.elapsed());
    cable.freeze(false);
    until("link up again", || gold.link() == [true, false, true]).await;
}

#[tokio::test]
async fn a_stopping_agent_closes_its_connections_and_its_tasks_end() {
    let pki = Pki::new();
    let (mut gold, golddr) = pair(&pki, &[("PEER_LOSS_SECONDS", "1")]).await;
    until("both links up", || gold.link() == [true] && golddr.link() == [true]).await;
    gold.cancel.cancel();
    for task in gold.tasks.drain(..) {
        let ended = tokio::time::timeout(peer_link_world::LAST_RESORT, task).await.unwrap().unwrap();
        assert_eq!(ended, switchover_agent::tasks::Exit::Cancelled);
    }
    until("golddr notices", || golddr.link() == [true, false]).await;
}

#[tokio::test]
async fn the_stand_in_sends_copies_to_a_peer_that_closes_with_1000_as_the_original_does() {
    let pki = Pki::new();
    let none = || Box::new(|_: &Value| {});
    let there = Predecessor::start(listener().await, &pki.old_credentials("golddr"), none(), none());
    let mut here = Predecessor::start(listener().await, &pki.old_credentials("gold"), none(), none());
    there.set_answers(Answers::Close1000);
    here.dial(there.address, "127.0.0.1", &pki.old_credentials("gold"), Timers::scaled(1000));
    here.order("gold-standby").await;
    until("given up", || here.shared.dropped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(there.messages().len(), 5);
}
