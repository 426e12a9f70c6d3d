//! One HTTP request to a daemon's REST port, blocking, for harness code that runs in plain threads.
//!
//! Owns: the bytes of a request without keep-alive. Never: TLS, redirects, retries.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Status and body of the answer; `None` when there was no whole answer (which Patroni gives when etcd is gone).
pub fn request(method: &str, address: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let socket: SocketAddr = address.parse().expect("ip:port");
    let mut stream = TcpStream::connect_timeout(&socket, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Only the status.
pub fn status(address: &str, path: &str) -> Option<u16> {
    request("GET", address, path, "").map(|(status, _)| status)
}
