//! One TCP connection from handshake to end: bytes and timers around the [`Machine`].
//!
//! Owns the connection, its two bounded buffers and its timers. Output is pulled, not queued: a message is made when
//! there is room for it, so that a slow neighbour costs one buffer and gets the newest table next. Never dials,
//! never decides what is announced.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::attributes::SessionView;
use super::codec::{Decoder, Incoming, Notice};
use super::fsm::{Input, Machine, Negotiated, Output};
use super::neighbour::{Feeds, Order, unix_ms};
use super::packing::Packer;
use super::status::{NeighbourState, NeighbourStatus};
use super::table::Table;
use crate::bfd;
use crate::config::bgp::{Family, NeighbourSettings, SpeakerSettings};

mod outgoing;

use outgoing::OUT_LIMIT;

/// How long a last NOTIFICATION may take, and how long the neighbour may take to close after it.
const LINGER: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// We were told to; the neighbour task ends too.
    Ordered,
    /// Anything else, in words.
    Failed(String),
}

/// Routes on their way out.
struct Sending {
    packer: Packer,
    /// What follows the last UPDATE: End-of-RIB or the end of a refresh.
    tail: Vec<Bytes>,
    /// The table that the neighbour has once all is written; `None` for a replay.
    target: Option<Arc<Table>>,
}

