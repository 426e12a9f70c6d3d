//! `dns_lookup` and `dns`: a DNS server answers as expected, asked directly over UDP (then TCP where cut short).
//!
//! Neither `/etc/hosts` nor search domains can satisfy a check, unless `dns_lookup` is told to allow the former.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::{Boxed, BuildError, Check, Report, Retry};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name to ask for, always taken as complete.
    pub name: String,
    /// Record types to ask for; one that answers is enough.
    pub types: Vec<String>,
    /// Server as `host:port`; `None` = the first one of `/etc/resolv.conf`.
    pub server: Option<String>,
    /// Ask over TCP at once.
    pub tcp: bool,
    /// Response code that passes: `NOERROR`, `NXDOMAIN`, ...
    pub rcode: String,
    /// Values that the answer must hold, in the text form of the record type.
    pub expected: BTreeSet<String>,
    /// The answer must hold nothing else.
    pub exact: bool,
    /// `/etc/hosts` may answer, as with the Go predecessor.
    pub hosts_file: bool,
    /// Tries and their limits.
    pub retry: Retry,
}

/// Largest UDP answer that we offer to take (RFC 9715 §3).
const PAYLOAD: u16 = 1232;

/// The check.
#[derive(Debug)]
pub struct DnsCheck {
    spec: Spec,
    name: Name,
    types: Vec<RecordType>,
    rcode: ResponseCode,
}

/// The response code of a name as RFC 6895 writes it.
fn parse_rcode(text: &str) -> Option<ResponseCode> {
    Some(match text.to_ascii_uppercase().as_str() {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        _ => return None,
    })
}

impl DnsCheck {
    /// A check of the server.
    ///
    /// # Errors
    /// A name, type or response code that is none.
    pub fn new(spec: Spec) -> Result<Self, BuildError> {
        let mut name = Name::from_utf8(&spec.name)
            .map_err(|_| BuildError(format!("{:?} is not a DNS name", spec.name)))?;
        name.set_fqdn(true);
        let types = spec
            .types
            .iter()
            .map(|text| text.to_ascii_uppercase().parse::<RecordType>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BuildError(format!("{:?} are not all record types", spec.types)))?;
        let rcode = parse_rcode(&spec.rcode)
            .ok_or_else(|| BuildError(format!("{:?} is not a response code", spec.rcode)))?;
        Ok(Self { spec, name, types, rcode })
    }

