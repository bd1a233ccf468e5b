//! vim