pub(super) struct Session<'a> {
    neighbour: &'a NeighbourSettings,
    status: &'a watch::Sender<NeighbourStatus>,
    machine: Machine,
    decoder: Decoder,
    view: SessionView,
    negotiated: Option<Negotiated>,
    out: BytesMut,
    sent: Arc<Table>,
    sending: Option<Sending>,
    /// Routes of the table on its way that cannot be said.
    left_out: BTreeSet<IpNet>,
    /// Said, but not yet handed to the kernel.
    unflushed: Option<Arc<Table>>,
    replay: BTreeSet<Family>,
    hold: Option<Instant>,
    keepalive: Option<(Duration, Instant)>,
    progress: Instant,
    closing: Option<Instant>,
    /// The first table and End-of-RIB have been said.
    greeted: bool,
    end: Option<End>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        speaker: &SpeakerSettings,
        neighbour: &'a NeighbourSettings,
        status: &'a watch::Sender<NeighbourStatus>,
        stream: &TcpStream,
        restarting: bool,
    ) -> io::Result<Self> {
        let ibgp = neighbour.remote_asn == speaker.local_asn;
        let view = SessionView {
            local_asn: speaker.local_asn,
            ibgp,
            four_octet_as: true,
            families: Vec::new(),
            extended_next_hop: false,
            local_address: stream.local_addr()?.ip(),
            settings: neighbour.clone(),
        };
        Ok(Self {
            neighbour,
            status,
            machine: Machine::new(speaker, neighbour, restarting),
            decoder: Decoder::new(ibgp),
            view,
            negotiated: None,
            out: BytesMut::with_capacity(OUT_LIMIT),
            sent: Arc::default(),
            sending: None,
            left_out: BTreeSet::new(),
            unflushed: None,
            replay: BTreeSet::new(),
            hold: None,
            keepalive: None,
            progress: Instant::now(),
            closing: None,
            greeted: false,
            end: None,
        })
    }

    /// Runs the connection to its end.
    pub(super) async fn run(mut self, mut stream: TcpStream, feeds: &mut Feeds) -> End {
        self.feed(Input::Connected);
        let abandoned = self.talk(&mut stream, feeds).await;
        if !abandoned {
            let _ = tokio::time::timeout(LINGER, say_goodbye(&mut stream)).await;
        }
        self.end.unwrap_or_else(|| End::Failed("connection closed".to_owned()))
    }

    /// Until the connection is done; true where it must be dropped without another byte.
    async fn talk(&mut self, stream: &mut TcpStream, feeds: &mut Feeds) -> bool {
        let (mut reader, mut writer) = stream.split();
        let mut inbound = BytesMut::with_capacity(8192);
        let order = feeds.order.borrow_and_update().clone();
        if self.obey(order) {
            return true;
        }
        loop {
            self.fill(&feeds.table.borrow_and_update().clone());
            if self.closing.is_some() && self.out.is_empty() {
                return false;
            }
            let deadline = self.deadline();
            tokio::select! {
                result = reader.read_buf(&mut inbound), if self.closing.is_none() => match result {
                    Ok(1..) => self.decode(&mut inbound),
                    Ok(0) => self.lost("the neighbour closed the connection"),
                    Err(error) => self.lost(&format!("read: {error}")),
                },
                result = writer.write_buf(&mut self.out), if !self.out.is_empty() => match result {
                    Ok(1..) => self.wrote(),
                    Ok(0) => self.lost("write: connection closed"),
                    Err(error) => {
                        self.out.clear();
                        self.lost(&format!("write: {error}"));
                    }
                },
                () = tokio::time::sleep_until(deadline) => {
                    if self.expire() {
                        return true;
                    }
                }
                Ok(()) = feeds.table.changed() => {}
                Ok(()) = feeds.order.changed() => {
                    let order = feeds.order.borrow_and_update().clone();
                    if self.obey(order) {
                        return true;
                    }
                }
                () = bfd::went_down(&mut feeds.bfd) => {
                    warn!(neighbour = %self.neighbour.label(), "BFD lost the neighbour");
                    self.feed(Input::BfdDown);
                }
            }
        }
    }

    /// Does as ordered; true = drop the connection at once.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Run => false,
            Order::Stop(reason) => {
                self.end = Some(End::Ordered);
                self.feed(Input::Stop(reason));
                false
            }
            Order::Abandon => {
                self.end = Some(End::Ordered);
                true
            }
        }
    }

    fn deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let send_hold = (!self.out.is_empty()).then(|| self.send_hold()).flatten();
        let keepalive = self.keepalive.map(|(_, at)| at);
        [self.hold, keepalive, send_hold, self.closing].into_iter().flatten().min().unwrap_or(far)
    }

    fn send_hold(&self) -> Option<Instant> {
        let default = u32::max(480, 2 * u32::from(self.neighbour.hold_time));
        let seconds = self.neighbour.send_hold_time.unwrap_or(default);
        (seconds > 0).then(|| self.progress + Duration::from_secs(seconds.into()))
    }

    /// Handles whatever is due; true = give up at once.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.closing) {
            return true;
        }
        if !self.out.is_empty() && due(self.send_hold()) {
            // RFC 9687: nothing more can be said on a connection that takes nothing.
            self.fail("send hold timer expired: the neighbour takes no data".to_owned());
            return true;
        }
        if due(self.hold) {
            self.fail("hold timer expired".to_owned());
            self.feed(Input::HoldExpired);
        } else if let Some((every, at)) = self.keepalive
            && at <= now
        {
            self.keepalive = Some((every, now + jittered(every)));
            self.feed(Input::KeepaliveDue);
        }
        false
    }

    fn decode(&mut self, inbound: &mut BytesMut) {
        while self.closing.is_none() {
            let seen = inbound.get(..19).map(<[u8]>::to_vec);
            match self.decoder.next(inbound) {
                Ok(Some(message)) => {
                    self.note(seen.as_deref().unwrap_or_default(), &message);
                    if let Incoming::Refresh(Some(family)) = message {
                        self.replay.insert(family);
                    }
                    self.feed(Input::Received(message));
                }
                Ok(None) => break,
                Err(fault) => {
                    self.fail(fault.to_string());
                    self.feed(Input::Undecodable(fault));
                }
            }
        }
    }

    /// Counts a received message.
    fn note(&mut self, header: &[u8], message: &Incoming) {
        if let Incoming::Notification(notice) = message {
            warn!(neighbour = %self.neighbour.label(), %notice, "NOTIFICATION received");
            self.fail(format!("NOTIFICATION received: {notice}"));
        }
        self.status.send_modify(|status| {
            status.received.count(header);
            match message {
                Incoming::Update(seen) => {
                    status.received_prefixes.0 += seen.announced as u64;
                    status.received_prefixes.1 += seen.withdrawn as u64;
                    status.malformed_updates += u64::from(seen.malformed > 0);
                }
                Incoming::Notification(notice) => {
                    status.last_notification = Some((notice.code, notice.subcode, false));
                    status.notification_received = Some(notice.clone());
                }
                _ => {}
            }
        });
    }

    fn feed(&mut self, input: Input) {
        for output in self.machine.handle(input) {
            match output {
                Output::Send(bytes) => self.push(&bytes),
                Output::Notify(notice, bytes) => self.notify(notice, &bytes),
                Output::Hold(seconds) => {
                    self.hold = seconds.map(|s| Instant::now() + Duration::from_secs(s.into()));
                }
                Output::Keepalive(seconds) => self.arm_keepalive(seconds),
                Output::State(state) => self.status.send_modify(|status| status.state = state),
                Output::Established(negotiated) => self.established(negotiated),
                Output::Close => {
                    self.sending = None;
                    self.closing = self.closing.or_else(|| Some(Instant::now() + LINGER));
                }
            }
        }
    }

    fn notify(&mut self, notice: Notice, bytes: &Bytes) {
        warn!(neighbour = %self.neighbour.label(), %notice, "NOTIFICATION sent");
        if self.end.is_none() {
            self.end = Some(End::Failed(format!("NOTIFICATION sent: {notice}")));
        }
        self.push(bytes);
        self.status.send_modify(|status| {
            status.last_notification = Some((notice.code, notice.subcode, true));
            status.notification_sent = Some(notice);
        });
    }

    fn arm_keepalive(&mut self, seconds: Option<u32>) {
        let wanted = |limit: u32| self.neighbour.keepalive.map_or(limit, |own| limit.min(own.into()));
        let every = seconds.map(|limit| Duration::from_secs(wanted(limit).into()));
        if every != self.keepalive.map(|(every, _)| every) {
            self.keepalive = every.map(|every| (every, Instant::now() + jittered(every)));
        }
    }

    fn established(&mut self, negotiated: Negotiated) {
        info!(
            neighbour = %self.neighbour.label(), asn = self.neighbour.remote_asn, hold = negotiated.hold_time,
            families = ?negotiated.families, "session established"
        );
        self.decoder.negotiated(negotiated.four_octet_as);
        self.view.four_octet_as = negotiated.four_octet_as;
        self.view.families.clone_from(&negotiated.families);
        self.view.extended_next_hop = negotiated.extended_next_hop;
        self.status.send_modify(|status| {
            status.state = NeighbourState::Established;
            status.established_at_ms = Some(unix_ms());
            status.established_count += 1;
            status.negotiated = Some(negotiated.clone());
        });
        self.negotiated = Some(negotiated);
    }

    fn fail(&mut self, reason: String) {
        self.end.get_or_insert(End::Failed(reason));
    }

    fn lost(&mut self, reason: &str) {
        self.fail(reason.to_owned());
        self.feed(Input::ConnectionLost);
        self.out.clear();
    }
}

/// Ends our direction and waits for the neighbour's end, so that no reset overtakes the last NOTIFICATION.
async fn say_goodbye(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut scratch = [0; 4096];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}

/// Three quarters of a time up to the whole (RFC 4271 §10).
pub(super) fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + 0.25 * rand::random::<f64>())
}
