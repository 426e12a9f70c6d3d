//! How long steps may take, in milliseconds, and why.

/// A plain write to the API server: several tries over a short outage of it.
pub const WRITE_MS: u64 = 120_000;
/// How long a failover waits in line for a write that must not block it.
pub const PATIENCE_MS: u64 = 10_000;
/// How long a plan waits in line for the maintenance portal and for page restarts, whose own time-out is 2 s.
pub const COSMETIC_PATIENCE_MS: u64 = 2_500;
/// How long writes that were left behind are tried again beside the plan.
pub const BESIDE_MS: u64 = 900_000;
/// Promotion: Patroni needs under 2 s; an election or a slow replay may need minutes.
pub const PROMOTE_MS: u64 = 300_000;
/// Making the old primary read-only: 0.2 to 4 s were seen.
pub const FENCE_MS: u64 = 60_000;
/// How long a failover waits in line until the old primary is seen not to take writes.
pub const PEER_FENCE_MS: u64 = 30_000;
/// Catching up with the peer's last write before a planned promotion.
pub const CATCH_UP_MS: u64 = 120_000;
/// Pods of the database coming or going; the predecessor gave up after 120 s, a slow volume needs more.
pub const SCALE_MS: u64 = 600_000;
/// Cloning a standby: as long as a base backup of a large database may take.
pub const CLONE_MS: u64 = 6 * 3_600_000;
/// Opening of the destruction gate: heartbeats bring fresh facts every second.
pub const GATE_MS: u64 = 120_000;
/// Starting the pipeline: retries of the listener's POST.
pub const PIPELINE_MS: u64 = 120_000;
/// Time that one plain call may take.
pub const CALL_MS: u64 = 15_000;
/// Time that one call may take that itself waits for pods.
pub const SCALE_CALL_MS: u64 = 610_000;
/// Time that one call may take that changes routes in two clouds and reads them back.
pub const ROUTES_CALL_MS: u64 = 150_000;
/// Waiting for the witness's lease: the other site's lease, its grace and a renewal's time.
pub const WITNESS_MS: u64 = 180_000;
