//! Settings of the two clouds that route steering reads and writes.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Reader, Secret};

/// Project of the backend services.
pub const GCP_PROJECT: &str = "GCP_PROJECT";
/// Credentials file: a service account's key or an external account (workload identity federation).
pub const GOOGLE_APPLICATION_CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// `file` (default) or `metadata`: where credentials come from; the metadata server needs no file.
pub const GCP_AUTH: &str = "GCP_AUTH";
/// Region of this site's backend services.
pub const LOCAL_GCP_REGION: &str = "LOCAL_GCP_REGION";
/// Region of the other site's backend services.
pub const REMOTE_GCP_REGION: &str = "REMOTE_GCP_REGION";
/// Project of both Cloud Routers.
pub const BGP_PEER_PROJECT: &str = "BGP_PEER_PROJECT";
/// Region of the router that is written.
pub const LOCAL_BGP_REGION: &str = "LOCAL_BGP_REGION";
/// Name of the router that is written.
pub const LOCAL_BGP_ROUTER: &str = "LOCAL_BGP_ROUTER";
/// Region of the router that is only read.
pub const REMOTE_BGP_REGION: &str = "REMOTE_BGP_REGION";
/// Name of the router that is only read.
pub const REMOTE_BGP_ROUTER: &str = "REMOTE_BGP_ROUTER";
/// Filter expression of the Compute API that selects the backend services; not set = all.
pub const BACKEND_SERVICE_FILTER: &str = "BACKEND_SERVICE_FILTER";
/// Base address of the Compute API.
pub const GCP_COMPUTE_ENDPOINT: &str = "GCP_COMPUTE_ENDPOINT";
/// Address of Google's token endpoint, instead of the one in the credentials.
pub const GCP_TOKEN_ENDPOINT: &str = "GCP_TOKEN_ENDPOINT";
/// Base address of the metadata server.
pub const GCP_METADATA_ENDPOINT: &str = "GCP_METADATA_ENDPOINT";
/// Base address of the Cloud Logging API.
pub const GCP_LOGGING_ENDPOINT: &str = "GCP_LOGGING_ENDPOINT";
/// Seconds for one plain call, 5 to 300 (default 30).
pub const GCP_API_TIMEOUT: &str = "GCP_API_TIMEOUT";
/// Seconds for one question about a backend, 5 to 300 (default 45).
pub const GCP_BACKEND_HEALTH_TIMEOUT: &str = "GCP_BACKEND_HEALTH_TIMEOUT";
/// Seconds for a router's change with its operation, 5 to 300 (default 60).
pub const GCP_BGP_OPERATION_TIMEOUT: &str = "GCP_BGP_OPERATION_TIMEOUT";
/// Account identifier.
pub const CLOUDFLARE_ACCOUNT_ID: &str = "CLOUDFLARE_ACCOUNT_ID";
/// API token (or `CLOUDFLARE_API_TOKEN_FILE`): "Magic Transit Write" of the account.
pub const CLOUDFLARE_API_TOKEN: &str = "CLOUDFLARE_API_TOKEN";
/// Text in the description of the routes that are steered; case matters.
pub const DESCRIPTION_SUBSTRING: &str = "DESCRIPTION_SUBSTRING";
/// Priority while this region is well, 1 to 1000 (default 100); lower wins.
pub const CLOUDFLARE_PRIMARY_PRIORITY: &str = "CLOUDFLARE_PRIMARY_PRIORITY";
/// Priority while it is not, 1 to 1000 (default 200).
pub const CLOUDFLARE_SECONDARY_PRIORITY: &str = "CLOUDFLARE_SECONDARY_PRIORITY";
/// Seconds for a read, 5 to 300 (default 10).
pub const CLOUDFLARE_API_TIMEOUT: &str = "CLOUDFLARE_API_TIMEOUT";
/// Seconds for a write, 5 to 300 (default 60).
pub const CLOUDFLARE_BULK_TIMEOUT: &str = "CLOUDFLARE_BULK_TIMEOUT";
/// Base address of the Cloudflare API.
pub const CLOUDFLARE_API_BASE: &str = "CLOUDFLARE_API_BASE";
/// Whether a start without a single matching route is fine.
pub const CLOUDFLARE_ALLOW_NO_ROUTES: &str = "CLOUDFLARE_ALLOW_NO_ROUTES";

