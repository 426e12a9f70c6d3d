//! `icmp_ping`: a host answers echo requests (RFC 792, RFC 4443).
//!
//! A datagram socket where `net.ipv4.ping_group_range` allows it, else a raw one (CAP_NET_RAW), else an error at
//! start-up. Each run has a socket of its own, so that runs never take each other's replies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{Boxed, BuildError, Check, Facts, Report};

/// What to test.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Name or address, resolved at each run.
    pub host: String,
    /// Echo requests of one run.
    pub count: u8,
    /// Time between two requests.
    pub interval: Duration,
    /// Limit of one run.
    pub timeout: Duration,
    /// Share of requests that may stay without a reply, in percent.
    pub max_loss_percent: f64,
    /// Judge only the requests sent before the timeout, as the Go predecessor does.
    pub sent_so_far: bool,
}

/// Figures of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PingFigures {
    /// Host as configured.
    pub host: String,
    /// Requests sent.
    pub sent: u64,
    /// Requests with a reply.
    pub received: u64,
    /// Further replies to the same request.
    pub duplicates: u64,
    /// Requests without a reply, in percent.
    pub loss_percent: f64,
    /// Round trips in seconds: minimum, average, maximum, standard deviation.
    pub rtt_secs: Option<[f64; 4]>,
}

/// Octets behind the ICMP header.
const PAYLOAD: usize = 24;

/// The check.
#[derive(Debug)]
pub struct IcmpCheck {
    spec: Spec,
}

/// Opens a socket: datagram, else raw; the flag says which.
fn open(v4: bool) -> std::io::Result<(UdpSocket, bool)> {
    let (domain, protocol) =
        if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.set_nonblocking(true)?;
    if v4 {
        socket.set_ttl_v4(64)?
    } else {
        socket.set_unicast_hops_v6(64)?
    }
    // Sending and receiving are the same system calls whatever datagram protocol is below.
    Ok((UdpSocket::from_std(std::os::fd::OwnedFd::from(socket).into())?, raw))
}

/// The one sentence that says what is missing.
fn refused(error: &std::io::Error) -> String {
    format!("ICMP socket: {error}; it needs this group in net.ipv4.ping_group_range, or CAP_NET_RAW")
}

fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 =
        packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn request(v4: bool, ident: u16, sequence: u16, token: [u8; 8]) -> Vec<u8> {
    let mut packet = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend(ident.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(token);
    packet.resize(8 + PAYLOAD, 0);
    if v4 {
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// The sequence number of an echo reply that carries our token. Raw IPv4 sockets deliver the IP header too.
pub fn read_reply(bytes: &[u8], v4: bool, raw: bool, token: [u8; 8]) -> Option<u16> {
    let skip = if v4 && raw { usize::from(bytes.first()? & 15) * 4 } else { 0 };
    let icmp = bytes.get(skip..)?;
    let reply = if v4 { 0 } else { 129 };
    (*icmp.first()? == reply && icmp.get(8..16)? == token)
        .then(|| Some(u16::from_be_bytes([*icmp.get(6)?, *icmp.get(7)?])))?
}

impl IcmpCheck {
    /// A check of the host.
    ///
    /// # Errors
    /// Where this process may open neither kind of socket.
    pub fn new(spec: Spec) -> Result<Self, BuildError> {
        let domain = if spec.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            Domain::IPV6
        } else {
            Domain::IPV4
        };
        let protocol = if domain == Domain::IPV4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        Socket::new(domain, Type::DGRAM, Some(protocol))
            .or_else(|_| Socket::new(domain, Type::RAW, Some(protocol)))
            .map_err(|error| BuildError(refused(&error)))?;
        Ok(Self { spec })
    }

    async fn run(&self) -> Report {
        let host = &self.spec.host;
        let deadline = Instant::now() + self.spec.timeout;
        let resolved = match host.parse::<IpAddr>() {
            Ok(ip) => Ok(ip),
            Err(_) => match timeout_at(deadline, tokio::net::lookup_host((host.as_str(), 0))).await {
                Ok(Ok(mut found)) => found.next().map(|address| address.ip()).ok_or("no address".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the name was not resolved in time".to_owned()),
            },
        };
        let ip = match resolved {
            Ok(ip) => ip,
            Err(error) => return Report::fail(format!("{host}: {error}")),
        };
        let (socket, raw) = match open(ip.is_ipv4()) {
            Ok(opened) => opened,
            Err(error) => return Report::unknown(refused(&error)),
        };
        let figures = self.exchange(&socket, raw, ip, deadline).await;
        self.judge(&figures).with(Facts::Ping(figures))
    }

    async fn exchange(&self, socket: &UdpSocket, raw: bool, ip: IpAddr, deadline: Instant) -> PingFigures {
        let (token, ident): ([u8; 8], u16) = (rand::random(), rand::random());
        let mut sent: BTreeMap<u16, Instant> = BTreeMap::new();
        let mut trips: BTreeMap<u16, f64> = BTreeMap::new();
        let mut figures = PingFigures { host: self.spec.host.clone(), ..PingFigures::default() };
        let mut next_send = Instant::now();
        let mut buffer = [0_u8; 2048];
        let count = u16::from(self.spec.count);
        while trips.len() < usize::from(count) {
            let sequence = sent.len() as u16;
            if sequence < count && Instant::now() >= next_send {
                let packet = request(ip.is_ipv4(), ident, sequence, token);
                sent.insert(sequence, Instant::now());
                // A request that the kernel refuses is a request without a reply.
                let _ = socket.send_to(&packet, SocketAddr::new(ip, 0)).await;
                next_send += self.spec.interval;
                continue;
            }
            let wake = if sequence < count { next_send.min(deadline) } else { deadline };
            match timeout_at(wake, socket.recv_from(&mut buffer)).await {
                Ok(Ok((length, _))) => {
                    let got = read_reply(&buffer[..length], ip.is_ipv4(), raw, token);
                    if let Some((number, at)) = got.and_then(|number| Some((number, sent.get(&number)?))) {
                        let trip = at.elapsed().as_secs_f64();
                        figures.duplicates += u64::from(trips.insert(number, trip).is_some());
                    }
                }
                // An ICMP error that the socket reports: the reply stays missing.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(wake.min(Instant::now() + Duration::from_millis(5))).await
                }
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        figures.sent = sent.len() as u64;
        figures.received = trips.len() as u64;
        figures.finish(&trips.into_values().collect::<Vec<f64>>());
        figures
    }

    fn judge(&self, figures: &PingFigures) -> Report {
        let planned = u64::from(self.spec.count);
        let base = if self.spec.sent_so_far { figures.sent } else { planned };
        let lost = base.saturating_sub(figures.received);
        if lost as f64 * 100.0 <= self.spec.max_loss_percent * base as f64 {
            return Report::pass();
        }
        Report::fail(format!("{}: {} of {base} echo requests without a reply", self.spec.host, lost))
    }
}

impl PingFigures {
    fn finish(&mut self, trips: &[f64]) {
        if self.sent > 0 {
            self.loss_percent = (self.sent - self.received) as f64 * 100.0 / self.sent as f64;
        }
        if trips.is_empty() {
            return;
        }
        let count = trips.len() as f64;
        let mean = trips.iter().sum::<f64>() / count;
        let variance = trips.iter().map(|trip| (trip - mean).powi(2)).sum::<f64>() / count;
        let low = trips.iter().copied().fold(f64::INFINITY, f64::min);
        let high = trips.iter().copied().fold(0.0, f64::max);
        self.rtt_secs = Some([low, mean, high, variance.sqrt()]);
    }
}

impl Check for IcmpCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Sample;

    fn judged(sent: u64, received: u64, max_loss_percent: f64, sent_so_far: bool) -> Sample {
        let spec = Spec {
            host: "h".to_owned(),
            count: 5,
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            max_loss_percent,
            sent_so_far,
        };
        IcmpCheck { spec }.judge(&PingFigures { sent, received, ..PingFigures::default() }).sample
    }

    #[test]
    fn case_26_one_reply_lost_of_five_fails_unless_a_loss_is_allowed() {
        assert_eq!(judged(5, 4, 0.0, true), Sample::Fail);
        assert_eq!(judged(5, 4, 20.0, false), Sample::Pass);
        assert_eq!(judged(5, 3, 20.0, false), Sample::Fail);
    }

    #[test]
    fn requests_that_were_never_sent_count_as_lost_unless_compatible() {
        assert_eq!(judged(3, 3, 0.0, false), Sample::Fail);
        assert_eq!(judged(3, 3, 0.0, true), Sample::Pass);
    }

    #[test]
    fn a_reply_is_known_by_its_token_with_and_without_ip_header() {
        let token = [7; 8];
        let mut packet = request(true, 1, 3, token);
        assert_eq!(checksum(&packet), 0);
        packet[0] = 0;
        assert_eq!(read_reply(&packet, true, false, token), Some(3));
        assert_eq!(read_reply(&packet, true, false, [8; 8]), None);
        let with_header: Vec<u8> = [vec![0x45; 1], vec![0; 19], packet].concat();
        assert_eq!(read_reply(&with_header, true, true, token), Some(3));
        assert_eq!(read_reply(&[], true, true, token), None);
    }
}
