//! The BFD control packet (RFC 5880 §4.1) as bytes and as data. Pure.

/// Session state on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum State {
    /// Taken down on purpose.
    AdminDown,
    /// No session.
    #[default]
    Down,
    /// The other side is heard, but does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

/// Why the session last left Up (RFC 5880 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Diagnostic {
    /// None.
    #[default]
    None,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The other side said that it is down.
    NeighbourSignaledDown,
    /// Taken down on purpose.
    AdministrativelyDown,
    /// Any other number.
    Other(u8),
}

/// A control packet without authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer with `final_bit`.
    pub poll: bool,
    /// Answer to a poll.
    pub final_bit: bool,
    /// The sender is in demand mode.
    pub demand: bool,
    /// Missed packets that mean "down".
    pub multiplier: u8,
    /// The sender's number for the session, never 0.
    pub my_discriminator: u32,
    /// Our number as the sender knows it, 0 = not yet.
    pub your_discriminator: u32,
    /// Microseconds: how often the sender would like to send.
    pub desired_min_tx_us: u32,
    /// Microseconds: how often the sender can receive; 0 = not at all.
    pub required_min_rx_us: u32,
    /// Microseconds: echo packets; 0 = none.
    pub required_min_echo_us: u32,
}

/// Bytes that are not an acceptable control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than it says, or than it must be.
    #[error("BFD packet of {0} bytes is cut short")]
    Short(usize),
    /// Not version 1.
    #[error("BFD version {0}, wanted 1")]
    Version(u8),
    /// A field has a value that RFC 5880 §6.8.6 refuses.
    #[error("BFD packet refused: {0}")]
    Refused(&'static str),
}

const LENGTH: usize = 24;

impl Packet {
    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; LENGTH] {
        let diagnostic = match self.diagnostic {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::NeighbourSignaledDown => 3,
            Diagnostic::AdministrativelyDown => 7,
            Diagnostic::Other(n) => n & 0x1F,
        };
        let mut out = [0; LENGTH];
        out[0] = (1 << 5) | diagnostic;
        let flags =
            (u8::from(self.poll) << 5) | (u8::from(self.final_bit) << 4) | (u8::from(self.demand) << 1);
        out[1] = ((self.state as u8) << 6) | flags;
        out[2] = self.multiplier;
        out[3] = LENGTH as u8;
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx_us,
            self.required_min_rx_us,
            self.required_min_echo_us,
        ];
        for (n, word) in words.into_iter().enumerate() {
            out[4 + 4 * n..8 + 4 * n].copy_from_slice(&word.to_be_bytes());
        }
        out
    }

    /// Reads a packet and applies the checks of RFC 5880 §6.8.6 that need no session.
    ///
    /// # Errors
    /// What is wrong with the bytes; such a packet is dropped silently.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        if bytes.len() < LENGTH {
            return Err(PacketError::Short(bytes.len()));
        }
        let version = bytes[0] >> 5;
        if version != 1 {
            return Err(PacketError::Version(version));
        }
        let length = usize::from(bytes[3]);
        if length < LENGTH || length > bytes.len() {
            return Err(PacketError::Short(bytes.len()));
        }
        let flag = |bit: u8| bytes[1] & (1 << bit) != 0;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let packet = Self {
            diagnostic: match bytes[0] & 0x1F {
                0 => Diagnostic::None,
                1 => Diagnostic::DetectionTimeExpired,
                3 => Diagnostic::NeighbourSignaledDown,
                7 => Diagnostic::AdministrativelyDown,
                n => Diagnostic::Other(n),
            },
            state: match bytes[1] >> 6 {
                0 => State::AdminDown,
                1 => State::Down,
                2 => State::Init,
                _ => State::Up,
            },
            poll: flag(5),
            final_bit: flag(4),
            demand: flag(1),
            multiplier: bytes[2],
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx_us: word(12),
            required_min_rx_us: word(16),
            required_min_echo_us: word(20),
        };
        let refused = [
            (flag(2), "authentication is not configured"),
            (flag(0), "the multipoint bit is set"),
            (packet.multiplier == 0, "detection multiplier 0"),
            (packet.my_discriminator == 0, "my discriminator 0"),
            (packet.poll && packet.final_bit, "poll and final together"),
            (
                packet.your_discriminator == 0 && matches!(packet.state, State::Init | State::Up),
                "your discriminator 0 in a session that is not down",
            ),
        ];
        match refused.into_iter().find(|(bad, _)| *bad) {
            Some((_, why)) => Err(PacketError::Refused(why)),
            None => Ok(packet),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Packet {
        Packet {
            state: State::Up,
            multiplier: 3,
            my_discriminator: 7,
            your_discriminator: 9,
            desired_min_tx_us: 300_000,
            required_min_rx_us: 200_000,
            ..Packet::default()
        }
    }

    #[test]
    fn a_packet_survives_the_wire() {
        let bytes = sample().encode();
        assert_eq!(hex::encode(bytes), "20c003180000000700000009000493e000030d4000000000");
        assert_eq!(Packet::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn what_the_rfc_refuses_is_refused() {
        let mut wrong = Vec::new();
        for (at, value) in [(0, 0x00), (1, 0xC4), (1, 0xC1), (2, 0), (3, 23), (3, 25)] {
            let mut bytes = sample().encode();
            bytes[at] = value;
            wrong.push(bytes);
        }
        wrong.push(Packet { my_discriminator: 0, ..sample() }.encode());
        wrong.push(Packet { your_discriminator: 0, ..sample() }.encode());
        for bytes in wrong {
            assert!(Packet::decode(&bytes).is_err(), "{}", hex::encode(bytes));
        }
        assert_eq!(Packet::decode(&[0; 10]), Err(PacketError::Short(10)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            if let Ok(packet) = Packet::decode(&bytes) {
                proptest::prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}
