//! Whole texts through `parse`: what a reader of tasks may rely on.

mod answers;
mod hostile;
