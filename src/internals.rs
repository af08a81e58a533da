//! The parts of the crate that benches, fuzz targets and the test of the documents use, under the same paths as
//! in the crate. They are not a stable interface: they change with the code.

pub mod admin {
    pub mod reference {
        pub use crate::admin::reference::markdown;
    }
}

pub mod config {
    pub use crate::config::{Config, DriverChoice};
}

pub mod http {
    pub mod chunked {
        pub use crate::http::chunked::{Chunked, Progress};
    }
    pub mod compress {
        pub use crate::http::compress::{Codec, Compressor, Compressors};
    }
    pub mod encoding {
        pub use crate::http::encoding::{DecodeError, Decoder, Decompressors, Encoding, Step};
    }
    pub mod framing {
        pub use crate::http::framing::{Framing, for_request, for_response};
    }
    pub mod head {
        pub use crate::http::head::{HeadLimits, Header, HeaderName, Method, Parsed, RequestHead};
    }
    pub mod reparse {
        pub use crate::http::reparse::ReparseGate;
    }
    pub mod response {
        pub use crate::http::response::ResponseHead;
    }
}

pub mod http2 {
    pub mod connection {
        pub use crate::http2::connection::{Connection, Event, OpenError};
    }
    pub mod error {
        pub use crate::http2::error::{ErrorCode, Violation};
    }
    pub mod mode {
        pub use crate::http2::mode::Http2Mode;
    }
    pub mod hpack {
        pub use crate::http2::hpack::decoder::{DecodeError, Decoder};
        pub use crate::http2::hpack::encoder::{Secrecy, append};
    }
}

pub mod limits {
    pub use crate::limits::Limits;
}

pub mod mirror {
    pub mod client_address {
        pub use crate::mirror::request::client_address::ClientAddresses;
    }
    pub mod copies {
        pub use crate::mirror::transform::copies::{Template, ids, rename};
    }
    pub mod crash_dialog {
        pub use crate::mirror::reply::crash_dialog::{external_url, literal, redirect};
    }
    pub mod filter {
        pub use crate::mirror::transform::filter::{PartialBody, filter_envelope};
    }
    pub mod head_edits {
        pub use crate::mirror::request::head_edits::{ForwardedHeaders, edit_head, edit_strays};
    }
    pub mod render {
        pub use crate::mirror::fan_out::render::{OutboundBody, render};
    }
    pub mod request {
        pub use crate::mirror::request::{Body, Request};
    }
    pub mod routes {
        pub use crate::mirror::routing::routes::{Outbound, Route, Routes};
    }
    pub mod transform {
        pub use crate::mirror::transform::{BodyEncoding, Transform};
    }
}

pub mod net {
    pub mod proxy_protocol {
        pub use crate::net::proxy_protocol::{HEADER_BYTES_MAX, Header, Malformed, parse};
    }
    pub mod socket {
        pub use crate::net::socket::read_some;
    }
    pub mod stream {
        pub use crate::net::stream::Stream;
    }
    pub mod transfer {
        pub use crate::net::transfer::Transfer;
    }
}

pub mod process {
    pub mod status {
        pub use crate::process::status::MirrorStatus;
    }
    pub mod supervisor {
        pub use crate::process::supervisor::Mirror;
    }
}

pub mod runtime {
    pub mod driver {
        pub use crate::runtime::driver::{Driver, DriverKind};
    }
    pub mod memory_budget {
        pub use crate::runtime::memory_budget::MemoryBudget;
    }
}

pub mod sentry {
    pub mod auth {
        pub use crate::sentry::auth::{
            AuthError, AuthHeader, FoundKey, Source, edit_unread_headers, find,
            find_in_dsn_parameter,
        };
    }
    pub mod dsn {
        pub use crate::sentry::dsn::{Origin, Scheme, key_in_text};
    }
    pub mod edit {
        pub use crate::sentry::edit::{EDITS_MAX, Edit, Replacement};
    }
    pub mod endpoint {
        pub use crate::sentry::endpoint::{
            Endpoint, Target, edit_tunnel, has_dot_segment, parse_target,
        };
    }
    pub mod envelope {
        pub use crate::sentry::envelope::{EnvelopeError, EnvelopeHeader, scan, unescape};
    }
    pub mod envelope_index {
        pub use crate::sentry::envelope_index::EnvelopeIndex;
    }
    pub mod items {
        pub use crate::sentry::items::items;
    }
    pub mod otlp {
        pub use crate::sentry::otlp::{Batch, Format, Signal};
    }
    pub mod rate_limits {
        pub use crate::sentry::rate_limits::{
            RateLimit, header_value, intersection, parse, parse_retry_after,
        };
    }
    pub mod sampling {
        pub use crate::sentry::sampling::{Chance, SamplingKey};
    }
    pub mod selection {
        pub use crate::sentry::selection::{Selection, Unwanted};
    }
}

pub mod span {
    pub use crate::span::Span;
}

pub mod sys {
    pub use crate::sys::keep_freed_memory;
}

pub mod upstream {
    pub mod exchange {
        pub use crate::upstream::exchange::{Connection, Failure, OutboundRequest};
    }
    pub mod origin {
        pub use crate::upstream::origin::SharedOrigin;
    }
    pub mod pool {
        pub use crate::upstream::pool::Pool;
    }
    pub mod response {
        pub use crate::upstream::response::Response;
    }
    pub mod waiting {
        pub use crate::upstream::waiting::Client;
    }
}
