//! The signing device infrastructure: issues chains and registrations (scheme s2.2, s4.3).
//!
//! [`Sdi::offer`] starts the provisioning of a meter. In the usual mode the meter answers with the
//! public ends of a chain that only it knows; in the sdi-made mode the SDI makes the chain, hands
//! it over and forgets it. Either way [`Sdi::register`] signs the root message, and the owner SP
//! [`countersign`]s it: neither can register a meter alone.
//!
//! No clock, disk or randomness of its own.

pub mod fleet;
pub mod issue;
pub mod shipment;

pub use fleet::{Device, Record};
pub use issue::{Answer, IssueError, MadeChain, Offer, Order, Sdi, countersign};
pub use shipment::{Bundle, Shipment};
