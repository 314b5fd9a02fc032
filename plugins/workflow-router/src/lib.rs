//! workflow-router
