//! HTTP: wire types and routes, one file per resource.
