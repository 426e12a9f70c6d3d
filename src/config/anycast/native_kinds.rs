//! Keys of our own check kinds, named as Cabourotte names them where it has the same thing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::check_kinds::expect;
use super::checks::{Habit, Home, Kind, host_port, retry, timeout};
use super::fields::Fields;
use crate::checks::{CheckSpec, command, dns, file, http, process, tcp, tls, trust};

/// Limit of one try where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Reads what to test.
pub(super) fn read(kind: &str, home: &Home<'_, '_>) -> Option<Kind> {
    let (spec, longest) = match kind {
        "command" => command(home),
        "dns" => dns(home),
        "file" => {
            let path = PathBuf::from(home.spec.required("path", "the file is wanted"));
            (Some(CheckSpec::File(file::Spec { path, absent: home.spec.flag("absent", false) })), TIMEOUT)
        }
        "http" => http(home),
        "process" => {
            let pid_file = PathBuf::from(home.spec.required("pid_file", "the file with the process number"));
            (Some(CheckSpec::Process(process::Spec { pid_file })), TIMEOUT)
        }
        "tcp" => tcp(home),
        _ => tls(home),
    };
    spec.map(|spec| Kind { spec, longest, habit: Habit::Native })
}

type Read = (Option<CheckSpec>, Duration);

/// Trust and client certificate.
pub(super) fn tls_options(table: &Fields<'_>) -> trust::Options {
    let path = |key| table.text(key).filter(|path| !path.is_empty()).map(PathBuf::from);
    let identity = match (path("cert"), path("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            table.problem("cert", None, "cert and key are wanted together");
            None
        }
    };
    trust::Options { insecure: table.flag("insecure", false), ca_file: path("cacert"), identity }
}

fn source(table: &Fields<'_>) -> Option<IpAddr> {
    table.parsed::<IpAddr>("source_ip", "an address is wanted")
}

/// `target` with `port`, or `HOST:PORT` in `target`.
fn target(table: &Fields<'_>) -> Option<(String, u16)> {
    let target = table.required("target", "the host is wanted");
    let port = table.integer("port", 1, 65_535).map(|port| port as u16);
    if target.is_empty() {
        return None;
    }
    let split = if target.parse::<IpAddr>().is_ok() { None } else { host_port(&target) };
    match (port, split) {
        (Some(port), None) => Some((target, port)),
        (None, Some(found)) => Some(found),
        (Some(_), Some(_)) => {
            table.problem("port", None, "the port stands in target already");
            None
        }
        (None, None) => {
            table.problem("port", None, "the port is wanted, here or as HOST:PORT in target");
            None
        }
    }
}

fn command(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let command = table.required("command", "the program is wanted");
    let arguments = table.texts("arguments");
    let timeout = timeout(home, Duration::from_secs(5));
    let spec = command::Spec { command: PathBuf::from(command), arguments, timeout };
    (Some(CheckSpec::Command(spec)), timeout)
}

fn dns(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let key = if table.has("domain") { "domain" } else { "query" };
    let name = table.required(key, "the name to ask for is wanted");
    let server = table.text("server");
    if let Some(server) = &server
        && host_port(server).is_none()
    {
        table.problem("server", Some(server), "HOST:PORT is wanted");
    }
    let types = table.text("type").map_or_else(|| vec!["A".to_owned(), "AAAA".to_owned()], |one| vec![one]);
    let mut expected: BTreeSet<String> = table.texts("expected").into_iter().collect();
    expected.extend(
        table.parsed_list::<IpAddr>("expected_ips", "an address is wanted").iter().map(ToString::to_string),
    );
    let tcp = match table.text("transport").as_deref() {
        None | Some("udp") => false,
        Some("tcp") => true,
        Some(other) => {
            table.problem("transport", Some(&other), "one of udp and tcp is wanted");
            false
        }
    };
    let spec = dns::Spec {
        name,
        types,
        server,
        tcp,
        rcode: table.text("rcode").unwrap_or_else(|| "NOERROR".to_owned()),
        expected,
        exact: table.flag("exact", false),
        hosts_file: false,
        retry: retry(home, false),
    };
    // The names of types and codes are judged by the kind itself.
    if let Err(error) = crate::checks::dns::DnsCheck::new(spec.clone()) {
        table.problem("", None, error.to_string());
    }
    let longest = spec.longest();
    (Some(CheckSpec::Dns(spec)), longest)
}

