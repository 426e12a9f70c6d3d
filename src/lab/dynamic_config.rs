//! Patroni's dynamic configuration: what of it decides the roles.

use serde_json::{Value, json};

/// Whether a configuration makes a standby cluster.
pub fn is_standby(config: &Value) -> bool {
    config["standby_cluster"].is_object()
}

/// The host that a configuration follows.
pub fn follows(config: &Value) -> Option<String> {
    config["standby_cluster"]["host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned)
}

/// The configuration of a new cluster.
pub fn new_config(standby: Option<&(String, u16)>) -> Value {
    let mut config = json!({
        "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 33_554_432,
        "postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": {"wal_level": "replica"}},
    });
    if let Some((host, port)) = standby {
        config["standby_cluster"] = json!({
            "create_replica_methods": ["basebackup_fast_xlog"], "host": host, "port": port,
        });
    }
    config
}
