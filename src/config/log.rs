//! Settings of the log: shape, levels, colour.

use super::Reader;

/// `text` (default; also `human`), `json` or `logfmt`, in any case.
pub const LOG_FORMAT: &str = "LOG_FORMAT";
/// A level, a list `name=LEVEL,name=LEVEL`, or tracing directives; default `INFO`.
pub const LOG_LEVEL: &str = "LOG_LEVEL";
/// Present and not empty: no colour, whatever stdout is (the convention of no-color.org).
pub const NO_COLOR: &str = "NO_COLOR";

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `YYYY-MM-DD HH:MM:SS,mmm [LEVEL] name message`.
    Text,
    /// One JSON object per line.
    Json,
    /// `name=value` pairs.
    Logfmt,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Shape.
    pub format: LogFormat,
    /// Directives as `tracing_subscriber::EnvFilter` reads them.
    pub directives: String,
    /// Whether colour is forbidden.
    pub no_color: bool,
}

/// Logger names of the predecessor and what they are here.
const OLD_NAMES: [(&str, &[&str]); 6] = [
    ("websockets", &["tungstenite", "tokio_tungstenite", "switchover_agent::peer"]),
    ("asyncio", &["tokio"]),
    ("urllib3", &["reqwest", "hyper", "hyper_util"]),
    ("kubernetes", &["kube", "kube_client", "kube_runtime", "switchover_agent::adapters"]),
    ("fastapi", &["axum", "tower_http", "switchover_agent::http"]),
    ("uvicorn", &["axum", "tower_http", "switchover_agent::http"]),
];

/// Reads the section.
pub fn read(reader: &mut Reader<'_>) -> LogSettings {
    let format = match reader.text(LOG_FORMAT).map(|text| text.to_ascii_lowercase()).as_deref() {
        None | Some("text" | "human") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some("logfmt") => LogFormat::Logfmt,
        Some(other) => {
            let other = other.to_owned();
            reader.problem(LOG_FORMAT, Some(&other), "text (or human), json or logfmt");
            LogFormat::Text
        }
    };
    let level = reader.text_or(LOG_LEVEL, "info");
    let directives = match directives(&level) {
        Ok(directives) => directives,
        Err(entry) => {
            let want = format!(
                "{entry:?} is not a level (TRACE, DEBUG, INFO, WARNING, ERROR, OFF), NAME=LEVEL or a tracing directive"
            );
            reader.problem(LOG_LEVEL, Some(&level), want);
            "info".to_owned()
        }
    };
    LogSettings { format, directives, no_color: reader.text(NO_COLOR).is_some() }
}

/// Translates the setting; `Err` is the entry that cannot be understood.
fn directives(text: &str) -> Result<String, String> {
    let mut out: Vec<String> = Vec::new();
    let mut has_default = false;
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        if let Some(level) = level(entry) {
            has_default = true;
            out.push(level.to_owned());
        } else if entry.contains('[') {
            out.push(entry.to_owned());
        } else {
            let (name, word) = entry.split_once('=').ok_or_else(|| entry.to_owned())?;
            let level = level(word.trim()).ok_or_else(|| entry.to_owned())?;
            let name = name.trim();
            if name.eq_ignore_ascii_case("root") {
                has_default = true;
                out.push(level.to_owned());
            }
            out.extend(targets(name).into_iter().map(|target| format!("{target}={level}")));
        }
    }
    if !has_default {
        out.insert(0, "info".to_owned());
    }
    let joined = out.join(",");
    match tracing_subscriber::EnvFilter::try_new(&joined) {
        Ok(_) => Ok(joined),
        Err(_) => Err(text.to_owned()),
    }
}

/// Tracing targets of a logger name.
fn targets(name: &str) -> Vec<String> {
    if name.eq_ignore_ascii_case("root") {
        return Vec::new();
    }
    if let Some((_, targets)) = OLD_NAMES.iter().find(|(old, _)| *old == name) {
        return targets.iter().map(|&target| target.to_owned()).collect();
    }
    if name.parse::<crate::tasks::TaskName>().is_ok() {
        return vec![format!("switchover_agent::tasks::{name}")];
    }
    vec![name.to_owned()]
}

/// A level in the predecessor's or in tracing's words.
fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "trace" | "notset" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" | "panic" => "error",
        "off" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_ways_to_say_a_level_are_understood() {
        for (text, want) in [
            ("DEBUG", "debug"),
            (
                "dns_watch=DEBUG,websockets=WARNING",
                "info,switchover_agent::tasks::dns_watch=debug,tungstenite=warn,tokio_tungstenite=warn,switchover_agent::peer=warn",
            ),
            ("warn,switchover_agent::rules=trace", "warn,switchover_agent::rules=trace"),
            ("root=ERROR", "error"),
        ] {
            assert_eq!(directives(text), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_named() {
        for text in ["verbose", "dns_watch", "dns_watch=LOUD", "a=b=c", "x[=debug"] {
            assert!(directives(text).is_err(), "{text}");
        }
    }
}
