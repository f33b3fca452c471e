//! The operator as a pod of a simulated cluster: installation, upgrade, refusal, repair, removal, under paused time.

mod admission;
mod contest;
mod existing;
mod install;
mod keep;
mod program;
mod support;
mod uninstall;
mod versions;
