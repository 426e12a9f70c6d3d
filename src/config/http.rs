//! Settings of the HTTP interface: where it listens and who may ask for side effects.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Reader, Secret};

/// Address and port of the HTTP interface (default `0.0.0.0:8000`; none where only `anycast` runs).
pub const HTTP_LISTEN: &str = "HTTP_LISTEN";
/// How side-effecting requests prove who asks: `token` or `token-review`; default `token`.
pub const API_AUTH: &str = "API_AUTH";
/// The bearer token that allows side effects; `API_TOKEN_FILE` names a file that holds it.
pub const API_TOKEN: &str = "API_TOKEN";
/// Kubernetes user names that `token-review` lets through, comma-separated.
pub const API_ALLOWED_USERS: &str = "API_ALLOWED_USERS";

/// Who may ask for side effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSettings {
    /// Nobody: no credential is configured.
    Nobody,
    /// Whoever knows the token.
    Token(Secret),
    /// Whoever the API server's TokenReview knows as one of these users.
    TokenReview {
        /// User names, e.g. `system:serviceaccount:ns:name`.
        allowed_users: Vec<String>,
    },
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address and port; `None` = no interface.
    pub listen: Option<SocketAddr>,
    /// Who may ask for side effects.
    pub auth: AuthSettings,
}

/// Reads the section. `optional` = only where it is asked for: the anycast predecessors open no such port, and the
/// service that is announced may need it.
pub fn read(reader: &mut Reader<'_>, optional: bool) -> HttpSettings {
    let listen = reader
        .parsed(HTTP_LISTEN, "an address and port such as 0.0.0.0:8000 or [::]:8000")
        .or_else(|| (!optional).then_some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000))));
    let token = reader.secret(API_TOKEN);
    if token.as_ref().is_some_and(|token| token.expose().trim().is_empty()) {
        reader.problem(API_TOKEN, Some("***"), "a token that is not empty, or leave it out");
    }
    let mode = reader.text_or(API_AUTH, "token");
    let auth = match mode.as_str() {
        "token" => token.filter(|token| !token.is_empty()).map_or(AuthSettings::Nobody, AuthSettings::Token),
        "token-review" => {
            let allowed_users = reader.list(API_ALLOWED_USERS).unwrap_or_default();
            if allowed_users.is_empty() {
                reader.problem(API_ALLOWED_USERS, None, "the users that API_AUTH=token-review lets through");
            }
            AuthSettings::TokenReview { allowed_users }
        }
        _ => {
            reader.problem(API_AUTH, Some(&mode), "token or token-review");
            AuthSettings::Nobody
        }
    };
    HttpSettings { listen, auth }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> (HttpSettings, Vec<String>) {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&env);
        let settings = read(&mut reader, false);
        (settings, reader.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_set_means_the_old_port_and_no_side_effects() {
        let (settings, problems) = read_from(&[]);
        assert_eq!(settings.listen, Some("0.0.0.0:8000".parse().unwrap()));
        assert_eq!(settings.auth, AuthSettings::Nobody);
        assert!(problems.is_empty());
    }

    #[test]
    fn malformed_values_are_all_reported() {
        let (_, problems) = read_from(&[("HTTP_LISTEN", "8000"), ("API_AUTH", "basic"), ("API_TOKEN", " ")]);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn token_review_without_users_is_a_problem() {
        let (_, problems) = read_from(&[("API_AUTH", "token-review")]);
        assert!(problems[0].contains("API_ALLOWED_USERS"), "{problems:?}");
    }
}
