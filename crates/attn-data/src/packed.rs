//! Lists of tokens behind one another.

/// Lists of tokens behind one another: no allocation for each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    tokens: Vec<u32>,
    ends: Vec<usize>,
    longest: usize,
}

impl Packed {
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.ends.push(self.tokens.len());
        self.longest = self.longest.max(tokens.len());
    }

    /// List `i`, which there must be.
    pub fn get(&self, i: usize) -> &[u32] {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.tokens[start..self.ends[i]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tokens of the longest list.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_as_they_were() {
        let mut packed = Packed::default();
        for list in [&[1, 2][..], &[], &[3]] {
            packed.push(list);
        }
        assert_eq!(packed.get(0), [1, 2]);
        assert!(packed.get(1).is_empty());
        assert_eq!(packed.get(2), [3]);
        assert_eq!((packed.len(), packed.longest()), (3, 2));
    }
}