    async fn attempt(&self) -> Result<(), String> {
        if self.spec.hosts_file && hosts_file_knows(&self.spec.name) {
            return Ok(());
        }
        let server = self.server().await?;
        let answers = self.types.iter().map(|record_type| self.ask(server, *record_type));
        let answers = futures_util::future::join_all(answers).await;
        let mut found = BTreeSet::new();
        let mut last = None;
        for answer in answers {
            match answer {
                Ok(values) => found.extend(values),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if found.is_empty() => Err(error),
            _ => self.compare(&found),
        }
    }

    fn compare(&self, found: &BTreeSet<String>) -> Result<(), String> {
        let name = &self.spec.name;
        if self.rcode != ResponseCode::NoError {
            return Ok(());
        }
        if found.is_empty() {
            return Err(format!("{name} has no {} record", self.spec.types.join(" or ")));
        }
        if let Some(missing) = self.spec.expected.iter().find(|value| !found.contains(*value)) {
            return Err(format!("{name} lacks {missing}, it has {found:?}"));
        }
        match found.iter().find(|value| !self.spec.expected.contains(*value)) {
            Some(extra) if self.spec.exact => Err(format!("{name} has {extra}, which is not expected")),
            _ => Ok(()),
        }
    }

    async fn server(&self) -> Result<SocketAddr, String> {
        let Some(server) = &self.spec.server else { return system_server() };
        if let Ok(address) = server.parse() {
            return Ok(address);
        }
        let mut found =
            tokio::net::lookup_host(server).await.map_err(|error| format!("{server}: {error}"))?;
        found.next().ok_or_else(|| format!("{server}: the name has no address"))
    }

    async fn ask(&self, server: SocketAddr, record_type: RecordType) -> Result<BTreeSet<String>, String> {
        let at = |error: &dyn std::fmt::Display| {
            format!("{} {record_type} from {server}: {error}", self.spec.name)
        };
        let id: u16 = rand::random();
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        message.add_query(Query::query(self.name.clone(), record_type)).set_edns(edns);
        let query = message.to_vec().map_err(|error| at(&error))?;
        if !self.spec.tcp {
            let answer = over_udp(server, &query, id).await.map_err(|error| at(&error))?;
            match read_answer(&answer, id, &self.name, record_type).map_err(|error| at(&error))? {
                Answer::CutShort => {}
                Answer::Whole(rcode, values) => return self.check_rcode(rcode, values).map_err(|e| at(&e)),
            }
        }
        let answer = over_tcp(server, &query).await.map_err(|error| at(&error))?;
        match read_answer(&answer, id, &self.name, record_type).map_err(|error| at(&error))? {
            Answer::CutShort => Err(at(&"cut short over TCP")),
            Answer::Whole(rcode, values) => self.check_rcode(rcode, values).map_err(|e| at(&e)),
        }
    }

    fn check_rcode(&self, rcode: ResponseCode, values: BTreeSet<String>) -> Result<BTreeSet<String>, String> {
        if rcode == self.rcode { Ok(values) } else { Err(format!("answered {rcode}")) }
    }
}

/// What a datagram says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The TC bit is set: ask again over TCP.
    CutShort,
    /// Response code, and the values of all records of the type.
    Whole(ResponseCode, BTreeSet<String>),
}

/// Reads an answer from the wire; anything that does not answer this question is an error.
///
/// # Errors
/// What is wrong with it.
pub fn read_answer(bytes: &[u8], id: u16, name: &Name, record_type: RecordType) -> Result<Answer, String> {
    let message = Message::from_vec(bytes).map_err(|error| format!("malformed answer: {error}"))?;
    if message.metadata.id != id || message.metadata.message_type != MessageType::Response {
        return Err("not an answer to this question".to_owned());
    }
    let asked = message.queries.first().is_none_or(|q| q.name() == name && q.query_type() == record_type);
    if !asked {
        return Err("an answer to another question".to_owned());
    }
    if message.metadata.truncation {
        return Ok(Answer::CutShort);
    }
    let values = message
        .answers
        .iter()
        .filter(|record| record.record_type() == record_type)
        .map(|record| match &record.data {
            RData::TXT(txt) => txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect(),
            data => data.to_string(),
        })
        .collect();
    Ok(Answer::Whole(message.metadata.response_code, values))
}

async fn over_udp(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0_u8; usize::from(PAYLOAD) + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A late answer to an earlier try carries another number.
        if length >= 12 && buffer[..2] == id.to_be_bytes() {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    let framed = [&length.to_be_bytes(), query].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn hosts_file_knows(name: &str) -> bool {
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    text.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().skip(1).any(|host| host.eq_ignore_ascii_case(name.trim_end_matches('.')))
    })
}

fn system_server() -> Result<SocketAddr, String> {
    let text =
        std::fs::read_to_string("/etc/resolv.conf").map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .find_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .ok_or_else(|| "/etc/resolv.conf names no server".to_owned())
}

impl Check for DnsCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async { self.spec.retry.run(|| self.attempt()).await.into() })
    }
}

impl Spec {
    /// The specification of `dns_lookup`: at least one address.
    pub fn lookup(name: String, server: String, retry: Retry) -> Self {
        Self {
            name,
            types: vec!["A".to_owned(), "AAAA".to_owned()],
            server: Some(server),
            tcp: false,
            rcode: "NOERROR".to_owned(),
            expected: BTreeSet::new(),
            exact: false,
            hosts_file: false,
            retry,
        }
    }

    /// The whole run's limit.
    pub fn longest(&self) -> Duration {
        self.retry.longest()
    }
}
