//! One connection's state machine (RFC 4271 §8): [`Input`] in, [`Output`]s out.
//!
//! Pure: an adapter over the FSM crate, which is pinned because it changes often. Owns what the crate leaves to its
//! user: the restart bits of our OPEN and the shape of a shutdown. Dialling and its back-off are the neighbour
//! task's; a machine lives as long as one TCP connection.
//!
//! ```text
//!  Connect --Connected--> OpenSent --OPEN ok--> OpenConfirm --KEEPALIVE--> Established
//!     every fault, NOTIFICATION, expiry or lost connection: Output::Close, and the machine is done
//! ```

use bytes::Bytes;
use rustbgpd_fsm::{Action, Event, NegotiatedSession, PeerConfig, Session, SessionState, TimerType};
use rustbgpd_wire::{Afi, BgpRole, Capability, Message, OpenMessage, Safi, notification};

use super::codec::{Fault, Incoming, Notice, afi, encode};
use super::status::NeighbourState;
use crate::config::bgp::{Family, NeighbourSettings, Role, SpeakerSettings};

/// What can happen to a connection.
#[derive(Debug)]
pub enum Input {
    /// TCP is up.
    Connected,
    /// A message arrived.
    Received(Incoming),
    /// Bytes arrived that are no message.
    Undecodable(Fault),
    /// TCP is gone.
    ConnectionLost,
    /// Nothing was heard for the hold time.
    HoldExpired,
    /// The next KEEPALIVE is due.
    KeepaliveDue,
    /// We end the session: Cease, administrative shutdown, with a text (RFC 9003).
    Stop(String),
    /// BFD lost the neighbour (RFC 9384).
    BfdDown,
}

/// What has to be done about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes.
    Send(Bytes),
    /// Send this NOTIFICATION.
    Notify(Notice, Bytes),
    /// Expect the next message within so many seconds; `None` = for ever.
    Hold(Option<u32>),
    /// Send a KEEPALIVE every so many seconds; `None` = never.
    Keepalive(Option<u32>),
    /// The session is up.
    Established(Negotiated),
    /// The state changed.
    State(NeighbourState),
    /// Close the connection; nothing follows.
    Close,
}

/// What the OPENs settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Hold time in seconds, 0 = none.
    pub hold_time: u16,
    /// The neighbour's BGP identifier.
    pub router_id: std::net::Ipv4Addr,
    /// Families that both sides offered.
    pub families: Vec<Family>,
    /// RFC 6793.
    pub four_octet_as: bool,
    /// RFC 7313.
    pub enhanced_refresh: bool,
    /// RFC 8950 for IPv4 unicast.
    pub extended_next_hop: bool,
    /// RFC 4724: the neighbour keeps our routes over a restart.
    pub graceful_restart: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    session: Session,
    restarting: bool,
}

impl Machine {
    /// A machine for a connection that is being made. `restarting` = this is the first session since the process
    /// started, so that the restart bit is set where graceful restart is on.
    pub fn new(speaker: &SpeakerSettings, neighbour: &NeighbourSettings, restarting: bool) -> Self {
        let mut config = PeerConfig::new(speaker.local_asn, neighbour.remote_asn, speaker.router_id);
        config.hold_time = neighbour.hold_time;
        config.families = neighbour.families.iter().map(|f| (afi(*f), Safi::Unicast)).collect();
        config.disable_ipv4_unicast = !neighbour.families.contains(&Family::Ipv4);
        config.graceful_restart = neighbour.graceful_restart_secs.is_some();
        config.gr_restart_time = neighbour.graceful_restart_secs.unwrap_or(0);
        config.local_role = neighbour.role.map(wire_role);
        let mut session = Session::new(config);
        session.handle_event(Event::ManualStart);
        Self { session, restarting }
    }

    /// Where the connection is.
    pub fn state(&self) -> NeighbourState {
        shown(self.session.state())
    }

    /// Feeds the machine.
    pub fn handle(&mut self, input: Input) -> Vec<Output> {
        let bad_update = matches!(input, Input::Received(Incoming::BadUpdate(_)));
        let Some(event) = event(input) else { return Vec::new() };
        let established = self.session.state() == SessionState::Established;
        // An UPDATE outside Established is an FSM error whatever it holds.
        let event = if bad_update && !established { Event::UpdateReceived } else { event };
        let actions = self.session.handle_event(event);
        let mut outputs: Vec<Output> = actions.into_iter().filter_map(|action| self.output(action)).collect();
        let done = matches!(self.session.state(), SessionState::Idle | SessionState::Active);
        if done && !outputs.contains(&Output::Close) {
            outputs.push(Output::Close);
        }
        outputs
    }

