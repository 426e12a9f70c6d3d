//! Setting of the maintenance portal. Never contacts it. Read by `adapters::portal`.

use super::Reader;

/// Address of the maintenance portal; unset = this site has none.
pub const MAINTENANCE_URL: &str = "MAINTENANCE_URL";
/// Seconds the portal may take.
pub const MAINTENANCE_TIMEOUT_SECONDS: &str = "MAINTENANCE_TIMEOUT_SECONDS";

/// Where the portal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalSettings {
    /// Address without a trailing slash.
    pub base: String,
    /// Milliseconds it may take.
    pub timeout_ms: u64,
}

/// Reads the section; `None` = no portal.
pub fn read(reader: &mut Reader<'_>) -> Option<PortalSettings> {
    let timeout_ms = reader.seconds(MAINTENANCE_TIMEOUT_SECONDS, 2000, 0.1, 60.0);
    reader.http_url(MAINTENANCE_URL).map(|base| PortalSettings { base, timeout_ms })
}
