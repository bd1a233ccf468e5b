//! hostsim
