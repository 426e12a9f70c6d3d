//! Keys of the predecessors' check kinds, with a flag for every old habit that is no longer the default.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::checks::{Habit, Home, Kind, host_port, retry, timeout};
use super::native_kinds::{is_http, tls_options};
use crate::checks::{CheckSpec, address, cabourotte, certificate, dns, http, icmp, ntp, tftp, tls, trust};

/// What the Go predecessor called itself.
const USER_AGENT: &str = "anycastd/1.0 (http_2xx checker)";

/// Reads what to test.
pub(super) fn read(kind: &str, home: &Home<'_, '_>, interval: Duration) -> Option<Kind> {
    let (spec, longest) = match kind {
        "assigned_address" => (assigned_address(home), Duration::from_secs(1)),
        "cabourotte" => cabourotte(home, interval),
        "dns_lookup" => dns_lookup(home),
        "http_2xx" => http_2xx(home),
        "icmp_ping" => icmp_ping(home),
        "ntpq" => ntpq(home),
        "tftp_rrq" => tftp_rrq(home),
        _ => tls_certificate(home),
    };
    spec.map(|spec| Kind { spec, longest, habit: Habit::Predecessor })
}

type Read = (Option<CheckSpec>, Duration);

fn assigned_address(home: &Home<'_, '_>) -> Option<CheckSpec> {
    let table = home.spec;
    let key = if table.has("address") { "address" } else { "ipv4" };
    table.required(key, "the address is wanted");
    let address = table.parsed::<IpAddr>(key, "an address is wanted");
    let interface = table.text("interface").filter(|interface| !interface.is_empty());
    Some(CheckSpec::Address(address::Spec { address: address?, interface }))
}

fn cabourotte(home: &Home<'_, '_>, interval: Duration) -> Read {
    let table = home.spec;
    let name = table.required("name", "the check's name in Cabourotte is wanted");
    let url = table.text("url").unwrap_or_else(|| "http://127.0.0.1:9013".to_owned());
    if !is_http(&url) {
        table.problem("url", Some(&url), "an http or https URL is wanted");
    }
    let timeout = timeout(home, Duration::from_secs(5));
    let max_age = table.duration("max_age").unwrap_or(interval * 2 + timeout);
    let options = tls_options(table);
    let spec = cabourotte::Spec { name, url, max_age, timeout, options };
    (Some(CheckSpec::Cabourotte(spec)), timeout * 2)
}

fn dns_lookup(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let query = table.required("query", "the name to look up is wanted");
    let resolver = table.required("resolver", "HOST:PORT of the server is wanted");
    if query.parse::<IpAddr>().is_ok() {
        table.problem("query", Some(&query), "a DNS name is wanted, not an address");
    }
    if !resolver.is_empty() && host_port(&resolver).is_none() {
        table.problem("resolver", Some(&resolver), "HOST:PORT is wanted");
    }
    let mut spec = dns::Spec::lookup(query, resolver, retry(home, true));
    spec.hosts_file = table.flag("hosts_file", false);
    let longest = spec.longest();
    (Some(CheckSpec::Dns(spec)), longest)
}

fn http_2xx(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let url = table.required("url", "the URL is wanted");
    if !(url.is_empty() || is_http(&url)) {
        table.problem("url", Some(&url), "a URL with http:// or https:// is wanted");
    }
    let method = if home.flat {
        table.text("method").unwrap_or_else(|| "GET".to_owned())
    } else {
        table.required("method", "the method is wanted")
    };
    // Left over from the first versions, which never looked at them.
    for old in ["path", "address"] {
        let _ = table.get(old);
    }
    let retry = retry(home, true);
    let spec = http::Spec {
        url,
        method,
        headers: table.text_map("headers"),
        user_agent: USER_AGENT.to_owned(),
        body: table.text("payload"),
        valid_status: vec![(200, 299)],
        body_patterns: Vec::new(),
        redirects: 10,
        source: None,
        pin: None,
        options: tls_options(table),
        retry,
    };
    (Some(CheckSpec::Http(Box::new(spec))), retry.longest())
}

fn icmp_ping(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let host = match table.table("static") {
        Some(inner) => {
            let host = inner.required("host", "the host is wanted");
            inner.finish();
            host
        }
        None if table.has("static") => String::new(),
        None if home.flat || table.has("host") => table.required("host", "the host is wanted"),
        None => {
            table.problem("static.host", None, "the host is wanted");
            String::new()
        }
    };
    let retry = retry(home, true);
    let spec = icmp::Spec {
        host,
        count: retry.tries,
        interval: retry.interval,
        timeout: retry.timeout,
        max_loss_percent: table.number("max_loss_percent", 0.0, 100.0).unwrap_or(0.0),
        sent_so_far: table.flag("sent_so_far", false),
    };
    (Some(CheckSpec::Icmp(spec)), retry.timeout)
}

