//! The name of a link in a world: whose, of which of its chains, and where in it.

use std::fmt;

use bkss_scheme::{LinkIndex, MeterId};

/// A link of a meter.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkOf {
    /// The meter.
    pub meter: MeterId,
    /// Which of the chains that it was issued, from 0.
    pub chain: u32,
    /// Where in the chain.
    pub index: LinkIndex,
}

impl fmt::Display for LinkOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { meter, chain, index } = self;
        match chain {
            0 => write!(f, "link {index} of meter {meter}"),
            _ => write!(f, "link {index} of chain {chain} of meter {meter}"),
        }
    }
}
