//! The global load balancer's view as DNS: what a site's resolvers answer, and responders that answer so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::faults::Fault;
use super::world::{SiteHandle, World};
use crate::model::Side;

/// Time to live of answers in seconds: none, every question is meant to be asked again.
const TTL: u32 = 0;
/// TCP connections at one time for one responder.
const CONNECTION_LIMIT: usize = 64;
/// Time in which a question must come on a TCP connection.
const QUESTION_TIME: Duration = Duration::from_secs(5);

/// What a site's resolvers say about the name of the global load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// The name exists and has no address.
    Empty,
    /// SERVFAIL.
    ServerFailure,
    /// Nothing at all.
    Silence,
}

/// The view of a site; `responder` is the number of one of its DNS responders, `None` its `/dns` view.
pub fn view(world: &World, side: Side, responder: Option<usize>) -> View {
    let on = |fault| world.with(side, |site, _| site.faults.on(fault)) == Some(true);
    let settings = world.settings();
    if on(Fault::DnsTimeout) {
        return View::Silence;
    }
    if on(Fault::DnsLookupError) || on(Fault::DnsServfail) {
        return View::ServerFailure;
    }
    if on(Fault::DnsFlip) || (responder == Some(0) && on(Fault::DnsOneResolverLies)) {
        return View::Addresses(vec![settings.passive_ip]);
    }
    let ready = |side| world.facts(side).map(|facts| facts.health_ready);
    match (ready(Side::Active), ready(Side::Passive)) {
        (Some(true), _) => View::Addresses(vec![settings.active_ip]),
        (Some(false), Some(true)) => View::Addresses(vec![settings.passive_ip]),
        // The other site was never seen: nobody can say what the load balancer would answer.
        _ => View::Empty,
    }
}

/// Starts a responder on UDP and TCP at one address.
pub(super) async fn serve(
    world: World,
    side: Side,
    number: usize,
    address: SocketAddr,
) -> io::Result<SiteHandle> {
    let (udp, tcp) = bind_both(address).await?;
    let bound = udp.local_addr()?;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve_udp(&world, side, number, &udp) => {}
            () = serve_tcp(&world, side, number, &tcp, &stop) => {}
        }
    });
    Ok(SiteHandle::new(bound, cancel, task))
}

/// With port 0 the same free port is needed twice: tried a few times, since another process may take it.
async fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { 20 } else { 1 };
    loop {
        let udp = UdpSocket::bind(address).await?;
        tries -= 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

async fn serve_udp(world: &World, side: Side, number: usize, socket: &UdpSocket) {
    let mut buffer = vec![0; 4096];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if let Some(answer) = answer(world, side, number, &buffer[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
            // ICMP errors of earlier answers come up here; they end nothing.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn serve_tcp(
    world: &World,
    side: Side,
    number: usize,
    listener: &TcpListener,
    stop: &CancellationToken,
) {
    let limit = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    loop {
        let permit = Arc::clone(&limit).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (world, stop) = (world.clone(), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = serve_stream(&world, side, number, stream) => {}
            }
        });
    }
}

async fn serve_stream(world: &World, side: Side, number: usize, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(QUESTION_TIME, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(QUESTION_TIME, stream.read_exact(&mut question)).await??;
        let Some(answer) = answer(world, side, number, &question) else { continue };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer to a question; `None` = silence (a fault, or nothing that can be answered).
fn answer(world: &World, side: Side, number: usize, question: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    reply.add_queries(asked.queries.iter().cloned());
    let [query] = asked.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return reply.to_vec().ok();
    };
    if asked.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return reply.to_vec().ok();
    }
    let settings = world.settings();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let on = |fault| world.with(side, |site, _| site.faults.on(fault)) == Some(true);
    let view = if name == settings.gslb_name.to_ascii_lowercase() {
        view(world, side, Some(number))
    } else if on(Fault::DnsTimeout) {
        View::Silence
    } else if on(Fault::DnsServfail) {
        View::ServerFailure
    } else if name == settings.self_test_name.to_ascii_lowercase() {
        View::Addresses(vec![settings.self_test_address])
    } else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        View::Empty
    };
    match view {
        View::Silence => return None,
        View::ServerFailure => reply.metadata.response_code = ResponseCode::ServFail,
        View::Empty => {}
        View::Addresses(addresses) if query.query_type() == RecordType::A => {
            for address in addresses {
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL, RData::A(A(address))));
            }
        }
        View::Addresses(_) => {}
    }
    reply.to_vec().ok()
}
