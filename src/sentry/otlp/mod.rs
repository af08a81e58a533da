//! The spans or logs of an OTLP request, each with its trace.
//!
//! An exporter sends records of many traces in one request: an object for each resource, in it one for each
//! scope, and in that the records, as protobuf or as JSON (opentelemetry-proto, `ExportTraceServiceRequest` and
//! `ExportLogsServiceRequest`). A [`Batch`] knows where the records are, so that some can be taken out. The rest
//! of the body keeps its bytes, except for the lengths in front of protobuf messages that became shorter. A scope
//! or resource that is left without records goes too.
//!
//! The walk over a body is linear, goes no deeper than the records and lists at most 10,000 of them. A malformed
//! body is not parsed, since its contents are unknown.

mod batch;
mod json;
mod nodes;
mod protobuf;

pub use batch::{Batch, Format};
pub use nodes::Signal;

#[cfg(test)]
mod tests;
