//! The existing suite, installed and kept from its own strategies: a small one that is part of this repository and holds
//! the rules, and the real ones where they lie beside it.

mod adopt;
mod deploy;
mod fetch;
mod predecessor;
mod suite;
