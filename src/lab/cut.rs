//! A line that can be cut: a small TCP proxy between the agents' peer ports.
//!
//! A cut line drops new connections and swallows what comes on open ones, in one direction or in both, so that both
//! ends see silence, as with a dead link. When the line is whole again, the connections on which something was
//! swallowed are closed: TCP would have delivered it or reset them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::world::World;

/// Connections at one time.
const CONNECTION_LIMIT: usize = 256;
/// Time to connect to the far end.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How often a waiting end looks whether the line is still cut.
const LOOK: Duration = Duration::from_millis(20);

const FORTH: u8 = 1;
const BACK: u8 = 2;
const REFUSE: u8 = 4;

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Whole,
    /// Both directions are silent; new connections open and stay silent.
    Silent,
    /// From the near end to the far end silent.
    Forth,
    /// From the far end to the near end silent.
    Back,
    /// Connections are closed at once, open ones too.
    Refused,
}

/// A proxy; dropping it closes everything.
pub struct Line {
    address: SocketAddr,
    state: Arc<LineState>,
    cancel: CancellationToken,
}

struct LineState {
    own: AtomicU8,
    world: Option<World>,
}

impl LineState {
    /// A partition of the world is a silent line, whatever the line's own state.
    fn now(&self) -> u8 {
        let own = self.own.load(Ordering::SeqCst);
        let partitioned = self.world.as_ref().is_some_and(World::partitioned);
        if partitioned { own | FORTH | BACK } else { own }
    }
}

impl Line {
    /// A line from `listener` to `far`. With a world it is also cut while that world is partitioned.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn open(listener: TcpListener, far: SocketAddr, world: Option<World>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(LineState { own: AtomicU8::new(0), world });
        let cancel = CancellationToken::new();
        tokio::spawn(accept(listener, far, Arc::clone(&state), cancel.clone()));
        Ok(Self { address, state, cancel })
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or mends the line.
    pub fn set(&self, cut: Cut) {
        let bits = match cut {
            Cut::Whole => 0,
            Cut::Silent => FORTH | BACK,
            Cut::Forth => FORTH,
            Cut::Back => BACK,
            Cut::Refused => REFUSE,
        };
        self.state.own.store(bits, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept(listener: TcpListener, far: SocketAddr, state: Arc<LineState>, cancel: CancellationToken) {
    let limit = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    loop {
        let permit = Arc::clone(&limit).acquire_owned().await;
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((near, _)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let (state, cancel) = (Arc::clone(&state), cancel.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = cancel.cancelled() => {}
                () = carry(near, far, &state) => {}
            }
        });
    }
}

async fn carry(near: TcpStream, far: SocketAddr, state: &LineState) {
    // A connection that begins on a silent line waits with it, as one whose packets are lost.
    while state.now() & (FORTH | BACK) != 0 {
        tokio::time::sleep(LOOK).await;
    }
    if state.now() & REFUSE != 0 {
        return;
    }
    let Ok(Ok(far)) = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(far)).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // Both directions must end: a half that is closed does not silence the other one.
    let both = async {
        tokio::join!(pump(near_read, far_write, state, FORTH), pump(far_read, near_write, state, BACK))
    };
    tokio::select! {
        _ = both => {}
        () = broken(state) => {}
    }
}

/// Ends when the line refuses, or when it is whole again after having swallowed something.
async fn broken(state: &LineState) {
    let mut was_cut = false;
    loop {
        let now = state.now();
        if now & REFUSE != 0 || (was_cut && now == 0) {
            return;
        }
        was_cut |= now != 0;
        tokio::time::sleep(LOOK).await;
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &LineState, direction: u8) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => 0,
            Ok(length) => length,
        };
        let cut = state.now() & direction != 0;
        if length == 0 {
            // The end of a stream is swallowed too.
            while state.now() & direction != 0 {
                tokio::time::sleep(LOOK).await;
            }
            let _ = to.shutdown().await;
            return;
        }
        if !cut && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
