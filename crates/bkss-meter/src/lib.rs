//! The meter as a state machine that can lose power at any point.
