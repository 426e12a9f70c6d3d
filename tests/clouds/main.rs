//! The clouds that route steering talks to, against strict simulations: Compute and Magic Transit, on a paused clock
//! where sockets don't matter and over real sockets where they do. `a_NN_` = acceptance case of that number.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its builders too")]

mod backends;
mod bench;
mod breakers;
mod credentials;
mod magic;
mod network;
mod routers;
mod strictness;
