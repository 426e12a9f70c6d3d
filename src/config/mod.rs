//! Settings: where they come from, what they are called, what is wrong with them.
//!
//! One file per section; each reads through [`lookup::Reader`], so that all problems of all sections are reported at
//! once. Nothing here contacts anything.

pub mod bgp;
pub mod lookup;

pub use lookup::{Layered, Lookup, Problem, ProcessEnv, Reader, Secret};
