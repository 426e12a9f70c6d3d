//! The wire form of the peer link: JSON frames to and from [`PeerMessage`].
//!
//! Pure: no socket, no clock. The frames are the predecessor's (an object with `event`; `ping`, `from_peer`, `pong`);
//! what is new are keys that a predecessor ignores: `instance` and `status` in `ping` and `pong`, `instance` and `id`
//! in `from_peer`, `ack` in the answer to it.

use serde_json::{Map, Value, json};

use crate::model::{Generation, OutboxId, PeerMessage, PeerStatus};

/// Largest message that is sent or taken, in bytes; the predecessor's limit is the same.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Number and author of a message, as a new agent stamps it.
pub type Stamp = (String, OutboxId);

/// A frame that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A heartbeat.
    Ping {
        /// What a new agent tells about its site.
        status: Option<PeerStatus>,
    },
    /// A message, or none where `message` is missing or not an object.
    FromPeer {
        /// The message.
        message: Option<PeerMessage>,
        /// Who numbered it and how.
        stamp: Option<Stamp>,
    },
    /// A well-formed frame with an event that we do not know.
    Unknown {
        /// Its event as JSON text, cut to a readable length.
        event: String,
    },
}

impl Request {
    /// The label of the frame in metrics; bounded, whatever the peer sends.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "ping",
            Self::FromPeer { message: Some(_), .. } => "from_peer",
            Self::FromPeer { message: None, .. } => "from_peer_empty",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// What an answer tells. An old peer tells nothing, and any text of its counts as an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Name of the answering process; `None` = a predecessor.
    pub instance: Option<String>,
    /// How its site is.
    pub status: Option<PeerStatus>,
    /// Number of our message that it has handled.
    pub ack: Option<OutboxId>,
}

/// Why a frame is not one of ours. The connection that it came on is closed with 1011.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON; an empty text and a byte-order mark are not JSON either.
    #[error("the frame is not JSON ({0})")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("the frame is JSON, but not an object")]
    NotAnObject,
    /// An object without `event`.
    #[error("the frame has no event")]
    NoEvent,
}

/// Reads a frame that a client sent; text and binary frames alike.
///
/// # Errors
/// [`FrameError`] where the frame is not a JSON object with `event`.
pub fn decode_request(frame: &[u8]) -> Result<Request, FrameError> {
    let value: Value =
        serde_json::from_slice(frame).map_err(|error| FrameError::NotJson(error.to_string()))?;
    let Value::Object(object) = value else { return Err(FrameError::NotAnObject) };
    match object.get("event").ok_or(FrameError::NoEvent)? {
        Value::String(event) if event == "ping" => Ok(Request::Ping { status: status_of(&object) }),
        Value::String(event) if event == "from_peer" => {
            Ok(Request::FromPeer { message: message_of(&object), stamp: stamp_of(&object) })
        }
        other => Ok(Request::Unknown { event: shortened(&other.to_string()) }),
    }
}

/// Reads an answer. Never fails: the predecessor takes any text for one, and so do we.
pub fn decode_answer(frame: &[u8]) -> Answer {
    let Ok(Value::Object(object)) = serde_json::from_slice(frame) else { return Answer::default() };
    Answer {
        instance: object.get("instance").and_then(Value::as_str).map(str::to_owned),
        status: status_of(&object),
        ack: object.get("ack").and_then(Value::as_u64).map(OutboxId),
    }
}

/// A heartbeat; `sequence` counts from 2, as the predecessor does.
pub fn encode_ping(sequence: u64, instance: &str, status: &PeerStatus) -> String {
    json!({
        "event": "ping",
        "name": format!("Sequence {sequence}"),
        "instance": instance,
        "status": status,
    })
    .to_string()
}

/// A message on its way to the peer.
pub fn encode_from_peer(message: &PeerMessage, instance: &str, id: OutboxId) -> String {
    json!({
        "event": "from_peer",
        "message": message_to_wire(message),
        "instance": instance,
        "id": id,
    })
    .to_string()
}

/// The answer to any well-formed frame.
pub fn encode_pong(instance: &str, status: Option<&PeerStatus>, ack: Option<OutboxId>) -> String {
    let mut pong = Map::new();
    pong.insert("event".to_owned(), json!("pong"));
    pong.insert("instance".to_owned(), json!(instance));
    if let Some(status) = status {
        pong.insert("status".to_owned(), json!(status));
    }
    if let Some(ack) = ack {
        pong.insert("ack".to_owned(), json!(ack));
    }
    Value::Object(pong).to_string()
}