fn ntpq(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let server = table.required("server", "the server is wanted");
    let source = table.parsed::<IpAddr>("src_addr", "an address is wanted");
    if !home.flat && !table.has("src_addr") {
        table.problem("src_addr", None, "cannot be blank: the source address");
    }
    let threshold = if home.flat {
        table.duration("offset_threshold").unwrap_or(Duration::from_millis(500))
    } else {
        table.required_duration("offset_threshold")
    };
    let retry = retry(home, true);
    let allow_unsynchronised = table.flag("allow_unsynchronised", false);
    let spec = ntp::Spec { server, source, threshold, allow_unsynchronised, retry };
    (Some(CheckSpec::Ntp(spec)), retry.longest())
}

fn tftp_rrq(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let url = table.required("url", "the URL is wanted");
    let target = url.strip_prefix("tftp://").and_then(|rest| {
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = host_port(authority)?;
        (!path.contains('\0')).then(|| (host, port, format!("/{path}")))
    });
    if target.is_none() && !url.is_empty() {
        table.problem("url", Some(&url), "tftp://HOST:PORT/PATH is wanted");
    }
    let sha256 = table.text("expected_sha256").filter(|digest| !digest.is_empty());
    if let Some(digest) = &sha256
        && (digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()))
    {
        table.problem("expected_sha256", Some(digest), "64 hexadecimal digits are wanted");
    }
    let retry = retry(home, true);
    // Progress decides about a try; this bounds a file that trickles in.
    let usual = (retry.timeout * 10).max(Duration::from_secs(10));
    let transfer_limit = table.duration("transfer_limit").unwrap_or(usual).max(retry.timeout);
    let longest = transfer_limit * u32::from(retry.tries) + retry.interval * u32::from(retry.tries - 1);
    let spec = target.map(|(host, port, file)| {
        let sha256 = sha256.map(|digest| digest.to_ascii_lowercase());
        CheckSpec::Tftp(tftp::Spec { host, port, file, sha256, retry, transfer_limit })
    });
    (spec, longest)
}

fn tls_certificate(home: &Home<'_, '_>) -> Read {
    let table = home.spec;
    let local = table.table("local").map(|local| {
        let path = local.required("path", "the PEM file is wanted");
        local.finish();
        path
    });
    let local = local.or_else(|| table.text("path")).filter(|path| !path.is_empty());
    let remote = table.table("remote").map(|remote| {
        let read = (remote.required("host", "HOST:PORT is wanted"), remote.flag("insecure", false));
        remote.finish();
        read
    });
    let remote = remote.or_else(|| table.text("host").map(|host| (host, table.flag("insecure", false))));
    let mut expect = expect(home);
    let timeout = timeout(home, Duration::from_secs(5));
    let spec = match (local, remote) {
        (Some(path), _) => {
            expect.path = PathBuf::from(path);
            Some(CheckSpec::CertificateFile(expect))
        }
        (None, Some((target, insecure))) => match host_port(&target) {
            Some((host, port)) => {
                let options = trust::Options { insecure, ..trust::Options::default() };
                let spec =
                    tls::Spec { host, port, source: None, server_name: None, options, expect, timeout };
                Some(CheckSpec::Tls(Box::new(spec)))
            }
            None => {
                table.problem("remote.host", Some(&target), "HOST:PORT is wanted");
                None
            }
        },
        (None, None) => {
            table.problem("local.path", None, "local.path or remote.host is wanted");
            None
        }
    };
    (spec, timeout)
}

/// What a certificate must be like.
pub(super) fn expect(home: &Home<'_, '_>) -> certificate::Expect {
    let table = home.spec;
    let within = table.duration("expires_within").unwrap_or_default();
    certificate::Expect {
        path: PathBuf::new(),
        common_name: table.text("common_name").filter(|name| !name.is_empty()),
        dns_names: table.texts("dns_names"),
        ip_addresses: table.parsed_list("ip_addresses", "an address is wanted"),
        issuer: table.text("issuer").filter(|name| !name.is_empty()),
        expires_within_secs: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        ignore_not_before: table.flag("ignore_not_before", false),
        allow_ca: table.flag("allow_ca", false),
        literal_names: table.flag("literal_names", false),
    }
}