    fn output(&self, action: Action) -> Option<Output> {
        Some(match action {
            Action::SendOpen(open) => Output::Send(encode(&Message::Open(self.finished(open)))),
            Action::SendKeepalive => Output::Send(encode(&Message::Keepalive)),
            Action::SendNotification(message) => {
                Output::Notify(Notice::from_wire(&message), encode(&Message::Notification(message)))
            }
            Action::StartTimer(TimerType::Hold, seconds) => Output::Hold(Some(seconds)),
            Action::StartTimer(TimerType::Keepalive, seconds) => Output::Keepalive(Some(seconds)),
            Action::StopTimer(TimerType::Hold) => Output::Hold(None),
            Action::StopTimer(TimerType::Keepalive) => Output::Keepalive(None),
            Action::CloseTcpConnection => Output::Close,
            Action::StateChanged { new, .. } => Output::State(shown(new)),
            Action::SessionEstablished(session) => Output::Established(negotiated(&session)),
            // Dialling is not the machine's; the rest is telemetry of the crate.
            _ => return None,
        })
    }

    /// Our OPEN with the bits of graceful restart that the crate leaves clear. The forwarding bit is true for an
    /// announcer: the service answers while the speaker restarts. The notification bit (RFC 8538) stays off, so that
    /// a Cease still means that the routes go.
    fn finished(&self, mut open: OpenMessage) -> OpenMessage {
        for capability in &mut open.capabilities {
            if let Capability::GracefulRestart { restart_state, notification, families, .. } = capability {
                *restart_state = self.restarting;
                *notification = false;
                for family in families {
                    family.forwarding_preserved = true;
                }
            }
        }
        open
    }
}

fn event(input: Input) -> Option<Event> {
    Some(match input {
        Input::Connected => Event::TcpConnectionConfirmed,
        Input::Received(Incoming::Open(open)) => Event::OpenReceived(open.0),
        Input::Received(Incoming::Keepalive) => Event::KeepaliveReceived,
        Input::Received(Incoming::Update(_)) => Event::UpdateReceived,
        Input::Received(Incoming::BadUpdate(notice)) => Event::UpdateValidationError(notice.to_wire()),
        Input::Received(Incoming::Notification(notice)) => Event::NotificationReceived(notice.to_wire()),
        Input::Received(Incoming::Refresh(family)) => {
            let afi = family.map_or(Afi::Ipv4, afi);
            Event::RouteRefreshReceived { afi, safi: Safi::Unicast }
        }
        Input::Undecodable(fault) => Event::DecodeError(fault.0),
        Input::ConnectionLost => Event::TcpConnectionFails,
        Input::HoldExpired => Event::HoldTimerExpires,
        Input::KeepaliveDue => Event::KeepaliveTimerExpires,
        Input::Stop(reason) => {
            let text = notification::encode_shutdown_communication(&reason);
            Event::ManualStop { reason: (!reason.is_empty()).then_some(text) }
        }
        Input::BfdDown => Event::BfdDown,
    })
}

fn negotiated(session: &NegotiatedSession) -> Negotiated {
    let families = [Family::Ipv4, Family::Ipv6];
    let offered = |f: &Family| session.negotiated_families.contains(&(afi(*f), Safi::Unicast));
    Negotiated {
        hold_time: session.hold_time,
        router_id: session.peer_router_id,
        families: families.into_iter().filter(offered).collect(),
        four_octet_as: session.four_octet_as,
        enhanced_refresh: session.peer_enhanced_route_refresh,
        extended_next_hop: session.extended_nexthop_families.get(&(Afi::Ipv4, Safi::Unicast))
            == Some(&Afi::Ipv6),
        graceful_restart: session.peer_gr_capable,
    }
}

fn wire_role(role: Role) -> BgpRole {
    match role {
        Role::Provider => BgpRole::Provider,
        Role::Rs => BgpRole::RouteServer,
        Role::RsClient => BgpRole::RouteServerClient,
        Role::Customer => BgpRole::Customer,
        Role::Peer => BgpRole::Peer,
    }
}

fn shown(state: SessionState) -> NeighbourState {
    match state {
        SessionState::Idle => NeighbourState::Idle,
        SessionState::Connect => NeighbourState::Connect,
        SessionState::Active => NeighbourState::Active,
        SessionState::OpenSent => NeighbourState::OpenSent,
        SessionState::OpenConfirm => NeighbourState::OpenConfirm,
        SessionState::Established => NeighbourState::Established,
    }
}

#[cfg(test)]
mod tests;
