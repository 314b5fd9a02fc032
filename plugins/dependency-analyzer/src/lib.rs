//! dependency-analyzer
