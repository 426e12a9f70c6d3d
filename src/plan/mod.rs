//! Plans: transitions as ordered steps.
