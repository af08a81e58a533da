//! Endpoints: how a request path names one, and the success response of each.

mod answer;
mod kind;
mod target;

pub(crate) use answer::CannedResponse;
pub(super) use answer::is_json;
pub use kind::Endpoint;
pub(crate) use target::path;
pub use target::{Target, edit_tunnel, has_dot_segment, parse_target};
