//! Log lines on stdout: the predecessor's shape as text, or one JSON object per line.
//!
//! Owns the shape and the phrases of notes. Never decides what is worth a line: levels are settings. Times are local
//! (`TZ`), as the predecessor's are.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::log::{LogFormat, LogSettings};
use crate::model::Note;

/// Kept by `main` while the process logs.
#[derive(Debug)]
#[must_use]
pub struct Guard {
    /// Whether this call installed the log; `false` where one was there already.
    pub installed: bool,
}

/// Starts the log of the process. A second call changes nothing and says so.
pub fn init(settings: &LogSettings) -> Guard {
    let filter = EnvFilter::try_new(&settings.directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = !settings.no_color && std::io::stdout().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour);
    let result = match settings.format {
        LogFormat::Text => builder.event_format(TextLine { zone: jiff::tz::TimeZone::system() }).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Logfmt => builder.event_format(LogfmtLine).try_init(),
    };
    Guard { installed: result.is_ok() }
}

/// `YYYY-MM-DD HH:MM:SS,mmm [LEVEL] name                 message fields`.
struct TextLine {
    zone: jiff::tz::TimeZone,
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = jiff::Timestamp::now().to_zoned(self.zone.clone());
        write!(
            writer,
            "{}",
            head(&now, *event.metadata().level(), event.metadata().target(), writer.has_ansi_escapes())
        )?;
        // one event is one line, whatever a field holds
        let mut fields = String::new();
        ctx.field_format().format_fields(Writer::new(&mut fields), event)?;
        if fields.contains(['\n', '\r']) {
            fields = fields.replace('\r', "\\r").replace('\n', "\\n");
        }
        writeln!(writer, "{fields}")
    }
}

/// `timestamp=... level=info logger=... event="message" name=value ...`, times in UTC.
struct LogfmtLine;

impl<S, N> FormatEvent<S, N> for LogfmtLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = jiff::Timestamp::now();
        let name = metadata.target().rsplit("::").next().unwrap_or_default();
        write!(writer, "timestamp={now:.6} level={}", level_word(*metadata.level()).trim().to_lowercase())?;
        let mut pairs = Pairs(format!(" logger={name}"));
        event.record(&mut pairs);
        writeln!(writer, "{}", pairs.0)
    }
}

/// Fields as ` name=value`, quoted where they have to be.
struct Pairs(String);

impl Pairs {
    fn add(&mut self, field: &Field, value: &str) {
        let name = if field.name() == "message" { "event" } else { field.name() };
        let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "=\"\\".contains(c));
        self.0.push_str(&if plain { format!(" {name}={value}") } else { format!(" {name}={value:?}") });
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// The predecessor's words for levels, padded to five.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO ",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// The line up to the message.
fn head(now: &jiff::Zoned, level: Level, target: &str, colour: bool) -> String {
    let name = target.rsplit("::").next().unwrap_or(target);
    let (on, off) = match (colour, level) {
        (true, Level::ERROR) => ("\u{1b}[31m", "\u{1b}[0m"),
        (true, Level::WARN) => ("\u{1b}[33m", "\u{1b}[0m"),
        _ => ("", ""),
    };
    let time = now.strftime("%Y-%m-%d %H:%M:%S");
    format!("{time},{:03} [{on}{}{off}] {name:<20} ", now.millisecond(), level_word(level))
}

/// The one line that a note is in the log: a constant phrase, then its fields as `name=value`.
pub fn note_line(note: &Note) -> (Level, String) {
    match note {
        Note::Refused(r) => (
            Level::WARN,
            format!("refused asked={} origin={} refusal={} why={:?}", r.asked, r.origin, r.refusal, r.why),
        ),
        Note::TransitionStarted { rule, transition, generation, side, why, steps } => (
            Level::INFO,
            format!(
                "transition started transition={transition} generation={generation} rule={rule} side={side} why={why:?} steps={}",
                steps.join(",")
            ),
        ),
        Note::StepStarted { transition, generation, step, attempt } => (
            Level::INFO,
            format!(
                "step started transition={transition} generation={generation} step={step} attempt={attempt}"
            ),
        ),
        Note::StepDone { transition, generation, step, how } => (
            Level::INFO,
            format!("step done transition={transition} generation={generation} step={step} how={how}"),
        ),
        Note::StepFailed { transition, generation, step, reason } => (
            Level::WARN,
            format!(
                "step failed transition={transition} generation={generation} step={step} reason={reason:?}"
            ),
        ),
        Note::TransitionDone { transition, generation, took_ms } => (
            Level::INFO,
            format!("transition done transition={transition} generation={generation} took_ms={took_ms}"),
        ),
        Note::Halted { transition, generation, step, reason } => (
            Level::ERROR,
            format!(
                "transition halted transition={transition} generation={generation} step={step} reason={reason:?}"
            ),
        ),
        Note::Settled { transition, generation } => {
            (Level::INFO, format!("transition settled transition={transition} generation={generation}"))
        }
        Note::Pipeline { release, state, declared_failed } => (
            if *declared_failed { Level::ERROR } else { Level::INFO },
            format!("pipeline release={release} state={state} declared_failed={declared_failed}"),
        ),
        Note::DnsChanged { result, kind } => {
            (Level::INFO, format!("dns changed result={result} kind={kind}"))
        }
        Note::DnsOdd { result, seen, need } => {
            (Level::WARN, format!("odd dns answer result={result} seen={seen} need={need}"))
        }
        Note::DnsHealed => (Level::INFO, "odd dns answer went away".to_owned()),
        Note::Advised { transition, why, steps } => {
            (Level::WARN, format!("advice transition={transition} why={why:?} steps={}", steps.join(",")))
        }
        Note::PeerLink { up: true, .. } => (Level::INFO, "peer found".to_owned()),
        Note::PeerLink { up: false, reason } => (Level::WARN, format!("peer lost reason={reason:?}")),
        Note::PatroniChanged { role, concerns } => {
            (Level::INFO, format!("patroni changed role={role} concerns={concerns:?}"))
        }
        Note::Answer { ticket, accepted, message } => (
            Level::INFO,
            format!("operator answered ticket={ticket} accepted={accepted} message={message:?}"),
        ),
        Note::DivergenceReported { bytes, basis } => {
            let bytes = bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
            (Level::WARN, format!("divergence reported bytes={bytes} basis={basis:?}"))
        }
        Note::Remark { level, text } => (
            match level.as_str() {
                "error" => Level::ERROR,
                "warning" => Level::WARN,
                _ => Level::INFO,
            },
            text.replace(['\n', '\r'], " "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_line_has_the_old_shape() {
        let now: jiff::Timestamp = "2026-11-21T06:53:57.042Z".parse().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        assert_eq!(
            head(&now, Level::INFO, "switchover_agent::tasks::dns_watch", false),
            "2026-11-21 06:53:57,042 [INFO ] dns_watch            "
        );
        assert!(head(&now, Level::ERROR, "kube", true).contains("[\u{1b}[31mERROR\u{1b}[0m]"));
    }

    #[test]
    fn a_second_start_of_the_log_does_no_harm() {
        let settings = LogSettings { format: LogFormat::Text, directives: "info".into(), no_color: true };
        let _first = init(&settings);
        assert!(!init(&settings).installed);
    }

    #[test]
    fn a_note_is_one_line_even_with_a_line_break_in_it() {
        let (level, line) = note_line(&Note::PeerLink { up: false, reason: "a\nb".into() });
        assert_eq!((level, line.as_str()), (Level::WARN, "peer lost reason=\"a\\nb\""));
    }
}