/// A Cloud Router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPlace {
    /// Its project.
    pub project: String,
    /// Its region.
    pub region: String,
    /// Its name.
    pub router: String,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcpAuth {
    /// This file.
    File(PathBuf),
    /// The metadata server of the machine.
    Metadata,
}

/// Google's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcpPlaces {
    /// Project of the backend services.
    pub project: String,
    /// Own region.
    pub local_region: String,
    /// The other region.
    pub remote_region: String,
    /// The router that is written.
    pub local_router: RouterPlace,
    /// The router that is read.
    pub remote_router: RouterPlace,
    /// Credentials.
    pub auth: GcpAuth,
    /// Filter of the backend services.
    pub filter: Option<String>,
    /// Base address of the Compute API, where it is not Google's own.
    pub compute_endpoint: Option<String>,
    /// Token endpoint, where it is not the credentials' own.
    pub token_endpoint: Option<String>,
    /// Metadata server, where it is not Google's own.
    pub metadata_endpoint: Option<String>,
    /// Cloud Logging, where it is not Google's own.
    pub logging_endpoint: Option<String>,
    /// Limit of a plain call.
    pub api_timeout: Duration,
    /// Limit of a question about a backend.
    pub health_timeout: Duration,
    /// Limit of a change with its operation.
    pub operation_timeout: Duration,
}

/// Cloudflare's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudflareRoutes {
    /// Account.
    pub account: String,
    /// Token.
    pub token: Secret,
    /// Base address.
    pub base: String,
    /// Which routes.
    pub filter: String,
    /// Priority while the region is well.
    pub primary_priority: u32,
    /// Priority while it is not.
    pub secondary_priority: u32,
    /// Limit of a read.
    pub api_timeout: Duration,
    /// Limit of a write.
    pub bulk_timeout: Duration,
    /// Whether a start without routes is fine.
    pub allow_no_routes: bool,
}

fn timeout(reader: &mut Reader<'_>, name: &str, default: u64) -> Duration {
    Duration::from_secs(reader.integer(name, default, 5, 300))
}

/// Reads Google's part.
pub(super) fn gcp(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> GcpPlaces {
    let mut name = |setting: &str, want: &str| {
        let text = reader.required(setting, want);
        // It becomes part of a path.
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)) {
            reader.problem(setting, Some(&text), format!("{want}: letters, digits, - and ."));
        }
        text
    };
    let project = name(GCP_PROJECT, "the project of the backend services");
    let local_region = name(LOCAL_GCP_REGION, "a region such as us-east1");
    let remote_region = name(REMOTE_GCP_REGION, "a region such as us-west1");
    let peer_project = name(BGP_PEER_PROJECT, "the project of the routers");
    let mut router = |region: &str, router: &str| RouterPlace {
        project: peer_project.clone(),
        region: name(region, "a region such as us-east1"),
        router: name(router, "the name of a Cloud Router"),
    };
    let local_router = router(LOCAL_BGP_REGION, LOCAL_BGP_ROUTER);
    let remote_router = router(REMOTE_BGP_REGION, REMOTE_BGP_ROUTER);
    if local_router == remote_router && !local_router.router.is_empty() {
        let want = format!("another router than {LOCAL_BGP_ROUTER} in {LOCAL_BGP_REGION}");
        reader.problem(REMOTE_BGP_ROUTER, Some(&remote_router.router), want);
    }
    if local_region == remote_region && !local_region.is_empty() {
        warnings.push(format!("{LOCAL_GCP_REGION} and {REMOTE_GCP_REGION} are the same: {local_region}"));
    }
    GcpPlaces {
        project,
        local_region,
        remote_region,
        local_router,
        remote_router,
        auth: auth(reader),
        filter: reader.text(BACKEND_SERVICE_FILTER),
        compute_endpoint: reader.http_url(GCP_COMPUTE_ENDPOINT),
        token_endpoint: reader.http_url(GCP_TOKEN_ENDPOINT),
        metadata_endpoint: reader.http_url(GCP_METADATA_ENDPOINT),
        logging_endpoint: reader.http_url(GCP_LOGGING_ENDPOINT),
        api_timeout: timeout(reader, GCP_API_TIMEOUT, 30),
        health_timeout: timeout(reader, GCP_BACKEND_HEALTH_TIMEOUT, 45),
        operation_timeout: timeout(reader, GCP_BGP_OPERATION_TIMEOUT, 60),
    }
}

