//! The BGP byte stream as messages: the only file besides [`super::fsm`] and [`super::attributes`] that knows the
//! codec crate.
//!
//! Pure: bytes in, [`Incoming`] out. Owns framing and the verdict on a received UPDATE (RFC 7606); keeps nothing of
//! what an UPDATE says, because the speaker imports nothing.

use bytes::{Bytes, BytesMut};
use rustbgpd_wire::validate::validate_update_attributes;
use rustbgpd_wire::{
    Afi, DecodeError, EXTENDED_MAX_MESSAGE_LEN, ErrorDisposition, Message, NotificationCode,
    NotificationMessage, OpenMessage, PathAttribute, RouteRefreshMessage, RouteRefreshSubtype, Safi,
    UpdateMessage, decode_message, notification, peek_message_length,
};

use crate::config::bgp::Family;

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// OPEN, not yet judged.
    Open(Open),
    /// KEEPALIVE.
    Keepalive,
    /// A well-formed UPDATE, or one that RFC 7606 lets us live with.
    Update(UpdateSeen),
    /// An UPDATE that must end the session.
    BadUpdate(Notice),
    /// The neighbour ends the session.
    Notification(Notice),
    /// The neighbour asks for a family again; `None` = a family or subtype that is not ours to answer.
    Refresh(Option<Family>),
}

/// An OPEN as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open(pub(super) OpenMessage);

/// Bytes that are not a BGP message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a BGP message: {0}")]
pub struct Fault(pub(super) DecodeError);

/// What an UPDATE held, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpdateSeen {
    /// Prefixes announced.
    pub announced: usize,
    /// Prefixes withdrawn.
    pub withdrawn: usize,
    /// Attributes that RFC 7606 disposes of without ending the session.
    pub malformed: usize,
}

/// A NOTIFICATION, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Error code (RFC 4271 §4.5).
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Shutdown communication (RFC 9003), where there is one.
    pub text: Option<String>,
    /// Data as on the wire.
    pub data: Bytes,
}

impl Notice {
    pub(super) fn from_wire(message: &NotificationMessage) -> Self {
        let text = notification::extract_shutdown_communication(message).ok().flatten().map(str::to_owned);
        Self { code: message.code.as_u8(), subcode: message.subcode, text, data: message.data.clone() }
    }

    pub(super) fn to_wire(&self) -> NotificationMessage {
        NotificationMessage::new(NotificationCode::from_u8(self.code), self.subcode, self.data.clone())
    }

    /// What the codes mean, in the registry's words.
    pub fn meaning(&self) -> &'static str {
        notification::description(NotificationCode::from_u8(self.code), self.subcode)
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, self.meaning())?;
        match &self.text {
            Some(text) => write!(f, " ({text:?})"),
            None => Ok(()),
        }
    }
}

/// Cuts messages out of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    ibgp: bool,
    four_octet_as: bool,
}

impl Decoder {
    /// A decoder for a session with a neighbour in our AS or outside it.
    pub fn new(ibgp: bool) -> Self {
        Self { ibgp, four_octet_as: true }
    }

    /// Takes over what the OPENs settled.
    pub fn negotiated(&mut self, four_octet_as: bool) {
        self.four_octet_as = four_octet_as;
    }

    /// The next message, `None` while the buffer holds no whole one.
    ///
    /// # Errors
    /// The bytes are not a BGP message: the session has to end with the NOTIFICATION that the fault names.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Incoming>, Fault> {
        let length = match peek_message_length(buffer, EXTENDED_MAX_MESSAGE_LEN).map_err(Fault)? {
            Some(length) if buffer.len() >= usize::from(length) => usize::from(length),
            _ => return Ok(None),
        };
        let mut frame = buffer.split_to(length).freeze();
        let message = decode_message(&mut frame, EXTENDED_MAX_MESSAGE_LEN).map_err(Fault)?;
        Ok(Some(match message {
            Message::Open(open) => Incoming::Open(Open(open)),
            Message::Keepalive => Incoming::Keepalive,
            Message::Notification(message) => Incoming::Notification(Notice::from_wire(&message)),
            Message::RouteRefresh(message) => Incoming::Refresh(asked_family(&message)),
            Message::Update(update) => self.judge(&update),
            _ => Incoming::Keepalive,
        }))
    }

    /// RFC 7606: what cannot be located ends the session, everything else is counted and forgotten.
    fn judge(&self, update: &UpdateMessage) -> Incoming {
        let parsed = match update.parse_revised(self.four_octet_as, self.ibgp, false, &[]) {
            Ok(parsed) => parsed,
            Err(error) => {
                let (code, subcode, data) = error.to_notification();
                return Incoming::BadUpdate(Notice { code: code.as_u8(), subcode, text: None, data });
            }
        };
        let mut seen = UpdateSeen {
            announced: parsed.update.announced.len(),
            withdrawn: parsed.update.withdrawn.len(),
            malformed: parsed.malformed.len(),
        };
        let has_body = seen.announced > 0;
        for attribute in &parsed.update.attributes {
            match attribute {
                PathAttribute::MpReachNlri(reach) => seen.announced += reach.announced.len(),
                PathAttribute::MpUnreachNlri(unreach) => seen.withdrawn += unreach.withdrawn.len(),
                _ => {}
            }
        }
        let verdict =
            validate_update_attributes(&parsed.update.attributes, seen.announced > 0, has_body, !self.ibgp);
        match verdict {
            Err(error) if error.disposition == ErrorDisposition::SessionReset => {
                Incoming::BadUpdate(Notice {
                    code: NotificationCode::UpdateMessage.as_u8(),
                    subcode: error.subcode,
                    text: None,
                    data: error.data.into(),
                })
            }
            Err(_) if seen.malformed == 0 => {
                seen.malformed = 1;
                Incoming::Update(seen)
            }
            _ => Incoming::Update(seen),
        }
    }
}

