//! Durations as both predecessors write them: `1m30s`, `100ms`, `PT5S`, `00:00:05`, `1 day`, and numbers of seconds
//! where the dialect has them.

use std::time::Duration;

use serde_json::Value;

use super::fields::Numbers;

/// Longest duration that any setting takes: a year.
const LONGEST_SECS: f64 = 366.0 * 86_400.0;

/// Reads a duration.
///
/// # Errors
/// What would be right.
pub fn read(value: &Value, numbers: Numbers) -> Result<Duration, String> {
    let seconds = match (value, numbers) {
        (Value::Number(number), Numbers::Seconds) => number.as_f64(),
        (Value::Number(number), Numbers::Refused) => {
            return Err(format!("a bare number would be nanoseconds; write \"{number}s\" for seconds"));
        }
        (Value::String(text), _) => parse(text.trim()),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds < 0.0 => Err("a duration can't be negative".to_owned()),
        Some(seconds) if seconds <= LONGEST_SECS => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err("at most a year".to_owned()),
        None => Err("a duration such as \"500ms\", \"1m30s\" or \"PT5S\" is wanted".to_owned()),
    }
}

/// Seconds of a text; a bare number is none.
pub fn parse(text: &str) -> Option<f64> {
    if !text.is_ascii() || text.len() > 64 {
        return None;
    }
    iso(text).or_else(|| clock(text)).or_else(|| units(text))
}

/// `P1DT2H3M4.5S` (ISO 8601, without years and months).
fn iso(text: &str) -> Option<f64> {
    let (sign, rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let rest = rest.strip_prefix('P')?;
    let (days, time) = rest.split_once('T').unwrap_or((rest, ""));
    let pairs = |part: &str, units: &[(char, f64)]| {
        let mut total = 0.0;
        let mut number = String::new();
        for symbol in part.chars() {
            if symbol.is_ascii_digit() || symbol == '.' {
                number.push(symbol);
            } else {
                let (_, factor) = units.iter().find(|(unit, _)| *unit == symbol)?;
                total += std::mem::take(&mut number).parse::<f64>().ok()? * factor;
            }
        }
        number.is_empty().then_some(total)
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let date = pairs(days, &[('W', 604_800.0), ('D', 86_400.0)])?;
    let time = pairs(time, &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])?;
    Some(sign * (date + time))
}

/// `HH:MM:SS`, with `N day(s)` before it or alone.
fn clock(text: &str) -> Option<f64> {
    let (days, rest) = match text.find("day") {
        Some(at) => {
            let days: f64 = text[..at].trim().parse().ok()?;
            let rest = text[at + 3..].trim_start_matches('s').trim_start_matches(',').trim();
            (days, rest)
        }
        None => (0.0, text),
    };
    if rest.is_empty() {
        return text.contains("day").then_some(days * 86_400.0);
    }
    let (sign, rest) = rest.strip_prefix('-').map_or((1.0, rest), |rest| (-1.0, rest));
    let parts: Vec<&str> = rest.split(':').collect();
    let numeric = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(numeric) {
        return None;
    }
    let mut total = 0.0;
    for part in &parts {
        total = total * 60.0 + part.parse::<f64>().ok()?;
    }
    // Two parts are hours and minutes.
    Some(days * 86_400.0 + sign * if parts.len() == 2 { total * 60.0 } else { total })
}

/// `1h2m3.5s`, `100ms`, `10us`, `5ns`, also `2d`.
fn units(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number * factor;
        rest = rest[end..].trim_start();
    }
    Some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_predecessors_durations_are_read() {
        for (text, seconds) in [
            ("5s", 5.0),
            ("1m30s", 90.0),
            ("100ms", 0.1),
            ("PT5S", 5.0),
            ("P1DT1H", 90_000.0),
            ("00:00:05", 5.0),
            ("01:30", 5400.0),
            ("1 day", 86_400.0),
            ("2 days, 00:00:01", 172_801.0),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for text in ["5", "0.5", "", "5x", "P", "1:2:3:4", "s", "-", "PT5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_bare_number_means_seconds_or_nothing() {
        assert_eq!(read(&5.into(), Numbers::Seconds), Ok(Duration::from_secs(5)));
        assert!(read(&5.into(), Numbers::Refused).unwrap_err().contains("\"5s\""));
        assert!(read(&(-1).into(), Numbers::Seconds).is_err());
        assert!(read(&"-5s".into(), Numbers::Refused).is_err());
    }
}
