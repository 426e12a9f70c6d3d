//! `ntpq`: a time server answers, is synchronised, and differs from our clock by no more than a threshold (RFC 5905).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;

use super::{Boxed, Check, Facts, Report, Retry};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name or address, with `:port` where it is not 123.
    pub server: String,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Largest offset that passes.
    pub threshold: Duration,
    /// Accepts a server that is not synchronised, as the Go predecessor does.
    pub allow_unsynchronised: bool,
    /// Tries and their limits.
    pub retry: Retry,
}

/// Seconds from 1900 (NTP's era 0) to 1970.
const ERA_OFFSET: u64 = 2_208_988_800;

/// Root distance from which RFC 5905 §11.1 calls a server unfit to synchronise with, in seconds.
const DISTANCE_LIMIT: f64 = 16.0;

/// A moment in NTP's format: seconds since 1900 and their fraction, 32 bits each; wraps with the era in 2036.
pub type NtpTime = u64;

/// What an answer says about two clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Their clock minus ours, in milliseconds.
    pub offset_ms: f64,
    /// Round trip, in milliseconds.
    pub rtt_ms: f64,
}

fn time_at(packet: &[u8; 48], at: usize) -> NtpTime {
    let mut octets = [0_u8; 8];
    octets.copy_from_slice(&packet[at..at + 8]);
    u64::from_be_bytes(octets)
}

/// `later - earlier` in milliseconds, right across the wrap of the era.
fn millis_between(later: NtpTime, earlier: NtpTime) -> f64 {
    (later.wrapping_sub(earlier) as i64) as f64 * 1000.0 / 4_294_967_296.0
}

fn short_seconds(packet: &[u8; 48], at: usize) -> f64 {
    f64::from(u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])) / 65536.0
}

/// Reads an answer to a request that carried `sent` and was answered by `received`; both in NTP's format. `origin` =
/// the value in the request's transmit field.
///
/// # Errors
/// Why the answer says nothing about the clocks.
pub fn read_answer(
    bytes: &[u8],
    origin: NtpTime,
    sent: NtpTime,
    received: NtpTime,
    allow_unsynchronised: bool,
) -> Result<Measured, String> {
    let packet: [u8; 48] =
        bytes.get(..48).and_then(|head| head.try_into().ok()).ok_or("the answer is too short")?;
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 7, packet[1]);
    if mode != 4 {
        return Err(format!("mode {mode}, not a server's answer"));
    }
    if time_at(&packet, 24) != origin {
        return Err("an answer to another request".to_owned());
    }
    let (theirs_in, theirs_out) = (time_at(&packet, 32), time_at(&packet, 40));
    if stratum == 0 && !allow_unsynchronised {
        let code: String =
            packet[12..16].iter().map(|octet| char::from(*octet)).filter(char::is_ascii_graphic).collect();
        return Err(format!("kiss of death {code}"));
    }
    if theirs_out == 0 || millis_between(theirs_out, theirs_in) < 0.0 {
        return Err("its time stamps make no sense".to_owned());
    }
    if !allow_unsynchronised {
        let distance = short_seconds(&packet, 4) / 2.0 + short_seconds(&packet, 8);
        if leap == 3 || stratum >= 16 {
            return Err(format!("not synchronised (stratum {stratum}, leap {leap})"));
        }
        if distance >= DISTANCE_LIMIT {
            return Err(format!("root distance {distance:.1} s"));
        }
    }
    let offset_ms = f64::midpoint(millis_between(theirs_in, sent), millis_between(theirs_out, received));
    let rtt_ms = millis_between(received, sent) - millis_between(theirs_out, theirs_in);
    Ok(Measured { offset_ms, rtt_ms })
}

/// Whether an offset passes: equal to the threshold still does.
pub fn within(offset_ms: f64, threshold: Duration) -> bool {
    offset_ms.abs() <= threshold.as_secs_f64() * 1000.0
}

/// The check.
#[derive(Debug)]
pub struct NtpCheck {
    spec: Spec,
}

