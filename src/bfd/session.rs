//! One BFD session (RFC 5880 §6.8): a pure machine without clock, socket or randomness.
//!
//! ```text
//!                 hears Down                       hears Init or Up
//!   Down --------------------------> Init ----------------------------> Up
//!    | `------------- hears Init --------------------------------------^ |
//!    ^                                  |                                |
//!    +----- nothing for the detection time, or AdminDown heard ----------+
//!    +----- hears Down (from Up only) -----------------------------------+
//! ```
//!
//! The driver asks [`Session::next_deadline`], feeds [`Session::received`], and calls [`Session::poll`] when the
//! deadline has come; what has to be sent comes back as a [`Packet`].

use std::time::{Duration, Instant};

use super::packet::{Diagnostic, Packet, State};
use crate::config::bgp::BfdSettings;

/// Slowest pace while the session is not up (RFC 5880 §6.8.3).
const SLOW_US: u32 = 1_000_000;

/// The machine.
#[derive(Debug, Clone)]
pub struct Session {
    settings: BfdSettings,
    state: State,
    remote_state: State,
    diagnostic: Diagnostic,
    discriminator: u32,
    remote_discriminator: u32,
    remote_min_rx_us: u32,
    remote_min_tx_us: u32,
    remote_multiplier: u8,
    /// A change of our timing that the other side has not confirmed (RFC 5880 §6.5).
    polling: bool,
    admin_down: bool,
    last_heard: Option<Instant>,
    next_send: Instant,
}

impl Session {
    /// A session that is down. `discriminator` must be unique among our sessions and not 0.
    pub fn new(settings: BfdSettings, discriminator: u32, now: Instant) -> Self {
        Self {
            settings,
            state: State::Down,
            remote_state: State::Down,
            diagnostic: Diagnostic::None,
            discriminator,
            remote_discriminator: 0,
            remote_min_rx_us: 1,
            remote_min_tx_us: 0,
            remote_multiplier: 0,
            polling: false,
            admin_down: false,
            last_heard: None,
            next_send: now,
        }
    }

    /// The state to act on: AdminDown also where the other side is administratively down.
    pub fn state(&self) -> State {
        if self.admin_down || (self.state == State::Down && self.remote_state == State::AdminDown) {
            State::AdminDown
        } else {
            self.state
        }
    }

    /// Our number for the session.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    fn desired_min_tx_us(&self) -> u32 {
        let own = self.settings.transmit_ms.saturating_mul(1000);
        if self.state == State::Up { own } else { own.max(SLOW_US) }
    }

    fn required_min_rx_us(&self) -> u32 {
        self.settings.receive_ms.saturating_mul(1000)
    }

    /// How long silence may last (RFC 5880 §6.8.4); `None` before the first packet.
    fn detection_time(&self) -> Option<Duration> {
        let slowest = u64::from(self.required_min_rx_us().max(self.remote_min_tx_us));
        (self.remote_multiplier > 0)
            .then(|| Duration::from_micros(slowest * u64::from(self.remote_multiplier)))
    }

    fn expires(&self) -> Option<Instant> {
        Some(self.last_heard? + self.detection_time()?)
    }

    /// When [`Session::poll`] is due.
    pub fn next_deadline(&self) -> Instant {
        match self.expires() {
            Some(expires) => expires.min(self.next_send),
            None => self.next_send,
        }
    }

    fn packet(&self, poll: bool, final_bit: bool) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: if self.admin_down { State::AdminDown } else { self.state },
            poll,
            final_bit,
            demand: false,
            multiplier: self.settings.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote_discriminator,
            desired_min_tx_us: self.desired_min_tx_us(),
            required_min_rx_us: self.required_min_rx_us(),
            required_min_echo_us: 0,
        }
    }

    fn go(&mut self, state: State, diagnostic: Diagnostic) {
        if state == self.state {
            return;
        }
        // Up speeds us up and leaving it slows us down: both change Desired Min TX Interval.
        self.polling |= state == State::Up;
        if state != State::Up {
            self.polling = false;
        }
        self.state = state;
        self.diagnostic = diagnostic;
    }

    /// Time has passed: notices silence, and returns the packet that is due, if one is. `jitter` (0 to 1) is how much
    /// of the allowed quarter the next interval is shortened by.
    pub fn poll(&mut self, now: Instant, jitter: f64) -> Option<Packet> {
        if self.expires().is_some_and(|at| at <= now) {
            self.go(State::Down, Diagnostic::DetectionTimeExpired);
            self.remote_state = State::Down;
            self.remote_discriminator = 0;
            self.remote_min_rx_us = 1;
            self.remote_multiplier = 0;
            self.last_heard = None;
        }
        if self.next_send > now {
            return None;
        }
        self.schedule(now, jitter);
        // A receiver that asks for nothing gets nothing (RFC 5880 §6.8.7).
        (self.remote_min_rx_us > 0).then(|| self.packet(self.polling, false))
    }

    fn schedule(&mut self, now: Instant, jitter: f64) {
        let interval = f64::from(self.desired_min_tx_us().max(self.remote_min_rx_us));
        // With a multiplier of 1 an interval may use at most 90 % of its length (RFC 5880 §6.8.7).
        let most = if self.settings.multiplier == 1 { 0.90 } else { 1.0 };
        let factor = most - (most - 0.75) * jitter.clamp(0.0, 1.0);
        self.next_send = now + Duration::from_micros((interval * factor) as u64);
    }

    /// A packet for this session arrived; returns the answer, if it asks for one.
    pub fn received(&mut self, packet: &Packet, now: Instant, jitter: f64) -> Option<Packet> {
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.remote_min_rx_us = packet.required_min_rx_us;
        self.remote_min_tx_us = packet.desired_min_tx_us;
        self.remote_multiplier = packet.multiplier;
        self.last_heard = Some(now);
        if packet.final_bit {
            self.polling = false;
        }
        let before = self.state;
        if !self.admin_down {
            match (self.state, packet.state) {
                (State::Down, State::Down) => self.go(State::Init, Diagnostic::None),
                (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                    self.go(State::Up, Diagnostic::None);
                }
                (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                    self.go(State::Down, Diagnostic::NeighbourSignaledDown);
                }
                _ => {}
            }
        }
        let changed = before != self.state;
        if changed {
            // Said at once, and from here on at the new pace: the other side need not wait out our slow pace to come
            // up, or to learn of the end.
            self.schedule(now, jitter);
        }
        if packet.poll {
            return Some(self.packet(false, true));
        }
        (changed && self.remote_min_rx_us > 0).then(|| self.packet(self.polling, false))
    }

    /// Takes the session down on purpose; the packet tells the other side that this is no failure.
    pub fn administratively_down(&mut self) -> Packet {
        self.admin_down = true;
        self.state = State::Down;
        self.diagnostic = Diagnostic::AdministrativelyDown;
        self.polling = false;
        self.packet(false, false)
    }
}

#[cfg(test)]
mod tests;
