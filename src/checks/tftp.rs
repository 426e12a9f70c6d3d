//! `tftp_rrq`: a TFTP server sends a file, and the right one where a digest is given (RFC 1350, octet mode).
//!
//! Owns its client: no options, 512-byte blocks, a new port per transfer, size and time bounded. A try ends when no
//! fresh block came within its timeout; a lost block is asked for again four times within that time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::{Boxed, Check, Report, Retry};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// File name as sent, with its leading slash.
    pub file: String,
    /// SHA-256 of the file in lower-case hex.
    pub sha256: Option<String>,
    /// Tries; the timeout is the longest wait for a fresh block.
    pub retry: Retry,
    /// Limit of one whole transfer.
    pub transfer_limit: Duration,
}

/// Octets of a full block.
const BLOCK: usize = 512;

/// Largest file that is fetched.
const SIZE_LIMIT: u64 = 64 * 1024 * 1024;

/// Requests for the same block within one timeout.
const ASKED_PER_TIMEOUT: u32 = 4;

/// A packet of a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A block, numbered from 1, wrapping after 65535.
    Data(u16, &'a [u8]),
    /// Code and message.
    Error(u16, String),
}

/// Reads a packet from the wire.
///
/// # Errors
/// What is wrong with it.
pub fn read_packet(bytes: &[u8]) -> Result<Packet<'_>, String> {
    let [op_high, op_low, high, low, rest @ ..] = bytes else {
        return Err("the packet is too short".to_owned());
    };
    let number = u16::from_be_bytes([*high, *low]);
    match u16::from_be_bytes([*op_high, *op_low]) {
        3 if rest.len() <= BLOCK => Ok(Packet::Data(number, rest)),
        3 => Err(format!("a block of {} octets", rest.len())),
        5 => {
            let text: Vec<u8> = rest.iter().copied().take_while(|octet| *octet != 0).take(200).collect();
            Ok(Packet::Error(number, String::from_utf8_lossy(&text).into_owned()))
        }
        other => Err(format!("unexpected operation {other}")),
    }
}

/// The check.
#[derive(Debug)]
pub struct TftpCheck {
    spec: Spec,
}

impl TftpCheck {
    /// A check of the server.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    async fn attempt(&self) -> Result<(), String> {
        let Spec { host, port, file, .. } = &self.spec;
        let name = format!("tftp://{host}:{port}{file}");
        let transfer = timeout(self.spec.transfer_limit, self.fetch()).await;
        let digest = transfer
            .unwrap_or_else(|_| Err("the transfer takes too long".to_owned()))
            .map_err(|error| format!("{name}: {error}"))?;
        match &self.spec.sha256 {
            Some(wanted) if !wanted.eq_ignore_ascii_case(&digest) => {
                Err(format!("{name}: its SHA-256 is {digest}, not {wanted}"))
            }
            _ => Ok(()),
        }
    }

    /// Fetches the file and returns its digest.
    async fn fetch(&self) -> Result<String, String> {
        let Spec { host, port, file, retry, .. } = &self.spec;
        let server = match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, *port),
            Err(_) => {
                let mut found =
                    tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
                found.next().ok_or("the name has no address")?
            }
        };
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(|error| error.to_string())?;
        let mut transfer = Transfer { socket, to: server, fixed: false, size: 0, hasher: Sha256::new() };
        let mut request = [&[0, 1], file.as_bytes(), b"\0octet\0"].concat();
        let mut wanted: u16 = 1;
        loop {
            let last = transfer.next_block(&request, wanted, retry.timeout).await?;
            request = [[0, 4], wanted.to_be_bytes()].concat();
            if last {
                // Best effort: the server may have gone, the file is complete in any case.
                let _ = transfer.socket.send_to(&request, transfer.to).await;
                return Ok(hex::encode(transfer.hasher.finalize()));
            }
            wanted = wanted.wrapping_add(1);
        }
    }
}

struct Transfer {
    socket: UdpSocket,
    /// The request's address, then the server's port of this transfer.
    to: SocketAddr,
    fixed: bool,
    size: u64,
    hasher: Sha256,
}

impl Transfer {
    /// Sends `request` until block `wanted` comes; true = it was the last one.
    async fn next_block(&mut self, request: &[u8], wanted: u16, limit: Duration) -> Result<bool, String> {
        let deadline = Instant::now() + limit;
        let again = limit / ASKED_PER_TIMEOUT;
        let mut buffer = [0_u8; BLOCK + 5];
        while Instant::now() < deadline {
            self.socket.send_to(request, self.to).await.map_err(|error| error.to_string())?;
            let resend = (Instant::now() + again).min(deadline);
            while let Ok(received) = tokio::time::timeout_at(resend, self.socket.recv_from(&mut buffer)).await
            {
                let (length, from) = received.map_err(|error| error.to_string())?;
                if from.ip() != self.to.ip() || (self.fixed && from != self.to) {
                    continue;
                }
                match read_packet(&buffer[..length])? {
                    Packet::Error(code, text) => return Err(format!("error {code}: {text}")),
                    Packet::Data(number, data) if number == wanted => {
                        (self.to, self.fixed) = (from, true);
                        self.size += data.len() as u64;
                        if self.size > SIZE_LIMIT {
                            return Err(format!("the file is larger than {SIZE_LIMIT} octets"));
                        }
                        self.hasher.update(data);
                        return Ok(data.len() < BLOCK);
                    }
                    // A repetition: our acknowledgement is on its way or lost, and then asked for again.
                    Packet::Data(..) => {}
                }
            }
        }
        Err(format!("no answer within {}", humantime::format_duration(limit)))
    }
}

impl Check for TftpCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        // The retry's own limit is that of a whole transfer: progress, not duration, decides about a try.
        let retry = Retry { timeout: self.spec.transfer_limit, ..self.spec.retry };
        Box::pin(async move { retry.run(|| self.attempt()).await.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_or_refused() {
        assert_eq!(read_packet(&[0, 3, 0, 1, 9]), Ok(Packet::Data(1, &[9])));
        assert_eq!(read_packet(&[0, 5, 0, 1, b'n', b'o', 0]), Ok(Packet::Error(1, "no".to_owned())));
        assert!(read_packet(&[0, 3, 0]).is_err());
        assert!(read_packet(&[0, 6, 0, 0]).is_err());
        assert!(read_packet(&vec![0, 3, 0, 1].into_iter().chain([0; 513]).collect::<Vec<u8>>()).is_err());
    }
}