/// The object inside `from_peer`.
fn message_to_wire(message: &PeerMessage) -> Value {
    match message {
        PeerMessage::Dns { result } => {
            json!({"event": "dns", "result": result, "message": format!("IP CHANGE {result}")})
        }
        PeerMessage::TransitionTo { state, generation, accept_data_loss } => {
            let mut wire = json!({"event": "transition_to", "state": state});
            if let Some(generation) = generation {
                wire["generation"] = json!(generation);
            }
            if let Some(reason) = accept_data_loss {
                wire["accept_data_loss"] = json!(reason);
            }
            wire
        }
        PeerMessage::Confirm { required_state, item } => json!({
            "event": "confirm_happy_to_proceed",
            "required_state": required_state,
            "item": item_to_wire(item),
        }),
        PeerMessage::Yes { item, evidence } => {
            let mut wire = json!({"event": "yes_happy_to_proceed", "item": item_to_wire(item)});
            if let Some(evidence) = evidence {
                wire["evidence"] = json!(evidence);
            }
            wire
        }
        PeerMessage::No { item, reason } => {
            json!({"event": "no_happy_to_proceed", "item": item_to_wire(item), "reason": reason})
        }
        PeerMessage::Unknown { event } => json!({"event": event}),
    }
}

/// The item as JSON; a text that is no JSON (which we never store) travels as a string.
fn item_to_wire(item: &str) -> Value {
    serde_json::from_str(item).unwrap_or_else(|_| Value::String(item.to_owned()))
}