fn tcp(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let target = target(table);
    let timeout = timeout(home, TIMEOUT);
    let (source, should_fail, hold) =
        (source(table), table.flag("should_fail", false), table.flag("hold", false));
    if should_fail && hold {
        table.problem("hold", None, "a connection that must fail can't be held");
    }
    let spec = target
        .map(|(host, port)| CheckSpec::Tcp(tcp::Spec { host, port, source, should_fail, hold, timeout }));
    (spec, timeout)
}

fn tls(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let target = target(table);
    let timeout = timeout(home, TIMEOUT);
    let mut expect = expect(home);
    expect.allow_ca = true;
    if let Some(delay) = table.duration("expiration_delay") {
        expect.expires_within_secs = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    }
    let (source, server_name, options) = (source(table), table.text("server_name"), tls_options(table));
    let spec = target.map(|(host, port)| {
        CheckSpec::Tls(Box::new(tls::Spec { host, port, source, server_name, options, expect, timeout }))
    });
    (spec, timeout)
}

fn http(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let (url, pin) =
        if table.has("url") { (table.required("url", "the URL"), None) } else { http_url(table) };
    if !(url.is_empty() || is_http(&url)) {
        table.problem("url", Some(&url), "a URL with http:// or https:// is wanted");
    }
    let mut headers = table.text_map("headers");
    if let Some(host) = table.text("host") {
        headers.push(("Host".to_owned(), host));
    }
    let retry = retry(home, false);
    let spec = http::Spec {
        url,
        method: table.text("method").unwrap_or_else(|| "GET".to_owned()),
        headers,
        user_agent: concat!("switchover-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
        body: table.text("body"),
        valid_status: statuses(table),
        body_patterns: patterns(table),
        redirects: if table.flag("redirect", false) { 10 } else { 0 },
        source: source(table),
        pin,
        options: tls_options(table),
        retry,
    };
    (Some(CheckSpec::Http(Box::new(spec))), retry.longest())
}

/// A URL from `protocol`, `target`, `port`, `path` and `query`; with `server_name` the connection still goes to the
/// target.
fn http_url(table: &Fields<'_>) -> (String, Option<(String, IpAddr)>) {
    let protocol = table.text("protocol").unwrap_or_else(|| "http".to_owned());
    if !matches!(protocol.as_str(), "http" | "https") {
        table.problem("protocol", Some(&protocol), "one of http and https is wanted");
    }
    let path = table.text("path").unwrap_or_else(|| "/".to_owned());
    let query = table.text_map("query");
    let server_name = table.text("server_name");
    let Some((target, port)) = target(table) else { return (String::new(), None) };
    let address = target.parse::<IpAddr>().ok();
    let pin = server_name.clone().zip(address);
    if server_name.is_some() && pin.is_none() {
        table.problem("server_name", None, "it is wanted only where target is an address");
    }
    let host = match (server_name, address) {
        (Some(name), _) => name,
        (None, Some(IpAddr::V6(v6))) => format!("[{v6}]"),
        (None, _) => target,
    };
    let base = format!("{protocol}://{host}:{port}/{}", path.trim_start_matches('/'));
    match reqwest::Url::parse(&base) {
        Ok(mut url) => {
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            (url.to_string(), pin)
        }
        Err(_) => {
            table.problem("target", Some(&base), "this makes no URL");
            (String::new(), None)
        }
    }
}

/// Numbers, and texts such as `200-299`; where nothing is said, every 2xx.
fn statuses(table: &Fields<'_>) -> Vec<(u16, u16)> {
    let mut ranges = Vec::new();
    let valid = |status: u16| (100..=999).contains(&status);
    for value in table.list("valid_status") {
        let range = match value {
            Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()).map(|n| (n, n)),
            Value::String(text) => text.split_once('-').and_then(|(low, high)| {
                Some((low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?))
            }),
            _ => None,
        };
        match range.filter(|(low, high)| valid(*low) && valid(*high) && low <= high) {
            Some(range) => ranges.push(range),
            None => table.problem("valid_status", Some(value), "200, or \"200-299\""),
        }
    }
    if ranges.is_empty() { vec![(200, 299)] } else { ranges }
}

fn patterns(table: &Fields<'_>) -> Vec<String> {
    let patterns = table.texts("body_regexp");
    for pattern in &patterns {
        if let Err(error) = regex::Regex::new(pattern) {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().to_owned();
            table.problem("body_regexp", Some(pattern), format!("a regular expression is wanted: {last}"));
        }
    }
    patterns
}

/// Whether a URL has one of the schemes that an HTTP check can use.
pub(super) fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
