//! `peer_client`: one long-lived connection of heartbeats, and the judgement whether the peer answers.
//!
//! ```text
//!  heartbeat (1x): dial, ping, answer, pause, ... close, back-off, dial  -- Beat (watch) --> judge (1x) --> bus
//! ```
//!
//! The judge has its own clock, so a connection attempt that hangs delays no verdict. Never carries messages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{Ctx, Exit};
use crate::bus::Bus;
use crate::config::peer::PeerSettings;
use crate::model::{Event, Mono, PeerStatus};
use crate::peer::dial::{self, PeerSocket};
use crate::peer::{PeerShared, message};

/// First and longest pause between two connections; each of them costs both sides a TLS handshake.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A connection that gave this many answers has proved itself, and the next pause is the short one again.
const PROVEN_ANSWERS: u64 = 3;

/// Heartbeats until cancelled.
pub async fn run(ctx: Ctx, settings: Arc<PeerSettings>, shared: PeerShared) -> Exit {
    let (beat, beats) = watch::channel(Beat::default());
    let loss = Duration::from_millis(settings.loss_ms);
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        () = shared.tls.keep_fresh(&ctx.cancel) => Exit::Cancelled,
        never = heartbeat(&settings, &shared, &ctx.bus, &beat) => match never {},
        () = judge(&ctx.bus, beats, loss) => Exit::Failed("the bus has no receiver".to_owned()),
    }
}

/// What the heartbeat has seen last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    /// When the peer last answered.
    pub(crate) answered: Option<Instant>,
    /// Why it did not.
    pub(crate) trouble: String,
}

/// Posts the link's state whenever it changes; ends when the engine is gone.
pub(crate) async fn judge(bus: &Bus, mut beats: watch::Receiver<Beat>, loss: Duration) {
    let mut link = Link::new(Instant::now(), loss);
    loop {
        tokio::select! {
            biased;
            changed = beats.changed() => if changed.is_err() { return },
            () = sleep_until(link.deadline()), if link.up != Some(false) => {}
        }
        let beat = beats.borrow_and_update().clone();
        let Some(up) = link.judge(Instant::now(), beat.answered) else { continue };
        let reason = match (up, beat.trouble.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!("no answer within {} ms", loss.as_millis()),
            (false, false) => beat.trouble,
        };
        tracing::info!(up, reason, "peer link");
        if !bus.send(Event::PeerLink { up, reason }).await {
            return;
        }
    }
}

/// Whether the peer answers; pure.
#[derive(Debug)]
struct Link {
    up: Option<bool>,
    since: Instant,
    loss: Duration,
}

impl Link {
    fn new(start: Instant, loss: Duration) -> Self {
        Self { up: None, since: start, loss }
    }

    /// When the link is lost unless an answer comes.
    fn deadline(&self) -> Instant {
        self.since + self.loss
    }

    /// The new state where it changed.
    fn judge(&mut self, now: Instant, answered: Option<Instant>) -> Option<bool> {
        let fresh = answered.is_some_and(|at| now.duration_since(at) < self.loss);
        if let Some(at) = answered {
            self.since = self.since.max(at);
        }
        let up = match (fresh, now >= self.deadline()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => return None,
        };
        (self.up != Some(up)).then(|| {
            self.up = Some(up);
            up
        })
    }
}

/// How a connection ended.
enum Ended {
    /// Our certificates were replaced.
    Renewed,
    /// Any other way, a close with 1000 included.
    Lost(String),
}

