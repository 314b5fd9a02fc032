//! What only the embedded bus can suffer: its process is killed, the power fails, the disk is full, its directory is
//! another's.

mod crashes;
mod directory;
mod failures;
mod power;
mod space;
