//! The only source of chance in a simulation: a small generator whose numbers depend on the seed alone.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and with every version of any library.

/// Dice of one purpose; each part of the simulation has its own, so that one more throw here changes nothing there.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice for a purpose of a seed.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut dice = Self { state: seed };
        for byte in purpose.bytes() {
            dice.state = dice.next().wrapping_add(u64::from(byte));
        }
        dice
    }

    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included; `low` where `high` is smaller.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        match high.checked_sub(low) {
            None | Some(u64::MAX) => low,
            Some(span) => low + self.next() % (span + 1),
        }
    }

    /// Whether something with this chance (in thousandths) happens.
    pub fn chance(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.next() % 1_000 < thousandths
    }

    /// One of several; the list must not be empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let last = list.len().saturating_sub(1) as u64;
        &list[self.between(0, last) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_purpose_give_the_same_numbers_and_another_purpose_others() {
        let throw = |purpose| {
            let mut dice = Dice::new(7, purpose);
            (0..5).map(|_| dice.between(0, 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(throw("a"), throw("a"));
        assert_ne!(throw("a"), throw("b"));
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut dice = Dice::new(1, "bounds");
        assert!((0..1_000).all(|_| (3..=9).contains(&dice.between(3, 9))));
        assert_eq!(dice.between(9, 3), 9);
        assert!(!dice.chance(0));
        assert!((0..100).all(|_| dice.chance(1_000)));
    }
}
