//! Safety of the modes on virtual time, and the sensors' votes, whole.

mod matrix;
mod modes;
