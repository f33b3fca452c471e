//! The planner against a small world: stories as golden transcripts, properties over random worlds.

mod courses;
mod documented;
mod gate;
mod images;
mod properties;
mod registrations;
mod stories;
mod world;
