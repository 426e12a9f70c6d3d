//! A file of settings, `NAME=value` per line, below the process environment: what is set there already wins.
//!
//! Owns the form: comments, `export`, quotation marks, and comments behind a value, which systemd's `EnvironmentFile=`
//! would hand over as part of it. Remembers what was asked for, so that a misspelt name can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Lookup;

/// A file's settings.
#[derive(Debug, Default)]
pub struct EnvFile {
    values: BTreeMap<String, String>,
    asked: Mutex<BTreeSet<String>>,
    /// Sentences about lines that are odd and still understood.
    pub warnings: Vec<String>,
}

impl EnvFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or the lines that are no settings.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Every line that is no setting, by its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut file = Self::default();
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").map_or(line, str::trim_start);
            let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()))
            else {
                bad.push(format!("line {}: NAME=value is missing its =", index + 1));
                continue;
            };
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                bad.push(format!("line {}: {name:?} is no name of a setting", index + 1));
                continue;
            }
            match value_of(value) {
                Some((value, cut)) => {
                    if cut {
                        let text =
                            "has a comment behind its value; systemd would take it as part of the value";
                        file.warnings.push(format!("{name} {text}"));
                    }
                    file.values.insert(name.to_owned(), value);
                }
                None => bad.push(format!("line {}: {name}: a quotation mark is missing", index + 1)),
            }
        }
        if bad.is_empty() { Ok(file) } else { Err(bad.join("; ")) }
    }

    /// Names that nobody has asked for and that are not in `above`: misspelt, or for a process that does not run.
    pub fn unasked(&self, above: &dyn Lookup) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.values.keys().filter(|name| !asked.contains(*name) && above.get(name).is_none());
        open.cloned().collect()
    }
}

impl Lookup for EnvFile {
    fn get(&self, name: &str) -> Option<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        self.values.get(name).cloned()
    }
}

/// The value, and whether a comment was cut off; `None` where a quotation mark is missing.
fn value_of(text: &str) -> Option<(String, bool)> {
    if let Some(rest) = text.strip_prefix('\'') {
        let (value, rest) = rest.split_once('\'')?;
        return Some((value.to_owned(), !rest.trim().is_empty()));
    }
    if let Some(rest) = text.strip_prefix('"') {
        let (mut value, mut chars) = (String::new(), rest.chars());
        loop {
            match chars.next()? {
                '"' => return Some((value, !chars.as_str().trim().is_empty())),
                '\\' => match chars.next()? {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
    }
    if text.starts_with('#') {
        return Some((String::new(), true));
    }
    let comment = text.find(" #").or_else(|| text.find("\t#"));
    Some(comment.map_or((text.to_owned(), false), |at| (text[..at].trim_end().to_owned(), true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_its_writers_meant_it() {
        let text = "# steering\nA=1\nexport B = two words \nC='# not a comment'\nD=\"x\\ny\"\nE=5   # seconds\nF=   # nothing\nG=a#b\n";
        let file = EnvFile::parse(text).unwrap();
        let value = |name: &str| file.get(name).unwrap();
        assert_eq!((value("A").as_str(), value("B").as_str()), ("1", "two words"));
        assert_eq!((value("C").as_str(), value("D").as_str()), ("# not a comment", "x\ny"));
        assert_eq!((value("E").as_str(), value("F").as_str(), value("G").as_str()), ("5", "", "a#b"));
        assert_eq!(file.warnings.len(), 2);
    }

    #[test]
    fn bad_lines_are_all_told_and_what_nobody_asks_for_is_told_too() {
        let error = EnvFile::parse("A\n=1\nB='x\nC=1").unwrap_err();
        for part in ["line 1", "line 2", "line 3"] {
            assert!(error.contains(part), "{error}");
        }
        let file = EnvFile::parse("A=1\nGCP_API_TIMOUT=3\nC=4").unwrap();
        file.get("A");
        let above = BTreeMap::from([("C".to_owned(), "5".to_owned())]);
        assert_eq!(file.unasked(&above), ["GCP_API_TIMOUT"]);
    }
}
