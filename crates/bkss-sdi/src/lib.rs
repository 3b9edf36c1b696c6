//! The signing device infrastructure: issues chains and registrations.
