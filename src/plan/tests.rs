//! Decisions on machines and models that are only described.
