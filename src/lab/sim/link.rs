//! The line between two simulated agents: frames of the shipped protocol, carried by the world instead of TLS.
//!
//! ```text
//!  heartbeat ── encode_ping ──▶ line ──▶ serve ── decode, status to the bus, encode_pong ──▶ line ──▶ decode_answer
//!  forward   ── encode_from_peer ──▶ line ──▶ serve ── give_to_engine, ack ──▶ line ──▶ delivered
//! ```
//!
//! Sockets, TLS and websocket framing are replaced; what is said, judged and acknowledged is the shipped code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gate::Gate;
use super::world::Shared;
use crate::bus::Bus;
use crate::model::{Detail, OutboxId, PeerMessage, PeerStatus, Side};
use crate::peer::delivery::{Delivery, DeliveryError, DeliveryQueue};
use crate::peer::message::{self, Request};
use crate::tasks::peer_client::{Beat, offer_answered, offer_status};
use crate::tasks::{peer_client_fwd, peer_server};

/// Pauses between two connections.
const BACK_OFF_MS: (u64, u64) = (200, 2_000);
/// A message that comes a second time comes at most this much later.
const REPEAT_MS: u64 = 300_000;

/// One agent as the other one can reach it.
#[derive(Clone)]
pub struct Door {
    /// Name of the process.
    pub instance: String,
    /// Its bus.
    pub bus: Bus,
    /// What it tells.
    pub status: watch::Receiver<PeerStatus>,
    /// What it has handled.
    pub handled: watch::Receiver<BTreeMap<String, OutboxId>>,
    /// Whether it stands still.
    pub gate: Arc<Gate>,
}

/// Both agents, where they run.
#[derive(Clone, Default)]
pub struct Doors {
    doors: Arc<Mutex<[Option<Door>; 2]>>,
}

impl Doors {
    /// Opens or closes the door of a side.
    pub fn set(&self, side: Side, door: Option<Door>) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)[side as usize] = door;
    }

    /// The door of a side.
    pub fn get(&self, side: Side) -> Option<Door> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)[side as usize].clone()
    }
}

/// One end of the line.
#[derive(Clone)]
pub struct End {
    /// The world.
    pub shared: Shared,
    /// Our side.
    pub side: Side,
    /// Who can be reached.
    pub doors: Doors,
    /// Ourselves.
    pub own: Door,
}

impl End {
    /// Carries a frame in one direction. A frame that is lost is waited for until somebody's time is over.
    async fn carry(&self, from: Side) {
        let wait = {
            let mut world = self.shared.lock();
            let (delay, loss, carries) = (world.line.delay, world.line.loss, world.line.carries(from));
            let sensor_loss = world.sensor_loss;
            let dice = world.dice();
            let lost = dice.chance(loss) || dice.chance(sensor_loss);
            (carries && !lost).then(|| dice.between(3, 20) + dice.between(0, delay))
        };
        match wait {
            Some(ms) => sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    }

    /// There and back again.
    ///
    /// # Errors
    /// Nobody listens, or the other agent closes the connection.
    async fn exchange(&self, frame: &str) -> Result<String, String> {
        self.carry(self.side).await;
        let door = self.doors.get(self.side.other()).ok_or("connection refused")?;
        door.gate.pass().await;
        let answer = serve(&door, frame).await?;
        door.gate.pass().await;
        let same = self.doors.get(self.side.other()).is_some_and(|now| now.instance == door.instance);
        if !same {
            return Err("connection reset".to_owned());
        }
        self.carry(self.side.other()).await;
        Ok(answer)
    }

    /// As `peer_client`'s heartbeat.
    pub async fn heartbeat(self, beat: watch::Sender<Beat>) {
        let pace = self.shared.plan.pace;
        let loss = Duration::from_millis(pace.loss);
        let (mut sequence, mut pause) = (2, BACK_OFF_MS.0);
        loop {
            let asked = self.own.bus.now();
            let next = Instant::now() + Duration::from_millis(pace.ping);
            let status = self.own.status.borrow().clone();
            let ping = message::encode_ping(sequence, &self.own.instance, &status);
            sequence += 1;
            let trouble = match timeout(loss, self.exchange(&ping)).await {
                Ok(Ok(answer)) => {
                    beat.send_modify(|beat| {
                        beat.answered = Some(Instant::now());
                        beat.trouble.clear();
                    });
                    offer_answered(&self.own.bus, asked).await;
                    if let Some(status) = message::decode_answer(answer.as_bytes()).status {
                        offer_status(&self.own.bus, status).await;
                    }
                    pause = BACK_OFF_MS.0;
                    sleep_until(next).await;
                    continue;
                }
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} ms", pace.loss),
            };
            beat.send_modify(|beat| beat.trouble = trouble);
            sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(BACK_OFF_MS.1);
        }
    }

    /// As `peer_client_fwd`.
    pub async fn forward(self, queue: DeliveryQueue) {
        while let Some(delivery) = queue.next().await {
            let Delivery { id, message, reply } = delivery;
            let result = self.deliver(id, &message).await;
            drop(reply.send(result));
        }
    }

    async fn deliver(&self, id: OutboxId, message: &PeerMessage) -> Result<Detail, DeliveryError> {
        let peer = "the peer".to_owned();
        let limit_ms = self.shared.plan.pace.forward;
        let frame = message::encode_from_peer(message, &self.own.instance, id);
        self.maybe_repeat(&frame);
        match timeout(Duration::from_millis(limit_ms), self.exchange(&frame)).await {
            Ok(Ok(answer)) => {
                peer_client_fwd::delivered(&message::decode_answer(answer.as_bytes()), id, &peer)
            }
            Ok(Err(why)) => Err(DeliveryError::NotDelivered { id, peer, why }),
            Err(_) => Err(DeliveryError::NoAnswer { id, peer, limit_ms }),
        }
    }

    /// A copy of a message that comes much later, whoever runs there by then.
    fn maybe_repeat(&self, frame: &str) {
        let later = {
            let mut world = self.shared.lock();
            let chance = world.line.repeat;
            let dice = world.dice();
            dice.chance(chance).then(|| dice.between(10, REPEAT_MS))
        };
        let Some(later) = later else { return };
        let (doors, side, frame) = (self.doors.clone(), self.side.other(), frame.to_owned());
        tokio::spawn(async move {
            sleep(Duration::from_millis(later)).await;
            if let Some(door) = doors.get(side)
                && let Ok(Request::FromPeer { message: Some(message), stamp }) =
                    message::decode_request(frame.as_bytes())
            {
                let event = crate::model::Event::PeerMessage { id: stamp, message, authenticated: true };
                door.bus.send(event).await;
            }
        });
    }
}

/// As a session of `peer_server`: one frame, one answer.
async fn serve(door: &Door, frame: &str) -> Result<String, String> {
    let request = message::decode_request(frame.as_bytes()).map_err(|error| error.to_string())?;
    let ack = match request {
        Request::Ping { status } => {
            if let Some(status) = status {
                offer_status(&door.bus, status).await;
            }
            None
        }
        Request::FromPeer { message: Some(message), stamp } => {
            peer_server::give_to_engine(&door.bus, door.handled.clone(), message, stamp, true)
                .await
                .map_err(|_| "closed: the engine takes no message now".to_owned())?
        }
        Request::FromPeer { message: None, .. } | Request::Unknown { .. } => None,
    };
    let status = door.status.borrow().clone();
    Ok(message::encode_pong(&door.instance, Some(&status), ack))
}
