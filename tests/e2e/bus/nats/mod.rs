//! What only NATS can do to us (cuts, kills, other clients), and what we keep in it.

mod cells;
mod crashes;
mod processes;
mod servers;
mod timers;
mod unapplied;
