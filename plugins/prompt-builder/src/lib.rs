//! prompt-builder
