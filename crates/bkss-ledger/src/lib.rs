//! The ledger as a pure function of its blocks.
