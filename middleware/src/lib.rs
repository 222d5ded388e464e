//! Tower layers for the edge: what tower and tower-http do not have.
