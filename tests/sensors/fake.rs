//! Scripted systems: an HTTP server whose answers are set by path, a socket that accepts and closes, one that accepts
//! and stays silent, and a DNS responder.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http::{HeaderMap, StatusCode};
use tokio::net::{TcpListener, UdpSocket};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An HTTP server with scripted answers; what is not scripted is 404.
#[derive(Clone)]
pub struct Site {
    pub base: String,
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let site = Self { base, answers: Arc::default(), seen: Arc::default() };
        let router = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        site
    }

    /// Scripts the answer to `METHOD /path`.
    pub fn on(&self, what: &str, status: u16, body: impl Into<String>) -> &Self {
        self.answers.lock().unwrap().insert(what.to_owned(), (status, body.into()));
        self
    }

    /// Requests so far whose method and path begin so.
    pub fn seen(&self, what: &str) -> Vec<Seen> {
        let all = self.seen.lock().unwrap();
        all.iter()
            .filter(|seen| format!("{} {}", seen.method, seen.path).starts_with(what))
            .cloned()
            .collect()
    }
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
    let found = site.answers.lock().unwrap().get(&format!("{method} {path}")).cloned();
    site.seen.lock().unwrap().push(Seen { method, path, headers: parts.headers, body });
    let (status, text) = found.unwrap_or((404, "not found".to_owned()));
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

/// Accepts, reads a little, closes without an answer: what Patroni does when it has lost etcd.
pub async fn closing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.readable().await;
            let _ = stream.try_read(&mut [0; 4096]);
        }
    });
    base
}

/// Accepts and never answers.
pub async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    base
}

/// How the DNS responder treats a name.
#[derive(Debug, Clone)]
pub enum Mood {
    Addresses(Vec<IpAddr>),
    Code(ResponseCode),
    Empty,
    Referral,
    Silent,
}

/// A DNS responder on loopback UDP; a name that is not scripted does not exist.
#[derive(Clone)]
pub struct Dns {
    pub address: SocketAddr,
    moods: Arc<Mutex<BTreeMap<String, Mood>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns =
            Self { address: socket.local_addr().unwrap(), moods: Arc::default(), asked: Arc::default() };
        let served = dns.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(reply) = served.reply(&buffer[..length]) {
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        dns
    }

    pub fn set(&self, name: &str, mood: Mood) -> &Self {
        self.moods.lock().unwrap().insert(name.to_owned(), mood);
        self
    }

    /// Sets the A records of a name.
    pub fn points(&self, name: &str, addresses: &[&str]) -> &Self {
        self.set(name, Mood::Addresses(addresses.iter().map(|ip| ip.parse().unwrap()).collect()))
    }

    /// Names that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn reply(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let request = Message::from_vec(bytes).ok()?;
        let query = request.queries.first()?.clone();
        let name = query.name().to_string().to_ascii_lowercase();
        self.asked.lock().unwrap().push(name.clone());
        let mood = self.moods.lock().unwrap().get(&name).cloned();
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        match mood.unwrap_or(Mood::Code(ResponseCode::NXDomain)) {
            Mood::Addresses(list) => {
                for ip in list {
                    reply.answers.extend(record(&query, ip));
                }
            }
            Mood::Code(code) => reply.metadata.response_code = code,
            Mood::Empty => {}
            Mood::Referral => {
                let ns = NS(Name::from_str("ns.dr.test.").unwrap());
                let zone = Name::from_str("dr.test.").unwrap();
                reply.authorities.push(Record::from_rdata(zone, 5, RData::NS(ns)));
            }
            Mood::Silent => return None,
        }
        Some(reply.to_vec().unwrap())
    }
}

fn record(query: &Query, ip: IpAddr) -> Option<Record> {
    let data = match (query.query_type(), ip) {
        (RecordType::A, IpAddr::V4(ip)) => RData::A(A(ip)),
        (RecordType::AAAA, IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
        _ => return None,
    };
    Some(Record::from_rdata(query.name().clone(), 0, data))
}