fn auth(reader: &mut Reader<'_>) -> GcpAuth {
    match reader.text(GCP_AUTH).as_deref() {
        Some("metadata") => return GcpAuth::Metadata,
        None | Some("file") => {}
        Some(other) => {
            let other = other.to_owned();
            reader.problem(GCP_AUTH, Some(&other), "file or metadata");
        }
    }
    let want = format!("the credentials file, or {GCP_AUTH}=metadata");
    let path = reader.required(GOOGLE_APPLICATION_CREDENTIALS, &want);
    if !path.is_empty()
        && let Err(error) = std::fs::File::open(&path)
    {
        let want = format!("a credentials file that can be read ({error})");
        reader.problem(GOOGLE_APPLICATION_CREDENTIALS, Some(&path), want);
    }
    GcpAuth::File(PathBuf::from(path))
}

/// Reads Cloudflare's part.
pub(super) fn cloudflare(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> CloudflareRoutes {
    let account = reader.required(CLOUDFLARE_ACCOUNT_ID, "the account's identifier");
    if !account.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        reader.problem(CLOUDFLARE_ACCOUNT_ID, Some(&account), "the account's identifier: letters and digits");
    }
    let token = reader.secret(CLOUDFLARE_API_TOKEN).filter(|token| !token.is_empty());
    if token.is_none() {
        reader.problem(CLOUDFLARE_API_TOKEN, None, "a Cloudflare API token");
    }
    let filter = reader.required(DESCRIPTION_SUBSTRING, "a text in the description of the routes");
    let primary = reader.integer(CLOUDFLARE_PRIMARY_PRIORITY, 100, 1, 1000) as u32;
    let secondary = reader.integer(CLOUDFLARE_SECONDARY_PRIORITY, 200, 1, 1000) as u32;
    if primary == secondary {
        let want = format!("another number than {CLOUDFLARE_PRIMARY_PRIORITY}");
        reader.problem(CLOUDFLARE_SECONDARY_PRIORITY, Some(&secondary.to_string()), want);
    } else if primary > secondary {
        warnings.push(format!(
            "{CLOUDFLARE_PRIMARY_PRIORITY}={primary} is above {CLOUDFLARE_SECONDARY_PRIORITY}={secondary}: lower wins"
        ));
    }
    let base = reader.http_url(CLOUDFLARE_API_BASE);
    CloudflareRoutes {
        account,
        token: token.unwrap_or_default(),
        base: base.unwrap_or_else(|| "https://api.cloudflare.com/client/v4".to_owned()),
        filter,
        primary_priority: primary,
        secondary_priority: secondary,
        api_timeout: timeout(reader, CLOUDFLARE_API_TIMEOUT, 10),
        bulk_timeout: timeout(reader, CLOUDFLARE_BULK_TIMEOUT, 60),
        allow_no_routes: reader.flag(CLOUDFLARE_ALLOW_NO_ROUTES, false),
    }
}
