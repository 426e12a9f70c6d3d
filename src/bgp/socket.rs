//! The TCP connection to a neighbour, with the options that BGP wants set before the handshake.
//!
//! Owns every socket option of the speaker; never a byte of BGP. TCP-MD5 (RFC 2385) and the minimum TTL of GTSM
//! (RFC 5082) have no safe wrapper in any library used here, so `set_option` below is the one unsafe call.

use std::io;
use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::bgp::NeighbourSettings;

/// DSCP CS6, "network control" (RFC 4594 §3.1).
const DSCP_CS6: u32 = 0xC0;

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An option could not be set; `what` names it.
    #[error("{what} towards {remote}")]
    Option {
        /// The option, in words.
        what: &'static str,
        /// The neighbour.
        remote: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The handshake failed.
    #[error("connect to {remote}")]
    Connect {
        /// The neighbour.
        remote: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No answer: a filter, a dead host, or a wrong TCP-MD5 key, which looks the same.
    #[error("connect to {remote}: no answer within {limit:?}{}", if *.md5 { " (a wrong TCP-MD5 key is silent)" } else { "" })]
    Timeout {
        /// The neighbour.
        remote: SocketAddr,
        /// How long was waited.
        limit: Duration,
        /// Whether a TCP-MD5 key is set.
        md5: bool,
    },
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; 80],
}

/// Connects to a neighbour from its source address, with TTL, GTSM, MD5, DSCP and device as configured.
///
/// # Errors
/// See [`ConnectError`]; every variant names the neighbour.
pub async fn connect(
    neighbour: &NeighbourSettings,
    source: Option<IpAddr>,
    ibgp: bool,
) -> Result<TcpStream, ConnectError> {
    let remote = SocketAddr::new(neighbour.address, neighbour.port);
    let socket = prepare(neighbour, source, ibgp, remote)?;
    let limit = Duration::from_millis(neighbour.connect_timeout_ms);
    let dial = TcpSocket::from_std_stream(socket.into()).connect(remote);
    match tokio::time::timeout(limit, dial).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(ConnectError::Connect { remote, source }),
        Err(_) => Err(ConnectError::Timeout { remote, limit, md5: neighbour.password.is_some() }),
    }
}

fn prepare(
    neighbour: &NeighbourSettings,
    source: Option<IpAddr>,
    ibgp: bool,
    remote: SocketAddr,
) -> Result<Socket, ConnectError> {
    let named = |what: &'static str| move |source: io::Error| ConnectError::Option { what, remote, source };
    let v4 = remote.is_ipv4();
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(named("make a socket"))?;
    socket.set_nonblocking(true).map_err(named("make the socket non-blocking"))?;
    socket.set_tcp_nodelay(true).map_err(named("set TCP_NODELAY"))?;
    if v4 {
        socket.set_tos_v4(DSCP_CS6).map_err(named("set DSCP CS6"))?;
    } else {
        socket.set_tclass_v6(DSCP_CS6).map_err(named("set DSCP CS6"))?;
    }
    if let Some(device) = &neighbour.interface {
        socket.bind_device(Some(device.as_bytes())).map_err(named("bind to the interface"))?;
    }
    if let Some(address) = source {
        socket.bind(&SockAddr::from(SocketAddr::new(address, 0))).map_err(named("bind to local_address"))?;
    }
    set_ttl(&socket, neighbour, ibgp, v4).map_err(named("set the TTL"))?;
    if let Some(password) = &neighbour.password {
        set_md5_key(socket.as_raw_fd(), remote, password.expose()).map_err(named("set the TCP-MD5 key"))?;
    }
    Ok(socket)
}

/// GTSM: send 255 and take nothing that came further than allowed. Multihop: as configured. Plain eBGP: 1. iBGP: the
/// kernel's default.
fn set_ttl(socket: &Socket, neighbour: &NeighbourSettings, ibgp: bool, v4: bool) -> io::Result<()> {
    let ttl = match (neighbour.ttl_security_hops, neighbour.multihop_ttl) {
        (Some(_), _) => Some(255),
        (None, Some(ttl)) => Some(u32::from(ttl)),
        (None, None) if !ibgp => Some(1),
        (None, None) => None,
    };
    if let Some(ttl) = ttl {
        if v4 {
            socket.set_ttl_v4(ttl)?;
        } else {
            socket.set_unicast_hops_v6(ttl)?;
        }
    }
    if let Some(hops) = neighbour.ttl_security_hops {
        let minimum = libc::c_int::from(255 - (hops - 1));
        let (level, name) = if v4 {
            (libc::IPPROTO_IP, libc::IP_MINTTL)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
        };
        set_option(socket.as_raw_fd(), level, name, &minimum)?;
    }
    Ok(())
}

fn set_md5_key(fd: RawFd, remote: SocketAddr, key: &str) -> io::Result<()> {
    let key = key.as_bytes();
    if key.is_empty() || key.len() > 80 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a TCP-MD5 key has 1 to 80 bytes"));
    }
    let mut request = TcpMd5Sig {
        address: storage(remote),
        flags: 0,
        prefix_length: 0,
        key_length: key.len() as u16,
        interface: 0,
        key: [0; 80],
    };
    request.key[..key.len()].copy_from_slice(key);
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &request)
}

/// The address in the kernel's shape.
#[expect(unsafe_code, reason = "a sockaddr_storage is plain bytes, and only its C layout can be handed over")]
fn storage(remote: SocketAddr) -> libc::sockaddr_storage {
    let address = SockAddr::from(remote);
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = usize::min(address.len() as usize, size_of::<libc::sockaddr_storage>());
    // SAFETY: both sides are valid for `length` bytes, which neither exceeds, and they do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), length);
    }
    storage
}

#[expect(unsafe_code, reason = "TCP_MD5SIG, IP_MINTTL and IPV6_MINHOPCOUNT have no safe wrapper")]
fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live, initialised C value of exactly the stated size, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
