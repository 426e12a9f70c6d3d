//! The share of the token's rate limit that one instance may use.
//!
//! Owns a bucket that refills evenly and the pause that `Retry-After` asks for. A caller waits; none is refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The window of Cloudflare's limit.
const WINDOW: Duration = Duration::from_secs(300);

/// The bucket.
pub(super) struct Budget {
    size: u32,
    state: Mutex<State>,
}

struct State {
    tokens: f64,
    at: Instant,
    blocked_until: Option<Instant>,
}

impl Budget {
    pub(super) fn new(size: u32) -> Self {
        let state = State { tokens: f64::from(size), at: Instant::now(), blocked_until: None };
        Self { size, state: Mutex::new(state) }
    }

    /// Waits for one call's turn and tells how many calls are left.
    pub(super) async fn take(&self) -> i64 {
        loop {
            let wait = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                match take(&mut state, self.size, now) {
                    Ok(left) => return left,
                    Err(wait) => wait,
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// No call before this time has passed.
    pub(super) fn block(&self, time: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + time.min(WINDOW);
        state.blocked_until = Some(state.blocked_until.map_or(until, |old| old.max(until)));
    }

    /// How long calls are blocked from now.
    pub(super) fn blocked_for(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.blocked_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

fn take(state: &mut State, size: u32, now: Instant) -> Result<i64, Duration> {
    if let Some(until) = state.blocked_until
        && until > now
    {
        return Err(until - now);
    }
    let per_second = f64::from(size) / WINDOW.as_secs_f64();
    let earned = now.saturating_duration_since(state.at).as_secs_f64() * per_second;
    state.tokens = (state.tokens + earned).min(f64::from(size));
    state.at = now;
    if state.tokens < 1.0 {
        return Err(Duration::from_secs_f64((1.0 - state.tokens) / per_second));
    }
    state.tokens -= 1.0;
    Ok(state.tokens as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_names_the_wait_for_the_next_call() {
        let now = Instant::now();
        let mut state = State { tokens: 2.0, at: now, blocked_until: None };
        assert_eq!(take(&mut state, 300, now), Ok(1));
        assert_eq!(take(&mut state, 300, now), Ok(0));
        assert_eq!(take(&mut state, 300, now), Err(Duration::from_secs(1)));
        assert!(take(&mut state, 300, now + Duration::from_secs(2)).is_ok());
        state.blocked_until = Some(now + Duration::from_secs(9));
        assert_eq!(take(&mut state, 300, now + Duration::from_secs(4)), Err(Duration::from_secs(5)));
    }
}
