//! Reading settings: a look-up trait and a reader that collects every problem instead of stopping at the first.
//!
//! Owns: the one place that touches the process environment. Never: decides what a setting means (that is each
//! section's own file). Sits between the environment and the typed configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Where settings come from: the process environment, a map in tests and the lab, a file's `env` table.
pub trait Lookup {
    /// The raw text of the setting, or `None` where it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Lookup for ProcessEnv {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }
}

/// A look-up in which the first layer that knows a setting wins.
pub struct Layered<'a>(pub Vec<&'a dyn Lookup>);

impl Lookup for Layered<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|layer| layer.get(name))
    }
}

/// One thing wrong with one setting: what it is called, what it said, what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the setting as the user writes it.
    pub setting: String,
    /// The value found, `None` where it is missing. Secrets are shown as `***`.
    pub value: Option<String>,
    /// What would be accepted.
    pub want: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={:?}: {}", self.setting, value, self.want),
            None => write!(f, "{} is not set: {}", self.setting, self.want),
        }
    }
}

/// A value that never shows in logs, errors or dumps.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads typed settings from a [`Lookup`] and remembers every problem.
pub struct Reader<'a> {
    lookup: &'a dyn Lookup,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader with no problems yet.
    pub fn new(lookup: &'a dyn Lookup) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// All problems found so far, in the order they were met.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Adds a problem that a caller found by comparing settings with each other.
    pub fn problem(&mut self, setting: &str, value: Option<&str>, want: impl Into<String>) {
        self.problems.push(Problem {
            setting: setting.to_owned(),
            value: value.map(str::to_owned),
            want: want.into(),
        });
    }

    /// The setting's text, without surrounding blanks; an empty text counts as not set.
    pub fn text(&self, name: &str) -> Option<String> {
        self.lookup.get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    /// Whether the setting is present at all, even as an empty text.
    pub fn present(&self, name: &str) -> bool {
        self.lookup.get(name).is_some()
    }

    /// The setting's text or the default.
    pub fn text_or(&self, name: &str, default: &str) -> String {
        self.text(name).unwrap_or_else(|| default.to_owned())
    }

    /// The setting's text; where it is missing, a problem that says what it is for.
    pub fn required(&mut self, name: &str, want: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.problem(name, None, want);
            String::new()
        })
    }

    /// A value of any type that parses from text, `None` where it is not set; a malformed text is a problem.
    pub fn parsed<T: FromStr>(&mut self, name: &str, want: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => {
                self.problem(name, Some(&text), want);
                None
            }
        }
    }

    /// A whole number within bounds (both included), or the default where it is not set.
    pub fn integer(&mut self, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let want = format!("a whole number from {min} to {max}");
        match self.parsed::<u64>(name, &want) {
            Some(value) if (min..=max).contains(&value) => value,
            Some(value) => {
                self.problem(name, Some(&value.to_string()), want);
                default
            }
            None => default,
        }
    }

    /// A number of seconds, fractions allowed, as milliseconds; bounds are in seconds.
    pub fn seconds(&mut self, name: &str, default_ms: u64, min: f64, max: f64) -> u64 {
        let want = format!("a number of seconds from {min} to {max}");
        match self.parsed::<f64>(name, &want) {
            Some(value) if value.is_finite() && value >= min && value <= max => (value * 1000.0) as u64,
            Some(value) => {
                self.problem(name, Some(&value.to_string()), want);
                default_ms
            }
            None => default_ms,
        }
    }

    /// `true`/`false` (also 1/0, yes/no, on/off, any case), or the default where it is not set.
    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.problem(name, Some(&text), "true or false");
                default
            }
        }
    }

    /// A comma-separated list without empty entries; blanks around entries are dropped.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        self.text(name).map(|text| {
            text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        })
    }

    /// An `http://` or `https://` address without its trailing slashes, `None` where it is not set; anything else
    /// is a problem. The value is not shown, since an address can carry a password.
    pub fn http_url(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        match reqwest::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Some(text.trim_end_matches('/').to_owned())
            }
            _ => {
                self.problem(name, Some("***"), "an address such as http://host:port/path");
                None
            }
        }
    }

    /// A secret: the setting itself, or the contents of the file that `<name>_FILE` names (its last line break
    /// dropped). Both set is a problem, and so is a file that cannot be read.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        let file_setting = format!("{name}_FILE");
        let inline = self.lookup.get(name);
        match (inline, self.text(&file_setting)) {
            (Some(_), Some(path)) => {
                self.problem(&file_setting, Some(&path), format!("only one of {name} and {file_setting}"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    self.problem(&file_setting, Some(&path), format!("a readable file ({error})"));
                    None
                }
            },
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let env = map(&[("A", "x"), ("B", "900"), ("C", "perhaps")]);
        let mut reader = Reader::new(&env);
        reader.integer("A", 1, 0, 9);
        reader.integer("B", 1, 0, 9);
        reader.flag("C", false);
        reader.required("D", "the name of the site");
        let shown: Vec<String> = reader.into_problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "A=\"x\": a whole number from 0 to 9",
                "B=\"900\": a whole number from 0 to 9",
                "C=\"perhaps\": true or false",
                "D is not set: the name of the site",
            ]
        );
    }

    #[test]
    fn a_secret_never_shows() {
        let env = map(&[("TOKEN", "hunter2")]);
        let secret = Reader::new(&env).secret("TOKEN").unwrap();
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_file_and_an_inline_secret_exclude_each_other() {
        let env = map(&[("T", "a"), ("T_FILE", "/nowhere")]);
        let mut reader = Reader::new(&env);
        assert!(reader.secret("T").is_none());
        assert_eq!(reader.into_problems().len(), 1);
    }
}
