//! Our own BGP speaker: originates, imports nothing, re-advertises nothing.
