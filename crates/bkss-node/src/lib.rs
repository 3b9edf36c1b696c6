//! A service provider: the engine, the store and the gateway of its meters.
