//! Tests of the DNS rules.

use super::*;
