//! What only NATS can do to us (cuts, kills, other clients), and what we keep in it.

mod batches;
mod cells;
mod cluster;
mod crashes;
mod forgetting;
mod lookups;
mod order;
mod processes;
mod servers;
mod timers;
mod unapplied;