fn asked_family(message: &RouteRefreshMessage) -> Option<Family> {
    match (message.afi(), message.safi(), message.subtype()) {
        (Some(Afi::Ipv4), Some(Safi::Unicast), RouteRefreshSubtype::Normal) => Some(Family::Ipv4),
        (Some(Afi::Ipv6), Some(Safi::Unicast), RouteRefreshSubtype::Normal) => Some(Family::Ipv6),
        _ => None,
    }
}

pub(super) fn afi(family: Family) -> Afi {
    match family {
        Family::Ipv4 => Afi::Ipv4,
        Family::Ipv6 => Afi::Ipv6,
    }
}

/// Begin (`end` = false) or end of an enhanced route refresh (RFC 7313).
pub fn refresh_mark(family: Family, end: bool) -> Bytes {
    let subtype = if end { RouteRefreshSubtype::EoRR } else { RouteRefreshSubtype::BoRR };
    encode(&Message::RouteRefresh(RouteRefreshMessage::new_with_subtype(afi(family), Safi::Unicast, subtype)))
}

/// A message as bytes; empty where the codec refuses it, which only a message too long can cause.
pub(super) fn encode(message: &Message) -> Bytes {
    rustbgpd_wire::encode_message(message).map(BytesMut::freeze).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;

    use super::*;

    fn update(body: &str) -> BytesMut {
        let body = hex::decode(body).unwrap();
        let mut bytes = BytesMut::from(&[0xFF; 16][..]);
        bytes.extend_from_slice(&((body.len() as u16 + 19).to_be_bytes()));
        bytes.extend_from_slice(&[2]);
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn a_good_update_is_counted() {
        let mut bytes = update("00000014400101004002060201000101cf4003040a09000120cb007135");
        let seen = UpdateSeen { announced: 1, ..Default::default() };
        assert_eq!(Decoder::new(false).next(&mut bytes), Ok(Some(Incoming::Update(seen))));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_malformed_origin_is_counted_and_the_session_lives() {
        let mut bytes = update("00000014400101094002060201000101cf4003040a09000120cb007135");
        let got = Decoder::new(false).next(&mut bytes).unwrap().unwrap();
        assert!(matches!(got, Incoming::Update(UpdateSeen { malformed: 1, .. })), "{got:?}");
    }

    #[test]
    fn an_update_whose_prefixes_cannot_be_found_ends_the_session() {
        let mut bytes = update("00000014400101004002060201000101cf4003040a09000121cb007135");
        let got = Decoder::new(false).next(&mut bytes).unwrap().unwrap();
        assert!(matches!(got, Incoming::BadUpdate(Notice { code: 3, .. })), "{got:?}");
    }

    #[test]
    fn half_a_message_waits_and_a_bad_marker_is_a_fault() {
        let mut bytes = update("00000000");
        let tail = bytes.split_off(10);
        assert_eq!(Decoder::new(false).next(&mut bytes), Ok(None));
        bytes.extend_from_slice(&tail);
        assert!(matches!(Decoder::new(false).next(&mut bytes), Ok(Some(Incoming::Update(_)))));
        let mut broken = BytesMut::from(&[0u8; 19][..]);
        assert!(Decoder::new(false).next(&mut broken).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_stream_of_bytes_panics_or_loops(
            chunks in vec(vec(proptest::num::u8::ANY, 0..200), 0..20),
            framed in proptest::bool::ANY,
        ) {
            let mut decoder = Decoder::new(false);
            let mut buffer = BytesMut::new();
            for (n, chunk) in chunks.iter().enumerate() {
                if framed {
                    buffer.extend_from_slice(&[0xFF; 16]);
                    buffer.extend_from_slice(&((chunk.len() as u16 + 19).to_be_bytes()));
                    buffer.extend_from_slice(&[(n % 6) as u8]);
                }
                buffer.extend_from_slice(chunk);
                decoder.negotiated(n % 2 == 0);
                while let Ok(Some(_)) = decoder.next(&mut buffer) {}
            }
        }
    }
}
