//! Certificates that change while the link is in use.

use std::time::Instant;

use switchover_agent::model::OutboxId;
use switchover_agent::peer::certs::{DevCa, Leaf};

use crate::peer_link_world::{End, LAST_RESORT, Pki, sans, until};
use crate::predecessor::connect;
use crate::{ask, dns, pair, ping, server};

fn reloads(end: &End, result: &str) -> u64 {
    end.count("switchover_peer_certificate_reloads_total", &[result])
}

#[tokio::test]
async fn certificates_are_replaced_under_load_without_the_link_going_down() {
    let pki = Pki::new();
    let (gold, golddr) = pair(&pki, &[]).await;
    until("both links up", || gold.link() == [true] && golddr.link() == [true]).await;
    let connects = |end: &End| end.count("switchover_peer_connections_total", &["heartbeat", "ok"]);

    golddr.handled.send_replace([(gold.instance.clone(), OutboxId(u64::MAX))].into());
    std::fs::write(pki.path("gold.crt"), "no certificate").unwrap();
    until("the broken file was refused", || reloads(&gold, "refused") >= 1).await;
    assert!(gold.courier.deliver(OutboxId(1), &dns("none")).await.is_ok());
    assert_eq!(connects(&gold), 1, "the old certificate stays in use");

    for site in ["gold", "golddr"] {
        pki.write(site, &pki.issue(&Leaf::new(site, &sans(site), 1)));
    }
    let mut delivered = 0;
    let start = Instant::now();
    while reloads(&gold, "loaded") == 0 || reloads(&golddr, "loaded") == 0 {
        let sent = gold.courier.deliver(OutboxId(delivered + 2), &dns("none")).await;
        delivered += u64::from(sent.is_ok());
        assert!(start.elapsed() < LAST_RESORT, "never reloaded");
    }
    assert!(delivered > 0);
    // Each side reconnects for its own replacement and for the peer's, which may fall together.
    until("reconnected", || connects(&gold) >= 2 && connects(&golddr) >= 2).await;
    assert!(gold.courier.deliver(OutboxId(9999), &dns("none")).await.is_ok());
    assert!(connects(&gold) <= 3 && connects(&golddr) <= 3);
    assert_eq!((gold.link(), golddr.link()), (vec![true], vec![true]), "no heartbeat was missed");
}

#[tokio::test]
async fn a_session_of_a_retired_authority_ends_and_its_owner_cannot_come_back() {
    let pki = Pki::new();
    let (gold, address) = server(&pki, &[]).await;
    let retired = pki.credentials(Some(pki.issue(&Leaf::new("golddr", &sans("golddr"), 1))));
    let mut session = connect(address, "127.0.0.1", &retired).await.unwrap();
    assert_eq!(ask(&mut session, ping()).await.unwrap()["event"], "pong");

    let successor = DevCa::new("successor CA", 2).unwrap();
    pki.write("gold", &successor.issue(&Leaf::new("gold", &sans("gold"), 1)).unwrap());
    std::fs::write(pki.path("ca.crt"), successor.pem().certificate).unwrap();
    until("loaded", || reloads(&gold, "loaded") >= 1).await;
    // 1001 is what a predecessor takes for a clean end and answers by connecting again.
    let mut told = ask(&mut session, ping()).await;
    let start = Instant::now();
    while told.is_ok() {
        assert!(start.elapsed() < LAST_RESORT, "the session lives on");
        told = ask(&mut session, ping()).await;
    }
    assert!(matches!(told, Err(Some(1001) | None)), "{told:?}");
    let mut both = retired.clone();
    both.ca = successor.pem().certificate;
    until("the authority is the new one", || reloads(&gold, "loaded") >= 1).await;
    let start = Instant::now();
    while connect(address, "127.0.0.1", &both).await.is_ok() {
        assert!(start.elapsed() < LAST_RESORT, "the retired authority is still believed");
    }
    until("refused by name", || gold.refused("wrong-ca") >= 1).await;
}

#[tokio::test]
async fn a_mounted_secret_whose_directory_link_is_swapped_is_noticed() {
    let pki = Pki::new();
    let mount = tempfile::tempdir().unwrap();
    let version = |name: &str| {
        let dir = mount.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        for file in ["ca.crt", "gold.crt", "gold.key"] {
            std::fs::copy(pki.path(file), dir.join(file)).unwrap();
        }
        dir
    };
    // The layout of a Kubernetes volume: files link into ..data, which links to the version of the moment.
    std::os::unix::fs::symlink(version("..1"), mount.path().join("..data")).unwrap();
    for file in ["ca.crt", "gold.crt", "gold.key"] {
        let target = std::path::Path::new("..data").join(file);
        std::os::unix::fs::symlink(target, mount.path().join(file)).unwrap();
    }
    let gold = End::start(mount.path(), "gold", crate::listener().await, None, &[]);
    let expiry = || gold.gauge("switchover_certificate_expiry_timestamp_seconds", "gold.crt");
    let before = expiry();
    pki.write("gold", &pki.issue(&Leaf::new("gold", &sans("gold"), 2)));
    std::os::unix::fs::symlink(version("..2"), mount.path().join("..data_tmp")).unwrap();
    std::fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    until("loaded", || reloads(&gold, "loaded") == 1).await;
    assert!(expiry() > before + 80_000.0, "{} then {}", before, expiry());
}