/// Connects and pings for ever. Every end but a renewal of our certificates is followed by a pause.
async fn heartbeat(
    settings: &PeerSettings,
    shared: &PeerShared,
    bus: &Bus,
    beat: &watch::Sender<Beat>,
) -> Infallible {
    let limit = Duration::from_millis(settings.loss_ms.clamp(1000, 10_000));
    let count = |result: &str| shared.metrics.connections.with_label_values(&["heartbeat", result]).inc();
    let mut sequence = 2;
    let mut pause = BACK_OFF.0;
    loop {
        let mut generation = shared.tls.generation();
        let why = match dial::dial(settings, &shared.tls, limit).await {
            Ok(socket) => {
                count("ok");
                let first = sequence;
                let mut talk = Talk { settings, shared, bus, beat, sequence: &mut sequence, socket };
                let ended = talk.run(&mut generation).await;
                if sequence - first > PROVEN_ANSWERS {
                    pause = BACK_OFF.0;
                }
                match ended {
                    Ended::Renewed => continue,
                    Ended::Lost(why) => why,
                }
            }
            Err(error) => {
                count("failed");
                error.to_string()
            }
        };
        tracing::debug!(why, "heartbeat connection ended");
        beat.send_modify(|beat| beat.trouble = why);
        sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

/// One heartbeat connection.
struct Talk<'a> {
    settings: &'a PeerSettings,
    shared: &'a PeerShared,
    bus: &'a Bus,
    beat: &'a watch::Sender<Beat>,
    sequence: &'a mut u64,
    socket: PeerSocket,
}

impl Talk<'_> {
    async fn run(&mut self, generation: &mut watch::Receiver<u64>) -> Ended {
        let loss = Duration::from_millis(self.settings.loss_ms);
        loop {
            let asked = self.bus.now();
            let next = Instant::now() + Duration::from_millis(self.settings.ping_ms);
            match timeout(loss, self.exchange()).await {
                Ok(Ok(answer)) => self.heard(&answer, asked).await,
                Ok(Err(why)) => return Ended::Lost(why),
                Err(_) => return Ended::Lost(format!("no answer within {} ms", loss.as_millis())),
            }
            tokio::select! {
                () = sleep_until(next) => {}
                _ = generation.changed() => return Ended::Renewed,
                why = lost(&mut self.socket) => return Ended::Lost(why),
            }
        }
    }

    /// Sends a heartbeat and waits for its answer.
    async fn exchange(&mut self) -> Result<Bytes, String> {
        let status = self.shared.status.borrow().clone();
        let ping = message::encode_ping(*self.sequence, &self.shared.instance, &status);
        *self.sequence += 1;
        self.socket.send(Message::text(ping)).await.map_err(|error| error.to_string())?;
        dial::next_frame(&mut self.socket).await
    }

    async fn heard(&self, answer: &[u8], asked: Mono) {
        self.beat.send_modify(|beat| {
            beat.answered = Some(Instant::now());
            beat.trouble.clear();
        });
        post_answered(self.bus, self.shared, asked).await;
        if let Some(status) = message::decode_answer(answer).status {
            post_status(self.bus, self.shared, status).await;
        }
    }
}

/// Tells the engine that the peer answered a heartbeat sent at `asked`. Counted from the sending: what the peer knew
/// is no newer than that.
async fn post_answered(bus: &Bus, shared: &PeerShared, asked: Mono) {
    if !offer_answered(bus, asked).await {
        shared.metrics.statuses_dropped.inc();
    }
}

/// The same; `false` = dropped.
pub(crate) async fn offer_answered(bus: &Bus, asked: Mono) -> bool {
    timeout(Duration::from_millis(100), bus.send(Event::PeerAnswered { asked })).await.is_ok()
}

/// Hands a status to the engine; with a full bus it is dropped, since the next one comes in a second.
pub(super) async fn post_status(bus: &Bus, shared: &PeerShared, status: PeerStatus) {
    if !offer_status(bus, status).await {
        shared.metrics.statuses_dropped.inc();
    }
}

/// The same; `false` = dropped.
pub(crate) async fn offer_status(bus: &Bus, status: PeerStatus) -> bool {
    timeout(Duration::from_millis(100), bus.send(Event::PeerStatus(status))).await.is_ok()
}

/// Reads (and so answers control pings) until the connection ends.
async fn lost(socket: &mut PeerSocket) -> String {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => {
                let code =
                    frame.map_or_else(|| "no code".to_owned(), |frame| u16::from(frame.code).to_string());
                return format!("the peer closed the connection with {code}");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.to_string(),
            None => return "the peer closed the connection".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSS: Duration = Duration::from_secs(3);

    #[test]
    fn the_link_goes_up_with_the_first_answer_and_down_once_after_the_loss_time() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut link = Link::new(start, LOSS);
        assert_eq!(link.judge(at(1.0), None), None);
        assert_eq!(link.judge(at(1.5), Some(at(1.5))), Some(true));
        assert_eq!(link.judge(at(2.5), Some(at(2.5))), None);
        assert_eq!(link.deadline(), at(5.5));
        assert_eq!(link.judge(at(5.4), Some(at(2.5))), None);
        assert_eq!(link.judge(at(5.5), Some(at(2.5))), Some(false));
        assert_eq!(link.judge(at(9.0), Some(at(2.5))), None);
        assert_eq!(link.judge(at(9.5), Some(at(9.5))), Some(true));
    }

    #[test]
    fn a_peer_that_never_answers_is_lost_after_the_loss_time() {
        let start = Instant::now();
        let mut link = Link::new(start, LOSS);
        assert_eq!(link.judge(start + LOSS / 2, None), None);
        assert_eq!(link.judge(start + LOSS, None), Some(false));
    }
}
