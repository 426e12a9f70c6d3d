//! Model checking of the shipped engine.
