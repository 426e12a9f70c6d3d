//! The speaker's bytes on a real TCP connection, against a neighbour that this file plays itself.
//!
//! An independent decoder (NetGauze) reads every message that we send, strictly.
#![allow(clippy::unwrap_used, reason = "test code, outside of #[test] functions")]

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use ipnet::IpNet;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::codec::BgpCodec;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use switchover_agent::announce::speaker::SpeakerAnnouncer;
use switchover_agent::announce::{Announcer, PrefixKey, RouteAttributes, Shutdown};
use switchover_agent::bgp::NeighbourState;
use switchover_agent::config::bgp::{NeighbourSettings, SpeakerSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Decoder;

const OUR_ASN: u32 = 4_200_000_001;
const THEIR_ASN: u32 = 65_010;
const PATIENCE: Duration = Duration::from_secs(40);

/// A message as it came: type and body.
type Raw = (u8, Vec<u8>);

/// The test that measures this process's memory must be alone in it, which plain `cargo test` does not give it.
static COMPANY: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

enum Company {
    Shared { _guard: tokio::sync::RwLockReadGuard<'static, ()> },
    Alone { _guard: tokio::sync::RwLockWriteGuard<'static, ()> },
}

struct Fake {
    listener: TcpListener,
    _company: Company,
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    strict: BgpCodec,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xFF; 16];
    bytes.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

/// An OPEN with four-octet AS, route refresh, enhanced refresh, and these families.
fn open(families: &[u16], hold: u16) -> Vec<u8> {
    let mut capabilities: Vec<u8> = vec![2, 0, 70, 0, 65, 4];
    capabilities.extend_from_slice(&THEIR_ASN.to_be_bytes());
    for family in families {
        capabilities.extend_from_slice(&[1, 4, 0, *family as u8, 0, 1]);
    }
    let mut body = vec![4];
    body.extend_from_slice(&(THEIR_ASN as u16).to_be_bytes());
    body.extend_from_slice(&hold.to_be_bytes());
    body.extend_from_slice(&[10, 0, 0, 2, capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend_from_slice(&capabilities);
    message(1, &body)
}

impl Fake {
    async fn new() -> Self {
        Self::with(Company::Shared { _guard: COMPANY.read().await }).await
    }

    async fn alone() -> Self {
        Self::with(Company::Alone { _guard: COMPANY.write().await }).await
    }

    async fn with(company: Company) -> Self {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        Self { listener: TcpListener::bind(address).await.unwrap(), _company: company }
    }

    fn settings(&self) -> NeighbourSettings {
        let address = self.listener.local_addr().unwrap();
        NeighbourSettings {
            port: address.port(),
            retry_min_ms: 100,
            retry_max_ms: 200,
            next_hop_v6: Some("2001:db8::1".parse().unwrap()),
            ..NeighbourSettings::new(address.ip(), THEIR_ASN)
        }
    }

    async fn accept(&self) -> Connection {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let context = BgpParsingContext::new(true, HashMap::new(), HashMap::new(), true, true, true, true);
        Connection { stream, buffer: BytesMut::new(), strict: BgpCodec::new_from_ctx(true, context) }
    }

    /// Accepts and shakes hands.
    async fn establish(&self, families: &[u16], hold: u16) -> Connection {
        let mut connection = self.accept().await;
        assert_eq!(connection.next().await.unwrap().0, 1, "our OPEN");
        connection.send(&open(families, hold)).await;
        assert_eq!(connection.next().await.unwrap().0, 4, "our KEEPALIVE");
        connection.send(&message(4, &[])).await;
        connection
    }
}

impl Connection {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message, `None` when the other side has closed.
    async fn next(&mut self) -> Option<Raw> {
        loop {
            if self.buffer.len() >= 19 {
                let length = usize::from(u16::from_be_bytes([self.buffer[16], self.buffer[17]]));
                if self.buffer.len() >= length {
                    assert!(length <= 4096, "message of {length} bytes");
                    let raw = (self.buffer[18], self.buffer[19..length].to_vec());
                    self.read_strictly(length);
                    return Some(raw);
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("a message in time") {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    fn read_strictly(&mut self, length: usize) {
        let mut frame = self.buffer.split_to(length);
        let shown = hex::encode(&frame);
        match self.strict.decode(&mut frame) {
            Ok(Some((decoded, ignored))) => {
                let complaint = format!("{ignored:?}");
                assert_eq!(ignored, Default::default(), "{complaint} in {shown}");
                drop::<BgpMessage>(decoded);
            }
            other => panic!("NetGauze does not read {shown}: {other:?}"),
        }
    }

    /// The next message that is no KEEPALIVE.
    async fn next_real(&mut self) -> Option<Raw> {
        loop {
            match self.next().await {
                Some((4, _)) => {}
                other => return other,
            }
        }
    }
}

fn start(neighbour: NeighbourSettings) -> SpeakerAnnouncer {
    let settings = SpeakerSettings {
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        local_asn: OUR_ASN,
        local_address: None,
        neighbours: vec![neighbour],
    };
    let mut problems = Vec::new();
    settings.validate("bgp", &mut problems);
    assert_eq!(problems, []);
    SpeakerAnnouncer::start("speaker", settings).unwrap()
}

fn routes(prefixes: &[&str], attributes: &RouteAttributes) -> BTreeMap<PrefixKey, RouteAttributes> {
    prefixes
        .iter()
        .map(|p| (PrefixKey { prefix: p.parse().unwrap(), vrf: None }, attributes.clone()))
        .collect()
}

fn many(count: u32, med: u32) -> BTreeMap<PrefixKey, RouteAttributes> {
    let attributes = RouteAttributes { med: Some(med), ..RouteAttributes::default() };
    let prefix = |n: u32| IpNet::new(IpAddr::V4((0x0A00_0000 + n).into()), 32).unwrap();
    (0..count).map(|n| (PrefixKey { prefix: prefix(n), vrf: None }, attributes.clone())).collect()
}

/// IPv4 prefixes announced in the body of an UPDATE, for UPDATEs whose prefixes are all /32.
fn hosts_announced(body: &[u8]) -> usize {
    let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let attributes = usize::from(u16::from_be_bytes([body[2 + withdrawn], body[3 + withdrawn]]));
    (body.len() - 4 - withdrawn - attributes) / 5
}

const EOR_V4: [u8; 4] = [0, 0, 0, 0];

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_whole_life_reads_without_complaint_in_an_independent_decoder() {
    let fake = Fake::new().await;
    let mut announcer = start(fake.settings());
    let attributes = RouteAttributes {
        med: Some(5),
        communities: vec!["65001:7".into(), "1:2:3".into(), "rt:65001:9".into()],
        as_path_prepend: 2,
        ..RouteAttributes::default()
    };
    announcer.set(&routes(&["203.0.113.53/32", "2001:db8:53::/48"], &attributes)).await.unwrap();
    let mut connection = fake.establish(&[1, 2], 90).await;
    let kinds = [connection.next_real().await, connection.next_real().await];
    assert!(kinds.iter().all(|k| k.as_ref().is_some_and(|(kind, body)| *kind == 2 && body.len() > 20)));
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
    assert_eq!(connection.next_real().await, Some((2, hex::decode("00000006800f03000201").unwrap())));
    // Plain request for IPv6: begin, the route, end.
    connection.send(&message(5, &[0, 2, 0, 1])).await;
    assert_eq!(connection.next_real().await, Some((5, vec![0, 2, 1, 1])));
    assert_eq!(connection.next_real().await.unwrap().0, 2);
    assert_eq!(connection.next_real().await, Some((5, vec![0, 2, 2, 1])));
    let reason = "moved".to_owned();
    let ending =
        tokio::spawn(async move { announcer.shutdown(Shutdown::Withdraw { drain_ms: 1, reason }).await });
    let mut rest = Vec::new();
    while let Some(raw) = connection.next_real().await {
        rest.push(raw);
    }
    drop(connection);
    ending.await.unwrap();
    let text = |raw: &Raw| format!("{}:{}", raw.0, hex::encode(&raw.1));
    let rest: Vec<String> = rest.iter().map(text).collect();
    assert_eq!(rest.len(), 5, "two with 65535:0, two withdrawals, one NOTIFICATION: {rest:?}");
    assert!(rest[0].contains("ffff0000") && rest[1].contains("ffff0000"));
    assert_eq!(rest[2], "2:000520cb0071350000");
    assert_eq!(rest[3], "2:0000000e900f000a0002013020010db80053".to_owned());
    assert_eq!(rest[4], format!("3:060205{}", hex::encode("moved")));
}

#[tokio::test]
async fn case_42_a_family_that_the_neighbour_lacks_is_neither_announced_nor_withdrawn() {
    let fake = Fake::new().await;
    let mut announcer = start(fake.settings());
    let attributes = RouteAttributes::default();
    announcer.set(&routes(&["2001:db8:53::/48"], &attributes)).await.unwrap();
    let mut connection = fake.establish(&[1], 90).await;
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
    announcer.set(&BTreeMap::new()).await.unwrap();
    announcer.set(&routes(&["203.0.113.1/32"], &attributes)).await.unwrap();
    let (kind, body) = connection.next_real().await.unwrap();
    assert_eq!((kind, hosts_announced(&body)), (2, 1), "nothing was said in between");
    assert_eq!(announcer.current().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_route_that_can_no_longer_be_said_is_withdrawn_and_not_left_in_its_former_form() {
    let fake = Fake::new().await;
    let mut announcer = start(fake.settings());
    let good = RouteAttributes::default();
    announcer.set(&routes(&["203.0.113.1/32"], &good)).await.unwrap();
    let mut connection = fake.establish(&[1], 90).await;
    assert_eq!(hosts_announced(&connection.next_real().await.unwrap().1), 1);
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
    // More communities than fit into a message.
    let communities = (0..400).map(|n| format!("{OUR_ASN}:1:{n}")).collect();
    let bad = RouteAttributes { communities, ..good.clone() };
    announcer.set(&routes(&["203.0.113.1/32"], &bad)).await.unwrap();
    assert_eq!(connection.next_real().await, Some((2, hex::decode("000520cb0071010000").unwrap())));
    let changes = announcer.set(&routes(&["203.0.113.1/32"], &bad)).await.unwrap();
    assert!(changes.diagnoses.values().any(|why| why.contains("no neighbour can be told")), "{changes:?}");
    assert!(announcer.current().await.unwrap().is_empty(), "nobody has it");
    // What was never said is not taken back: the next thing said is another route.
    announcer.set(&routes(&["203.0.113.2/32"], &good)).await.unwrap();
    let (_, body) = connection.next_real().await.unwrap();
    assert_eq!((&body[..2], hosts_announced(&body)), (&[0, 0][..], 1));
}

#[tokio::test]
async fn a_hundred_thousand_prefixes_arrive_in_full_messages() {
    let fake = Fake::new().await;
    let mut announcer = start(fake.settings());
    announcer.set(&many(100_000, 1)).await.unwrap();
    let mut connection = fake.establish(&[1, 2], 90).await;
    let (mut prefixes, mut messages) = (0, 0);
    while prefixes < 100_000 {
        let (kind, body) = connection.next_real().await.unwrap();
        assert_eq!(kind, 2);
        prefixes += hosts_announced(&body);
        messages += 1;
    }
    assert_eq!(prefixes, 100_000);
    assert!(messages <= 125, "{messages} messages");
}

#[tokio::test]
async fn a_neighbour_that_takes_nothing_costs_one_buffer_and_is_dropped() {
    let fake = Fake::alone().await;
    let settings = NeighbourSettings { hold_time: 0, send_hold_time: Some(3), ..fake.settings() };
    let mut announcer = start(settings);
    let connection = fake.establish(&[1], 0).await;
    until("the session is up", || announcer.neighbours()[0].state == NeighbourState::Established).await;
    // A thousand changes of a big table: none of the tables in between may pile up.
    let tables = [many(50_000, 1), many(50_000, 2)];
    announcer.set(&tables[0]).await.unwrap();
    announcer.set(&tables[1]).await.unwrap();
    let before = resident_kib();
    for n in 0..60 {
        announcer.set(&tables[n % 2]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB");
    until("the send hold timer has expired", || {
        announcer.neighbours()[0].last_error.as_ref().is_some_and(|e| e.contains("send hold timer"))
    })
    .await;
    drop(connection);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_route_is_stuck_after_ten_lost_sessions() {
    let fake = Fake::new().await;
    let mut announcer = start(fake.settings());
    let attributes = RouteAttributes::default();
    for round in 0..10 {
        let prefix = format!("203.0.113.{round}/32");
        announcer.set(&routes(&[prefix.as_str()], &attributes)).await.unwrap();
        drop(fake.establish(&[1], 90).await);
    }
    announcer.set(&routes(&["203.0.113.99/32"], &attributes)).await.unwrap();
    let mut connection = fake.establish(&[1], 90).await;
    let (_, body) = connection.next_real().await.unwrap();
    assert_eq!(&body[body.len() - 5..], [32, 203, 0, 113, 99], "the newest table and nothing else");
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
}

#[tokio::test]
async fn garbage_is_answered_with_its_notification_and_a_bad_attribute_is_lived_with() {
    let fake = Fake::new().await;
    let announcer = start(fake.settings());
    let mut connection = fake.establish(&[1], 90).await;
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
    // ORIGIN of 9: treat as withdraw (RFC 7606).
    let body = hex::decode("000000144001010940020602010000fde94003040a09000120cb007135").unwrap();
    connection.send(&message(2, &body)).await;
    until("the malformed UPDATE is counted", || announcer.neighbours()[0].malformed_updates == 1).await;
    assert_eq!(announcer.neighbours()[0].state, NeighbourState::Established);
    connection.send(&[0; 19]).await;
    assert_eq!(connection.next_real().await, Some((3, vec![1, 1])));
    assert_eq!(connection.next_real().await, None);
    drop(connection);
    let mut connection = fake.establish(&[1], 90).await;
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())), "and comes back");
}

#[tokio::test]
async fn a_silent_neighbour_is_told_that_the_hold_time_is_over() {
    let fake = Fake::new().await;
    let _announcer = start(NeighbourSettings { hold_time: 3, ..fake.settings() });
    let mut connection = fake.establish(&[1], 3).await;
    assert_eq!(connection.next_real().await, Some((2, EOR_V4.to_vec())));
    assert_eq!(connection.next_real().await, Some((3, vec![4, 0])));
}
