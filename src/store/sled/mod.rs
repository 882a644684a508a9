//! The embedded store on sled 0.34.
