//! BFD against BIRD and FRR's bfdd.
