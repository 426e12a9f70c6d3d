//! The sockets and the clock around BFD sessions: one task per local address and port.
//!
//! Owns the receiving socket (3784 or 4784), one sending socket per session, and the sessions themselves. A packet
//! finds its session by our number in it, or, while that is 0, by where it comes from. On a single hop everything
//! that did not arrive with a TTL of 255 is dropped (RFC 5881 §5).

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::packet::{Packet, State};
use super::session::Session;
use crate::config::bgp::BfdSettings;

const SINGLE_HOP_PORT: u16 = 3784;
const MULTI_HOP_PORT: u16 = 4784;

/// Source ports of control packets (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A session to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// The neighbour's address.
    pub remote: IpAddr,
    /// Our address; `None` = any.
    pub local: Option<IpAddr>,
    /// Interface to be bound to.
    pub interface: Option<String>,
    /// Timing.
    pub settings: BfdSettings,
}

/// A running driver; dropped, it stops without a word, [`Driver::shutdown`] says AdminDown first.
#[derive(Debug)]
pub struct Driver {
    cancel: CancellationToken,
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// A driver could not be started.
#[derive(Debug, thiserror::Error)]
#[error("BFD socket {address}: {source}")]
pub struct DriverError {
    /// The address that was to be bound.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

struct Running {
    spec: SessionSpec,
    session: Session,
    socket: UdpSocket,
    state: watch::Sender<State>,
}

impl Driver {
    /// Starts these sessions; the states come back in the same order.
    ///
    /// # Errors
    /// A socket could not be made: the port is taken by another BFD daemon, or the address is not ours.
    pub fn start(specs: Vec<SessionSpec>) -> Result<(Self, Vec<watch::Receiver<State>>), DriverError> {
        let cancel = CancellationToken::new();
        let mut groups: BTreeMap<(SocketAddr, Option<String>), Vec<Running>> = BTreeMap::new();
        let mut states = Vec::new();
        for (number, spec) in (1..).zip(specs) {
            let any = if spec.remote.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let local = spec.local.unwrap_or(any);
            let port = if spec.settings.multihop { MULTI_HOP_PORT } else { SINGLE_HOP_PORT };
            let (state, seen) = watch::channel(State::Down);
            let socket = sender(&spec, local)?;
            // Unlike the one before a restart, so that the neighbour cannot take the new session for the old one.
            let discriminator = (rand::random::<u32>() & 0xFFFF_0000 | number).max(1);
            let session = Session::new(spec.settings.clone(), discriminator, Instant::now().into_std());
            let key = (SocketAddr::new(local, port), spec.interface.clone());
            groups.entry(key).or_default().push(Running { spec, session, socket, state });
            states.push(seen);
        }
        let mut tasks = Vec::new();
        for ((address, interface), sessions) in groups {
            let socket =
                receiver(address, interface.as_deref()).map_err(|source| DriverError { address, source })?;
            let single_hop = address.port() == SINGLE_HOP_PORT;
            let task = tokio::spawn(drive(socket, single_hop, sessions, cancel.clone()));
            tasks.push(AbortOnDropHandle::new(task));
        }
        Ok((Self { cancel, tasks }, states))
    }

    /// Tells every neighbour that the sessions end on purpose, then ends them.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
    }
}

fn bare(address: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(0xC0)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_tclass_v6(0xC0)?;
    }
    if let Some(device) = interface {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

fn receiver(address: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = bare(address, interface)?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

/// A socket with a source port of the range that the RFC asks for.
fn sender(spec: &SessionSpec, local: IpAddr) -> Result<UdpSocket, DriverError> {
    let mut last = (SocketAddr::new(local, 0), io::Error::from(io::ErrorKind::AddrInUse));
    for _ in 0..64 {
        let address = SocketAddr::new(local, rand::random_range(SOURCE_PORTS));
        let bound = bare(address, spec.interface.as_deref()).and_then(|socket| {
            socket.bind(&SockAddr::from(address))?;
            UdpSocket::from_std(socket.into())
        });
        match bound {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = (address, error),
            Err(source) => return Err(DriverError { address, source }),
        }
    }
    Err(DriverError { address: last.0, source: last.1 })
}

async fn drive(socket: UdpSocket, single_hop: bool, mut sessions: Vec<Running>, cancel: CancellationToken) {
    loop {
        let next = sessions.iter().map(|s| s.session.next_deadline()).min();
        let Some(next) = next else { return };
        tokio::select! {
            () = cancel.cancelled() => break,
            received = receive(&socket) => match received {
                Ok((packet, from, ttl)) if !single_hop || ttl == Some(255) => {
                    hear(&mut sessions, &packet, from).await;
                }
                Ok((_, from, ttl)) => debug!(%from, ?ttl, "BFD packet dropped: it came from further away"),
                Err(error) => debug!(%error, "BFD packet dropped"),
            },
            () = tokio::time::sleep_until(next.into()) => {
                for running in &mut sessions {
                    let packet = running.session.poll(Instant::now().into_std(), rand::random());
                    running.say(packet).await;
                }
            }
        }
    }
    for running in &mut sessions {
        let packet = running.session.administratively_down();
        running.say(Some(packet)).await;
    }
}

async fn hear(sessions: &mut [Running], packet: &Packet, from: IpAddr) {
    let found = sessions.iter_mut().find(|running| match packet.your_discriminator {
        0 => running.spec.remote == from,
        number => running.session.discriminator() == number && running.spec.remote == from,
    });
    let Some(running) = found else {
        debug!(%from, "BFD packet dropped: no such session");
        return;
    };
    let answer = running.session.received(packet, Instant::now().into_std(), rand::random());
    running.say(answer).await;
}

impl Running {
    /// Sends what is due and publishes the state.
    async fn say(&mut self, packet: Option<Packet>) {
        let state = self.session.state();
        let changed = self.state.send_if_modified(|seen| {
            let changed = *seen != state;
            *seen = state;
            changed
        });
        if changed {
            info!(neighbour = %self.spec.remote, ?state, "BFD session");
        }
        let Some(packet) = packet else { return };
        let port = if self.spec.settings.multihop { MULTI_HOP_PORT } else { SINGLE_HOP_PORT };
        if let Err(error) = self.socket.send_to(&packet.encode(), (self.spec.remote, port)).await {
            // Nobody listening yet, or no route: silence is what BFD is made to notice.
            debug!(neighbour = %self.spec.remote, %error, "BFD packet not sent");
        }
    }
}

/// A control packet, its source and its TTL.
async fn receive(socket: &UdpSocket) -> io::Result<(Packet, IpAddr, Option<i32>)> {
    socket
        .async_io(Interest::READABLE, || {
            let mut bytes = [0; 256];
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let mut space = nix::cmsg_space!(libc::c_int, libc::c_int);
            let message = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let ttl = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
                _ => None,
            });
            let from = message.address.and_then(source_address);
            let length = message.bytes;
            let packet = Packet::decode(&bytes[..length]).map_err(io::Error::other)?;
            let from = from.ok_or_else(|| io::Error::other("no source address"))?;
            Ok((packet, from, ttl))
        })
        .await
}

fn source_address(address: SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        _ => None,
    }
}
