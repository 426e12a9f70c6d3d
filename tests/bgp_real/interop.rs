//! The interoperability table.