/// The message of a `from_peer` frame. A known event with its parts missing is `Unknown` with a name that says so:
/// the engine then reports it, and the sender, who could never send it better, is not asked to repeat it for ever.
fn message_of(frame: &Map<String, Value>) -> Option<PeerMessage> {
    let message = frame.get("message")?.as_object()?;
    let text = |key: &str| message.get(key).and_then(Value::as_str).map(str::to_owned);
    let item = || message.get("item").map(Value::to_string);
    let event = match message.get("event") {
        Some(Value::String(event)) => event.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let known = match event.as_str() {
        "dns" => Some(text("result").map(|result| PeerMessage::Dns { result })),
        "transition_to" => Some(text("state").map(|state| PeerMessage::TransitionTo {
            state,
            generation: message.get("generation").and_then(Value::as_u64).map(Generation),
            accept_data_loss: text("accept_data_loss"),
        })),
        "confirm_happy_to_proceed" => Some(
            text("required_state")
                .zip(item())
                .map(|(required_state, item)| PeerMessage::Confirm { required_state, item }),
        ),
        "yes_happy_to_proceed" => Some(item().map(|item| PeerMessage::Yes {
            item,
            evidence: message.get("evidence").and_then(|value| serde_json::from_value(value.clone()).ok()),
        })),
        "no_happy_to_proceed" => {
            Some(item().map(|item| PeerMessage::No { item, reason: text("reason").unwrap_or_default() }))
        }
        _ => None,
    };
    Some(match known {
        Some(Some(message)) => message,
        Some(None) => PeerMessage::Unknown { event: format!("{event} with parts missing") },
        None => PeerMessage::Unknown { event: shortened(&event) },
    })
}

fn status_of(object: &Map<String, Value>) -> Option<PeerStatus> {
    serde_json::from_value(object.get("status")?.clone()).ok()
}

fn stamp_of(object: &Map<String, Value>) -> Option<Stamp> {
    let instance = object.get("instance")?.as_str()?.to_owned();
    Some((instance, OutboxId(object.get("id")?.as_u64()?)))
}

/// The text cut to 80 characters, so that no peer can fill a log line.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_predecessor_are_understood() {
        assert_eq!(
            decode_request(br#"{"event":"ping","name":"Sequence 2"}"#),
            Ok(Request::Ping { status: None })
        );
        let frame = br#"{"event":"from_peer","message":{"event":"transition_to","state":"gold-standby"}}"#;
        let message = PeerMessage::TransitionTo {
            state: "gold-standby".to_owned(),
            generation: None,
            accept_data_loss: None,
        };
        assert_eq!(decode_request(frame), Ok(Request::FromPeer { message: Some(message), stamp: None }));
    }

    #[test]
    fn frames_that_the_predecessor_closes_with_1011_are_errors() {
        for frame in ["", "{", "\u{feff}{\"event\":\"ping\"}", "nonsense"] {
            assert!(matches!(decode_request(frame.as_bytes()), Err(FrameError::NotJson(_))), "{frame}");
        }
        for frame in ["[]", "1", "\"ping\"", "null"] {
            assert_eq!(decode_request(frame.as_bytes()), Err(FrameError::NotAnObject), "{frame}");
        }
        assert_eq!(decode_request(b"{}"), Err(FrameError::NoEvent));
    }

    #[test]
    fn an_unknown_event_is_named_even_where_it_is_null_and_never_at_length() {
        for (frame, name) in [(r#"{"event":null}"#, "null"), (r#"{"event":"hello"}"#, "\"hello\"")] {
            let expected = Request::Unknown { event: name.to_owned() };
            assert_eq!(decode_request(frame.as_bytes()), Ok(expected));
        }
        let long = format!(r#"{{"event":"{}"}}"#, "x".repeat(5000));
        let Ok(Request::Unknown { event }) = decode_request(long.as_bytes()) else { panic!("not unknown") };
        assert_eq!(event.len(), 80);
    }

    #[test]
    fn from_peer_without_a_usable_message_is_no_message() {
        for frame in [r#"{"event":"from_peer"}"#, r#"{"event":"from_peer","message":"dns"}"#] {
            let decoded = decode_request(frame.as_bytes());
            assert_eq!(decoded, Ok(Request::FromPeer { message: None, stamp: None }));
        }
    }

    #[test]
    fn a_known_event_with_missing_parts_is_reported_and_not_guessed() {
        for message in [
            r#"{"event":"transition_to"}"#,
            r#"{"event":"transition_to","state":3}"#,
            r#"{"event":"confirm_happy_to_proceed","item":{}}"#,
            r#"{"event":"yes_happy_to_proceed"}"#,
        ] {
            let frame = format!(r#"{{"event":"from_peer","message":{message}}}"#);
            let Ok(Request::FromPeer { message: Some(PeerMessage::Unknown { event }), .. }) =
                decode_request(frame.as_bytes())
            else {
                panic!("{message} was taken")
            };
            assert!(event.ends_with("with parts missing"), "{event}");
        }
    }

    #[test]
    fn the_item_comes_back_with_its_values_and_the_order_of_its_keys() {
        let item = r#"{"zebra":1,"event":"switchover_state","data":{"b":"2","a":[1.5,null,"ü"]}}"#;
        let frame = format!(
            r#"{{"event":"from_peer","message":{{"event":"confirm_happy_to_proceed","required_state":"gold-standby","item":{item}}}}}"#
        );
        let Ok(Request::FromPeer { message: Some(PeerMessage::Confirm { item: kept, .. }), .. }) =
            decode_request(frame.as_bytes())
        else {
            panic!("not a confirm")
        };
        assert_eq!(kept, item);
        let answer = PeerMessage::Yes { item: kept, evidence: None };
        assert!(encode_from_peer(&answer, "me", OutboxId(1)).contains(item));
    }

    #[test]
    fn every_message_survives_the_way_there() {
        let status = PeerStatus { site: "gold".to_owned(), lsn: Some(u64::MAX), ..PeerStatus::default() };
        for message in [
            PeerMessage::Dns { result: "error".to_owned() },
            PeerMessage::TransitionTo {
                state: "x".to_owned(),
                generation: Some(Generation(7)),
                accept_data_loss: Some("a drill".to_owned()),
            },
            PeerMessage::Confirm { required_state: "y".to_owned(), item: r#"{"a":1}"#.to_owned() },
            PeerMessage::Yes { item: "[]".to_owned(), evidence: Some(status) },
            PeerMessage::No { item: "null".to_owned(), reason: "busy".to_owned() },
        ] {
            let frame = encode_from_peer(&message, "p", OutboxId(9));
            let stamp = Some(("p".to_owned(), OutboxId(9)));
            assert_eq!(
                decode_request(frame.as_bytes()),
                Ok(Request::FromPeer { message: Some(message), stamp })
            );
        }
    }

    #[test]
    fn a_heartbeat_and_its_answer_carry_the_status() {
        let status = PeerStatus { phase: "active-passive".to_owned(), ..PeerStatus::default() };
        let ping = encode_ping(2, "p", &status);
        assert!(ping.starts_with(r#"{"event":"ping","name":"Sequence 2""#), "{ping}");
        assert_eq!(decode_request(ping.as_bytes()), Ok(Request::Ping { status: Some(status.clone()) }));
        let answer = decode_answer(encode_pong("q", Some(&status), Some(OutboxId(4))).as_bytes());
        assert_eq!(
            answer,
            Answer { instance: Some("q".to_owned()), status: Some(status), ack: Some(OutboxId(4)) }
        );
    }

    #[test]
    fn any_text_is_an_answer_of_an_old_peer() {
        for text in ["x", "", r#"{"event":"pong"}"#, "[1]"] {
            assert_eq!(decode_answer(text.as_bytes()), Answer::default());
        }
    }
}