impl NtpCheck {
    /// A check of the server.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    async fn attempt(&self) -> Result<Measured, String> {
        let server = &self.spec.server;
        let at = |error: &dyn std::fmt::Display| format!("{server}: {error}");
        let address = self.address().await?;
        let any = if address.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0_u16; 8]) };
        let local = SocketAddr::new(self.spec.source.unwrap_or(any), 0);
        let socket = UdpSocket::bind(local).await.map_err(|error| at(&error))?;
        socket.connect(address).await.map_err(|error| at(&error))?;
        // A random number in place of our time tells nothing about our clock and can't be guessed.
        let origin: NtpTime = rand::random();
        let mut request = [0_u8; 48];
        request[0] = 4 << 3 | 3;
        request[40..].copy_from_slice(&origin.to_be_bytes());
        let sent = ntp_now();
        socket.send(&request).await.map_err(|error| at(&error))?;
        let mut buffer = [0_u8; 512];
        let length = socket.recv(&mut buffer).await.map_err(|error| at(&error))?;
        let received = ntp_now();
        read_answer(&buffer[..length], origin, sent, received, self.spec.allow_unsynchronised)
            .map_err(|e| at(&e))
    }

    async fn address(&self) -> Result<SocketAddr, String> {
        let server = &self.spec.server;
        if let Ok(ip) = server.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, 123));
        }
        let target = if server.contains(':') { server.clone() } else { format!("{server}:123") };
        let found = tokio::net::lookup_host(target).await.map_err(|error| format!("{server}: {error}"))?;
        let wanted = |address: &SocketAddr| {
            self.spec.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
        };
        found.into_iter().find(wanted).ok_or_else(|| format!("{server}: the name has no address"))
    }

    async fn run(&self) -> Report {
        match self.spec.retry.run(|| self.attempt()).await {
            Err(error) => Report::fail(error),
            Ok(Measured { offset_ms, rtt_ms }) => {
                let report = if within(offset_ms, self.spec.threshold) {
                    Report::pass()
                } else {
                    let limit = humantime::format_duration(self.spec.threshold);
                    Report::fail(format!(
                        "{}: offset {offset_ms:.3} ms is more than {limit}",
                        self.spec.server
                    ))
                };
                report.with(Facts::Ntp { host: self.spec.server.clone(), offset_ms, rtt_ms })
            }
        }
    }
}

fn ntp_now() -> NtpTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs().wrapping_add(ERA_OFFSET) << 32) | fraction
}

impl Check for NtpCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    fn answer(first: u8, stratum: u8, origin: u64, theirs: u64) -> [u8; 48] {
        let mut packet = [0_u8; 48];
        (packet[0], packet[1]) = (first, stratum);
        packet[24..32].copy_from_slice(&origin.to_be_bytes());
        packet[32..40].copy_from_slice(&theirs.to_be_bytes());
        packet[40..48].copy_from_slice(&theirs.to_be_bytes());
        packet
    }

    #[test]
    fn case_31_the_offset_may_equal_the_threshold_and_not_exceed_it() {
        let sent = 1000 * SECOND;
        let measured = read_answer(&answer(0x24, 2, 7, sent + SECOND / 2), 7, sent, sent, false).unwrap();
        assert_eq!((measured.offset_ms, measured.rtt_ms), (500.0, 0.0));
        assert!(within(measured.offset_ms, Duration::from_millis(500)));
        assert!(!within(501.0, Duration::from_millis(500)));
        assert!(!within(-501.0, Duration::from_millis(500)));
    }

    #[test]
    fn case_31_an_unsynchronised_server_fails_unless_allowed() {
        for (first, stratum) in [(0x24, 16), (0xe4, 2), (0x24, 0)] {
            let packet = answer(first, stratum, 7, SECOND);
            assert!(read_answer(&packet, 7, SECOND, SECOND, false).is_err(), "{first:#x} {stratum}");
            assert!(read_answer(&packet, 7, SECOND, SECOND, true).is_ok(), "{first:#x} {stratum}");
        }
    }

    #[test]
    fn an_answer_to_another_request_says_nothing() {
        assert!(read_answer(&answer(0x24, 2, 8, SECOND), 7, SECOND, SECOND, true).is_err());
        assert!(read_answer(&answer(0x23, 2, 7, SECOND), 7, SECOND, SECOND, true).is_err());
    }

    #[test]
    fn the_wrap_of_the_era_is_no_offset() {
        let sent = u64::MAX - SECOND / 4;
        let measured = read_answer(&answer(0x24, 2, 7, SECOND / 4), 7, sent, sent, false).unwrap();
        assert!((measured.offset_ms - 500.0).abs() < 0.001, "{measured:?}");
    }
}
