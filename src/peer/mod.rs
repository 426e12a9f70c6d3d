//! The link to the agent at the other site.
