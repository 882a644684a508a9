//! refreshing
